//! Amounts at their limits, one named row each: 0, 1, 10^12, one past it, and sums at 2^53.

use cota::ledger::wire::{Operation, Status};

use crate::{
    case::Case,
    ops::{MOST, MOST_TOTAL, Tweak, debit, extend, reserve, settle},
    support::partition::Partition,
};

/// Granted, spent, what runs before, the operation, its status, granted, spent and held afterwards.
struct Row {
    name: &'static str,
    granted: u64,
    spent: u64,
    before: Option<Operation>,
    op: Operation,
    status: Status,
    spent_after: u64,
    held_after: u64,
}

fn row(
    name: &'static str,
    (granted, spent): (u64, u64),
    op: Operation,
    status: Status,
    after: (u64, u64),
) -> Row {
    Row { name, granted, spent, before: None, op, status, spent_after: after.0, held_after: after.1 }
}

fn after(
    name: &'static str,
    budget: (u64, u64),
    before: Operation,
    op: Operation,
    status: Status,
    after: (u64, u64),
) -> Row {
    Row { before: Some(before), ..row(name, budget, op, status, after) }
}

async fn run(row: Row) {
    let mut p = Case::start().await;
    p.grant(row.granted, row.spent).await;
    if let Some(before) = row.before {
        p.ok(before).await;
    }
    let untouched = p.dump().await;
    let answer = p.one(row.op).await;
    assert_eq!(answer.status, row.status, "{}", row.name);
    Case::assert_balance(&answer, row.granted, row.spent_after, row.held_after);
    let expected = [row.granted, row.spent_after, row.held_after].map(|n| n.to_string());
    assert_eq!(p.balance().await, expected, "{}", row.name);
    if row.status != Status::Ok {
        assert_eq!(p.dump().await, untouched, "{}", row.name);
    }
    p.check().await;
}

#[tokio::test]
async fn reserves() {
    use Status::{Denied, Ok};
    let all = (MOST_TOTAL, 0);
    for r in [
        row("0 of 0", (0, 0), reserve(1, 0), Ok, (0, 0)),
        row("1 of 0", (0, 0), reserve(1, 1), Denied, (0, 0)),
        row("1 of 1", (1, 0), reserve(1, 1), Ok, (0, 1)),
        row("2 of 1", (1, 0), reserve(1, 2), Denied, (0, 0)),
        row("0 of a debt", (0, 1), reserve(1, 0), Ok, (1, 0)),
        row("1 of a debt", (0, 1), reserve(1, 1), Denied, (1, 0)),
        row("10^12 of all", all, reserve(1, MOST), Ok, (0, MOST)),
        row("10^12 of 10^12", (MOST, 0), reserve(1, MOST), Ok, (0, MOST)),
        row("10^12 of one less", (MOST - 1, 0), reserve(1, MOST), Denied, (0, 0)),
        row("the last of all", (MOST_TOTAL, MOST_TOTAL - 1), reserve(1, 1), Ok, (MOST_TOTAL - 1, 1)),
        row("one past all", (MOST_TOTAL, MOST_TOTAL), reserve(1, 1), Denied, (MOST_TOTAL, 0)),
        after("beside a hold, exactly", (MOST, 0), reserve(9, MOST - 1), reserve(1, 1), Ok, (0, MOST)),
        after(
            "beside a hold, one too many",
            (MOST, 0),
            reserve(9, MOST - 1),
            reserve(1, 2),
            Denied,
            (0, MOST - 1),
        ),
    ] {
        run(r).await;
    }
}

#[tokio::test]
async fn charges() {
    use Status::{Ok, Range};
    let near = (MOST_TOTAL, MOST_TOTAL - MOST);
    let past = (MOST_TOTAL, MOST_TOTAL - MOST + 1);
    for r in [
        row("a debit of 0", (0, 0), debit(1, 0), Ok, (0, 0)),
        row("a debit of 1", (0, 0), debit(1, 1), Ok, (1, 0)),
        row("a debit of 10^12", (0, 0), debit(1, MOST), Ok, (MOST, 0)),
        row("a debit up to 2^53-1", near, debit(1, MOST), Ok, (MOST_TOTAL, 0)),
        row("a debit one past it", past, debit(1, MOST), Range, (past.1, 0)),
        row("a debit of 0 at 2^53-1", (0, MOST_TOTAL), debit(1, 0), Ok, (MOST_TOTAL, 0)),
        row("a debit of 1 at 2^53-1", (0, MOST_TOTAL), debit(1, 1), Range, (MOST_TOTAL, 0)),
        after("a settle of 0", (1, 0), reserve(1, 1), settle(1, 0), Ok, (0, 0)),
        after("a settle of 1", (1, 0), reserve(1, 1), settle(1, 1), Ok, (1, 0)),
        after("a settle of 10^12", (1, 0), reserve(1, 1), settle(1, MOST), Ok, (MOST, 0)),
        after("a settle up to 2^53-1", near, reserve(1, 1), settle(1, MOST), Ok, (MOST_TOTAL, 0)),
        after("a settle one past it", past, reserve(1, 1), settle(1, MOST), Range, (past.1, 1)),
    ] {
        run(r).await;
    }
}

#[tokio::test]
async fn raises() {
    use Status::{Denied, Ok, Replay};
    for r in [
        after("to 0", (9, 0), reserve(1, 5), extend(1, 0), Replay, (0, 5)),
        after("by 1", (9, 0), reserve(1, 5), extend(1, 6), Ok, (0, 6)),
        after("to the last token", (9, 0), reserve(1, 5), extend(1, 9), Ok, (0, 9)),
        after("one too far", (9, 0), reserve(1, 5), extend(1, 10), Denied, (0, 5)),
        after("to 10^12", (MOST, 0), reserve(1, 5), extend(1, MOST), Ok, (0, MOST)),
        after("to 10^12 of one less", (MOST - 1, 0), reserve(1, 5), extend(1, MOST), Denied, (0, 5)),
    ] {
        run(r).await;
    }
}

#[tokio::test]
async fn one_past_ten_to_the_twelfth_is_a_programmers_error() {
    for (name, op) in [
        ("reserve", reserve(1, MOST + 1)),
        ("settle", settle(1, MOST + 1)),
        ("debit", debit(1, MOST + 1)),
        ("extend", extend(1, MOST + 1)),
        ("extend's progress", extend(1, 5).second(MOST + 1)),
        ("settle's expiry", settle(1, 5).second(MOST + 1)),
        ("u64 max", debit(1, u64::MAX >> 16).second(u64::MAX)),
    ] {
        let mut p = Case::start().await;
        p.grant(MOST_TOTAL, 0).await;
        let before = (p.dump().await, p.all_meta().await);
        let (keys, args) = (p.apply_keys(std::slice::from_ref(&op)), Partition::apply_args(&p.head(), &[op]));
        let error = p.try_call(&cota::ledger::scripts::APPLY, &keys, &args).await.expect_err(name);
        assert!(error.to_string().contains("malformed operation"), "{name}: {error}");
        assert_eq!((p.dump().await, p.all_meta().await), before, "{name}");
        p.check().await;
    }
}
