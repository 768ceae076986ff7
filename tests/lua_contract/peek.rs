//! peek: a balance and, if asked, one reservation. Its head is tested in `head`.

use cota::{
    ledger::{
        scripts,
        wire::{Answer, Status},
    },
    quota::State,
};
use redis::{FromRedisValue, Value};

use crate::{
    case::Case,
    ops::{Tweak, debit, expire, release, reserve, settle},
    support::partition::{RUN_ID, rid, text, user},
};

/// sq, and the answer as it is packed.
async fn peek_bytes(p: &mut Case, id: Option<usize>) -> (u64, Vec<u8>) {
    let mut keys = vec![p.keys.meta(), p.keys.expiry(), p.budget_keys(0)[1].clone()];
    keys.extend(id.map(|id| p.keys.record(user(0), &rid(id))));
    let args = [text(p.epoch), text(0), text(RUN_ID)];
    let before = (p.dump().await, p.all_meta().await);
    let Value::Array(fields) = p.call(&scripts::PEEK, &keys, &args).await else { panic!() };
    assert_eq!((p.dump().await, p.all_meta().await), before, "a look changes nothing");
    assert_eq!((fields.len(), &fields[0]), (4, &Value::Int(0)));
    (u64::from_redis_value(fields[1].clone()).unwrap(), Vec::from_redis_value(fields[3].clone()).unwrap())
}

async fn peek(p: &mut Case, id: Option<usize>) -> Answer {
    Answer::decode(&peek_bytes(p, id).await.1).unwrap()
}

contract! {
    fn a_balance(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(debit(2, 5)).await;
        let answer = peek(p, None).await;
        assert_eq!(
            (answer.status, answer.due, answer.suspended, &answer.record),
            (Status::Ok, false, false, &None)
        );
        Case::assert_balance(&answer, 100, 5, 30);
        assert_eq!(peek_bytes(p, None).await.0, 3, "sq as it stands");
    }

    fn a_cold_account(p) {
        let answer = peek(p, None).await;
        assert_eq!(answer.status, Status::Cold);
        Case::assert_balance(&answer, 0, 0, 0);
    }

    fn an_account_of_another_epoch_is_cold(p) {
        p.grant(100, 0).await;
        p.recover(2).await;
        assert_eq!(peek(p, None).await.status, Status::Cold);
    }

    fn a_cold_account_still_shows_its_reservation(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.recover(2).await;
        let answer = peek(p, Some(1)).await;
        assert_eq!(answer.status, Status::Cold);
        assert_eq!(answer.record, Some(p.rec(1).await));
    }

    fn a_suspended_account_says_so(p) {
        p.grant(100, 0).await;
        p.sync(0, 100, 2, 1, true).await;
        assert!(peek(p, None).await.suspended);
    }

    fn a_debt(p) {
        p.grant(10, 30).await;
        Case::assert_balance(&peek(p, None).await, 10, 30, 0);
    }

    fn a_reservation_in_every_state(p) {
        p.grant(100, 0).await;
        for id in 1..=3 {
            p.ok(reserve(id, 5)).await;
        }
        p.ok(settle(2, 4)).await;
        p.ok(release(3)).await;
        p.overdue(4, 5, 0).await;
        p.ok(expire(4)).await;
        for (id, state) in
            [(1, State::Pending), (2, State::Settled), (3, State::Released), (4, State::Expired)]
        {
            let record = peek(p, Some(id)).await.record.unwrap();
            assert_eq!(record.state, state);
            assert_eq!(record, p.rec(id).await);
        }
    }

    fn an_unknown_reservation(p) {
        p.grant(100, 0).await;
        let answer = peek(p, Some(1)).await;
        assert_eq!((answer.status, answer.record), (Status::Ok, None));
    }

    fn something_overdue_in_the_partition_is_said(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 5)).await;
        assert!(!peek(p, None).await.due);
        p.load(1, 100, 0).await;
        p.ok(reserve(1, 5).of(1).ttl(0)).await;
        assert!(peek(p, None).await.due, "another account's counts too: a sweep takes the partition");
        p.ok(expire(1).of(1)).await;
        assert!(!peek(p, None).await.due);
    }

    fn a_record_of_an_unknown_format_is_no_answer(p) {
        p.grant(100, 0).await;
        p.plant_unknown_format(1).await;
        let (_, bytes) = peek_bytes(p, Some(1)).await;
        assert!(Answer::decode(&bytes).is_err(), "closed, not guessed");
    }
}
