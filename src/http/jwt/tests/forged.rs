//! Forged JWTs of every kind, for every kind of issuer: none is taken.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::{
    super::claims::{MAX_JWT_LENGTH, MAX_KID_LENGTH},
    forge::{FAMILIES, Family, ONE, TWO, b64},
    forged_claims::{claims, claims_that_lack_or_repeat},
    fresh,
    identity::{ED25519_1, ED25519_2, P256_1, P256_2, RSA_1, RSA_2, TestKey},
};

/// What is wrong, and the JWT.
pub type Forged = Vec<(String, String)>;

/// Headers as they should not be, well signed.
fn headers(family: Family) -> Forged {
    let own = format!("{:?}", family.algorithm());
    let mut forged = Forged::new();
    let others = ["HS384", "HS512", "RS384", "RS512", "PS256", "PS384", "PS512", "ES384", "ES512", "ES256K"];
    let none = ["none", "None", "NONE", "nOnE", "none ", "n\u{6f}ne\u{0}", ""];
    for name in none.into_iter().chain(others).chain(["HS256", "RS256", "ES256", "EdDSA", "Ed25519", "Ed448"])
    {
        if name != own {
            forged.push((format!("alg {name:?}"), family.with_header(&json!({"alg": name}))));
        }
    }
    for members in [
        json!({"alg": null}),
        json!({"alg": [own]}),
        json!({"alg": 256}),
        json!({"alg": own.to_lowercase().replace("eddsa", "EDDSA")}),
        json!({"crit": []}),
        json!({"crit": ["exp"]}),
        json!({"crit": ["b64"], "b64": false}),
        json!({"crit": ["http://example.com/unknown"], "http://example.com/unknown": true}),
        json!({"crit": "exp"}),
        json!({"crit": {}}),
        json!({"typ": "JWE"}),
        json!({"typ": "secevent+jwt"}),
        json!({"typ": "dpop+jwt"}),
        json!({"typ": "logout+jwt"}),
        json!({"typ": ""}),
        json!({"typ": 7}),
        json!({"cty": "JWT"}),
        json!({"zip": "DEF"}),
        json!({"enc": "A128GCM"}),
    ] {
        forged.push((format!("header {members}"), family.with_header(&members)));
    }
    let payload = Value::Object(family.claims()).to_string();
    let good = family.header_with(&json!({}));
    let twice = good.replacen('{', r#"{"alg":"none","#, 1);
    for header in ["[]", "null", "", "{", &twice, &format!("{good}{good}"), &format!("[{good}]")] {
        forged.push((format!("header {header}"), family.sign(header, &payload)));
    }
    // Without a signature, in every spelling of "none".
    for name in none {
        let unsigned = family.with_header(&json!({"alg": name}));
        let (message, _) = unsigned.rsplit_once('.').unwrap();
        forged.push((format!("unsigned {name:?}"), format!("{message}.")));
        forged.push((format!("unsigned {name:?}, two parts"), message.to_owned()));
    }
    forged
}

/// Bytes, parts and signatures as they should not be.
fn forms(family: Family) -> Forged {
    let good = family.good();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let other = family.with_claim("role", json!("admin"));
    let (other_message, other_signature) = other.rsplit_once('.').unwrap();
    let short = &signature[..signature.len() - 4];
    let mut forged: Vec<(&str, String)> = vec![
        ("no signature", format!("{message}.")),
        ("two parts", message.to_owned()),
        ("one part", header.to_owned()),
        ("four parts", format!("{good}.")),
        ("signature twice", format!("{good}.{signature}")),
        ("leading dot", format!(".{good}")),
        ("no header", format!(".{payload}.{signature}")),
        ("no payload", format!("{header}..{signature}")),
        ("encrypted", format!("{header}.{payload}.{payload}.{signature}.{signature}")),
        (
            "JSON serialization",
            json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
        ),
        ("padded", format!("{good}=")),
        ("padded header", format!("{header}=.{payload}.{signature}")),
        ("trailing blank", format!("{good} ")),
        ("leading blank", format!(" {good}")),
        ("trailing line break", format!("{good}\n")),
        ("trailing NUL", format!("{good}\0")),
        ("trailing letters", format!("{good}AAAA")),
        ("blanks for dots", good.replace('.', " ")),
        ("truncated signature", format!("{message}.{short}")),
        ("half a signature", format!("{message}.{}", &signature[..signature.len() / 2])),
        ("longer signature", format!("{message}.{signature}AAAA")),
        ("another's signature", format!("{message}.{other_signature}")),
        ("another's payload", format!("{other_message}.{signature}")),
        ("nested", family.with_payload(&good)),
        ("nested, quoted", family.with_payload(&format!("\"{good}\""))),
        ("too long", "a".repeat(MAX_JWT_LENGTH + 1)),
        ("too long, signed", family.with_claim("extra", json!("x".repeat(MAX_JWT_LENGTH)))),
        ("nothing", String::new()),
        ("dots", "..".into()),
        ("no ASCII", "é.é.é".into()),
    ];
    for bytes in [1, 32, 63, 64, 65, 70, 256, 257] {
        forged.push(("zeros for a signature", format!("{message}.{}", b64(&vec![0; bytes]))));
        forged.push(("ones for a signature", format!("{message}.{}", b64(&vec![0xff; bytes]))));
    }
    let one = [vec![0; 31], vec![1]].concat();
    forged.push(("r = s = 1", format!("{message}.{}", b64(&one.repeat(2)))));
    // The order of P-256: as good as zero to who does not look.
    let order: Vec<u8> = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    forged.push(("r = s = n", format!("{message}.{}", b64(&order.repeat(2)))));
    // `x` after `Q…`: bits that belong to no byte.
    let last = signature.chars().last().unwrap();
    for spare in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/".chars() {
        if spare != last {
            forged.push(("last letter", format!("{message}.{}{spare}", &signature[..signature.len() - 1])));
        }
    }
    forged.into_iter().map(|(what, jwt)| (what.to_owned(), jwt)).collect()
}

/// Keys as they should not be: of others, brought along, or public and taken for a secret.
fn keys(family: Family) -> Forged {
    let Family::Key(own) = family else { return secrets() };
    let (foreign, public) = match own.algorithm {
        Algorithm::RS256 => (RSA_2, include_str!("../../../../tests/data/test-key-rsa-1.public.pem")),
        Algorithm::ES256 => (P256_2, include_str!("../../../../tests/data/test-key-p256-1.public.pem")),
        _ => (ED25519_2, include_str!("../../../../tests/data/test-key-ed25519-1.public.pem")),
    };
    let mut forged = Forged::new();
    for members in [
        json!({}),
        json!({"kid": foreign.kid}),
        json!({"jwk": foreign.jwk()}),
        json!({"jwk": foreign.jwk(), "kid": foreign.kid}),
        json!({"jwk": foreign.jwk(), "kid": null}),
        json!({"jku": "https://evil.example/jwks.json"}),
        json!({"jku": "https://evil.example/jwks.json", "kid": foreign.kid}),
        json!({"x5u": "https://evil.example/chain.pem"}),
        json!({"x5c": ["MIIB"]}),
        json!({"x5t": "evil"}),
        json!({"kid": null}),
    ] {
        let jwt = family.signed_by(&members, &foreign.private(), own.algorithm);
        forged.push((format!("another's key, {members}"), jwt));
    }
    for kid in [
        json!(""),
        json!(7),
        json!([own.kid]),
        json!(foreign.kid),
        json!(format!("{} ", own.kid)),
        json!(own.kid.to_uppercase()),
        json!("../../../../dev/null"),
        json!("/etc/passwd"),
        json!("' OR '1'='1"),
        json!("x' UNION SELECT 'secret' --"),
        json!("https://evil.example/jwks.json"),
        json!("`id`"),
        json!("\u{0}"),
        json!("k".repeat(MAX_KID_LENGTH)),
        json!("k".repeat(MAX_KID_LENGTH + 1)),
    ] {
        forged.push((format!("kid {kid}"), family.with_header(&json!({"kid": kid}))));
    }
    for other in [RSA_1, P256_1, ED25519_1] {
        if other.kid != own.kid {
            forged.push((format!("kid {}", other.kid), family.with_header(&json!({"kid": other.kid}))));
            let members = json!({"alg": format!("{:?}", other.algorithm)});
            let jwt = family.signed_by(&members, &other.private(), other.algorithm);
            forged.push((format!("{} signs as {}", other.kid, own.kid), jwt));
        }
    }
    // Its own key in the name of others.
    forged.push(("as the other issuer".into(), own.sign(&super::identity::claims(TWO, "u-1", "user"))));
    forged.push(("as us".into(), own.sign(&super::identity::claims("cota", "u-1", "user"))));
    forged.extend(confusions(family, own, public));
    forged
}

/// What anyone can fetch, taken for the secret of an HMAC.
fn confusions(family: Family, own: TestKey, public: &str) -> Forged {
    let jwk = own.jwk();
    let inner: String = public.lines().filter(|line| !line.starts_with("--")).collect();
    let der = EncodingKey::from_base64_secret(&inner).unwrap();
    let raw = |name: &str| {
        let part = jwk[name].as_str()?;
        let padded = format!("{part}{}", "=".repeat((4 - part.len() % 4) % 4));
        Some(EncodingKey::from_urlsafe_base64_secret(&padded).unwrap())
    };
    let point =
        [raw("x"), raw("y")].iter().flatten().flat_map(|key| key.as_bytes().to_vec()).collect::<Vec<_>>();
    let mut secrets: Vec<EncodingKey> = [
        public.as_bytes(),
        public.trim_end().as_bytes(),
        public.replace('\n', "\r\n").as_bytes(),
        inner.as_bytes(),
        jwk.to_string().as_bytes(),
        &point,
        &[&[4_u8][..], &point].concat(),
        own.kid.as_bytes(),
        b"",
    ]
    .into_iter()
    .map(EncodingKey::from_secret)
    .collect();
    // The DER in its frame, and the key alone, which stands at its end.
    secrets.push(EncodingKey::from_secret(&der.as_bytes()[der.as_bytes().len().saturating_sub(32)..]));
    secrets.push(EncodingKey::from_secret(&der.as_bytes()[der.as_bytes().len().saturating_sub(65)..]));
    secrets.push(der);
    secrets.extend(raw("n"));
    secrets.extend(raw("x"));
    let mut forged = Forged::new();
    for (place, secret) in secrets.iter().enumerate() {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let name = format!("{algorithm:?}");
            let told = family.signed_by(&json!({"alg": name}), secret, algorithm);
            forged.push((format!("{name} with public bytes {place}"), told));
            let nameless = family.signed_by(&json!({"alg": name, "kid": null}), secret, algorithm);
            forged.push((format!("{name} with public bytes {place}, no kid"), nameless));
        }
        let untold = family.signed_by(&json!({}), secret, Algorithm::HS256);
        forged.push((format!("public bytes {place}, the algorithm not told"), untold));
    }
    forged
}

/// Secrets that are not ours, and keys where a secret should be.
fn secrets() -> Forged {
    let family = Family::Secret;
    let mut forged = Forged::new();
    for secret in ["", "secret", "another secret of thirty-two bytes!", "0123456789abcdef0123456789abcde"] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        forged.push((format!("secret {secret:?}"), family.signed_by(&json!({}), &key, Algorithm::HS256)));
    }
    let own = family.private();
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let members = json!({"alg": format!("{algorithm:?}")});
        forged.push((format!("{algorithm:?}"), family.signed_by(&members, &own, algorithm)));
    }
    for key in [RSA_1, P256_1, ED25519_1] {
        let members = json!({"alg": format!("{:?}", key.algorithm), "kid": key.kid});
        let jwt = family.signed_by(&members, &key.private(), key.algorithm);
        forged.push((format!("{} in our name", key.kid), jwt));
    }
    // Our secret in the name of others.
    forged.push(("as an issuer with keys".into(), family.with_claim("iss", json!(ONE))));
    forged
}

#[tokio::test]
async fn no_forged_jwt_is_taken() {
    let verifier = fresh().await;
    for family in FAMILIES {
        assert!(verifier.verify(&family.good()).is_ok(), "{family:?}");
        let tables = [
            claims(family),
            claims_that_lack_or_repeat(family),
            headers(family),
            forms(family),
            keys(family),
        ];
        let mut tried = 0;
        for (what, jwt) in tables.iter().flatten() {
            tried += 1;
            assert!(verifier.verify(jwt).is_err(), "taken: {family:?}: {what}: {jwt}");
        }
        assert!(tried >= 200, "{family:?}: {tried}");
        println!("{family:?}: {tried} forged JWTs refused");
    }
}

#[tokio::test]
async fn no_flipped_bit_goes_unseen() {
    let verifier = fresh().await;
    for family in FAMILIES {
        let good = family.good();
        verifier.verify(&good).unwrap();
        for place in 0..good.len() {
            for bit in 0..7 {
                let mut bytes = good.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                let flipped = String::from_utf8(bytes).unwrap();
                assert!(verifier.verify(&flipped).is_err(), "{family:?}: bit {bit} of byte {place}");
            }
        }
    }
}
