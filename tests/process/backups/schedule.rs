//! Backups that the service makes by itself.

use cota::backup::{Backups, Keep};
use jiff::SignedDuration;

use super::{backups, cota, world};
use crate::{
    replica::Replica,
    support::{TempFolder, world::until},
};

#[tokio::test(flavor = "multi_thread")]
async fn replicas_make_them_in_turn_and_keep_as_many_as_they_should() {
    let mut world = world().await;
    let folder = TempFolder::new();
    world.config.backup.directory = Some(folder.to_owned());
    world.config.backup.interval_seconds = 1;
    world.config.backup.keep = 2;
    let replicas = [Replica::start(&world.config).await, Replica::start(&world.config).await];
    let mut seen = Vec::new();
    until("three backups have been made", async || {
        let new: Vec<_> = backups(&folder).into_iter().filter(|path| !seen.contains(path)).collect();
        seen.extend(new);
        seen.len() >= 3
    })
    .await;
    let mut written = 0;
    for replica in &replicas {
        let metrics = reqwest::get(&replica.metrics_url).await.unwrap().text().await.unwrap();
        let value = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse::<f64>().unwrap()
        };
        written += value("cota_backups_total{outcome=\"written\"}") as usize;
        assert_eq!(value("cota_backup_interval_seconds"), 1.0);
        assert_eq!(value("cota_backups_total{outcome=\"failed\"}"), 0.0);
    }
    assert!(written >= 2, "{written}");
    drop(replicas);
    let left = backups(&folder);
    assert!(left.len() <= 3, "two, and one that was just made: {left:?}");
    let newest = left.last().unwrap().to_str().unwrap();
    cota(world.config.postgres.url.expose(), &["backup", "--check", newest]).await.done();
}

/// Two replicas may both have seen that one is due.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_second_to_the_lock_finds_the_one_just_made() {
    let world = world().await;
    let folder = TempFolder::new();
    let keep = Keep { newest: 5, days: 0 };
    let backups = Backups::new(world.store.clone(), &world.config.postgres, &folder, keep).unwrap();
    let older_than = async |than| backups.make_if_older(than).await.unwrap().is_some();
    assert!(older_than(SignedDuration::from_hours(1)).await, "there is none yet");
    assert!(!older_than(SignedDuration::from_hours(1)).await);
    assert!(older_than(SignedDuration::ZERO).await);
}
