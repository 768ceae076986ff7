//! JWTs that are well signed and say what they should not.

use serde_json::{Value, json};

use super::{
    forge::{Family, TWO, now},
    forged::Forged,
};
use crate::config::AuthConfig;

/// Claims as they should not be, well signed.
pub fn claims(family: Family) -> Forged {
    let max = AuthConfig::default().max_lifetime_seconds;
    [
        ("exp", json!(now() - 60)),
        ("exp", json!(0)),
        ("exp", json!((now() + 600).to_string())),
        ("exp", json!(now() as f64 + 600.5)),
        ("exp", json!(now() as f64 + 600.0)),
        ("exp", json!(-1)),
        ("exp", json!([now() + 600])),
        ("exp", json!(true)),
        ("exp", Value::Null),
        ("exp", json!(u64::MAX)),
        ("exp", json!(i64::MAX)),
        ("exp", json!(1e300)),
        ("exp", json!(now() + max + 60)),
        ("nbf", json!(now() + 600)),
        ("nbf", json!("0")),
        ("nbf", json!(0.5)),
        ("nbf", json!(-1)),
        ("nbf", json!(u64::MAX)),
        ("iat", json!(now() + 300)),
        ("iat", json!(now().to_string())),
        ("iat", json!(-5)),
        ("iat", json!(0)),
        ("iat", json!(now() - max)),
        ("iat", Value::Null),
        ("aud", json!("other")),
        ("aud", json!("COTA")),
        ("aud", json!("cota ")),
        ("aud", json!("")),
        ("aud", json!(["other", "third"])),
        ("aud", json!([])),
        ("aud", json!(7)),
        ("aud", json!({"cota": true})),
        ("aud", Value::Null),
        ("iss", json!("other")),
        ("iss", json!("")),
        ("iss", json!([family.issuer()])),
        ("iss", json!(format!("{} ", family.issuer()))),
        ("iss", json!(family.issuer().to_uppercase())),
        ("iss", json!(7)),
        ("iss", Value::Null),
        ("iss", json!(TWO)),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!(["u-1"])),
        ("sub", json!("x".repeat(256))),
        ("sub", Value::Null),
        ("role", json!("root")),
        ("role", json!("ADMIN")),
        ("role", json!(["admin"])),
        ("role", json!({"admin": true})),
        ("role", json!("")),
        ("role", json!(2)),
        ("role", Value::Null),
    ]
    .into_iter()
    .map(|(name, value)| (format!("claim {name} {value}"), family.with_claim(name, value)))
    .collect()
}

/// Claims that are missing, stand twice, or are none, well signed.
pub fn claims_that_lack_or_repeat(family: Family) -> Forged {
    let mut forged = Forged::new();
    for name in ["exp", "iat", "iss", "aud", "sub", "role"] {
        let mut claims = family.claims();
        assert!(claims.remove(name).is_some());
        forged.push((format!("without {name}"), family.with_claims(claims)));
    }
    let mut past = family.claims();
    past.insert("iat".into(), json!(now() + 1));
    past.insert("exp".into(), json!(now() - 1));
    forged.push(("iat after exp".into(), family.with_claims(past)));
    let good = Value::Object(family.claims()).to_string();
    for twice in [
        r#""role":"admin""#.to_owned(),
        format!(r#""exp":{}"#, now() + 6_000),
        format!(r#""iss":"{}""#, family.issuer()),
        r#""aud":"cota""#.into(),
        r#""sub":"someone-else""#.into(),
    ] {
        let first = good.replacen('{', &format!("{{{twice},"), 1);
        let last = format!("{},{twice}}}", &good[..good.len() - 1]);
        forged.push((format!("first {twice}"), family.with_payload(&first)));
        forged.push((format!("last {twice}"), family.with_payload(&last)));
    }
    for payload in
        ["", "[]", "null", "7", "\"\"", "{", "\u{feff}{}", &format!("{good}x"), &format!("[{good}]")]
    {
        forged.push((format!("payload {payload}"), family.with_payload(payload)));
    }
    forged
}
