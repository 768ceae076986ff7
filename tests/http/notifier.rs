//! Several replicas work off one queue; some of them die.

use std::{collections::BTreeMap, time::Duration};

use cota::{
    config::NotifyConfig,
    crypto::Keyring,
    notify::{Notifier, webhook::Sender},
    store::{EndpointCreation, NewEndpoint, Store},
};
use uuid::Uuid;

use crate::support::{
    receiver::{self, Receiver, Reply},
    world::{PATIENCE, World, until},
};

fn config() -> NotifyConfig {
    let mut config = NotifyConfig::default();
    receiver::configure(&mut config);
    config
}

fn notifier(store: &Store) -> Notifier {
    with(store, config())
}

fn with(store: &Store, config: NotifyConfig) -> Notifier {
    Notifier::new(store.clone(), Sender::new(&config).unwrap(), config)
}

/// Users with an endpoint and events each.
async fn prepare(world: &World, receiver: &Receiver, users: usize, events: i32) {
    for n in 0..users {
        let user = world.user(0).await;
        let url = receiver.url(&format!("/{n}"));
        let new = NewEndpoint { id: Uuid::now_v7(), url, kinds: None, secret: vec![1; 32] };
        let made = world.store.create_webhook(user, &new, 10).await.unwrap();
        assert!(matches!(made, EndpointCreation::Created(_)));
        sqlx::query(
            "INSERT INTO user_events (user_id, kind, data)
             SELECT $1, 'alert.warning', jsonb_build_object('n', n) FROM generate_series(1, $2) n",
        )
        .bind(user.0)
        .bind(events)
        .execute(world.database.pool())
        .await
        .unwrap();
    }
}

/// How often each event came.
fn arrivals(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut arrivals = BTreeMap::new();
    for webhook in receiver.received() {
        *arrivals.entry(webhook.id().to_owned()).or_default() += 1;
    }
    arrivals
}

async fn all_delivered(world: &World) -> bool {
    let left = "SELECT (SELECT count(*) FROM notifications WHERE state <> 'delivered')
                + (SELECT count(*) FROM user_events WHERE fanned_out_at IS NULL)";
    let left: i64 = sqlx::query_scalar(left).fetch_one(world.database.pool()).await.unwrap();
    left == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn each_notification_is_sent_once_by_many_replicas() {
    let world = World::start(0).await;
    let receiver = Receiver::start().await;
    prepare(&world, &receiver, 20, 10).await;
    // An answer that is too late for its sender is asked for again, however busy the machine is.
    let patient = NotifyConfig { webhook_timeout_ms: PATIENCE.as_millis() as u64, ..config() };
    let running: Vec<_> = (0..4).map(|_| with(&world.store, patient.clone()).start()).collect();
    until("all are delivered", async || all_delivered(&world).await).await;
    for notifier in running {
        notifier.stop().await;
    }
    let arrivals = arrivals(&receiver);
    assert_eq!(arrivals.len(), 200);
    assert!(arrivals.values().all(|times| *times == 1), "{arrivals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_replica_had_taken_on_is_sent_by_another() {
    let world = World::start(0).await;
    let receiver = Receiver::start().await;
    prepare(&world, &receiver, 5, 4).await;
    receiver.always(Reply { after: Duration::from_secs(60), ..Reply::status(204) });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = {
        let _entered = runtime.enter();
        Store::lazy(&world.config.postgres, &Keyring::of(&world.config.keys).unwrap()).unwrap()
    };
    runtime.spawn(async move {
        let running = notifier(&store).start();
        std::future::pending::<()>().await;
        running.stop().await;
    });
    // Delivered as far as the receiver is concerned, but whoever sent them never hears of it.
    receiver.has(20).await;
    runtime.shutdown_background();
    receiver.always(Reply::status(204));
    let running = notifier(&world.store).start();
    until("all are delivered", async || {
        // As time would: the leases of the dead end.
        world
            .sql("UPDATE notifications SET next_attempt_at = now() WHERE lease IS NOT NULL AND attempts = 1")
            .await;
        all_delivered(&world).await
    })
    .await;
    running.stop().await;
    let arrivals = arrivals(&receiver);
    assert_eq!(arrivals.len(), 20);
    assert!(arrivals.values().all(|times| *times >= 2), "again, under the same id: {arrivals:?}");
}
