//! Signatures of the Standard Webhooks specification 1.0.0: HMAC-SHA256 over `{id}.{timestamp}.{body}`.

use aws_lc_rs::{hmac, rand};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

/// Bytes of a secret; the specification asks for 24 to 64.
pub const SECRET_LENGTH: usize = 32;

/// What tells a secret from other texts.
const PREFIX: &str = "whsec_";

/// A new secret.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_secret() -> Result<[u8; SECRET_LENGTH], aws_lc_rs::error::Unspecified> {
    let mut secret = [0; SECRET_LENGTH];
    rand::fill(&mut secret)?;
    Ok(secret)
}

/// A secret as its receiver enters it.
pub fn spelt(secret: &[u8]) -> String {
    format!("{PREFIX}{}", BASE64.encode(secret))
}

/// The header `webhook-signature`: one signature per secret. The id has no full stop, as ours never have.
pub fn signatures<'a>(
    secrets: impl IntoIterator<Item = &'a [u8]>,
    id: &str,
    timestamp: i64,
    body: &[u8],
) -> String {
    let head = format!("{id}.{timestamp}.");
    let sign = |secret: &[u8]| {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
        context.update(head.as_bytes());
        context.update(body);
        format!("v1,{}", BASE64.encode(context.sign()))
    };
    secrets.into_iter().map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn the_reference_vector() {
        let secret = BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = br#"{"test": 2432232314}"#;
        let one = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signatures([&*secret], id, 1_614_265_330, body), one);
        let other = signatures([&b"another"[..]], id, 1_614_265_330, body);
        assert_eq!(
            signatures([&b"another"[..], &*secret], id, 1_614_265_330, body),
            format!("{other} {one}"),
            "both, while a secret is changed"
        );
    }

    #[test]
    fn everything_that_is_sent_is_signed() {
        let sign = |id, timestamp, body: &[u8]| signatures([&b"secret"[..]], id, timestamp, body);
        let signed = sign("evt_1", 7, b"{}");
        for other in [sign("evt_2", 7, b"{}"), sign("evt_1", 8, b"{}"), sign("evt_1", 7, b"{ }")] {
            assert_ne!(other, signed);
        }
    }

    #[test]
    fn secrets_are_long_and_told_by_their_prefix() {
        let (one, other) = (new_secret().unwrap(), new_secret().unwrap());
        assert_ne!(one, other);
        let text = spelt(&one);
        assert_eq!(BASE64.decode(text.strip_prefix("whsec_").unwrap()).unwrap(), one);
    }
}
