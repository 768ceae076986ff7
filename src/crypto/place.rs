//! Where a sealed value lies, as the bytes that it is bound to.

use uuid::Uuid;

/// The one place where a sealed value may be opened: moved to another row, column or table it is refused.
///
/// By agreement a sealed column is a `bytea` whose name ends in `_sealed`, in a table with the primary key `id uuid`.
/// `cota keys rotate` finds all such columns in the catalogue by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub table: &'a str,
    pub column: &'a str,
    /// The `id` of the row.
    pub row: Uuid,
}

impl Place<'_> {
    /// Every part behind its length, so that no two places give the same bytes.
    pub(super) fn bytes(&self, purpose: &[u8]) -> Vec<u8> {
        framed(&[purpose, self.table.as_bytes(), self.column.as_bytes(), self.row.as_bytes()])
    }
}

/// A column that is found by a keyed index of what it seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indexed<'a> {
    pub table: &'a str,
    pub column: &'a str,
}

impl Indexed<'_> {
    pub(super) fn bytes(&self, purpose: &[u8], value: &[u8]) -> Vec<u8> {
        framed(&[purpose, self.table.as_bytes(), self.column.as_bytes(), value])
    }
}

fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}
