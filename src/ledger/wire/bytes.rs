//! Reading and writing packed big-endian fields.

/// A packed value is not what its layout says, or of a format this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packed value is malformed or of an unknown format")]
pub struct Malformed;

/// Reads fields off the front of a slice.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (field, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(field)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    /// An unsigned integer of `width` bytes, at most 8.
    pub fn unsigned(&mut self, width: usize) -> Result<u64, Malformed> {
        Ok(self.take(width)?.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// A count or amount that must not be negative.
    pub fn non_negative(&mut self) -> Result<u64, Malformed> {
        u64::try_from(self.i64()?).map_err(|_| Malformed)
    }

    /// A field with its length before it, in `width` bytes.
    pub fn prefixed(&mut self, width: usize) -> Result<&'a [u8], Malformed> {
        let length = self.unsigned(width)? as usize;
        self.take(length)
    }

    /// A text with its length before it.
    pub fn text(&mut self, width: usize) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.prefixed(width)?).map_err(|_| Malformed)
    }

    /// A text that may be absent (empty), parsed.
    pub fn optional<T, E>(
        &mut self,
        width: usize,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Malformed> {
        match self.text(width)? {
            "" => Ok(None),
            text => parse(text).map(Some).map_err(|_| Malformed),
        }
    }
}

/// Appends an unsigned integer in `width` bytes.
pub fn put(out: &mut Vec<u8>, width: usize, value: u64) {
    out.extend_from_slice(&value.to_be_bytes()[8 - width..]);
}

/// Appends a field with its length before it, in `width` bytes. Lengths are bounded by the types that hold them.
pub fn put_prefixed(out: &mut Vec<u8>, width: usize, field: &[u8]) {
    put(out, width, field.len() as u64);
    out.extend_from_slice(field);
}
