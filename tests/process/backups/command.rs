//! What a backup is, what is refused, and what stays.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use cota::store::Task;

use super::{PASSWORD, backup, backups, command, cota, restore, run, tables, with_password, world};
use crate::support::{TempFolder, empty_database};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_private_and_has_its_checksum_and_old_ones_go() {
    let world = world().await;
    let url = world.config.postgres.url.expose();
    let folder = TempFolder::new();
    let first = backup(url, &folder).await;
    assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
    let name = first.file_name().unwrap().to_str().unwrap();
    let mut sums = Command::new("sha256sum");
    let sums = sums.arg("--check").arg(format!("{name}.sha256")).current_dir(&*folder).output().unwrap();
    assert!(sums.status.success(), "{sums:?}");
    assert!(cota(url, &["backup", "--check", first.to_str().unwrap()]).await.done().contains("is whole"));

    // What others have put there stays, and what was cut short goes.
    for strange in ["notes.txt", "cota-old.dump", "other.dump.draft"] {
        fs::write(folder.join(strange), "x").unwrap();
    }
    fs::write(folder.join(format!("{name}.draft")), "half").unwrap();
    let second = backup(url, &folder).await;
    let to = ["backup", "--keep", "2", "--to", folder.to_str().unwrap()];
    let said = cota(url, &to).await.done();
    assert!(said.contains(&format!("Removed {}", first.display())), "{said}");
    let left = backups(&folder);
    assert!(!left.contains(&first) && left.contains(&second));
    let mut names: Vec<String> =
        fs::read_dir(&*folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with("cota-cota_test"));
    names.sort();
    assert_eq!(names, ["cota-old.dump", "notes.txt", "other.dump.draft"]);
    // Two backups with their checksums, and what is not ours.
    assert_eq!(fs::read_dir(&*folder).unwrap().count(), 4 + names.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_are_one() {
    let world = world().await;
    let url = world.config.postgres.url.expose();
    let folder = TempFolder::new();
    let held = world.store.try_lock_task(Task::Backups).await.unwrap().unwrap();
    let to = ["backup", "--to", folder.to_str().unwrap()];
    cota(url, &to).await.refused("another process makes a backup");
    assert_eq!(fs::read_dir(&*folder).unwrap().count(), 0);
    held.release().await;
    cota(url, &to).await.done();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_or_would_overwrite_is_refused_and_nothing_is_changed() {
    let world = world().await;
    let url = world.config.postgres.url.expose();
    world.user(1_000).await;
    let folder = TempFolder::new();
    let good = backup(url, &folder).await;
    restore(url, &good).await.refused("is not empty");

    let bytes = fs::read(&good).unwrap();
    let sum = fs::read(good.with_extension("dump.sha256")).unwrap();
    let target = empty_database().await;
    let target_url = with_password(target.url());
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (name, bytes) in [("flipped", flipped), ("cut", bytes[..bytes.len() - 100].to_vec())] {
        let path = folder.join(format!("{name}.dump"));
        fs::write(&path, bytes).unwrap();
        restore(&target_url, &path).await.refused("to check the backup against");
        fs::write(path.with_extension("dump.sha256"), &sum).unwrap();
        restore(&target_url, &path).await.refused("is not what was written");
        let path = path.to_str().unwrap();
        cota(&target_url, &["backup", "--check", path]).await.refused("is not what was written");
    }
    let cut = folder.join("cut.dump");
    let without = ["restore", "--without-checksum", cut.to_str().unwrap()];
    cota(&target_url, &without).await.refused("pg_restore");
    assert_eq!(tables(&target).await, 0);
    restore(&target_url, &good).await.done();
    let users: i64 =
        sqlx::query_scalar("SELECT count(*) FROM user_accounts").fetch_one(target.pool()).await.unwrap();
    assert_eq!(users, 1);
}

/// Stands before the real pg_dump, and notes what it was called with.
fn impostor(folder: &Path, also: &str) -> String {
    let bin = Path::new("/usr/lib/postgresql").read_dir().unwrap().map(|e| e.unwrap().path().join("bin"));
    let bin = bin.max().unwrap();
    let log = folder.join("arguments");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{}\n[ \"$1\" = --version ] && also= || also='{also}'\nexec {}/pg_dump $also \"$@\"\n",
        log.display(),
        bin.display()
    );
    fs::write(folder.join("pg_dump"), script).unwrap();
    fs::set_permissions(folder.join("pg_dump"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(bin.join("pg_restore"), folder.join("pg_restore")).unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_lacks_something_is_none_and_arguments_hold_no_password() {
    let world = world().await;
    let url = world.config.postgres.url.expose();
    let folder = TempFolder::new();
    let good = backup(url, &folder).await;
    let programs = TempFolder::new();
    let path = impostor(&programs, "--exclude-table=grants");
    let mut lacking = command(url, &["backup", "--keep", "1", "--to", folder.to_str().unwrap()]);
    lacking.env("PATH", path);
    run(lacking).await.refused("lacks tables: public grants");
    assert_eq!(backups(&folder), [good], "the last good one stays");
    let called = fs::read_to_string(programs.join("arguments")).unwrap();
    assert!(called.contains("--format=custom") && !called.contains(PASSWORD), "{called}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_or_a_folder_it_says_so() {
    let folder = TempFolder::new();
    let nowhere = with_password("postgres://cota@127.0.0.1:1/cota");
    cota(&nowhere, &["backup", "--to", folder.to_str().unwrap()]).await.refused("Postgres");
    cota(&nowhere, &["restore", "nothing"]).await.refused("Postgres");
    cota(&nowhere, &["backup"]).await.refused("backup.directory");
    assert_eq!(fs::read_dir(&*folder).unwrap().count(), 0);
}

/// Backed up by the service's login, which owns nothing; restored by another owner, who is no superuser.
#[tokio::test(flavor = "multi_thread")]
async fn logins_without_rights_of_their_own_suffice_and_roles_and_policies_survive() {
    let world = world().await;
    let user = world.user(1_000).await;
    let folder = TempFolder::new();
    let name = uuid::Uuid::new_v4().simple().to_string();
    let (service, owner) = (format!("service_{name}"), format!("owner_{name}"));
    let target = empty_database().await;
    for sql in [
        format!("CREATE ROLE {service} LOGIN"),
        format!("CREATE ROLE {owner} LOGIN"),
        format!("GRANT cota_api TO {service}, {owner}"),
        format!("ALTER DATABASE {} OWNER TO {owner}", target.name()),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(target.pool()).await.unwrap();
    }
    let url_of = |login: &str, url: &str| with_password(url).replacen("//cota:", &format!("//{login}:"), 1);
    let made = backup(&url_of(&service, world.database.url()), &folder).await;
    restore(&url_of(&owner, target.url()), &made).await.done();
    let count = |settings: &'static str| {
        let sql = format!("{settings}; SET ROLE cota_api; SELECT count(*) FROM grants");
        let pool = target.pool().clone();
        async move {
            let mut connection = pool.acquire().await.unwrap().detach();
            for part in sql.split("; ").take(2) {
                sqlx::query(sqlx::AssertSqlSafe(part.to_owned())).execute(&mut connection).await.unwrap();
            }
            let sql = "SELECT count(*) FROM grants";
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut connection).await.unwrap()
        }
    };
    assert_eq!(count("SET cota.scope = 'service'").await, 1, "of {user}");
    assert_eq!(count("SET cota.scope = 'nobody'").await, 0, "row-level security holds");
    let owners: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(target.pool())
            .await
            .unwrap();
    assert_eq!(owners, [owner]);
}
