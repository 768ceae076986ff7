//! What is taken from a key set, and what is left out.

use std::collections::BTreeSet;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{
    super::{
        check_key_file,
        jwks::{Jwks, Skipped},
        keys::KeySet,
    },
    forge::{ONE, TempFile, issuer},
    identity::{ED25519_1, P256_1, RSA_1, RSA_2},
};

const ALL: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

fn parse(keys: &Value) -> Jwks {
    Jwks::parse(json!({"keys": keys}).to_string().as_bytes(), &ALL).unwrap()
}

/// The key with these members; `null` takes one away.
fn changed(mut key: Value, members: Value) -> Value {
    let key_members = key.as_object_mut().unwrap();
    for (name, value) in members.as_object().unwrap().clone() {
        match value {
            Value::Null => key_members.remove(&name),
            value => key_members.insert(name, value),
        };
    }
    key
}

/// An RSA key of 1008 bits.
fn weak() -> Value {
    let key = RSA_1.jwk();
    let short = key["n"].as_str().unwrap()[..168].to_owned();
    changed(key, json!({"kid": "weak", "n": short}))
}

#[test]
fn keys_for_verification_are_taken_each_with_its_own_algorithm() {
    let bare = json!({"alg": null, "use": null});
    for (key, algorithm) in [
        (RSA_1.jwk(), Algorithm::RS256),
        (changed(RSA_1.jwk(), bare.clone()), Algorithm::RS256),
        (P256_1.jwk(), Algorithm::ES256),
        (changed(P256_1.jwk(), bare.clone()), Algorithm::ES256),
        (ED25519_1.jwk(), Algorithm::EdDSA),
        (changed(ED25519_1.jwk(), bare), Algorithm::EdDSA),
        (
            changed(RSA_1.jwk(), json!({"key_ops": ["sign", "verify"], "x5t": "abc", "extra": 1})),
            Algorithm::RS256,
        ),
    ] {
        let Jwks { keys, skipped } = parse(&json!([key]));
        assert!(skipped.is_empty(), "{key}: {skipped:?}");
        let mut set = KeySet::default();
        set.replace(keys);
        let kid = key["kid"].as_str();
        for asked in
            [Algorithm::HS256, Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA]
        {
            assert_eq!(set.find(kid, asked).is_ok(), asked == algorithm, "{key}: {asked:?}");
        }
    }
}

#[test]
fn what_cannot_be_used_is_left_out_and_the_rest_is_taken() {
    let secret = json!({"kty": "oct", "kid": "s", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"});
    let short = "A".repeat(42);
    for (key, reason) in [
        (secret.clone(), Skipped::Algorithm),
        (changed(secret, json!({"alg": "HS256", "use": "sig"})), Skipped::Algorithm),
        (changed(RSA_1.jwk(), json!({"use": "enc"})), Skipped::Use),
        (changed(RSA_1.jwk(), json!({"use": ""})), Skipped::Use),
        (changed(RSA_1.jwk(), json!({"key_ops": ["sign"]})), Skipped::Use),
        (changed(RSA_1.jwk(), json!({"key_ops": []})), Skipped::Use),
        (changed(RSA_1.jwk(), json!({"alg": "HS256"})), Skipped::Algorithm),
        (changed(RSA_1.jwk(), json!({"alg": "none"})), Skipped::Algorithm),
        (changed(RSA_1.jwk(), json!({"alg": "PS256"})), Skipped::Algorithm),
        (changed(RSA_1.jwk(), json!({"alg": "ES256"})), Skipped::Algorithm),
        (changed(RSA_1.jwk(), json!({"alg": "RSA-OAEP"})), Skipped::Algorithm),
        (changed(RSA_1.jwk(), json!({"kty": "rsa"})), Skipped::Algorithm),
        (changed(P256_1.jwk(), json!({"crv": "P-384"})), Skipped::Algorithm),
        (changed(P256_1.jwk(), json!({"crv": "secp256k1"})), Skipped::Algorithm),
        (changed(P256_1.jwk(), json!({"crv": null})), Skipped::Algorithm),
        (changed(ED25519_1.jwk(), json!({"crv": "X25519"})), Skipped::Algorithm),
        (changed(ED25519_1.jwk(), json!({"crv": "Ed448"})), Skipped::Algorithm),
        (changed(ED25519_1.jwk(), json!({"alg": "Ed25519"})), Skipped::Algorithm),
        (weak(), Skipped::Weak),
        (changed(RSA_1.jwk(), json!({"e": "AQ"})), Skipped::Weak),
        (changed(RSA_1.jwk(), json!({"e": "Aw"})), Skipped::Weak),
        (changed(RSA_1.jwk(), json!({"e": "AQAC"})), Skipped::Weak),
        (changed(RSA_1.jwk(), json!({"n": ""})), Skipped::Weak),
        // Zeros in front do not make it longer.
        (
            changed(weak(), json!({"n": format!("{}{}", "A".repeat(176), weak()["n"].as_str().unwrap())})),
            Skipped::Weak,
        ),
        (changed(RSA_1.jwk(), json!({"n": null})), Skipped::Malformed),
        (changed(RSA_1.jwk(), json!({"n": "no base64!"})), Skipped::Malformed),
        (changed(P256_1.jwk(), json!({"y": null})), Skipped::Malformed),
        (changed(P256_1.jwk(), json!({"x": short})), Skipped::Malformed),
        (changed(ED25519_1.jwk(), json!({"x": short})), Skipped::Malformed),
        (changed(RSA_1.jwk(), json!({"kid": ""})), Skipped::Malformed),
        (changed(RSA_1.jwk(), json!({"kid": "k".repeat(257)})), Skipped::Malformed),
        (changed(RSA_1.jwk(), json!({"kid": 7})), Skipped::Malformed),
        (changed(RSA_1.jwk(), json!({"kty": null})), Skipped::Malformed),
        (json!("key"), Skipped::Malformed),
        (Value::Null, Skipped::Malformed),
        (changed(RSA_1.jwk(), json!({"kid": RSA_2.kid})), Skipped::Twice),
    ] {
        let Jwks { keys, skipped } = parse(&json!([RSA_2.jwk(), key]));
        assert_eq!((keys.len(), skipped), (1, vec![reason]), "{key}");
    }
}

#[test]
fn one_name_may_stand_for_keys_of_different_kinds() {
    let set = json!([changed(RSA_1.jwk(), json!({"kid": "k"})), changed(P256_1.jwk(), json!({"kid": "k"}))]);
    assert_eq!(parse(&set).keys.len(), 2);
}

#[test]
fn an_issuer_may_be_held_to_fewer_algorithms() {
    let set = json!({"keys": [RSA_1.jwk(), P256_1.jwk(), ED25519_1.jwk()]}).to_string();
    let jwks = Jwks::parse(set.as_bytes(), &[Algorithm::ES256]).unwrap();
    let algorithms: Vec<_> = jwks.keys.iter().map(|key| key.algorithm).collect();
    assert_eq!(algorithms, [Algorithm::ES256]);
    assert_eq!(jwks.skipped, [Skipped::Algorithm; 2]);
}

#[test]
fn what_is_no_key_set_is_an_error() {
    for text in
        ["", "[]", "null", "{}", r#"{"keys":{}}"#, r#"{"keys":[]"#, r#"{"keys":null}"#, "<html></html>"]
    {
        assert!(Jwks::parse(text.as_bytes(), &ALL).is_err(), "{text}");
    }
    assert_eq!(parse(&json!([])).keys.len(), 0);
}

#[test]
fn a_file_is_checked_before_it_is_used() {
    let read = |text: &str| {
        let file = TempFile::new(text);
        check_key_file(&issuer(ONE), &file.0).map_err(|error| error.to_string())
    };
    assert_eq!(read(&json!({"keys": [RSA_1.jwk(), weak()]}).to_string()), Ok(1));
    let errors: BTreeSet<String> = [
        read("{}"),
        read(r#"{"keys":[]}"#),
        read(&json!({"keys": [weak()]}).to_string()),
        read(&" ".repeat(65_537)),
        check_key_file(&issuer(ONE), "/nowhere/jwks.json".as_ref()).map_err(|error| error.to_string()),
        check_key_file(&issuer(ONE), &std::env::temp_dir()).map_err(|error| error.to_string()),
    ]
    .into_iter()
    .map(Result::unwrap_err)
    .collect();
    assert_eq!(errors.len(), 6, "{errors:#?}");
    assert!(errors.iter().any(|error| error.contains("too weak")), "{errors:#?}");
}
