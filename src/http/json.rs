//! Strict JSON bodies, with typed faults.
//!
//! serde's own derive reports an unknown member or a wrong type only as text, and its number types have lost how a
//! number was written (`1.0`, `1e3` and `99999999999999999999` all arrive as floats). So an object is first taken
//! apart into raw members, each a slice of the body, by its list of allowed names; then every member is read as
//! what it has to be. A fault is a [`Problem`] that names the member.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{code::Code, problem::Problem};
use crate::quota::{
    AmountError, MAX_TTL_SECONDS, Metadata, Model, RequestId, ReservationId, TextError, Tokens,
};

/// An object taken apart. Members that are absent are `None`; `null` is a value of the wrong type, not absence.
#[derive(Debug)]
pub struct Object<'a, const N: usize> {
    names: &'static [&'static str; N],
    values: [Option<&'a RawValue>; N],
}

/// What taking apart found, short of a syntax error.
struct Taken<'a, const N: usize> {
    values: [Option<&'a RawValue>; N],
    fault: Option<Fault>,
}

enum Fault {
    Unknown(String),
    Duplicate(&'static str),
}

impl<'a, const N: usize> Object<'a, N> {
    /// # Errors
    /// `malformed_json`, `invalid_body` when it is no object, `unknown_field`, `duplicate_field`.
    pub fn parse(body: &'a [u8], names: &'static [&'static str; N]) -> Result<Self, Problem> {
        let Taken { values, fault } = Self::take(body, names)?;
        match fault {
            None => Ok(Self { names, values }),
            Some(Fault::Unknown(name)) => Err(Problem::new(Code::UnknownField).unknown_name(&name)),
            Some(Fault::Duplicate(name)) => Err(Problem::new(Code::DuplicateField).field(name)),
        }
    }

    /// A first look at the members that say how all of it is to be read: others, and members that stand twice, are
    /// left for [`Self::parse`] to judge.
    ///
    /// # Errors
    /// `malformed_json`, `invalid_body` when it is no object.
    pub fn glance(body: &'a [u8], names: &'static [&'static str; N]) -> Result<Self, Problem> {
        Self::take(body, names).map(|taken| Self { names, values: taken.values })
    }

    fn take(body: &'a [u8], names: &'static [&'static str; N]) -> Result<Taken<'a, N>, Problem> {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let taken = Members(names).deserialize(&mut deserializer);
        // What follows the object is read even if a member is at fault: malformed JSON comes first.
        taken.and_then(|taken| deserializer.end().map(|()| taken)).map_err(|error| {
            Problem::new(if error.is_data() && is_complete(body) {
                Code::InvalidBody
            } else {
                Code::MalformedJson
            })
        })
    }

    fn get(&self, name: &'static str) -> Option<&'a RawValue> {
        let index = self.names.iter().position(|known| *known == name);
        debug_assert!(index.is_some(), "{name} is not a member of this object");
        index.and_then(|index| self.values[index])
    }

    /// The member as it was sent.
    pub fn raw(&self, name: &'static str) -> Option<&'a str> {
        self.get(name).map(RawValue::get)
    }

    /// An object within the object.
    pub fn object<const M: usize>(
        &self,
        name: &'static str,
        names: &'static [&'static str; M],
    ) -> Result<Option<Object<'a, M>>, Problem> {
        self.raw(name).map(|raw| Object::parse(raw.as_bytes(), names)).transpose()
    }

    /// A string.
    pub fn text(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Problem> {
        self.raw(name)
            .map(|raw| string(raw).ok_or_else(|| Problem::new(Code::InvalidBody).field(name)))
            .transpose()
    }

    /// An amount of tokens, 0 … 10^12.
    pub fn tokens(&self, name: &'static str) -> Result<Option<Tokens>, Problem> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let whole = whole_number(raw).map_err(|fault| match fault {
            NumberFault::NoNumber => Problem::new(Code::InvalidBody).field(name),
            NumberFault::NotWhole => Problem::from(AmountError::Invalid).field(name),
            NumberFault::Huge => Problem::from(AmountError::OutOfRange).field(name),
        })?;
        Tokens::new(whole).map(Some).map_err(|error| Problem::from(error).field(name))
    }

    /// As [`Self::tokens`], for one that must be there.
    pub fn required_tokens(&self, name: &'static str) -> Result<Tokens, Problem> {
        self.tokens(name)?.ok_or_else(|| Problem::new(Code::MissingField).field(name))
    }

    /// A time to live in seconds, 1 … 86,400.
    pub fn ttl_seconds(&self, name: &'static str) -> Result<Option<u32>, Problem> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let invalid = || Problem::new(Code::InvalidTtl).field(name).limit(u64::from(MAX_TTL_SECONDS));
        match whole_number(raw) {
            Err(NumberFault::NoNumber) => Err(Problem::new(Code::InvalidBody).field(name)),
            Err(_) => Err(invalid()),
            Ok(seconds) => match u32::try_from(seconds) {
                Ok(seconds) if (1..=MAX_TTL_SECONDS).contains(&seconds) => Ok(Some(seconds)),
                _ => Err(invalid()),
            },
        }
    }

    pub fn reservation_id(&self, name: &'static str) -> Result<Option<ReservationId>, Problem> {
        self.text(name)?
            .map(|text| ReservationId::new(&text).map_err(|error| Problem::from(error).field(name)))
            .transpose()
    }

    pub fn model(&self, name: &'static str) -> Result<Option<Model>, Problem> {
        self.checked_text(name, Code::InvalidModel, Model::new)
    }

    pub fn request_id(&self, name: &'static str) -> Result<Option<RequestId>, Problem> {
        self.checked_text(name, Code::InvalidRequestId, RequestId::new)
    }

    /// A JSON object, kept as it was sent.
    pub fn metadata(&self, name: &'static str) -> Result<Option<Metadata>, Problem> {
        let refused = |error| match error {
            TextError::NotAnObject => Problem::new(Code::InvalidBody).field(name),
            _ => Problem::new(Code::InvalidMetadata).field(name),
        };
        self.raw(name).map(|raw| Metadata::new(raw).map_err(refused)).transpose()
    }

    fn checked_text<T>(
        &self,
        name: &'static str,
        code: Code,
        check: impl Fn(&str) -> Result<T, TextError>,
    ) -> Result<Option<T>, Problem> {
        self.text(name)?.map(|text| check(&text).map_err(|_| Problem::new(code).field(name))).transpose()
    }
}

/// Why a raw value is no whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NumberFault {
    /// A string, `true`, `null`, …
    NoNumber,
    /// Signed, or with fraction or exponent: even where its value would be whole (`1.0`, `1e3`, `-0`).
    NotWhole,
    /// Beyond `u64`.
    Huge,
}

/// Reads digits; the parser has accepted `raw` as a JSON value, so a first digit or sign means a number.
fn whole_number(raw: &str) -> Result<u64, NumberFault> {
    match raw.as_bytes() {
        [b'0'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            // Digits alone: the only fault left is their number.
            raw.parse().map_err(|_| NumberFault::Huge)
        }
        [b'-' | b'0'..=b'9', ..] => Err(NumberFault::NotWhole),
        _ => Err(NumberFault::NoNumber),
    }
}

fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    // Without a backslash the text stands there as it is.
    if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

fn is_complete(body: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

struct Members<const N: usize>(&'static [&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Members<N> {
    type Value = Taken<'de, N>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<N> {
    type Value = Taken<'de, N>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        let mut fault = None;
        // To the end even after a fault, since malformed JSON comes first. The first fault is the one that counts.
        while let Some(name) = map.next_key_seed(Name)? {
            match self.0.iter().position(|known| *known == name) {
                Some(index) => {
                    let value: &RawValue = map.next_value()?;
                    if values[index].replace(value).is_some() && fault.is_none() {
                        fault = Some(Fault::Duplicate(self.0[index]));
                    }
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                    fault.get_or_insert_with(|| Fault::Unknown(name.into_owned()));
                }
            }
        }
        Ok(Taken { values, fault })
    }
}

/// A member's name, borrowed from the body unless it has escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["tokens", "model", "metadata"];

    fn parse(body: &[u8]) -> Result<Object<'_, 3>, Code> {
        Object::parse(body, &NAMES).map_err(|problem| problem.code())
    }

    fn tokens(number: &str) -> Result<Option<u64>, Code> {
        let body = format!("{{\"tokens\":{number}}}");
        let object = parse(body.as_bytes())?;
        object.tokens("tokens").map(|tokens| tokens.map(Tokens::get)).map_err(|problem| problem.code())
    }

    /// What the parser would make of them if amounts were `u64` or `f64`, and why they are read from their text.
    #[test]
    fn the_parser_alone_cannot_tell_these_apart() {
        use serde_json::{Value, from_str};
        for float in ["1.0", "1e3", "-0", "99999999999999999999"] {
            assert!(from_str::<Value>(float).unwrap().is_f64(), "{float}");
        }
        assert!(from_str::<Value>("1e400").unwrap_err().is_syntax());
        assert!(from_str::<&RawValue>("1e400").is_ok());
    }

    #[test]
    fn amounts_are_whole_numbers_in_digits() {
        for (number, result) in [
            ("0", Ok(0)),
            ("1", Ok(1)),
            ("1000000000000", Ok(1_000_000_000_000)),
            ("1000000000001", Err(Code::AmountOutOfRange)),
            ("9007199254740993", Err(Code::AmountOutOfRange)),
            ("18446744073709551615", Err(Code::AmountOutOfRange)),
            ("18446744073709551616", Err(Code::AmountOutOfRange)),
            ("99999999999999999999", Err(Code::AmountOutOfRange)),
            (&"9".repeat(5_000), Err(Code::AmountOutOfRange)),
            ("-1", Err(Code::InvalidAmount)),
            ("-0", Err(Code::InvalidAmount)),
            ("-99999999999999999999", Err(Code::InvalidAmount)),
            ("1.5", Err(Code::InvalidAmount)),
            ("1.0", Err(Code::InvalidAmount)),
            ("0.0", Err(Code::InvalidAmount)),
            ("1e3", Err(Code::InvalidAmount)),
            ("1E3", Err(Code::InvalidAmount)),
            ("1e400", Err(Code::InvalidAmount)),
            ("-1e400", Err(Code::InvalidAmount)),
            ("1e-400", Err(Code::InvalidAmount)),
            ("\"10\"", Err(Code::InvalidBody)),
            ("\"1e400\"", Err(Code::InvalidBody)),
            ("\"NaN\"", Err(Code::InvalidBody)),
            ("true", Err(Code::InvalidBody)),
            ("false", Err(Code::InvalidBody)),
            ("null", Err(Code::InvalidBody)),
            ("[1]", Err(Code::InvalidBody)),
            ("{}", Err(Code::InvalidBody)),
            ("NaN", Err(Code::MalformedJson)),
            ("Infinity", Err(Code::MalformedJson)),
            ("0x10", Err(Code::MalformedJson)),
            ("+1", Err(Code::MalformedJson)),
            ("01", Err(Code::MalformedJson)),
            ("1.", Err(Code::MalformedJson)),
            (".5", Err(Code::MalformedJson)),
            ("1_000", Err(Code::MalformedJson)),
            ("", Err(Code::MalformedJson)),
        ] {
            assert_eq!(tokens(number), result.map(Some), "{number}");
        }
        assert_eq!(tokens(" 7 "), Ok(Some(7)));
    }

    #[test]
    fn bodies_of_the_wrong_form() {
        for (body, code) in [
            ("", Code::MalformedJson),
            ("  ", Code::MalformedJson),
            ("{", Code::MalformedJson),
            ("{\"tokens\":1", Code::MalformedJson),
            ("{\"tokens\":1}}", Code::MalformedJson),
            ("{\"tokens\":1}{}", Code::MalformedJson),
            ("{\"tokens\":1,}", Code::MalformedJson),
            ("{tokens:1}", Code::MalformedJson),
            ("{\"tokens\"}", Code::MalformedJson),
            ("{\"other\":1", Code::MalformedJson),
            ("{\"model\":\"\\ud800\",\"tokens\":1}x", Code::MalformedJson),
            ("nul", Code::MalformedJson),
            ("[1,", Code::MalformedJson),
            ("[]", Code::InvalidBody),
            ("[1]", Code::InvalidBody),
            ("null", Code::InvalidBody),
            ("7", Code::InvalidBody),
            ("\"{}\"", Code::InvalidBody),
            ("{\"other\":1}", Code::UnknownField),
            ("{\"Tokens\":1}", Code::UnknownField),
            ("{\"\":1}", Code::UnknownField),
            ("{\"tokens\":1,\"tokens\":1}", Code::DuplicateField),
            ("{\"tokens\":1,\"tok\\u0065ns\":2}", Code::DuplicateField),
        ] {
            assert_eq!(parse(body.as_bytes()).unwrap_err(), code, "{body}");
        }
        assert_eq!(parse(b"{\"model\":\"\xff\"}").unwrap_err(), Code::MalformedJson);
        assert_eq!(parse(b"{\"\xff\":1}").unwrap_err(), Code::MalformedJson);
        assert_eq!(parse(b"\xef\xbb\xbf{}").unwrap_err(), Code::MalformedJson);
    }

    /// A body of brackets alone: neither a stack overflow nor a success.
    #[test]
    fn deep_nesting_is_harmless() {
        for deep in ["[".repeat(60_000), "{\"a\":".repeat(12_000)] {
            assert_eq!(parse(deep.as_bytes()).unwrap_err(), Code::MalformedJson);
            assert_eq!(tokens(&deep), Err(Code::MalformedJson));
        }
        let closed = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(tokens(&closed), Err(Code::InvalidBody));
    }

    #[test]
    fn texts_are_strings_with_their_escapes_undone() {
        let object = parse(br#"{"model":"gpt-\u0034o \"x\""}"#).unwrap();
        assert_eq!(object.text("model").unwrap().unwrap(), "gpt-4o \"x\"");
        for (body, code) in [
            (r#"{"model":1}"#, Code::InvalidBody),
            (r#"{"model":null}"#, Code::InvalidBody),
            (r#"{"model":["x"]}"#, Code::InvalidBody),
            (r#"{"model":"\ud800"}"#, Code::InvalidBody),
            (r#"{"model":""}"#, Code::InvalidModel),
            (r#"{"model":"a\u0000b"}"#, Code::InvalidModel),
            (r#"{"model":"a\nb"}"#, Code::InvalidModel),
        ] {
            let object = parse(body.as_bytes()).unwrap();
            assert_eq!(object.model("model").unwrap_err().code(), code, "{body}");
        }
        let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(101));
        assert_eq!(parse(long.as_bytes()).unwrap().model("model").unwrap_err().code(), Code::InvalidModel);
    }

    #[test]
    fn metadata_is_an_object_kept_as_sent() {
        let object = parse(br#"{"metadata": {"a" : 1e400, "a":2} }"#).unwrap();
        assert_eq!(object.metadata("metadata").unwrap().unwrap().as_str(), r#"{"a" : 1e400, "a":2}"#);
        for (value, code) in
            [("[]", Code::InvalidBody), ("\"{}\"", Code::InvalidBody), ("null", Code::InvalidBody)]
        {
            let body = format!("{{\"metadata\":{value}}}");
            assert_eq!(parse(body.as_bytes()).unwrap().metadata("metadata").unwrap_err().code(), code);
        }
        let long = format!("{{\"metadata\":{{\"a\":\"{}\"}}}}", "x".repeat(1_100));
        let problem = parse(long.as_bytes()).unwrap().metadata("metadata").unwrap_err();
        assert_eq!(problem.code(), Code::InvalidMetadata);
    }

    #[test]
    fn a_time_to_live_is_one_second_to_a_day() {
        for (number, result) in [
            ("1", Ok(1)),
            ("86400", Ok(86_400)),
            ("0", Err(Code::InvalidTtl)),
            ("86401", Err(Code::InvalidTtl)),
            ("4294967297", Err(Code::InvalidTtl)),
            ("99999999999999999999", Err(Code::InvalidTtl)),
            ("-1", Err(Code::InvalidTtl)),
            ("1.5", Err(Code::InvalidTtl)),
            ("1e3", Err(Code::InvalidTtl)),
            ("\"60\"", Err(Code::InvalidBody)),
            ("null", Err(Code::InvalidBody)),
        ] {
            let body = format!("{{\"tokens\":{number}}}");
            let ttl = parse(body.as_bytes()).unwrap().ttl_seconds("tokens").map_err(|problem| problem.code());
            assert_eq!(ttl, result.map(Some), "{number}");
        }
    }
}
