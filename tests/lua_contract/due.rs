//! due: what is overdue, oldest first, by the index.

use cota::ledger::keys::member;

use crate::{
    ops::{Tweak, expire, extend, release, reserve, settle},
    support::partition::{rid, user},
};

contract! {
    fn an_empty_index(p) {
        let (now, oldest, members) = p.due(64).await;
        assert!(now > 1_700_000_000_000);
        assert_eq!((oldest, members.len()), (0, 0));
    }

    fn what_is_not_yet_due_is_not_listed(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 5)).await;
        let (_, oldest, members) = p.due(64).await;
        assert_eq!((oldest, members.len()), (0, 0));
    }

    fn what_is_due_is_listed_with_its_time(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 5)).await;
        p.ok(reserve(2, 5).ttl(0)).await;
        let record = p.rec(2).await;
        let (now, oldest, members) = p.due(64).await;
        assert_eq!(members, [member(user(0), &rid(2))]);
        assert_eq!(oldest as u64, record.expires_at_ms);
        assert!(now >= oldest);
    }

    fn oldest_first(p) {
        p.grant(100, 0).await;
        let key = p.keys.expiry();
        for id in 1..=3 {
            p.ok(reserve(id, 5).ttl(0)).await;
        }
        for (score, id) in [(b"30", 1), (b"10", 2), (b"20", 3)] {
            p.command(&[b"ZADD", &key, score, &member(user(0), &rid(id))]).await;
        }
        let (_, oldest, members) = p.due(64).await;
        assert_eq!(oldest, 10);
        assert_eq!(members, [2, 3, 1].map(|id| member(user(0), &rid(id))));
    }

    fn no_more_than_asked_for(p) {
        p.grant(100, 0).await;
        let ops: Vec<_> = (0..64).map(|id| reserve(id, 1).ttl(0)).collect();
        p.apply(&ops).await.answers();
        p.ok(reserve(64, 1).ttl(0)).await;
        assert_eq!(p.due(1).await.2.len(), 1);
        assert_eq!(p.due(10).await.2.len(), 10);
        assert_eq!(p.due(64).await.2.len(), 64);
    }

    fn accounts_share_the_index(p) {
        p.grant(100, 0).await;
        p.load(1, 100, 0).await;
        p.apply(&[reserve(1, 5).ttl(0), reserve(1, 5).of(1).ttl(0)]).await.answers();
        let mut members = p.due(64).await.2;
        members.sort();
        assert_eq!(members, [member(user(0), &rid(1)), member(user(1), &rid(1))]);
    }

    fn what_ended_otherwise_is_not_listed(p) {
        p.grant(100, 0).await;
        let ops = [1, 2, 3].map(|id| reserve(id, 5).ttl(0));
        p.apply(&ops).await.answers();
        p.one(settle(1, 5)).await;
        p.one(release(2)).await;
        p.one(expire(3)).await;
        assert_eq!(p.due(64).await.2.len(), 0);
    }

    fn what_was_extended_in_time_is_not_listed(p) {
        p.grant(100, 0).await;
        p.apply(&[reserve(1, 5).ttl(1), extend(1, 5).ttl(60_000)]).await.answers();
        p.overdue(2, 5, 0).await;
        assert_eq!(p.due(64).await.2, [member(user(0), &rid(2))]);
    }

    fn it_changes_nothing(p) {
        p.grant(100, 0).await;
        p.overdue(1, 5, 0).await;
        let before = (p.dump().await, p.all_meta().await);
        p.due(64).await;
        assert_eq!((p.dump().await, p.all_meta().await), before);
    }
}
