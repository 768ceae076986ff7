//! Purchases and adjustments: once per payment, and no more back than was charged.

use cota::{
    quota::{Kind, UserId, transaction_id},
    store::{Credit, CreditOutcome, GrantKind, Payment},
};
use uuid::Uuid;

use crate::scratch::{Database, P0, database, entry};

fn payment(amount: &str, reference: Option<&str>) -> Payment {
    Payment {
        method: "pix".into(),
        amount: amount.parse().unwrap(),
        currency: "BRL".parse().unwrap(),
        provider: "banco".into(),
        reference: reference.map(str::to_owned),
    }
}

fn purchase(tokens: i64, key: &str, payment: Payment) -> Credit {
    Credit { payment: Some(payment), ..Credit::new(GrantKind::Purchase, tokens, key) }
}

fn adjustment(tokens: i64, key: &str, transaction: Option<Uuid>) -> Credit {
    let reason = Some("why".to_owned());
    Credit { reason, transaction, ..Credit::new(GrantKind::Adjustment, tokens, key) }
}

impl Database {
    async fn total(&self, user: UserId) -> u64 {
        self.store.user(user).await.unwrap().unwrap().total_tokens
    }

    async fn outcome(&self, user: UserId, credit: &Credit) -> CreditOutcome {
        self.store.credit(user, credit).await.unwrap()
    }

    async fn granted(&self, user: UserId, credit: &Credit) {
        let outcome = self.outcome(user, credit).await;
        assert!(matches!(outcome, CreditOutcome::Granted { .. }), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_purchase_keeps_what_was_paid_exactly() {
    let db = database().await;
    let user = db.user().await;
    for (n, amount) in ["0", "19.9", "0.000000001", "999999999.999999999"].into_iter().enumerate() {
        db.granted(user, &purchase(1, &n.to_string(), payment(amount, Some(amount)))).await;
        let grant = db.store.grants(user, None, 1).await.unwrap().remove(0);
        assert_eq!(grant.payment, Some(payment(amount, Some(amount))), "{amount}");
    }
    db.granted(user, &Credit::new(GrantKind::Bonus, 1, "bonus")).await;
    assert_eq!(db.store.grants(user, None, 1).await.unwrap()[0].payment, None);
    let paid: String = sqlx::query_scalar("SELECT max(amount_paid)::text FROM credit_purchases")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(paid, "999999999.999999999");
}

#[tokio::test]
async fn a_payment_is_credited_once_whatever_the_key_and_whoever_the_user() {
    let db = database().await;
    let (user, other) = (db.user().await, db.user().await);
    db.granted(user, &purchase(100, "k", payment("9.90", Some("p-1")))).await;

    // Case 56: the provider tells it again, under a key of its own.
    for key in ["k", "l"] {
        let again = db.outcome(user, &purchase(100, key, payment("9.90", Some("p-1")))).await;
        let CreditOutcome::Replayed { grant, .. } = again else { panic!("{again:?}") };
        assert_eq!(grant.idempotency_key, "k");
    }
    for (who, credit, outcome) in [
        (user, purchase(100, "k", payment("9.91", Some("p-1"))), CreditOutcome::Mismatch),
        (user, purchase(100, "k", payment("9.90", Some("p-2"))), CreditOutcome::Mismatch),
        (user, Credit::new(GrantKind::Purchase, 100, "k"), CreditOutcome::Mismatch),
        (user, purchase(100, "m", payment("9.91", Some("p-1"))), CreditOutcome::PaymentUsed),
        (user, purchase(101, "m", payment("9.90", Some("p-1"))), CreditOutcome::PaymentUsed),
        (other, purchase(100, "k", payment("9.90", Some("p-1"))), CreditOutcome::PaymentUsed),
    ] {
        assert_eq!(db.outcome(who, &credit).await, outcome, "{credit:?}");
    }
    // Another provider's reference, and payments without one, are others.
    let elsewhere = Payment { provider: "card".into(), ..payment("9.90", Some("p-1")) };
    db.granted(other, &purchase(100, "k", elsewhere)).await;
    db.granted(user, &purchase(100, "n", payment("9.90", None))).await;
    db.granted(user, &purchase(100, "o", payment("9.90", None))).await;
    assert_eq!((db.total(user).await, db.total(other).await), (300, 100));
}

#[tokio::test]
async fn twenty_reports_of_one_payment_at_once_are_one_credit() {
    // Case 55, also when two users are told apart by nothing but the unique key.
    let db = database().await;
    let users = [db.user().await, db.user().await];
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let (store, user) = (db.store.clone(), users[n % 2]);
            let credit = purchase(100, &n.to_string(), payment("9.90", Some("p")));
            tokio::spawn(async move { store.credit(user, &credit).await.unwrap() })
        })
        .collect();
    let (mut granted, mut replayed, mut used) = (0, 0, 0);
    for call in calls {
        match call.await.unwrap() {
            CreditOutcome::Granted { .. } => granted += 1,
            CreditOutcome::Replayed { .. } => replayed += 1,
            CreditOutcome::PaymentUsed => used += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((granted, replayed, used), (1, 9, 10));
    assert_eq!(db.total(users[0]).await + db.total(users[1]).await, 100);
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM credit_purchases").fetch_one(&db.pool).await.unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn a_transaction_gives_back_what_it_charged_and_no_more() {
    // Case 51.
    let db = database().await;
    let (user, other) = (db.user().await, db.user().await);
    let epoch = db.open(P0).await;
    db.granted(user, &Credit::new(GrantKind::Bonus, 1_000, "start")).await;
    let spent = [
        entry(user, "a", Kind::Settle, 100, 1),
        entry(user, "b", Kind::Expiry, 20, 2),
        entry(user, "b", Kind::Correction, -15, 3),
    ];
    db.flush(epoch, &spent).await;
    let [settle, expiry, _] = spent.each_ref().map(|entry| entry.transaction_id());

    let refused = async |credit: &Credit, outcome: CreditOutcome| {
        assert_eq!(db.outcome(user, credit).await, outcome, "{credit:?}");
    };
    refused(&adjustment(101, "k", Some(settle)), CreditOutcome::Exceeds { limit: 100 }).await;
    db.granted(user, &adjustment(60, "k", Some(settle))).await;
    // Again, it is the same one; without the transaction it is another.
    assert!(matches!(
        db.outcome(user, &adjustment(60, "k", Some(settle))).await,
        CreditOutcome::Replayed { .. }
    ));
    refused(&adjustment(60, "k", None), CreditOutcome::Mismatch).await;
    refused(&adjustment(41, "l", Some(settle)), CreditOutcome::Exceeds { limit: 40 }).await;
    db.granted(user, &adjustment(40, "l", Some(settle))).await;
    refused(&adjustment(1, "m", Some(settle)), CreditOutcome::Exceeds { limit: 0 }).await;
    // What was given back by mistake is taken again, and then there is something to give back.
    db.granted(user, &adjustment(-30, "n", Some(settle))).await;
    db.granted(user, &adjustment(30, "o", Some(settle))).await;

    // An expiry and its correction were one charge of 5.
    refused(&adjustment(6, "p", Some(expiry)), CreditOutcome::Exceeds { limit: 5 }).await;
    db.granted(user, &adjustment(5, "p", Some(expiry))).await;

    let unknown = transaction_id(user, &spent[0].reservation, Kind::Debit);
    refused(&adjustment(1, "q", Some(unknown)), CreditOutcome::TransactionNotFound).await;
    let stranger = db.outcome(other, &adjustment(1, "q", Some(settle))).await;
    assert_eq!(stranger, CreditOutcome::TransactionNotFound, "another user's is none");
    assert_eq!(db.total(user).await, 1_105);
    assert_eq!(db.used(user).await, 105, "the ledger stays as it is");
    db.assert_no_drift().await;
}

#[tokio::test]
async fn twenty_reversals_of_one_transaction_at_once_give_back_what_it_charged() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    let spent = entry(user, "a", Kind::Settle, 50, 1);
    db.flush(epoch, std::slice::from_ref(&spent)).await;
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let store = db.store.clone();
            let credit = adjustment(10, &n.to_string(), Some(spent.transaction_id()));
            tokio::spawn(async move { store.credit(user, &credit).await.unwrap() })
        })
        .collect();
    let mut granted = 0;
    for call in calls {
        match call.await.unwrap() {
            CreditOutcome::Granted { .. } => granted += 1,
            CreditOutcome::Exceeds { limit: 0 } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(granted, 5);
    assert_eq!(db.total(user).await, 50);
}

#[tokio::test]
async fn an_adjustment_may_take_below_what_was_used_and_never_below_zero() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    db.granted(user, &Credit::new(GrantKind::Bonus, 100, "start")).await;
    db.flush(epoch, &[entry(user, "a", Kind::Settle, 80, 1)]).await;
    let below = db.outcome(user, &adjustment(-101, "k", None)).await;
    assert_eq!(below, CreditOutcome::Exceeds { limit: 100 });
    db.granted(user, &adjustment(-100, "k", None)).await;
    assert_eq!((db.total(user).await, db.used(user).await), (0, 80));
    assert_eq!(
        db.outcome(user, &adjustment(-1, "l", None)).await,
        CreditOutcome::Exceeds { limit: 0 },
        "nothing is left to take"
    );
}
