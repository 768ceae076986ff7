//! What a verifier takes, remembers and forgets; forged JWTs ([`forged`]), key sets ([`jwks`]) and their refreshing
//! ([`refresh`], [`fetching`]) by themselves.

mod fetching;
mod forge;
mod forged;
mod forged_claims;
#[path = "../../../../tests/support/identity.rs"]
mod identity;
mod jwks;
mod refresh;

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use forge::{FAMILIES, Family, Fresh, ONE, SECRET, TWO, now, secret_config};
use identity::{ED25519_1, ED25519_2, P256_1, P256_2, RSA_1, RSA_2};

/// Waits until it holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        ticks.tick().await;
    }
}

fn user(subject: &str) -> Principal {
    Principal { subject: subject.into(), role: Role::User }
}

async fn fresh() -> Fresh {
    Fresh::with_keys(&[RSA_1, P256_1, ED25519_1], &[RSA_2, P256_2, ED25519_2]).await
}

#[tokio::test]
async fn the_good_twin_of_each_forged_one_is_taken() {
    let verifier = fresh().await;
    for family in FAMILIES {
        for jwt in [
            family.good(),
            family.with_header(&json!({"typ": null})),
            family.with_header(&json!({"typ": "at+jwt"})),
            family.with_header(&json!({"typ": "jwt"})),
            family.with_header(&json!({"extra": {"a": 1}})),
            // There is one key of its kind, or a secret that has no name.
            family.with_header(&json!({"kid": null})),
            family.with_claim("aud", json!(["other", "cota"])),
            family.with_claim("nbf", json!(now() - 5)),
            family.with_claim("extra", json!({"a": 1})),
        ] {
            assert_eq!(verifier.verify(&jwt), Ok(user("u-1")), "{family:?}: {jwt}");
        }
    }
    // A secret has no name, so what a JWT calls it does not matter.
    let named = Family::Secret.with_header(&json!({"kid": "whatever"}));
    assert_eq!(verifier.verify(&named), Ok(user("u-1")));
    for key in [RSA_2, P256_2, ED25519_2] {
        assert_eq!(verifier.verify(&key.sign(&identity::claims(TWO, "u-2", "user"))), Ok(user("u-2")));
    }
}

#[tokio::test]
async fn an_issuer_gives_no_role_but_its_own() {
    let verifier = fresh().await;
    for role in ["gateway", "admin"] {
        let jwt = RSA_2.sign(&identity::claims(TWO, "u-2", role));
        assert_eq!(verifier.verify(&jwt), Err(AuthError::Role), "{role}");
        assert!(verifier.verify(&RSA_1.sign(&identity::claims(ONE, "u-2", role))).is_ok(), "{role}");
    }
}

#[tokio::test]
async fn what_is_minted_is_taken() {
    let config = secret_config();
    let verifier = Verifier::new(&config);
    for role in [Role::User, Role::Gateway, Role::Admin] {
        let jwt = mint(&config, "someone", role, 60).unwrap();
        assert_eq!(verifier.verify(&jwt), Ok(Principal { subject: "someone".into(), role }));
    }
    assert!(mint(&config, "someone", Role::User, 0).is_err());
    assert!(mint(&config, "someone", Role::User, 86_400 * 31 + 1).is_err());
    assert!(mint(&config, "", Role::User, 60).is_err());
    assert!(matches!(mint(&AuthConfig::default(), "someone", Role::User, 60), Err(MintError::NoSecret)));

    let verifier = fresh().await;
    let mut issuer = forge::issuer(ONE);
    for key in [RSA_1, P256_1, ED25519_1] {
        for kid in [None, Some(key.kid.to_owned())] {
            let signer = Signer::with_key(&config, &issuer, key.pem.as_bytes(), kid).unwrap();
            assert_eq!(verifier.verify(&signer.mint("u-1", Role::User, 60).unwrap()), Ok(user("u-1")));
        }
    }
    issuer.roles = vec![Role::User];
    let signer = Signer::with_key(&config, &issuer, RSA_1.pem.as_bytes(), None).unwrap();
    assert!(matches!(signer.mint("u-1", Role::Admin, 60), Err(MintError::Role)));
    issuer.algorithms = vec![crate::config::PublicKeyAlgorithm::ES256];
    let signer = |pem: &str| Signer::with_key(&config, &issuer, pem.as_bytes(), None).err();
    assert!(matches!(signer(RSA_1.pem), Some(MintError::Algorithm(_))));
    assert!(matches!(signer("no key"), Some(MintError::Key)));
    let public = include_str!("../../../../tests/data/test-key-p256-1.public.pem");
    assert!(matches!(signer(public), Some(MintError::Key)));
}

#[tokio::test]
async fn reasons_are_told_apart_for_the_operators() {
    let verifier = fresh().await;
    for family in FAMILIES {
        for (jwt, reason) in [
            (family.with_claim("exp", json!(now() - 60)), AuthError::Expired),
            (family.with_claim("nbf", json!(now() + 600)), AuthError::Early),
            (family.with_claim("aud", json!("other")), AuthError::Party),
            (family.with_claim("iss", json!("other")), AuthError::Party),
            (family.with_claim("exp", json!(now() + 86_400 * 40)), AuthError::Lifetime),
            (family.with_claim("sub", Value::Null), AuthError::Claims),
            (family.with_header(&json!({"crit": []})), AuthError::Header),
            (family.with_header(&json!({"alg": "HS384"})), AuthError::Algorithm),
            (format!("{}A", family.good()), AuthError::Signature),
            ("x".into(), AuthError::Malformed),
        ] {
            let found = verifier.verify(&jwt);
            // A longer signature is one of another length, or no Base64.
            let is_longer = reason == AuthError::Signature && found == Err(AuthError::Malformed);
            assert!(found == Err(reason) || is_longer, "{family:?}: {found:?}: {jwt}");
        }
    }
    let unknown = Family::Key(RSA_1).with_header(&json!({"kid": "rsa-9"}));
    assert_eq!(verifier.verify(&unknown), Err(AuthError::UnknownKey));
    let other_kind = Family::Key(P256_1).with_header(&json!({"kid": "rsa-1"}));
    assert_eq!(verifier.verify(&other_kind), Err(AuthError::Algorithm));
}

#[tokio::test]
async fn an_issuer_whose_keys_were_never_read_is_believed_nothing() {
    let mut config = secret_config();
    config.issuers = vec![forge::issuer(ONE)];
    config.issuers[0].jwks_file = Some("/nowhere/jwks.json".into());
    let verifier = Verifier::new(&config);
    assert_eq!(verifier.verify(&Family::Key(RSA_1).good()), Err(AuthError::NoKeys));
    let verdict = verifier.authenticate(&Family::Key(RSA_1).good(), Duration::from_millis(5)).await;
    assert_eq!(verdict, Err(AuthError::NoKeys));
    assert_eq!(verifier.verify(&Family::Secret.good()), Ok(user("u-1")));
}

#[tokio::test]
async fn without_a_secret_nobody_signs_with_one() {
    let mut config = AuthConfig { issuers: vec![forge::issuer(ONE)], ..AuthConfig::default() };
    let file = forge::TempFile::new(&identity::jwks(&[RSA_1]));
    config.issuers[0].jwks_file = Some(file.0.clone());
    let verifier = Fresh::new(Verifier::new(&config));
    let patience = Duration::from_secs(10);
    assert_eq!(verifier.authenticate(&Family::Key(RSA_1).good(), patience).await, Ok(user("u-1")));
    for secret in ["", SECRET] {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        let jwt = Family::Secret.signed_by(&json!({}), &key, jsonwebtoken::Algorithm::HS256);
        assert_eq!(verifier.verify(&jwt), Err(AuthError::Party));
    }
}

#[test]
fn the_secret_shows_in_no_debug_output() {
    let shown = format!("{:?}", Verifier::new(&secret_config()));
    assert!(shown.contains("cota") && !shown.contains("0123456789"), "{shown}");
}

#[test]
fn a_remembered_jwt_still_expires() {
    let verifier = Verifier::new(&secret_config());
    let jwt = mint(&secret_config(), "u-1", Role::User, 60).unwrap();
    assert!(verifier.memory.recall(&jwt, now()).is_none(), "not seen yet");
    let principal = verifier.verify(&jwt).unwrap();
    assert_eq!(verifier.memory.recall(&jwt, now()), Some(Ok(principal)));
    assert_eq!(verifier.memory.recall(&jwt, now() + 3_600), Some(Err(AuthError::Expired)));
    assert!(verifier.memory.recall(&jwt, now()).is_none(), "an expired one is forgotten");
}

#[test]
fn a_forged_jwt_is_not_remembered() {
    let verifier = Verifier::new(&secret_config());
    let jwt = mint(&secret_config(), "u-1", Role::User, 60).unwrap();
    verifier.verify(&jwt).unwrap();
    let forged = format!("{jwt}x");
    assert!(verifier.verify(&forged).is_err());
    assert!(verifier.memory.recall(&forged, now()).is_none());
}
