//! Keys that come and go: rotation under load, the price of unknown kids, an endpoint that fails.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    super::{AuthError, Principal, Verifier, source::Timing},
    forge::{Fresh, ONE, TempFile, b64, issuer, secret_config},
    identity::{
        ED25519_1, ED25519_2, JwksServer, P256_1, P256_2, RSA_1, RSA_2, Reply, TestKey, claims, jwks,
    },
    until, user,
};

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing happens of itself, and unknown keys may ask as often as they like.
fn calm() -> Timing {
    Timing {
        usual: NEVER,
        least: Duration::ZERO,
        most: NEVER,
        file: NEVER,
        retry: NEVER,
        cooldown: Duration::ZERO,
        missing: Duration::ZERO,
        stale: NEVER,
        look: SOON,
    }
}

fn verifier(server: &JwksServer, timing: Timing) -> Arc<Fresh> {
    let mut config = secret_config();
    config.issuers = vec![issuer(ONE)];
    config.issuers[0].jwks_url = Some(server.url.clone().try_into().unwrap());
    Arc::new(Fresh::new(Verifier::with_timing(&config, timing)))
}

fn jwt(key: TestKey) -> String {
    key.sign(&claims(ONE, "u-1", "user"))
}

/// A JWT with a kid that nobody has, so that its signature is never looked at.
fn stranger(kid: &str) -> String {
    let header = json!({"alg": "ES256", "kid": kid}).to_string();
    let payload = claims(ONE, "u-1", "user").to_string();
    format!("{}.{}.AAAA", b64(header.as_bytes()), b64(payload.as_bytes()))
}

async fn ask(verifier: &Fresh, jwt: &str) -> Result<Principal, AuthError> {
    verifier.authenticate(jwt, PATIENCE).await
}

#[tokio::test]
async fn who_comes_before_the_keys_waits_for_them() {
    let server = JwksServer::start(&[RSA_1, P256_1, ED25519_1]).await;
    let verifier = verifier(&server, Timing::default());
    for key in [RSA_1, P256_1, ED25519_1] {
        assert_eq!(ask(&verifier, &jwt(key)).await, Ok(user("u-1")));
    }
    assert_eq!(server.hits(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_unknown_kids_cost_one_fetch() {
    let server = JwksServer::start(&[P256_1]).await;
    let verifier = verifier(&server, Timing::default());
    ask(&verifier, &jwt(P256_1)).await.unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let verifier = verifier.clone();
        callers.spawn(async move {
            for _ in 0..100 {
                let kid = Uuid::new_v4().to_string();
                assert_eq!(ask(&verifier, &stranger(&kid)).await, Err(AuthError::UnknownKey));
            }
        });
    }
    callers.join_all().await;
    // One at the start, one for all of them.
    assert_eq!(server.hits(), 2);
    assert_eq!(ask(&verifier, &jwt(P256_1)).await, Ok(user("u-1")));
}

#[tokio::test]
async fn a_kid_that_a_fetch_did_not_bring_asks_for_no_other() {
    let server = JwksServer::start(&[P256_1]).await;
    let verifier = verifier(&server, Timing { missing: NEVER, ..calm() });
    ask(&verifier, &jwt(P256_1)).await.unwrap();
    for _ in 0..5 {
        assert_eq!(ask(&verifier, &stranger("a")).await, Err(AuthError::UnknownKey));
    }
    assert_eq!(server.hits(), 2);
    assert_eq!(ask(&verifier, &stranger("b")).await, Err(AuthError::UnknownKey));
    assert_eq!(server.hits(), 3);
}

#[tokio::test]
async fn a_kid_that_comes_late_is_found_after_the_cooldown() {
    let server = JwksServer::start(&[P256_1]).await;
    let short = Duration::from_millis(50);
    let verifier = verifier(&server, Timing { cooldown: short, missing: short, ..calm() });
    // Used before it is published, as some providers do.
    assert_eq!(ask(&verifier, &jwt(RSA_1)).await, Err(AuthError::UnknownKey));
    server.publish(&[P256_1, RSA_1]);
    let mut found = false;
    while !found {
        found = ask(&verifier, &jwt(RSA_1)).await.is_ok();
        tokio::task::yield_now().await;
    }
    // The first at the start or for it, then at most one in 50 ms.
    assert!(server.hits() <= 3, "{}", server.hits());
}

/// Eight callers with an old and a new JWT; the keys change beneath them. A key is published before it signs, and goes
/// when nobody has a JWT of it any more.
#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_under_load_and_no_valid_jwt_is_refused() {
    let server = Arc::new(JwksServer::start(&[RSA_1, P256_1]).await);
    let verifier = verifier(&server, calm());
    let newest = Arc::new(Mutex::new((0, jwt(RSA_1), jwt(P256_1))));
    let stop = Arc::new(AtomicBool::new(false));
    let used = Arc::new([const { AtomicUsize::new(0) }; 8]);
    let mut callers = JoinSet::new();
    for caller in 0..used.len() {
        let (verifier, newest, stop, used) = (verifier.clone(), newest.clone(), stop.clone(), used.clone());
        callers.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let (rotation, old, new) = newest.lock().unwrap().clone();
                for jwt in [old, new] {
                    assert_eq!(ask(&verifier, &jwt).await, Ok(user("u-1")), "rotation {rotation}");
                }
                used[caller].store(rotation, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        });
    }
    let keys = [RSA_1, P256_1, ED25519_1, RSA_2, P256_2, ED25519_2, RSA_1, P256_1];
    for (rotation, three) in (1..).zip(keys.windows(3)) {
        server.publish(three);
        *newest.lock().unwrap() = (rotation, jwt(three[1]), jwt(three[2]));
        let all_use_it = || {
            // One that has ended has failed.
            callers.try_join_next().map(Result::unwrap);
            used.iter().all(|used| used.load(Ordering::SeqCst) == rotation)
        };
        until("all use the new keys", all_use_it).await;
    }
    stop.store(true, Ordering::SeqCst);
    callers.join_all().await;
    assert_eq!(server.hits(), 1 + keys.len() - 2, "a fetch at the start and one for each new key");
}

#[tokio::test]
async fn a_fetch_that_was_under_way_before_the_key_was_published_is_not_the_last_word() {
    let server = JwksServer::start(&[P256_1]).await;
    server.hold();
    let verifier = verifier(&server, Timing { cooldown: NEVER, ..calm() });
    until("the first fetch", || server.hits() == 1).await;
    server.publish(&[P256_1, RSA_1]);
    let waiting = tokio::spawn({
        let verifier = verifier.clone();
        async move { ask(&verifier, &jwt(RSA_1)).await }
    });
    server.release();
    assert_eq!(waiting.await.unwrap(), Ok(user("u-1")));
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn a_caller_that_leaves_breaks_no_fetch_off_and_one_that_stays_does_not_wait_for_ever() {
    let server = JwksServer::start(&[P256_1]).await;
    let verifier = verifier(&server, Timing { cooldown: NEVER, ..calm() });
    ask(&verifier, &jwt(P256_1)).await.unwrap();
    server.publish(&[P256_1, RSA_1]);
    server.hold();
    let leaving = tokio::spawn({
        let verifier = verifier.clone();
        async move { ask(&verifier, &jwt(RSA_1)).await }
    });
    until("the fetch", || server.hits() == 2).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    let impatient = verifier.authenticate(&jwt(RSA_1), SOON).await;
    assert_eq!(impatient, Err(AuthError::UnknownKey));
    // Who is known waits for nothing.
    assert_eq!(verifier.verify(&jwt(P256_1)), Ok(user("u-1")));
    server.release();
    assert_eq!(ask(&verifier, &jwt(RSA_1)).await, Ok(user("u-1")));
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn what_is_remembered_ends_with_its_key_and_with_no_other() {
    let server = JwksServer::start(&[P256_1, RSA_1]).await;
    let verifier = verifier(&server, calm());
    let (stays, goes) = (jwt(P256_1), jwt(RSA_1));
    ask(&verifier, &stays).await.unwrap();
    ask(&verifier, &goes).await.unwrap();
    // The same name with other material is another key.
    server.publish(&[P256_1, ED25519_1, TestKey { kid: RSA_1.kid, ..RSA_2 }]);
    ask(&verifier, &jwt(ED25519_1)).await.unwrap();
    assert!(verifier.memory.recall(&stays, 0).is_some(), "what it has checked is remembered");
    assert!(verifier.memory.recall(&goes, 0).is_none());
    assert_eq!(verifier.verify(&goes), Err(AuthError::Signature));
    server.publish(&[P256_1]);
    assert_eq!(ask(&verifier, &jwt(RSA_2)).await, Err(AuthError::UnknownKey));
    assert_eq!(ask(&verifier, &goes).await, Err(AuthError::UnknownKey));
    assert_eq!(verifier.verify(&stays), Ok(user("u-1")));
    // An answer without keys is an answer.
    server.publish(&[]);
    assert_eq!(ask(&verifier, &jwt(RSA_2)).await, Err(AuthError::UnknownKey));
    assert_eq!(verifier.verify(&stays), Err(AuthError::UnknownKey));
}

#[tokio::test]
async fn an_endpoint_that_is_down_at_the_start_is_asked_until_it_answers() {
    let server = JwksServer::start(&[P256_1]).await;
    server.answer(Reply::text(503, ""));
    let verifier = verifier(&server, Timing { retry: SOON, cooldown: NEVER, ..calm() });
    until("some tries", || server.hits() > 3).await;
    assert_eq!(verifier.verify(&jwt(P256_1)), Err(AuthError::NoKeys));
    server.publish(&[P256_1]);
    until("it is taken", || verifier.verify(&jwt(P256_1)).is_ok()).await;
}

#[tokio::test]
async fn an_endpoint_that_fails_leaves_the_keys_in_force() {
    let server = JwksServer::start(&[P256_1]).await;
    let verifier = verifier(&server, Timing { retry: SOON, cooldown: NEVER, ..calm() });
    ask(&verifier, &jwt(P256_1)).await.unwrap();
    for reply in [
        Reply::text(503, jwks(&[RSA_1])),
        Reply::text(404, ""),
        Reply::text(204, ""),
        Reply::text(200, "<html></html>"),
        Reply::text(200, ""),
        Reply::text(200, "{}"),
    ] {
        server.answer(reply);
        let hits = server.hits();
        // Only an unknown key makes it look at once, and that once.
        let _ = ask(&verifier, &jwt(RSA_2)).await;
        until("tries", || server.hits() > hits + 1).await;
        assert_eq!(verifier.verify(&jwt(P256_1)), Ok(user("u-1")));
        assert_eq!(verifier.verify(&jwt(RSA_1)), Err(AuthError::UnknownKey));
    }
}

#[tokio::test]
async fn keys_that_are_too_old_serve_no_longer_not_even_what_is_remembered() {
    let server = JwksServer::start(&[P256_1]).await;
    let timing = Timing { usual: SOON, retry: SOON, stale: Duration::from_secs(1), ..calm() };
    let verifier = verifier(&server, timing);
    let remembered = jwt(P256_1);
    ask(&verifier, &remembered).await.unwrap();
    server.answer(Reply::text(500, ""));
    until("too old", || verifier.verify(&remembered) == Err(AuthError::NoKeys)).await;
    assert_eq!(verifier.verify(&jwt(P256_1)), Err(AuthError::NoKeys));
    server.publish(&[P256_1]);
    until("it is taken again", || verifier.verify(&remembered).is_ok()).await;
}

#[tokio::test]
async fn a_file_is_read_again_and_one_that_is_gone_leaves_its_keys() {
    let file = TempFile::new(&jwks(&[P256_1]));
    let mut config = secret_config();
    config.issuers = vec![issuer(ONE)];
    config.issuers[0].jwks_file = Some(file.0.clone());
    let verifier = Fresh::new(Verifier::with_timing(&config, Timing { file: SOON, retry: SOON, ..calm() }));
    ask(&verifier, &jwt(P256_1)).await.unwrap();
    let path = file.0.clone();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ask(&verifier, &jwt(RSA_1)).await, Err(AuthError::UnknownKey));
    assert_eq!(verifier.verify(&jwt(P256_1)), Ok(user("u-1")));
    std::fs::write(&path, jwks(&[RSA_1])).unwrap();
    until("the new key", || verifier.verify(&jwt(RSA_1)).is_ok()).await;
    assert_eq!(verifier.verify(&jwt(P256_1)), Err(AuthError::UnknownKey));
}
