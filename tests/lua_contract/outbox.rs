//! outbox: the partition's identity and its first entries, in one reading.

use cota::ledger::scripts;
use redis::{FromRedisValue, Value};

use crate::{
    case::Case,
    ops::{debit, release, reserve, settle},
    support::partition::text,
};

type Page = (String, u64, u64, u64, String, u64, Vec<String>);

/// State, epoch, sq, oq, run id, depth, ids of the entries.
async fn read(p: &mut Case, most: usize) -> Page {
    read_from(p, "-", most).await
}

async fn fields(p: &mut Case, from: &str, most: usize) -> Vec<Value> {
    let keys = [p.keys.meta(), p.keys.outbox()];
    match p.call(&scripts::OUTBOX, &keys, &[text(most), text(from)]).await {
        Value::Array(fields) => fields,
        other => panic!("{other:?}"),
    }
}

async fn acked_up_to(p: &mut Case) -> String {
    String::from_redis_value(fields(p, "-", 1).await.swap_remove(6)).unwrap()
}

async fn read_from(p: &mut Case, from: &str, most: usize) -> Page {
    let fields = fields(p, from, most).await;
    let word = |i: usize| String::from_redis_value(fields[i].clone()).unwrap();
    let number = |i: usize| u64::from_redis_value(fields[i].clone()).unwrap();
    let ids = (7..fields.len()).step_by(2).map(word).collect();
    (word(0), number(1), number(2), number(3), word(4), number(5), ids)
}

fn page(state: &str, counts: [u64; 3], run_id: &str, depth: u64, ids: &[&str]) -> Page {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    (state.to_owned(), counts[0], counts[1], counts[2], run_id.to_owned(), depth, ids)
}

contract! {
    fn an_empty_one(p) {
        assert_eq!(read(p, 10).await, page("open", [1, 0, 0], "run", 0, &[]));
    }

    fn entries_come_in_order_with_the_counts(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        p.ok(reserve(2, 5)).await;
        p.ok(settle(2, 5)).await;
        assert_eq!(read(p, 10).await, page("open", [1, 4, 3], "run", 2, &["1-77", "3-77"]));
    }

    fn no_more_than_asked_for_but_the_depth_of_all(p) {
        p.grant(100, 0).await;
        p.apply(&[debit(1, 1), debit(2, 1), debit(3, 1)]).await.answers();
        assert_eq!(read(p, 1).await, page("open", [1, 4, 3], "run", 3, &["1-77"]));
        assert_eq!(read(p, 2).await.6, ["1-77", "2-77"]);
        assert_eq!(read(p, 3).await.6.len(), 3);
        assert_eq!(read(p, 10_000).await.6.len(), 3);
    }

    fn it_goes_on_after_an_entry_whether_that_was_acked_or_not(p) {
        p.grant(100, 0).await;
        p.apply(&[debit(1, 1), debit(2, 1), debit(3, 1)]).await.answers();
        assert_eq!(read_from(p, "(1-77", 1).await, page("open", [1, 4, 3], "run", 3, &["2-77"]));
        assert_eq!(read_from(p, "(3-77", 10).await.6, [""; 0]);
        let entries = p.outbox().await;
        p.flush(&entries[..2]).await;
        assert_eq!(read_from(p, "(2-77", 10).await, page("open", [1, 4, 3], "run", 1, &["3-77"]));
    }

    fn what_was_acked_is_no_longer_there(p) {
        p.grant(100, 0).await;
        p.apply(&[debit(1, 1), debit(2, 1)]).await.answers();
        let entries = p.outbox().await;
        p.flush(&entries[..1]).await;
        assert_eq!(read(p, 10).await, page("open", [1, 3, 2], "run", 1, &["2-77"]));
    }

    fn it_says_how_far_it_was_acked_also_when_it_is_empty(p) {
        p.grant(100, 0).await;
        assert_eq!(acked_up_to(p).await, "", "there is none yet");
        p.apply(&[debit(1, 1), debit(2, 1), debit(3, 1)]).await.answers();
        assert_eq!(acked_up_to(p).await, "0-0");
        let entries = p.outbox().await;
        p.flush(&entries[..2]).await;
        assert_eq!(acked_up_to(p).await, "2-77");
        p.flush(&entries[2..]).await;
        assert_eq!(acked_up_to(p).await, "3-77");
    }

    fn reading_takes_nothing_away(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        let before = (p.dump().await, p.all_meta().await);
        assert_eq!(read(p, 10).await, read(p, 10).await);
        assert_eq!((p.dump().await, p.all_meta().await), before);
    }

    fn a_recovering_one_says_so_and_has_no_run_id(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        p.fence(2).await;
        assert_eq!(read(p, 10).await, page("recovering", [2, 2, 1], "", 1, &["1-77"]));
    }

    fn without_a_meta_hash_the_state_is_empty(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        let key = p.keys.meta();
        p.command(&[b"DEL", &key]).await;
        assert_eq!(read(p, 10).await, page("", [0, 0, 0], "", 1, &["1-77"]));
    }

    fn after_flushall_there_is_nothing(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        p.command(&[b"FLUSHALL"]).await;
        assert_eq!(read(p, 10).await, page("", [0, 0, 0], "", 0, &[]));
    }

    fn what_charges_nothing_writes_no_entry(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 5)).await;
        p.ok(release(1)).await;
        p.ok(release(2)).await;
        assert_eq!(read(p, 10).await.6, [""; 0]);
    }
}
