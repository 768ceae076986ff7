//! load: a cold account's balance from Postgres, once in an epoch.

use cota::ledger::{
    scripts,
    wire::{Status, StoredBudget},
};

use crate::{
    case::Case,
    ops::{MOST_TOTAL, debit, reserve},
    support::partition::{text, user},
};

const LOST: i64 = 5;

contract! {
    fn a_cold_account_starts_from_postgres(p) {
        let args = p.load_args(100, 3, 4, false, 7);
        assert_eq!(p.load_with(0, &args).await, [0, 1, 1]);
        assert_eq!(p.balance().await, ["100", "7", "0"]);
        let budget = p.budget(user(0)).await.unwrap();
        assert_eq!((budget.version, budget.policy_version, budget.suspended, budget.epoch), (3, 4, false, 1));
    }

    fn it_raises_sq_and_not_oq(p) {
        p.grant(100, 0).await;
        assert_eq!((p.meta("sq").await.as_deref(), p.meta("oq").await.as_deref()), (Some("1"), Some("0")));
    }

    fn a_second_load_is_warm_and_changes_nothing(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(debit(2, 5)).await;
        let before = (p.dump().await, p.all_meta().await);
        let args = p.load_args(500, 9, 9, true, 50);
        assert_eq!(p.load_with(0, &args).await, [0, 3, 2]);
        assert_eq!((p.dump().await, p.all_meta().await), before);
    }

    fn a_balance_of_another_epoch_is_replaced(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.recover(2).await;
        let args = p.load_args(200, 3, 1, false, 11);
        assert_eq!(p.load_with(0, &args).await, [0, 2_000_001, 1]);
        assert_eq!(p.balance().await, ["200", "11", "0"]);
        assert_eq!(p.budget(user(0)).await.unwrap().epoch, 2);
    }

    fn what_another_life_held_does_not_survive_it(p) {
        p.grant(100, 0).await;
        let budget = p.budget(user(0)).await.unwrap();
        p.set_budget(user(0), &StoredBudget { epoch: 0, held: 77, ..budget }).await;
        p.grant(100, 0).await;
        assert_eq!(p.balance().await[2], "0");
    }

    fn a_budget_of_an_unknown_format_is_left_alone(p) {
        p.grant(100, 0).await;
        let key = p.budget_keys(0)[1].clone();
        p.command(&[b"SETRANGE", &key, b"0", b"\x02"]).await;
        let before = p.dump().await;
        let (keys, args) = (p.budget_keys(0), p.load_args(100, 1, 1, false, 0));
        assert!(p.try_call(&scripts::LOAD, &keys, &args).await.is_err());
        assert_eq!(p.sync(0, 250, 9, 1, false).await[2], 3, "absent");
        assert_eq!(p.statuses(&[reserve(1, 1), debit(2, 1)]).await, [Status::Unreadable, Status::Unreadable]);
        assert_eq!(p.dump().await, before);
        p.command(&[b"SETRANGE", &key, b"0", b"\x01"]).await;
    }

    fn a_suspended_account_stays_suspended(p) {
        let args = p.load_args(100, 1, 1, true, 0);
        p.load_with(0, &args).await;
        assert!(p.unchanged(reserve(1, 1), Status::Suspended).await.suspended);
    }

    fn digits_stay_exact(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL).await;
        assert_eq!(p.balance().await, ["9007199254740991", "9007199254740991", "0"]);
    }

    fn recovery_loads_while_the_partition_is_closed(p) {
        p.begin_recovery(2).await;
        assert_eq!(p.load_recovering(0, 100, 7).await, [0, 1, 1]);
        assert_eq!(p.load_recovering(0, 100, 7).await, [0, 1, 2]);
        p.open(2, 10, true).await;
        Case::assert_balance(&p.ok(reserve(1, 1)).await, 100, 7, 1);
    }

    fn a_recovery_that_was_overtaken_loads_nothing(p) {
        p.begin_recovery(2).await;
        p.fence(3).await;
        let before = (p.dump().await, p.all_meta().await);
        assert_eq!(p.load_recovering(0, 100, 7).await, [LOST]);
        assert_eq!((p.dump().await, p.all_meta().await), before);
    }

    fn a_recovery_that_has_ended_loads_nothing(p) {
        p.recover(2).await;
        let before = (p.dump().await, p.all_meta().await);
        assert_eq!(p.load_recovering(0, 100, 7).await, [LOST]);
        assert_eq!((p.dump().await, p.all_meta().await), before);
    }

    fn a_recovery_of_a_partition_without_keys_loads_nothing(p) {
        p.command(&[b"FLUSHALL"]).await;
        assert_eq!(p.load_recovering(0, 100, 7).await, [LOST]);
        assert_eq!(p.dump().await, []);
    }

    fn an_ordinary_load_is_refused_while_recovering(p) {
        p.begin_recovery(2).await;
        let mut args = p.load_args(100, 1, 1, false, 0);
        args[2] = text("run");
        assert_eq!(p.load_with(0, &args).await, [2, 2]);
        assert_eq!(p.dump().await, []);
    }
}
