//! Redis keys. One type owns every key string; a test pins them.
//!
//! Everything of a partition carries its hash tag, so that one script may touch all of it, on a cluster too.

use std::borrow::Cow;

use uuid::Uuid;

use crate::quota::{BudgetId, PartitionId, Partitions, ReservationId, UserId};

const SLOTS: u32 = 16_384;

/// The key names of one partition.
#[derive(Clone, Debug)]
pub struct Keys {
    tag: String,
}

impl Keys {
    /// Picks the hash tag `q<number>.<n>` with the smallest n whose slot lies in the partition's own stripe of the
    /// 16,384 slots, so that partitions spread evenly over the masters of a cluster.
    pub fn of(partition: PartitionId, partitions: Partitions) -> Self {
        let stripe = SLOTS / u32::from(partitions.count());
        let first = u32::from(partition.0) * stripe;
        let in_stripe = |tag: &String| (first..first + stripe).contains(&slot(tag.as_bytes()));
        let tag = (0..).map(|n| format!("q{}.{n}", partition.0)).find(in_stripe);
        // An unbounded search over a uniform hash ends; the fallback keeps the type total.
        Self { tag: tag.unwrap_or_default() }
    }

    /// Meta hash: state, epoch, counts, run id.
    pub fn meta(&self) -> Vec<u8> {
        self.named(b"m", &[])
    }

    /// Expiry index.
    pub fn expiry(&self) -> Vec<u8> {
        self.named(b"x", &[])
    }

    /// Outbox stream.
    pub fn outbox(&self) -> Vec<u8> {
        self.named(b"o", &[])
    }

    /// One budget: its owner's 16 bytes and a code.
    pub fn budget(&self, budget: BudgetId) -> Vec<u8> {
        self.named(b"b:", &[budget_name(budget).as_slice()])
    }

    /// One reservation: its account's 16 bytes, a colon, its id as in [`id_bytes`].
    pub fn record(&self, user: UserId, id: &ReservationId) -> Vec<u8> {
        self.named(b"r:", &[user.0.as_bytes(), b":", &id_bytes(id)])
    }

    fn named(&self, kind: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let length = self.tag.len() + 3 + kind.len() + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut key = Vec::with_capacity(length);
        key.push(b'{');
        key.extend_from_slice(self.tag.as_bytes());
        key.extend_from_slice(b"}:");
        key.extend_from_slice(kind);
        parts.iter().for_each(|part| key.extend_from_slice(part));
        key
    }
}

/// A budget as keys and packed lines name it: 16 bytes of its owner, then a code of one byte.
pub fn budget_name(budget: BudgetId) -> [u8; 17] {
    let mut name = [b'b'; 17];
    name[..16].copy_from_slice(budget.owner().0.as_bytes());
    name
}

/// The budget that [`budget_name`] named; `None` for a code this version does not know.
pub fn parse_budget_name(name: &[u8]) -> Option<BudgetId> {
    let (owner, code) = name.split_at_checked(16)?;
    let owner = UserId(Uuid::from_slice(owner).ok()?);
    (code == b"b").then_some(BudgetId::Balance(owner))
}

/// A reservation id as Redis keeps it: a UUID in its usual spelling as a zero byte and its 16 bytes, which is half; any
/// other id as its text, which has no zero byte.
fn id_bytes(id: &ReservationId) -> Cow<'_, [u8]> {
    let text = id.as_str();
    match Uuid::try_parse(text) {
        // Parsing takes other spellings, too: they are other ids.
        Ok(uuid) if *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text => {
            Cow::Owned([&[0], uuid.as_bytes().as_slice()].concat())
        }
        _ => Cow::Borrowed(text.as_bytes()),
    }
}

/// The id whose bytes these are.
pub fn parse_id(bytes: &[u8]) -> Option<ReservationId> {
    match bytes {
        [0, uuid @ ..] => ReservationId::new(&Uuid::from_slice(uuid).ok()?.to_string()).ok(),
        text => ReservationId::new(std::str::from_utf8(text).ok()?).ok(),
    }
}

/// Member of the expiry index: 16 bytes of the account, then the reservation id as in [`parse_id`].
pub fn parse_member(member: &[u8]) -> Option<(UserId, ReservationId)> {
    let (user, id) = member.split_at_checked(16)?;
    Some((UserId(Uuid::from_slice(user).ok()?), parse_id(id)?))
}

/// See [`parse_member`].
pub fn member(user: UserId, id: &ReservationId) -> Vec<u8> {
    [user.0.as_bytes().as_slice(), &id_bytes(id)].concat()
}

/// CRC16 (XMODEM) modulo 16,384, the slot Redis Cluster gives a tag (cluster specification, "Hash tags").
fn slot(tag: &[u8]) -> u32 {
    let crc = tag.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    u32::from(crc) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(slot(b"123456789"), 0x31c3 % SLOTS);
        assert_eq!(slot(b"foo"), 12_182);
    }

    #[test]
    fn every_partition_has_its_own_stripe() {
        for count in [1, 3, 8, 256] {
            let partitions = Partitions::new(count).unwrap();
            for partition in partitions.iter() {
                let stripe = SLOTS / u32::from(count);
                assert_eq!(
                    slot(Keys::of(partition, partitions).tag.as_bytes()) / stripe,
                    u32::from(partition.0)
                );
            }
        }
    }

    #[test]
    fn every_id_has_bytes_of_its_own() {
        let user = UserId::generate();
        for text in [
            "61626364-6566-6768-696a-6b6c6d6e6f70",
            "61626364-6566-6768-696A-6b6c6d6e6f70",
            "6162636465666768696a6b6c6d6e6f70",
            "00000000-0000-0000-0000-000000000000",
            "r-1",
        ] {
            let id = ReservationId::new(text).unwrap();
            assert_eq!(parse_member(&member(user, &id)), Some((user, id)));
        }
        assert_eq!(parse_id(b"\0short"), None);
    }

    #[test]
    fn key_strings_are_pinned() {
        let keys = Keys::of(PartitionId(1), Partitions::new(8).unwrap());
        let user: UserId = "61626364-6566-6768-696a-6b6c6d6e6f70".parse().unwrap();
        let id = ReservationId::new("r-1").unwrap();
        let text = |key: Vec<u8>| String::from_utf8(key).unwrap();
        assert_eq!(text(keys.meta()), "{q1.40}:m");
        assert_eq!(text(keys.expiry()), "{q1.40}:x");
        assert_eq!(text(keys.outbox()), "{q1.40}:o");
        assert_eq!(text(keys.budget(BudgetId::Balance(user))), "{q1.40}:b:abcdefghijklmnopb");
        assert_eq!(text(keys.record(user, &id)), "{q1.40}:r:abcdefghijklmnop:r-1");
        assert_eq!(parse_member(&member(user, &id)), Some((user, id)));
        let uuid = ReservationId::new("61626364-6566-6768-696a-6b6c6d6e6f70").unwrap();
        assert_eq!(text(keys.record(user, &uuid)), "{q1.40}:r:abcdefghijklmnop:\0abcdefghijklmnop");
        assert_eq!(parse_budget_name(&budget_name(BudgetId::Balance(user))), Some(BudgetId::Balance(user)));
    }
}
