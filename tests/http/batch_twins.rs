//! A batch is equal to its operations called one by one: random sequences on an account and, singly, on its twin, whose
//! answers must be the same but for times and ids of the server's making. `COTA_TEST_SEED` runs one seed again.

use std::collections::VecDeque;

use cota::quota::UserId;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    service::{Answer, Service},
    world::until,
};

const SEEDS: u64 = 12;
const ROUNDS: usize = 6;
const ACCOUNTS: usize = 3;
const TOTAL: u64 = 300;

/// An operation without its account; of the members of its single call, and the id. Some are malformed.
fn operation(random: &mut StdRng, n: usize) -> Value {
    let id = format!("r{}", random.random_range(0..8));
    let tokens = random.random_range(0..120);
    let mut op = match random.random_range(0..12) {
        0..4 => json!({"op": "reserve", "id": id, "tokens": tokens, "model": "m"}),
        // The same numbers as others often enough to be a repeat.
        4 => json!({"op": "reserve", "id": id, "tokens": 10, "ttl_seconds": 900}),
        5..7 => json!({"op": "settle", "id": id, "tokens": tokens / 4}),
        7 => json!({"op": "settle", "id": id, "usage": "unknown"}),
        8 => json!({"op": "release", "id": id}),
        // Ever further into the future: whether an extend changes anything must not hang on a millisecond.
        9 => json!({"op": "extend", "id": id, "tokens": tokens, "ttl_seconds": 1_000 + n}),
        10 => json!({"op": "extend", "id": id, "used_tokens": tokens}),
        _ => json!({"op": "debit", "id": format!("d{}", random.random_range(0..4)), "tokens": tokens / 8}),
    };
    match random.random_range(0..20) {
        0 => op["tokens"] = json!(-1),
        1 => op["surprise"] = json!(true),
        _ => {}
    }
    op
}

/// As its single call.
async fn singly(service: &Service, user: UserId, operation: &Value) -> Answer {
    let mut body = operation.clone();
    let members = body.as_object_mut().unwrap();
    let op = members.remove("op").unwrap();
    let id = operation["id"].as_str().unwrap();
    let path = match op.as_str().unwrap() {
        "reserve" => format!("/v1/users/{user}/reservations"),
        "debit" => format!("/v1/users/{user}/debits"),
        verb => {
            members.remove("id");
            service.reservation(user, id, &format!("/{verb}"))
        }
    };
    service.post(&path, &body).await
}

/// Without what differs between two accounts and two moments.
fn timeless(mut body: Value) -> Value {
    for (part, name) in [
        ("reservation", "reserved_at"),
        ("reservation", "expires_at"),
        ("transaction", "settled_at"),
        ("transaction", "id"),
    ] {
        if let Some(part) = body.get_mut(part) {
            assert!(part[name].take().is_string(), "{name} of {part}");
        }
    }
    body
}

/// Changes both twins alike, and waits until Redis has heard of it.
async fn change(service: &Service, twins: [UserId; 2], random: &mut StdRng) {
    match random.random_range(0..4) {
        0 => {
            // Nobody has told this replica: the next reserve finds its policy stale.
            let sql = "UPDATE user_accounts SET policy_version = policy_version + 1, version = version + 1
                       WHERE id = ANY($1)";
            let ids = twins.map(|user| user.0).to_vec();
            sqlx::query(sql).bind(ids).execute(service.world.database.pool()).await.unwrap();
            until("Redis has the policy", async || {
                service.world.store.unsynced(10).await.unwrap().is_empty()
            })
            .await;
        }
        1 => {
            let verb = if random.random_bool(0.3) { "suspend" } else { "resume" };
            for user in twins {
                let path = format!("/v1/users/{user}/{verb}");
                let request = service.request(Method::POST, &path, service.admin_jwt());
                assert_eq!(service.send(request).await.is(200)["effective"], true);
            }
        }
        2 => {
            let key = format!("more-{}", random.random::<u64>());
            for user in twins {
                assert_eq!(service.credit(user, 50, &key).await.is(201)["effective"], true);
            }
        }
        _ => {}
    }
}

/// What both ways answered to one operation.
fn compare(seed: u64, operation: &Value, result: &Value, single: Answer) {
    let replayed = single.replayed();
    let retry_after = single.header("retry-after").map(str::to_owned);
    assert_eq!(result["status"], single.status, "seed {seed}: {operation}: {result} and {}", single.text);
    assert_eq!(timeless(result["body"].clone()), timeless(single.body), "seed {seed}: {operation}");
    assert_eq!(result["replayed"] == true, replayed, "seed {seed}: {operation}");
    assert_eq!(
        result["retry_after"].as_u64().map(|s| s.to_string()),
        retry_after,
        "seed {seed}: {operation}"
    );
}

async fn run(service: &Service, seed: u64) {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut twins = Vec::new();
    for _ in 0..ACCOUNTS {
        twins.push([service.user(TOTAL).await, service.user(TOTAL).await]);
    }
    for round in 0..ROUNDS {
        let length = random.random_range(1..100);
        let mut accounts = Vec::new();
        let mut operations = Vec::new();
        for n in 0..length {
            let account = random.random_range(0..ACCOUNTS);
            let mut operation = operation(random, round * 100 + n);
            accounts.push((account, operation.clone()));
            operation["user_id"] = json!(twins[account][0].to_string());
            operations.push(operation);
        }
        let mut results = VecDeque::from(service.batch(&operations).await);
        for (account, operation) in accounts {
            let single = singly(service, twins[account][1], &operation).await;
            compare(seed, &operation, &results.pop_front().unwrap(), single);
        }
        for twins in &twins {
            assert_eq!(service.balance(twins[0]).await, service.balance(twins[1]).await, "seed {seed}");
            change(service, *twins, random).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_equal_to_its_operations_one_by_one() {
    let service = Service::start().await;
    let one = std::env::var("COTA_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds: Vec<u64> = one.map_or_else(|| (0..SEEDS).map(|_| rand::random()).collect(), |seed| vec![seed]);
    for seed in seeds {
        println!("seed {seed}");
        run(&service, seed).await;
    }
    service.finish().await;
}
