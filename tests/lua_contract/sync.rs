//! sync: Postgres's state of an account, if it is newer.

use cota::{ledger::wire::Status, quota::BudgetId};

use crate::{
    case::Case,
    ops::{MOST_TOTAL, Tweak, debit, reserve},
    support::partition::user,
};

const OK: i64 = 1;
const OLD: i64 = 2;
const ABSENT: i64 = 3;

contract! {
    fn a_newer_version_is_taken(p) {
        p.grant(100, 0).await;
        assert_eq!(p.sync(0, 250, 2, 1, false).await, [0, 2, OK]);
        assert_eq!(p.balance().await[0], "250");
        assert_eq!(p.budget(user(0)).await.unwrap().version, 2);
    }

    fn it_leaves_spend_and_holds_alone(p) {
        p.grant(100, 7).await;
        p.ok(reserve(1, 30)).await;
        p.ok(debit(2, 5)).await;
        p.sync(0, 250, 2, 1, false).await;
        assert_eq!(p.balance().await, ["250", "12", "30"]);
    }

    fn the_same_version_is_old(p) {
        p.grant(100, 0).await;
        let before = p.dump().await;
        assert_eq!(p.sync(0, 250, 1, 9, true).await, [0, 1, OLD]);
        assert_eq!(p.dump().await, before);
    }

    fn an_older_version_is_old(p) {
        p.grant(100, 0).await;
        p.sync(0, 250, 5, 1, false).await;
        let before = (p.dump().await, p.all_meta().await);
        assert_eq!(p.sync(0, 180, 4, 1, false).await, [0, 2, OLD]);
        assert_eq!((p.dump().await, p.all_meta().await), before);
    }

    fn pushed_twice_it_counts_once(p) {
        p.grant(100, 0).await;
        p.sync(0, 150, 2, 1, false).await;
        assert_eq!(p.sync(0, 150, 2, 1, false).await[2], OLD);
        assert_eq!(p.balance().await[0], "150");
    }

    fn an_account_nobody_loaded_is_absent(p) {
        let before = (p.dump().await, p.all_meta().await);
        assert_eq!(p.sync(0, 250, 2, 1, false).await, [0, 0, ABSENT]);
        assert_eq!((p.dump().await, p.all_meta().await), before);
    }

    fn an_account_of_another_epoch_is_absent(p) {
        p.grant(100, 0).await;
        p.recover(2).await;
        let before = p.dump().await;
        assert_eq!(p.sync(0, 250, 2, 1, false).await, [0, 2_000_000, ABSENT]);
        assert_eq!(p.dump().await, before);
    }

    fn every_one_taken_raises_sq(p) {
        p.grant(100, 0).await;
        for version in 2..5 {
            assert_eq!(p.sync(0, 100, version, 1, false).await, [0, version as i64, OK]);
        }
        assert_eq!(p.meta("sq").await.unwrap(), "4");
        assert_eq!(p.meta("oq").await.unwrap(), "0");
    }

    fn suspension_comes_and_goes(p) {
        p.grant(100, 0).await;
        p.sync(0, 100, 2, 1, true).await;
        p.unchanged(reserve(1, 1), Status::Suspended).await;
        p.sync(0, 100, 3, 1, false).await;
        p.ok(reserve(1, 1)).await;
    }

    fn a_new_policy_version_makes_the_old_one_stale(p) {
        p.grant(100, 0).await;
        p.sync(0, 100, 2, 8, false).await;
        assert_eq!(p.unchanged(reserve(1, 1), Status::Stale).await.policy_version, 8);
        p.ok(reserve(1, 1).policy(8)).await;
    }

    fn a_grant_lowered_below_what_is_used_leaves_a_debt(p) {
        p.grant(100, 80).await;
        p.sync(0, 10, 2, 1, false).await;
        assert_eq!(p.unchanged(reserve(1, 1), Status::Denied).await.short, [(0, 1, -70)]);
    }

    fn versions_are_compared_as_numbers(p) {
        p.grant(100, 0).await;
        assert_eq!(p.sync(0, 150, 9, 1, false).await[2], OK);
        assert_eq!(p.sync(0, 160, 10, 1, false).await[2], OK);
        assert_eq!(p.sync(0, 170, 9, 1, false).await[2], OLD);
        assert_eq!(p.balance().await[0], "160");
    }

    fn digits_stay_exact(p) {
        p.grant(100, 0).await;
        p.sync(0, MOST_TOTAL, 2, 1, false).await;
        assert_eq!(p.balance().await[0], "9007199254740991");
        let answer = p.ok(reserve(1, 1)).await;
        Case::assert_balance(&answer, MOST_TOTAL, 0, 1);
    }

    fn it_touches_only_its_account(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        p.sync(0, 250, 2, 1, false).await;
        assert_eq!(p.balance_of(1).await, ["50", "0", "0"]);
        assert_eq!(p.keys.budget(BudgetId::Balance(user(1))), p.budget_keys(1)[1]);
    }
}
