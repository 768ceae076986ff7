//! Sums of usage: those of the ledger, whatever was booked and however often.

use cota::{
    quota::{Entry, Flags, Kind, Model, OutboxId, UserId},
    store::Booker,
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::scratch::{Database, P0, P1, RUN, booked, database, entry};

/// Rows of `usage_quarters` as (quarter in Unix seconds, model, tokens, requests, overages).
async fn quarters(db: &Database) -> Vec<(i64, String, i64, i64, i64)> {
    sqlx::query_as(
        "SELECT extract(epoch FROM quarter)::bigint, model, tokens, requests, overages
         FROM usage_quarters ORDER BY quarter, model",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn rows_are_summed_by_quarter_hour_and_model() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    let at = |entry: Entry, at_ms: u64| Entry { at_ms, ..entry };
    let of = |entry: Entry, model: &str| Entry { model: Some(Model::new(model).unwrap()), ..entry };
    let batch = [
        of(at(entry(user, "a", Kind::Settle, 10, 1), 900_000), "m"),
        of(at(entry(user, "b", Kind::Debit, 20, 2), 1_799_999), "m"),
        Entry { flags: Flags::OVERAGE, ..at(entry(user, "c", Kind::Settle, 40, 3), 1_799_999) },
        of(at(entry(user, "d", Kind::Expiry, 80, 4), 1_800_000), "m"),
    ];
    assert_eq!(db.flush(epoch, &batch).await, booked(4, 0, 0));
    // A correction of less counts where it was made, and no request.
    let correction = [of(at(entry(user, "d", Kind::Settle, 5, 5), 2_700_000), "m")];
    for inserted in [1, 0] {
        assert_eq!(db.flush(epoch, &correction).await, booked(inserted, 1 - inserted, 0));
    }
    let m = String::from("m");
    assert_eq!(
        quarters(&db).await,
        [
            (900, String::new(), 40, 1, 1),
            (900, m.clone(), 30, 2, 0),
            (1_800, m.clone(), 80, 1, 0),
            (2_700, m, -75, 0, 0)
        ]
    );
    db.assert_no_drift().await;
}

/// A batch of entries of a few users, ids and models, with repeats of what was booked before and amounts that the ledger
/// refuses.
fn batch(random: &mut StdRng, users: &[UserId], sequence: &mut u64, seen: &mut Vec<Entry>) -> Vec<Entry> {
    let kinds = [Kind::Settle, Kind::Settle, Kind::Debit, Kind::Expiry, Kind::Correction];
    let length = random.random_range(1..40);
    let mut batch: Vec<Entry> = Vec::new();
    for _ in 0..length {
        if random.random_bool(0.2)
            && let Some(again) = seen.choose(random)
        {
            batch.push(again.clone());
            continue;
        }
        *sequence += 1;
        let kind = *kinds.choose(random).unwrap();
        let least = if kind == Kind::Correction { -50 } else { 0 };
        let id = format!("r{}", random.random_range(0..60));
        let fresh =
            entry(*users.choose(random).unwrap(), &id, kind, random.random_range(least..100), *sequence);
        let models = [None, Some("a"), Some("b"), Some("ç")];
        batch.push(Entry {
            at_ms: 1_700_000_000_000 + random.random_range(0..7_200_000),
            flags: Flags(random.random_range(0..16)),
            model: models.choose(random).unwrap().map(|name| Model::new(name).unwrap()),
            input_tokens: random.random_bool(0.5).then(|| random.random_range(0..100)),
            output_tokens: random.random_bool(0.5).then(|| random.random_range(0..100)),
            cached_input_tokens: random.random_bool(0.5).then(|| random.random_range(0..100)),
            ..fresh
        });
        // Refused by the rules, and by Postgres itself.
        if random.random_bool(0.02) {
            *sequence += 1;
            batch.push(Entry {
                outbox_id: OutboxId { sequence: *sequence, nonce: 7 },
                ..entry(users[0], "never", Kind::Settle, -1, *sequence)
            });
        }
    }
    seen.extend(batch.iter().cloned());
    batch
}

#[tokio::test]
async fn sums_are_those_of_the_ledger_after_any_bookings() {
    for seed in 0..6 {
        let db = database().await;
        let users = [db.user().await, db.user().await, db.user().await];
        let epoch = db.open(P0).await;
        let (mut random, mut sequence, mut seen) = (StdRng::seed_from_u64(seed), 0, Vec::new());
        for _ in 0..12 {
            let batch = batch(&mut random, &users, &mut sequence, &mut seen);
            db.flush(epoch, &batch).await;
            db.assert_no_drift().await;
        }
        assert!(db.store.dead_letter_count().await.unwrap() > 0, "seed {seed} buries nothing");
        assert!(quarters(&db).await.len() > 20, "seed {seed}");
    }
}

/// 400 debits of two models within four days.
fn scattered(random: &mut StdRng, users: &[UserId]) -> Vec<Entry> {
    const DAY_MS: u64 = 86_400_000;
    (1..=400)
        .map(|n| {
            let user = users[random.random_range(0..users.len())];
            Entry {
                at_ms: random.random_range(0..4 * DAY_MS),
                model: Some(Model::new(["a", "b"][random.random_range(0..2)]).unwrap()),
                ..entry(user, &format!("r{n}"), Kind::Debit, 1 << (n % 40), n)
            }
        })
        .collect()
}

/// Of whole days and of what is left at the ends, also where a span has no whole day, or is empty.
#[tokio::test]
async fn any_span_is_summed_as_in_the_ledger() {
    let db = database().await;
    let (user, other) = (db.user().await, db.user().await);
    let epoch = db.open(P0).await;
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    db.flush(epoch, &scattered(&mut random, &[user, user, user, other])).await;
    for _ in 0..300 {
        let (start, length) = (random.random_range(0..5 * 96), random.random_range(0..3 * 96));
        let wrong: i64 = sqlx::query_scalar(
            "WITH span AS (SELECT to_timestamp($2::float8) AS starts, to_timestamp($3::float8) AS ends)
             SELECT count(*)
             FROM (SELECT u.* FROM span, cota_usage($1, span.starts, span.ends) u) sums
             FULL JOIN (
                 SELECT model_used AS model, sum(tokens_used)::bigint AS tokens, count(*) AS requests
                 FROM token_transactions, span
                 WHERE user_id = $1 AND timestamp >= span.starts AND timestamp < span.ends GROUP BY 1
             ) ledger USING (model)
             WHERE (sums.tokens, sums.requests) IS DISTINCT FROM (ledger.tokens, ledger.requests)",
        )
        .bind(user.0)
        .bind((start * 900) as f64)
        .bind(((start + length) * 900) as f64)
        .fetch_one(&db.pool)
        .await
        .unwrap();
        assert_eq!(wrong, 0, "seed {seed}: {length} quarter hours from {start}");
    }
    db.assert_no_drift().await;
}

/// Whether the spans have whole days in common, some, or none.
#[tokio::test]
async fn spans_of_many_are_summed_as_in_the_ledger() {
    let db = database().await;
    let users = [db.user().await, db.user().await, db.user().await, db.user().await];
    let epoch = db.open(P0).await;
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    db.flush(epoch, &scattered(&mut random, &users)).await;
    for _ in 0..300 {
        let (start, length, apart) =
            (random.random_range(0..192), random.random_range(0..288), random.random_range(1..200));
        let spread = users.map(|_| (random.random_range(0..apart), random.random_range(0..apart)));
        let starts = spread.map(|(first, _)| f64::from((start + first) * 900));
        let ends = spread.map(|(first, last)| f64::from((start + (first.max(last) + length)) * 900));
        // The last is not asked for.
        let wrong: i64 = sqlx::query_scalar(
            "WITH span AS (
                 SELECT u AS user_id, to_timestamp(s) AS starts, to_timestamp(e) AS ends
                 FROM UNNEST($1::uuid[], $2::float8[], $3::float8[]) AS x (u, s, e)
             )
             SELECT count(*)
             FROM (
                 SELECT user_id, model, sum(tokens)::bigint AS tokens, sum(requests)::bigint AS requests
                 FROM cota_usage_of(
                     (SELECT array_agg(user_id) FROM span), (SELECT array_agg(starts) FROM span),
                     (SELECT array_agg(ends) FROM span)
                 )
                 GROUP BY 1, 2
             ) sums
             FULL JOIN (
                 SELECT t.user_id, model_used AS model, sum(tokens_used)::bigint AS tokens, count(*) AS requests
                 FROM token_transactions t JOIN span USING (user_id)
                 WHERE timestamp >= span.starts AND timestamp < span.ends GROUP BY 1, 2
             ) ledger USING (user_id, model)
             WHERE (sums.tokens, sums.requests) IS DISTINCT FROM (ledger.tokens, ledger.requests)",
        )
        .bind(users[..3].iter().map(|user| user.0).collect::<Vec<_>>())
        .bind(&starts[..3])
        .bind(&ends[..3])
        .fetch_one(&db.pool)
        .await
        .unwrap();
        assert_eq!(wrong, 0, "seed {seed}: {starts:?} to {ends:?}");
    }
}

/// A row that Postgres refuses is in no sum, and takes no other with it.
#[tokio::test]
async fn what_is_bisected_out_is_in_no_sum() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    sqlx::query("ALTER TABLE token_transactions ADD CHECK (tokens_used <> 13)")
        .execute(&db.pool)
        .await
        .unwrap();
    let batch: Vec<Entry> =
        (0..20_i64).map(|n| entry(user, &format!("r{n}"), Kind::Settle, n, n as u64 + 1)).collect();
    assert_eq!(db.flush(epoch, &batch).await, booked(19, 0, 1));
    assert_eq!(quarters(&db).await, [(1_699_999_200, String::new(), 190 - 13, 19, 0)]);
    db.assert_no_drift().await;
}

/// Two flushers that meet the same keys in opposite orders (case 78).
#[tokio::test]
async fn bookings_at_once_over_the_same_keys_do_not_deadlock() {
    let db = database().await;
    let (one, other) = (db.user().await, db.user().await);
    let epochs = [db.open(P0).await, db.open(P1).await];
    let run = async |partition, epoch: u64, tag: &str, users: [UserId; 2]| {
        for round in 0..30_u64 {
            let entries: Vec<Entry> = users
                .iter()
                .enumerate()
                .map(|(n, user)| {
                    entry(*user, &format!("{tag}{round}-{n}"), Kind::Settle, 1, round * 2 + n as u64 + 1)
                })
                .collect();
            let by = Booker::Flusher { run_id: RUN, acked_up_to: 0 };
            db.store.book(partition, epoch, by, &entries, 0).await.unwrap();
        }
    };
    tokio::join!(run(P0, epochs[0], "a", [one, other]), run(P1, epochs[1], "b", [other, one]));
    assert_eq!(quarters(&db).await.iter().map(|row| row.2).sum::<i64>(), 120);
    db.assert_no_drift().await;
}
