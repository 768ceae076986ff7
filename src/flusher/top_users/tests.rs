//! The busiest users, found in a crowd and within bounds.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::*;
use crate::quota::{Flags, Kind, OutboxId, ReservationId};

const PARTITION: PartitionId = PartitionId(0);
const IDLE: Duration = Duration::from_secs(3_600);

fn top(most: usize) -> (TopUsers, Instant) {
    let config = MetricsConfig { top_users: most, ..MetricsConfig::default() };
    (TopUsers::new(&config), Instant::now())
}

fn user(n: u128) -> UserId {
    UserId(Uuid::from_u128(n))
}

fn entry(sequence: u64, user: UserId, tokens: i64) -> Entry {
    Entry {
        outbox_id: OutboxId { sequence, nonce: 1 },
        user,
        reservation: ReservationId::generate(),
        kind: Kind::Settle,
        tokens,
        flags: Flags::default(),
        at_ms: 1_000 + sequence,
        model: None,
        request_id: None,
        input_tokens: None,
        output_tokens: None,
        cached_input_tokens: None,
        metadata: None,
        lines: Vec::new(),
    }
}

/// Tokens by id.
fn tokens(rows: &[UserRow]) -> BTreeMap<String, u64> {
    rows.iter().map(|row| (row.id.clone(), row.tokens)).collect()
}

fn shows(rows: &[UserRow], user: UserId) -> bool {
    rows.iter().any(|row| row.id == user.to_string())
}

#[test]
fn few_users_are_counted_exactly_and_the_busiest_comes_first() {
    let (top, now) = top(3);
    let entries =
        [entry(1, user(1), 10), entry(2, user(2), 500), entry(3, user(1), 0), entry(4, user(2), -100)];
    top.count(PARTITION, 1, &entries, now);
    let row = |id: String, tokens, transactions, last_at_ms| UserRow { id, tokens, transactions, last_at_ms };
    assert_eq!(
        top.rows(now),
        [
            row(user(2).to_string(), 500, 2, 1_004),
            row(user(1).to_string(), 10, 2, 1_003),
            row("_other".into(), 0, 0, 0)
        ]
    );
}

#[test]
fn a_flush_that_is_repeated_counts_once_and_another_epoch_counts_anew() {
    let (top, now) = top(3);
    let entries = [entry(1, user(1), 10), entry(2, user(1), 20)];
    top.count(PARTITION, 1, &entries, now);
    top.count(PARTITION, 1, &entries, now);
    top.count(PARTITION, 1, &[entry(2, user(1), 20), entry(3, user(1), 5)], now);
    assert_eq!(tokens(&top.rows(now))[&user(1).to_string()], 35);
    top.count(PARTITION, 2, &[entry(1, user(1), 100)], now);
    top.count(PartitionId(1), 1, &[entry(1, user(1), 1_000)], now);
    assert_eq!(tokens(&top.rows(now))[&user(1).to_string()], 1_135);
}

/// The busy one is a fiftieth of a crowd of 100,000 that comes in turns: each of the others once.
#[test]
fn a_busy_user_in_a_crowd_is_found_within_bounds_and_nothing_is_lost() {
    let (top, mut now) = top(5);
    let (busy, mut sequence, mut written) = (user(1), 0, 0);
    for batch in 0..50 {
        let crowd = (0..2_000).map(|n| (user(1_000 + batch * 2_000 + n), 10));
        let entries: Vec<Entry> = crowd
            .chain((0..40).map(|_| (busy, 10)))
            .map(|(user, tokens)| {
                sequence += 1;
                written += tokens;
                entry(sequence, user, tokens as i64)
            })
            .collect();
        top.count(PARTITION, 1, &entries, now);
        now += Duration::from_secs(1);
        let rows = top.rows(now);
        assert!(rows.len() <= 6, "{}", rows.len());
        let state = top.state();
        assert!(state.scores.len() <= 2 * LEAST_SCORES && state.shown.len() <= 5);
    }
    let rows = top.rows(now);
    assert_eq!(rows[0].id, busy.to_string());
    assert!(rows[0].tokens > 40 * 10 * 45, "{}", rows[0].tokens);
    assert!(tokens(&rows).values().sum::<u64>() <= written);
}

#[test]
fn no_series_goes_back_and_all_together_are_all_while_nobody_leaves() {
    let (top, now) = top(2);
    top.count(PARTITION, 1, &[entry(1, user(1), 10), entry(2, user(2), 10), entry(3, user(3), 9)], now);
    let before = tokens(&top.rows(now));
    assert_eq!((before.len(), before["_other"]), (3, 9));
    top.count(PARTITION, 1, &[entry(4, user(3), 2), entry(5, user(1), 2)], now);
    // The third is above the second now, but not by enough to take its place.
    let after = tokens(&top.rows(now));
    assert_eq!((after.values().sum::<u64>(), after["_other"]), (33, 11));
    for (id, tokens) in before {
        assert!(after[&id] >= tokens, "{id}");
    }
}

#[test]
fn who_becomes_busy_takes_the_place_of_the_least_busy_and_starts_at_zero() {
    let (top, now) = top(2);
    top.count(PARTITION, 1, &[entry(1, user(1), 100), entry(2, user(2), 10)], now);
    top.count(PARTITION, 1, &[entry(3, user(3), 90)], now);
    let rows = top.rows(now);
    assert!(shows(&rows, user(1)) && shows(&rows, user(3)) && !shows(&rows, user(2)));
    assert_eq!(tokens(&rows)[&user(3).to_string()], 0, "it is in _other");
    assert_eq!(tokens(&rows)["_other"], 90);
    top.count(PARTITION, 1, &[entry(4, user(3), 7)], now);
    assert_eq!(tokens(&top.rows(now))[&user(3).to_string()], 7);
}

#[test]
fn recent_use_outweighs_old_use_and_who_is_idle_is_dropped() {
    let (top, now) = top(1);
    top.count(PARTITION, 1, &[entry(1, user(1), 1_000)], now);
    let later = now + 10 * HALF_LIFE;
    top.count(PARTITION, 1, &[entry(2, user(2), 10)], later);
    let rows = top.rows(later);
    assert!(shows(&rows, user(2)) && !shows(&rows, user(1)));
    assert_eq!(top.rows(later + IDLE).len(), 1, "_other alone");
    assert!(top.state().scores.is_empty());
}

#[test]
fn none_may_be_shown() {
    let (top, now) = top(0);
    top.count(PARTITION, 1, &[entry(1, user(1), 1_000)], now);
    assert_eq!(tokens(&top.rows(now)), BTreeMap::from([("_other".to_owned(), 1_000)]));
}
