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
    AlertThreshold, AmountError, MAX_TTL_SECONDS, Metadata, Model, RequestId, ReservationId, TextError,
    Tokens,
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

    /// A list of strings.
    pub fn texts(&self, name: &'static str) -> Result<Option<Vec<Cow<'a, str>>>, Problem> {
        let invalid = || Problem::new(Code::InvalidBody).field(name);
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let items: Vec<&RawValue> = serde_json::from_str(raw).map_err(|_| invalid())?;
        items
            .into_iter()
            .map(|item| string(item.get()).ok_or_else(invalid))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// `true` or `false`.
    pub fn boolean(&self, name: &'static str) -> Result<Option<bool>, Problem> {
        match self.raw(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Problem::new(Code::InvalidBody).field(name)),
        }
    }

    /// A whole number up to `most`; anything else is `invalid`, with that bound.
    pub fn whole(&self, name: &'static str, most: u32, invalid: Code) -> Result<Option<u32>, Problem> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let refused = || Problem::new(invalid).field(name).limit(u64::from(most));
        match whole_number(raw) {
            Err(NumberFault::NoNumber) => Err(Problem::new(Code::InvalidBody).field(name)),
            Err(_) => Err(refused()),
            Ok(n) => u32::try_from(n).ok().filter(|n| *n <= most).map(Some).ok_or_else(refused),
        }
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

    /// A share of the total at which a user is warned.
    pub fn threshold(&self, name: &'static str) -> Result<Option<AlertThreshold>, Problem> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let is_number = raw.starts_with(|first: char| first.is_ascii_digit() || first == '-');
        let code = if is_number { Code::InvalidAlertThreshold } else { Code::InvalidBody };
        raw.parse().map(Some).map_err(|_| Problem::new(code).field(name))
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
#[path = "json_tests.rs"]
mod tests;
