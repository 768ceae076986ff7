//! Auto-renewal: once, within the cap, on the truth of the account's row.

use cota::{
    quota::{Kind, RenewalMode, RenewalRule, Tokens, UserId},
    store::{
        AutoRenewal, AutoRenewalUpdate, Confirmation, Credit, CreditOutcome, Expected, Extent, GrantKind,
        Payment, Renewal, RenewalState, Renewed,
    },
};
use uuid::Uuid;

use crate::scratch::{Database, P0, database, entry};

fn rule(tokens: u64, max_renewals: u32) -> RenewalRule {
    RenewalRule::new("0.1".parse().unwrap(), Tokens::new(tokens).unwrap(), max_renewals).unwrap()
}

fn payment(reference: &str) -> Payment {
    Payment {
        method: "pix".into(),
        amount: "9.90".parse().unwrap(),
        currency: "BRL".parse().unwrap(),
        provider: "banco".into(),
        reference: Some(reference.into()),
    }
}

/// A user with 100 tokens and a way to spend them.
struct Account {
    db: Database,
    user: UserId,
    epoch: u64,
}

impl Account {
    async fn new() -> Self {
        let db = database().await;
        let user = db.user().await;
        let epoch = db.open(P0).await;
        let account = Self { db, user, epoch };
        account.credit(100, "start").await;
        account
    }

    async fn credit(&self, tokens: i64, key: &str) {
        let credit = Credit::new(GrantKind::Bonus, tokens, key);
        let outcome = self.db.store.credit(self.user, &credit).await.unwrap();
        assert!(matches!(outcome, CreditOutcome::Granted { .. }), "{outcome:?}");
    }

    async fn set(&self, enabled: bool, rule: RenewalRule, mode: RenewalMode) -> Renewed {
        let set =
            self.db.store.set_auto_renewal(self.user, &Expected::Any, enabled, rule, mode).await.unwrap();
        let AutoRenewalUpdate::Updated(_, renewed) = set else { panic!("{set:?}") };
        renewed
    }

    /// Spends, and says how many accounts the flush has marked.
    async fn spend(&self, tokens: i64, sequence: u64) -> usize {
        let settle = entry(self.user, &format!("r{sequence}"), Kind::Settle, tokens, sequence);
        self.db.flush(self.epoch, &[settle]).await.to_renew
    }

    async fn renew(&self) -> Renewed {
        self.db.store.renew(self.user).await.unwrap()
    }

    async fn total(&self) -> u64 {
        self.db.store.user(self.user).await.unwrap().unwrap().total_tokens
    }

    async fn renewals(&self, state: RenewalState) -> Vec<Renewal> {
        self.db.store.renewals(self.user, Some(state), None, 100).await.unwrap()
    }

    async fn to_check(&self) -> bool {
        self.db.store.renewals_to_check(10).await.unwrap() == [self.user]
    }

    async fn told(&self, kind: &str) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM user_events WHERE user_id = $1 AND kind = $2")
            .bind(self.user.0)
            .bind(kind)
            .fetch_one(&self.db.pool)
            .await
            .unwrap()
    }

    async fn confirm(&self, id: Uuid, payment: Option<&Payment>) -> Confirmation {
        self.db.store.confirm_renewal(self.user, id, payment).await.unwrap()
    }
}

fn granted(granted: u32) -> Renewed {
    Renewed { granted, ..Renewed::default() }
}

const REQUESTED: Renewed = Renewed { granted: 0, requested: true, capped: false };

#[tokio::test]
async fn at_the_threshold_tokens_are_added_once() {
    let account = Account::new().await;
    assert_eq!(account.set(true, rule(1_000, 3), RenewalMode::Immediate).await, granted(0));
    assert_eq!(account.spend(89, 1).await, 0, "11 of 100 are left");
    assert!(!account.to_check().await);
    assert_eq!(account.spend(1, 2).await, 1);
    assert_eq!(account.spend(1, 3).await, 0, "it is marked already");
    assert!(account.to_check().await);
    assert_eq!(account.renew().await, granted(1));
    assert_eq!(account.total().await, 1_100);
    assert!(!account.to_check().await);
    assert_eq!(account.renew().await, granted(0));

    let renewal = account.renewals(RenewalState::Granted).await.remove(0);
    assert_eq!((renewal.tokens, renewal.used_tokens, renewal.total_tokens), (1_000, 91, 100));
    let grant = account.db.store.grants(account.user, None, 1).await.unwrap().remove(0);
    assert_eq!((grant.kind, renewal.grant), (GrantKind::Renewal, Some(grant.id)));
    assert_eq!(grant.idempotency_key, format!("renewal:{}", renewal.id));
    assert_eq!(account.told("renewal.granted").await, 1);
    let checked = account.db.store.verify_audit(Extent::Whole, &[], &mut |_, _| {}).await.unwrap();
    assert!(checked.findings.is_empty(), "every grant is on record: {checked:?}");
    assert_eq!(account.spend(900, 4).await, 1, "and armed again");
}

#[tokio::test]
async fn twenty_looks_at_once_add_once() {
    let account = Account::new().await;
    account.set(true, rule(1_000, 3), RenewalMode::Immediate).await;
    account.spend(95, 1).await;
    let looks: Vec<_> = (0..20)
        .map(|_| {
            let (store, user) = (account.db.store.clone(), account.user);
            tokio::spawn(async move { store.renew(user).await.unwrap().granted })
        })
        .collect();
    let mut all = 0;
    for look in looks {
        all += look.await.unwrap();
    }
    assert_eq!((all, account.total().await), (1, 1_100));
}

#[tokio::test]
async fn a_gap_that_cannot_be_closed_ends_at_the_cap_and_is_told_once_a_month() {
    // Case 59: threshold 10, top-up 5, balance −100.
    let account = Account::new().await;
    account.set(true, rule(5, 3), RenewalMode::Immediate).await;
    assert_eq!(account.spend(200, 1).await, 1);
    assert_eq!(account.renew().await, Renewed { granted: 3, requested: false, capped: true });
    for sequence in 2..5 {
        assert_eq!(account.spend(1, sequence).await, 0, "only the next month helps");
        assert_eq!(account.renew().await, granted(0));
    }
    assert_eq!((account.total().await, account.told("renewal.capped").await), (115, 1));

    // The month ends: what was granted counts in another one.
    account.db.sql("UPDATE renewals SET month = '2001-01' WHERE user_id = $1", account.user).await;
    account
        .db
        .sql(
            "UPDATE auto_renewals SET capped_month = '2001-01', check_at = now() WHERE user_id = $1",
            account.user,
        )
        .await;
    assert!(account.to_check().await);
    assert_eq!(account.renew().await, Renewed { granted: 3, requested: false, capped: true });
    assert_eq!((account.total().await, account.told("renewal.capped").await), (130, 2));
}

#[tokio::test]
async fn a_capped_account_is_looked_at_again_within_the_hour() {
    let account = Account::new().await;
    account.set(true, rule(5, 0), RenewalMode::Immediate).await;
    account.spend(100, 1).await;
    assert_eq!(account.renew().await, Renewed { granted: 0, requested: false, capped: true });
    let soon: bool = sqlx::query_scalar(
        "SELECT check_at > now() AND check_at <= now() + interval '1 hour' FROM auto_renewals WHERE user_id = $1",
    )
    .bind(account.user.0)
    .fetch_one(&account.db.pool)
    .await
    .unwrap();
    assert!(soon);
}

#[tokio::test]
async fn a_purchase_that_came_first_is_seen() {
    // Case 62: at the very instant.
    let account = Account::new().await;
    account.set(true, rule(1_000, 3), RenewalMode::Immediate).await;
    assert_eq!(account.spend(95, 1).await, 1);
    account.credit(900, "bought").await;
    assert_eq!(account.renew().await, granted(0));
    assert_eq!(account.total().await, 1_000);
}

#[tokio::test]
async fn changing_the_settings_adds_nothing_by_itself() {
    // Case 62: the recurrence is not applied again; case 60: what was bought stays.
    let account = Account::new().await;
    account.set(true, rule(100, 3), RenewalMode::Immediate).await;
    account.spend(95, 1).await;
    assert_eq!(account.renew().await, granted(1));
    for (tokens, max) in [(500, 3), (100, 10), (1, 1)] {
        assert_eq!(account.set(true, rule(tokens, max), RenewalMode::Immediate).await, granted(0));
    }
    account.set(false, rule(100, 3), RenewalMode::Immediate).await;
    assert_eq!(account.set(true, rule(100, 3), RenewalMode::Immediate).await, granted(0));
    assert_eq!(account.total().await, 200);
    // What is due by the new settings is renewed at once: nobody may be able to spend until then.
    account.set(false, rule(100, 3), RenewalMode::Immediate).await;
    account.spend(105, 2).await;
    assert_eq!(account.renew().await, granted(0), "off is off");
    assert_eq!(account.set(true, rule(100, 3), RenewalMode::Immediate).await, granted(1));
    assert_eq!(account.total().await, 300);
}

#[tokio::test]
async fn settings_change_under_their_version() {
    let account = Account::new().await;
    let store = &account.db.store;
    let set = async |expected: Expected| {
        store
            .set_auto_renewal(account.user, &expected, true, rule(7, 2), RenewalMode::OnPayment)
            .await
            .unwrap()
    };
    let usual = store.auto_renewal(account.user).await.unwrap().unwrap();
    assert_eq!((usual.enabled, usual.version), (false, 0));
    assert_eq!(set(Expected::OneOf(vec![1])).await, AutoRenewalUpdate::Stale);
    let config = AutoRenewal { enabled: true, rule: rule(7, 2), mode: RenewalMode::OnPayment, version: 1 };
    assert_eq!(set(Expected::OneOf(vec![0])).await, AutoRenewalUpdate::Updated(config, Renewed::default()));
    assert_eq!(set(Expected::OneOf(vec![0])).await, AutoRenewalUpdate::Stale);
    assert_eq!(store.auto_renewal(account.user).await.unwrap(), Some(config));
    let nobody = UserId::generate();
    assert_eq!(store.auto_renewal(nobody).await.unwrap(), None);
    let refused =
        store.set_auto_renewal(nobody, &Expected::Any, true, rule(7, 2), RenewalMode::Immediate).await;
    assert_eq!(refused.unwrap(), AutoRenewalUpdate::UserNotFound);
}

#[tokio::test]
async fn one_request_waits_for_its_payment_and_twenty_confirmations_are_one_credit() {
    // Cases 55 and 59.
    let account = Account::new().await;
    account.set(true, rule(50, 2), RenewalMode::OnPayment).await;
    assert_eq!(account.spend(200, 1).await, 1);
    assert_eq!(account.renew().await, REQUESTED);
    for sequence in 2..5 {
        assert_eq!(account.spend(1, sequence).await, 0);
        assert_eq!(account.renew().await, Renewed::default());
    }
    let pending = account.renewals(RenewalState::Pending).await;
    assert_eq!((pending.len(), account.total().await), (1, 100));
    let id = pending[0].id;

    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (store, user) = (account.db.store.clone(), account.user);
            tokio::spawn(async move { store.confirm_renewal(user, id, Some(&payment("p-1"))).await.unwrap() })
        })
        .collect();
    let mut made = 0;
    for call in calls {
        match call.await.unwrap() {
            Confirmation::Granted { grant, .. } => {
                made += 1;
                assert_eq!(grant.payment, Some(payment("p-1")));
            }
            Confirmation::Replayed { grant, .. } => assert_eq!(grant.payment, Some(payment("p-1"))),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((made, account.total().await), (1, 150));
    // Still too little is left, so the next one is asked for; the cap ends it.
    let next = account.renewals(RenewalState::Pending).await.remove(0);
    assert_ne!(next.id, id);
    assert!(matches!(account.confirm(next.id, None).await, Confirmation::Granted { .. }));
    assert_eq!(account.renewals(RenewalState::Pending).await, []);
    assert_eq!((account.told("renewal.requested").await, account.told("renewal.capped").await), (2, 1));
    assert_eq!(account.total().await, 200);
}

#[tokio::test]
async fn a_confirmation_is_of_this_renewal_and_of_a_payment_of_its_own() {
    let account = Account::new().await;
    account.set(true, rule(1_000, 3), RenewalMode::OnPayment).await;
    account.spend(95, 1).await;
    account.renew().await;
    let id = account.renewals(RenewalState::Pending).await.remove(0).id;
    let stranger = account.db.user().await;
    let store = &account.db.store;
    assert_eq!(store.confirm_renewal(stranger, id, None).await.unwrap(), Confirmation::NotFound);
    assert_eq!(account.confirm(Uuid::now_v7(), None).await, Confirmation::NotFound);

    let bought = Credit { payment: Some(payment("p-1")), ..Credit::new(GrantKind::Purchase, 1, "k") };
    store.credit(stranger, &bought).await.unwrap();
    assert_eq!(account.confirm(id, Some(&payment("p-1"))).await, Confirmation::PaymentUsed);
    assert_eq!(account.renewals(RenewalState::Pending).await.len(), 1, "nothing was changed");
    assert!(matches!(account.confirm(id, Some(&payment("p-2"))).await, Confirmation::Granted { .. }));
    assert!(matches!(account.confirm(id, None).await, Confirmation::Replayed { .. }));
    assert_eq!(account.confirm(id, Some(&payment("p-3"))).await, Confirmation::Mismatch);
    assert_eq!(account.total().await, 1_100);
}

#[tokio::test]
async fn a_request_ends_when_it_is_not_paid_or_no_longer_wanted() {
    let account = Account::new().await;
    account.set(true, rule(1_000, 3), RenewalMode::OnPayment).await;
    account.spend(95, 1).await;
    account.renew().await;
    let first = account.renewals(RenewalState::Pending).await.remove(0);
    account.db.sql("UPDATE renewals SET expires_at = now() WHERE user_id = $1", account.user).await;
    account.db.sql("UPDATE auto_renewals SET check_at = now() WHERE user_id = $1", account.user).await;
    assert_eq!(account.renew().await, REQUESTED, "it is still due, and asked for anew");
    assert_eq!(account.confirm(first.id, None).await, Confirmation::Finished(RenewalState::Expired));

    let second = account.renewals(RenewalState::Pending).await.remove(0);
    account.set(false, rule(1_000, 3), RenewalMode::OnPayment).await;
    assert_eq!(account.confirm(second.id, None).await, Confirmation::Finished(RenewalState::Cancelled));
    assert_eq!(account.total().await, 100);
    // Requests that came to nothing do not count.
    assert_eq!(account.set(true, rule(1_000, 1), RenewalMode::Immediate).await, granted(1));
}

#[tokio::test]
async fn a_renewal_moves_the_alerts() {
    let account = Account::new().await;
    account.set(true, rule(1_000, 3), RenewalMode::Immediate).await;
    account.spend(100, 1).await;
    assert_eq!(account.db.store.alerts(account.user, Some(true), None, 10).await.unwrap().len(), 3);
    account.renew().await;
    let alerts = account.db.store.alerts(account.user, None, None, 10).await.unwrap();
    assert!(alerts.iter().all(|alert| alert.resolved.as_ref().is_some_and(|(_, by)| by == "renewal")));
}
