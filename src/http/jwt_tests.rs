//! Forged JWTs: none is taken.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

use super::*;
use crate::config::Secret;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn config() -> AuthConfig {
    AuthConfig { hs256_secret: Secret::new(SECRET), ..AuthConfig::default() }
}

fn now() -> u64 {
    get_current_timestamp()
}

fn good_claims() -> Map<String, Value> {
    let claims = json!({
        "sub": "u-1", "iss": "cota", "aud": "cota", "iat": now(), "exp": now() + 600, "role": "user",
    });
    claims.as_object().unwrap().clone()
}

fn with(name: &str, value: Value) -> Map<String, Value> {
    let mut claims = good_claims();
    claims.insert(name.into(), value);
    claims
}

fn without(name: &str) -> Map<String, Value> {
    let mut claims = good_claims();
    assert!(claims.remove(name).is_some());
    claims
}

/// Base64url without padding.
fn b64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

/// Signs any header over any payload, with the right secret.
fn signed(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", b64(header.as_bytes()), b64(payload.as_bytes()));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn with_header(header: &str) -> String {
    signed(header, &Value::Object(good_claims()).to_string())
}

fn with_claims(claims: Map<String, Value>) -> String {
    signed(r#"{"typ":"JWT","alg":"HS256"}"#, &Value::Object(claims).to_string())
}

fn by_library(header: &Header, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, &good_claims(), key).unwrap()
}

#[test]
fn the_forge_makes_good_ones_too() {
    let verifier = Verifier::new(&config());
    let good = Principal { subject: "u-1".into(), role: Role::User };
    for header in [
        r#"{"typ":"JWT","alg":"HS256"}"#,
        r#"{"alg":"HS256"}"#,
        r#"{"typ":"at+jwt","alg":"HS256"}"#,
        r#"{"typ":"jwt","alg":"HS256","kid":"whatever"}"#,
    ] {
        assert_eq!(verifier.verify(&with_header(header)), Ok(good.clone()), "{header}");
    }
    assert_eq!(verifier.verify(&with_claims(with("aud", json!(["other", "cota"])))), Ok(good.clone()));
    assert_eq!(verifier.verify(&with_claims(with("nbf", json!(now() - 5)))), Ok(good.clone()));
    assert_eq!(verifier.verify(&with_claims(with("extra", json!({"a": 1})))), Ok(good));
}

#[test]
fn what_is_minted_is_taken() {
    let verifier = Verifier::new(&config());
    for role in [Role::User, Role::Gateway, Role::Admin] {
        let jwt = mint(&config(), "someone", role, 60).unwrap();
        assert_eq!(verifier.verify(&jwt), Ok(Principal { subject: "someone".into(), role }));
    }
    assert!(mint(&config(), "someone", Role::User, 0).is_err());
    assert!(mint(&config(), "someone", Role::User, 86_400 * 31 + 1).is_err());
    assert!(mint(&config(), "", Role::User, 60).is_err());
}

fn forged_claims() -> Vec<(&'static str, Map<String, Value>)> {
    let max = AuthConfig::default().max_lifetime_seconds;
    let mut forged = vec![
        ("expired", with("exp", json!(now() - 60))),
        ("exp 0", with("exp", json!(0))),
        ("exp as text", with("exp", json!((now() + 600).to_string()))),
        ("exp as float", with("exp", json!(now() as f64 + 600.5))),
        ("exp negative", with("exp", json!(-1))),
        ("exp null", with("exp", Value::Null)),
        ("exp huge", with("exp", json!(u64::MAX))),
        ("exp beyond u64", with("exp", json!(1e300))),
        ("nbf in the future", with("nbf", json!(now() + 600))),
        ("nbf as text", with("nbf", json!("0"))),
        ("nbf as float", with("nbf", json!(0.5))),
        ("iat in the future", with("iat", json!(now() + 300))),
        ("iat as text", with("iat", json!(now().to_string()))),
        ("iat negative", with("iat", json!(-5))),
        ("iat after exp", {
            let mut c = with("iat", json!(now()));
            c.insert("exp".into(), json!(now() - 1));
            c
        }),
        ("lives too long", with("exp", json!(now() + max + 60))),
        ("lives too long, from the past", with("iat", json!(now() - max))),
        ("another audience", with("aud", json!("other"))),
        ("other audiences", with("aud", json!(["other", "third"]))),
        ("no audience in the list", with("aud", json!([]))),
        ("audience as number", with("aud", json!(7))),
        ("another issuer", with("iss", json!("other"))),
        ("issuer in a list", with("iss", json!(["cota"]))),
        ("issuer with a blank", with("iss", json!("cota "))),
        ("subject empty", with("sub", json!(""))),
        ("subject as number", with("sub", json!(7))),
        ("subject in a list", with("sub", json!(["u-1"]))),
        ("subject too long", with("sub", json!("x".repeat(256)))),
        ("role unknown", with("role", json!("root"))),
        ("role in capitals", with("role", json!("ADMIN"))),
        ("roles in a list", with("role", json!(["admin"]))),
        ("role empty", with("role", json!(""))),
    ];
    for name in ["exp", "iat", "iss", "aud", "sub", "role"] {
        forged.push((name, without(name)));
    }
    forged
}

fn forged_headers() -> Vec<String> {
    let mut forged: Vec<String> = [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"NONE","typ":"JWT"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":"exp"}"#,
        r#"{"alg":"HS256","typ":"JWE"}"#,
        r#"{"alg":"HS256","typ":"secevent+jwt"}"#,
        r#"{"alg":"HS256","typ":""}"#,
        r#"{"alg":"HS256","typ":7}"#,
        r#"{"alg":"HS256","cty":"JWT"}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","enc":"A128GCM"}"#,
        "[]",
        "null",
        "",
    ]
    .iter()
    .map(|header| with_header(header))
    .collect();
    let unsigned = with_header(r#"{"alg":"none"}"#);
    forged.push(unsigned[..=unsigned.rfind('.').unwrap()].to_owned());
    forged
}

fn forged_others() -> Vec<String> {
    let good = with_claims(good_claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let payload = message.split_once('.').unwrap().1;
    let other = EncodingKey::from_secret(b"another secret of thirty-two bytes!");
    vec![
        by_library(&Header::new(Algorithm::HS256), &other),
        by_library(&Header::new(Algorithm::HS256), &EncodingKey::from_secret(b"")),
        by_library(&Header::new(Algorithm::HS384), &EncodingKey::from_secret(SECRET.as_bytes())),
        by_library(&Header::new(Algorithm::HS512), &EncodingKey::from_secret(SECRET.as_bytes())),
        format!("{message}."),
        message.to_owned(),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!(".{good}"),
        format!("{good}="),
        format!("{good} "),
        format!(".{payload}.{signature}"),
        format!("{}..{signature}", message.split_once('.').unwrap().0),
        format!("{message}.{}", &signature[..signature.len() - 1]),
        good.replace('.', " "),
        signed(r#"{"alg":"HS256"}"#, &with_claims(good_claims())),
        signed(r#"{"alg":"HS256"}"#, "[]"),
        signed(r#"{"alg":"HS256"}"#, "null"),
        signed(r#"{"alg":"HS256"}"#, ""),
        signed(r#"{"alg":"HS256"}"#, &format!("{}x", Value::Object(good_claims()))),
        signed(
            r#"{"alg":"HS256"}"#,
            &Value::Object(good_claims()).to_string().replacen('{', "{\"role\":\"admin\",", 1),
        ),
        "a".repeat(MAX_JWT_LENGTH + 1),
        String::new(),
        "..".into(),
        "é.é.é".into(),
    ]
}

#[test]
fn no_forged_one_is_taken() {
    let verifier = Verifier::new(&config());
    let mut tried = 0;
    let mut refuse = |what: &str, jwt: &str| {
        tried += 1;
        assert!(verifier.verify(jwt).is_err(), "taken: {what}: {jwt}");
    };
    for (what, claims) in forged_claims() {
        refuse(what, &with_claims(claims));
    }
    for jwt in forged_headers().iter().chain(&forged_others()) {
        refuse("form", jwt);
    }
    assert!(tried >= 60, "{tried}");
}

#[test]
fn no_flipped_bit_goes_unseen() {
    let verifier = Verifier::new(&config());
    let good = with_claims(good_claims());
    for place in 0..good.len() {
        for bit in 0..7 {
            let mut bytes = good.clone().into_bytes();
            bytes[place] ^= 1 << bit;
            let flipped = String::from_utf8(bytes).unwrap();
            assert!(verifier.verify(&flipped).is_err(), "bit {bit} of byte {place}");
        }
    }
}

#[test]
fn reasons_are_told_apart_for_the_operators() {
    let verifier = Verifier::new(&config());
    for (jwt, reason) in [
        (with_claims(with("exp", json!(now() - 60))), AuthError::Expired),
        (with_claims(with("nbf", json!(now() + 600))), AuthError::Early),
        (with_claims(with("aud", json!("other"))), AuthError::Party),
        (with_claims(with("exp", json!(now() + 86_400 * 40))), AuthError::Lifetime),
        (with_claims(without("sub")), AuthError::Claims),
        (with_header(r#"{"alg":"HS256","crit":[]}"#), AuthError::Header),
        (with_header(r#"{"alg":"HS384"}"#), AuthError::Algorithm),
        (format!("{}A", with_claims(good_claims())), AuthError::Signature),
        ("x".into(), AuthError::Malformed),
    ] {
        assert_eq!(verifier.verify(&jwt), Err(reason), "{jwt}");
    }
}

#[test]
fn the_secret_shows_in_no_debug_output() {
    assert!(!format!("{:?}", Verifier::new(&config())).contains("0123456789"));
}

#[test]
fn a_remembered_jwt_still_expires() {
    let verifier = Verifier::new(&config());
    let jwt = mint(&config(), "u-1", Role::User, 60).unwrap();
    assert!(verifier.recall(&jwt, now()).is_none(), "not seen yet");
    let principal = verifier.verify(&jwt).unwrap();
    assert_eq!(verifier.recall(&jwt, now()), Some(Ok(principal)));
    assert_eq!(verifier.recall(&jwt, now() + 3_600), Some(Err(AuthError::Expired)));
    assert!(verifier.recall(&jwt, now()).is_none(), "an expired one is forgotten");
}

#[test]
fn a_forged_jwt_is_not_remembered() {
    let verifier = Verifier::new(&config());
    let jwt = mint(&config(), "u-1", Role::User, 60).unwrap();
    verifier.verify(&jwt).unwrap();
    let forged = format!("{jwt}x");
    assert!(verifier.verify(&forged).is_err());
    assert!(verifier.recall(&forged, now()).is_none());
}
