//! Monthly reports: told once, one after the other, and together the ledger.

use cota::{
    quota::{Entry, Kind, Model, UserId, period::Month},
    store::{Credit, GrantKind, Report, ReportPeriod, Reported},
};
use jiff::{Timestamp, tz::TimeZone};

use crate::scratch::{Database, P0, booked, database, entry};

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn period(text: &str, zone: &str) -> ReportPeriod {
    ReportPeriod::new(month(text), (zone.to_owned(), TimeZone::get(zone).unwrap()))
}

/// A settle at this time.
fn settle(user: UserId, id: &str, tokens: i64, sequence: u64, time: &str) -> Entry {
    let at_ms = u64::try_from(at(time).as_millisecond()).unwrap();
    let model = Some(Model::new("m").unwrap());
    Entry { at_ms, model, input_tokens: Some(3), ..entry(user, id, Kind::Settle, tokens, sequence) }
}

impl Database {
    /// A user of old, to whom nothing has been told.
    async fn user_of(&self, created_at: &str, reported: &str) -> UserId {
        let user = self.user().await;
        sqlx::query(
            "UPDATE user_accounts SET created_at = $2::timestamptz, reported_month = $3::date WHERE id = $1",
        )
        .bind(user.0)
        .bind(created_at)
        .bind(format!("{reported}-01"))
        .execute(&self.pool)
        .await
        .unwrap();
        user
    }

    async fn write(&self, user: UserId, period: &ReportPeriod) -> Report {
        assert_eq!(self.store.write_report(user, period).await.unwrap(), Reported::Written);
        self.store.monthly_report(user, period.month).await.unwrap().unwrap()
    }

    /// All that reports tell, and all that the ledger has up to the end of the last.
    async fn assert_told(&self, user: UserId) {
        let reports = self.store.monthly_reports(user, None, 100).await.unwrap();
        let told: i64 = reports.iter().map(|report| report.sums.tokens + report.late_tokens).sum();
        assert_eq!(told, reports[0].closing_used);
        for pair in reports.windows(2) {
            assert_eq!(pair[0].start, pair[1].end, "no time between reports, and none in two");
        }
    }
}

#[tokio::test]
async fn a_month_is_told_with_all_its_figures() {
    let db = database().await;
    let user = db.user_of("2026-09-10T00:00Z", "2026-08").await;
    let epoch = db.open(P0).await;
    let credit = |key: &str, tokens, kind| Credit {
        kind,
        tokens,
        idempotency_key: key.into(),
        reason: None,
        payment: None,
        transaction: None,
    };
    db.store.credit(user, &credit("a", 1_000, GrantKind::Purchase)).await.unwrap();
    db.store.credit(user, &credit("b", 50, GrantKind::Bonus)).await.unwrap();
    db.sql("UPDATE grants SET created_at = '2026-09-11T00:00Z' WHERE user_id = $1", user).await;
    db.store.credit(user, &credit("later", 7, GrantKind::Purchase)).await.unwrap();
    let batch = [
        settle(user, "a", 10, 1, "2026-09-10T09:00:00Z"),
        settle(user, "b", 20, 2, "2026-09-30T23:59:59.999Z"),
        Entry { model: None, ..settle(user, "c", 40, 3, "2026-09-30T23:00:00Z") },
        settle(user, "next", 80, 4, "2026-10-01T00:00:00Z"),
    ];
    assert_eq!(db.flush(epoch, &batch).await, booked(4, 0, 0));
    let september = period("2026-09", "UTC");
    let provisional = db.store.provisional_report(user, &september).await.unwrap().unwrap();
    assert!(provisional.is_provisional);
    let report = db.write(user, &september).await;
    let same = Report { is_provisional: false, produced_at: report.produced_at, ..provisional };
    assert_eq!(report, same, "what was written is what was shown before");
    assert_eq!((report.sums.tokens, report.sums.requests, report.sums.input_tokens), (70, 3, 9));
    assert_eq!((report.late_tokens, report.granted_tokens), (0, 1_050));
    assert_eq!((report.closing_total, report.closing_used), (1_050, 70));
    let models: Vec<_> = report.models.iter().map(|of| (of.model.as_deref(), of.tokens)).collect();
    assert_eq!(models, [(None, 40), (Some("m"), 30)]);
    let days: Vec<_> = report.days.iter().map(|of| (of.day.to_string(), of.tokens, of.requests)).collect();
    assert_eq!(days, [("2026-09-10".to_owned(), 10, 1), ("2026-09-30".to_owned(), 60, 2)]);
    let grants: Vec<_> = report.grants.iter().map(|of| (&*of.kind, of.tokens, of.grants)).collect();
    assert_eq!(grants, [("bonus", 50, 1), ("purchase", 1_000, 1)]);
    assert_eq!(db.store.write_report(user, &september).await.unwrap(), Reported::NotNext);
    assert_eq!(db.store.provisional_report(user, &september).await.unwrap(), None, "it is told");
    let told = "SELECT data FROM user_events WHERE user_id = $1 AND kind = 'report.ready'";
    let told: Vec<serde_json::Value> =
        sqlx::query_scalar(told).bind(user.0).fetch_all(&db.pool).await.unwrap();
    assert_eq!(told, [serde_json::json!({"month": "2026-09", "tokens": 70})]);
}

#[tokio::test]
async fn what_arrives_later_is_late_in_the_next() {
    let db = database().await;
    let user = db.user_of("2026-09-01T00:00Z", "2026-08").await;
    let epoch = db.open(P0).await;
    db.flush(epoch, &[settle(user, "a", 10, 1, "2026-09-10T00:00:00Z")]).await;
    assert_eq!(db.write(user, &period("2026-09", "UTC")).await.sums.tokens, 10);
    let more = [
        settle(user, "late", 5, 2, "2026-09-30T23:59:00Z"),
        settle(user, "b", 100, 3, "2026-10-02T00:00:00Z"),
    ];
    db.flush(epoch, &more).await;
    let october = db.write(user, &period("2026-10", "UTC")).await;
    assert_eq!((october.sums.tokens, october.late_tokens, october.closing_used), (100, 5, 115));
    // Later still, of both months: in the next it is late once.
    let more = [
        settle(user, "late2", 7, 4, "2026-09-01T00:00:00Z"),
        settle(user, "late3", 11, 5, "2026-10-31T23:59:59Z"),
        settle(user, "c", 1_000, 6, "2026-11-01T00:00:00Z"),
    ];
    db.flush(epoch, &more).await;
    let november = db.write(user, &period("2026-11", "UTC")).await;
    assert_eq!((november.sums.tokens, november.late_tokens, november.closing_used), (1_000, 18, 1_133));
    assert_eq!(
        db.store.monthly_report(user, month("2026-09")).await.unwrap().unwrap().sums.tokens,
        10,
        "as it was"
    );
    db.assert_told(user).await;
    assert_eq!(db.used(user).await, 1_133);
}

#[tokio::test]
async fn a_change_of_zone_leaves_no_gap_and_counts_nothing_twice() {
    let db = database().await;
    let user = db.user_of("2026-09-01T00:00Z", "2026-08").await;
    let epoch = db.open(P0).await;
    let batch = [
        settle(user, "a", 1, 1, "2026-10-01T02:59:00Z"),
        // October in São Paulo, and in Tokyo too.
        settle(user, "b", 10, 2, "2026-10-01T03:00:00Z"),
        settle(user, "c", 100, 3, "2026-10-31T14:59:59Z"),
        settle(user, "d", 1_000, 4, "2026-10-31T15:00:00Z"),
        // November in Los Angeles begins at 07:00 in UTC, and December at 08:00.
        settle(user, "e", 10_000, 5, "2026-12-01T07:59:59Z"),
        settle(user, "f", 100_000, 6, "2026-12-01T08:00:00Z"),
    ];
    db.flush(epoch, &batch).await;
    let mut told = Vec::new();
    for (text, zone) in [
        ("2026-09", "America/Sao_Paulo"),
        ("2026-10", "Asia/Tokyo"),
        ("2026-11", "America/Los_Angeles"),
        ("2026-12", "UTC"),
    ] {
        told.push(db.write(user, &period(text, zone)).await);
    }
    assert_eq!(told.iter().map(|report| report.sums.tokens).collect::<Vec<_>>(), [1, 110, 11_000, 100_000]);
    assert!(told.iter().all(|report| report.late_tokens == 0));
    assert_eq!(told[1].start, at("2026-10-01T03:00:00Z"));
    assert_eq!((told[2].start, told[2].end), (at("2026-10-31T15:00:00Z"), at("2026-12-01T08:00:00Z")));
    // By the calendar of Los Angeles, 15:00 of the 31st is still October.
    assert_eq!(told[2].days[0].day.to_string(), "2026-10-31");
    db.assert_told(user).await;
}

#[tokio::test]
async fn a_first_month_begins_with_the_account_and_months_before_it_are_no_reports() {
    let db = database().await;
    // Its October had begun where the months are counted from, in UTC, but not yet in Los Angeles.
    let user = db.user_of("2026-10-01T02:07Z", "2026-09").await;
    let epoch = db.open(P0).await;
    db.flush(epoch, &[settle(user, "a", 10, 1, "2026-10-01T02:08:00Z")]).await;
    let october = db.write(user, &period("2026-10", "America/Los_Angeles")).await;
    assert_eq!((october.sums.tokens, october.late_tokens), (10, 0));
    assert_eq!(
        (october.start, october.days[0].day.to_string()),
        (at("2026-10-01T02:00:00Z"), "2026-09-30".into())
    );
    // One that was made after a month that is due: told, and nothing is written.
    let young = db.user_of("2026-10-05T00:00Z", "2026-08").await;
    assert_eq!(db.store.write_report(young, &period("2026-09", "UTC")).await.unwrap(), Reported::Written);
    assert_eq!(db.store.monthly_report(young, month("2026-09")).await.unwrap(), None);
    assert_eq!(db.store.provisional_report(young, &period("2026-09", "UTC")).await.unwrap(), None);
    assert!(db.store.provisional_report(young, &period("2026-10", "UTC")).await.unwrap().is_some());
    // Months are told in their order.
    assert_eq!(db.store.write_report(young, &period("2026-12", "UTC")).await.unwrap(), Reported::NotNext);
    assert_eq!(
        db.store.write_report(UserId::generate(), &period("2026-10", "UTC")).await.unwrap(),
        Reported::NotNext
    );
}

#[tokio::test]
async fn a_month_after_one_that_is_not_told_yet_shows_its_own_use_alone() {
    let db = database().await;
    let user = db.user_of("2026-08-01T00:00Z", "2026-07").await;
    let epoch = db.open(P0).await;
    let batch = [
        settle(user, "a", 1, 1, "2026-08-10T00:00:00Z"),
        settle(user, "b", 10, 2, "2026-09-10T00:00:00Z"),
        settle(user, "c", 100, 3, "2026-10-10T00:00:00Z"),
    ];
    db.flush(epoch, &batch).await;
    for (text, tokens, used) in [("2026-08", 1, 1), ("2026-09", 10, 11), ("2026-10", 100, 111)] {
        let shown = db.store.provisional_report(user, &period(text, "UTC")).await.unwrap().unwrap();
        assert_eq!((shown.sums.tokens, shown.late_tokens, shown.closing_used), (tokens, 0, used), "{text}");
    }
}

#[tokio::test]
async fn ten_at_once_tell_a_month_once() {
    let db = database().await;
    let user = db.user_of("2026-09-01T00:00Z", "2026-08").await;
    let september = period("2026-09", "UTC");
    let told = futures_util::future::join_all((0..10).map(|_| db.store.write_report(user, &september))).await;
    let written = told.into_iter().filter(|one| matches!(one, Ok(Reported::Written))).count();
    assert_eq!(written, 1);
}

#[tokio::test]
async fn months_that_are_due_are_found_zone_by_zone() {
    let db = database().await;
    let (one, two) =
        (db.user_of("2026-08-01T00:00Z", "2026-07").await, db.user_of("2026-09-01T00:00Z", "2026-08").await);
    let tokyo = db.user_of("2026-08-01T00:00Z", "2026-08").await;
    db.sql("UPDATE user_accounts SET time_zone = 'Asia/Tokyo' WHERE id = $1", tokyo).await;
    assert_eq!(db.store.time_zones().await.unwrap(), ["Asia/Tokyo", "UTC"]);
    let due = async |zone: &'static str, last: &'static str| -> Vec<(UserId, String)> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = db.store.due_reports(zone, month(last), after, 1).await.unwrap();
            let Some(next) = page.last() else { return found };
            after = Some(*next);
            found.push((next.user, next.reported.to_string()));
        }
    };
    assert_eq!(due("UTC", "2026-09").await, [(one, "2026-07".into()), (two, "2026-08".into())]);
    assert_eq!(due("UTC", "2026-08").await, [(one, "2026-07".into())]);
    assert_eq!(due("UTC", "2026-07").await, []);
    assert_eq!(due("Asia/Tokyo", "2026-09").await, [(tokyo, "2026-08".into())]);
}

#[tokio::test]
async fn a_month_of_all_users_is_the_sum_of_theirs_told_or_not() {
    let db = database().await;
    let epoch = db.open(P0).await;
    let zones = [("told", "UTC"), ("not yet", "UTC"), ("far", "Asia/Tokyo"), ("idle", "UTC")];
    let mut users = Vec::new();
    for (n, (name, zone)) in zones.into_iter().enumerate() {
        let user = db.user_of("2026-09-01T00:00Z", "2026-08").await;
        sqlx::query("UPDATE user_accounts SET external_id = $2, time_zone = $3 WHERE id = $1")
            .bind(user.0)
            .bind(name)
            .bind(zone)
            .execute(&db.pool)
            .await
            .unwrap();
        if name != "idle" {
            let n = n as u64;
            // The second is October in Tokyo, and September elsewhere.
            let batch = [
                settle(user, "a", 1 << (2 * n), n * 2 + 1, "2026-09-10T00:00:00Z"),
                Entry { model: None, ..settle(user, "b", 100, n * 2 + 2, "2026-09-30T16:00:00Z") },
            ];
            db.flush(epoch, &batch).await;
        }
        users.push(user);
    }
    db.write(users[0], &period("2026-09", "UTC")).await;
    let spans = |text: &str| -> Vec<(String, Timestamp, Timestamp)> {
        let of = |zone: &str| {
            let period = period(text, zone);
            (zone.to_owned(), period.start, period.end)
        };
        ["UTC", "Asia/Tokyo"].into_iter().map(of).collect()
    };
    let september = db.store.consolidated(month("2026-09"), &spans("2026-09"), 2).await.unwrap();
    assert_eq!((september.users, september.provisional_users), (3, 3));
    assert_eq!((september.sums.tokens, september.sums.requests), (1 + 100 + 4 + 100 + 16, 5));
    let models: Vec<_> = september.models.iter().map(|of| (of.model.as_deref(), of.tokens)).collect();
    assert_eq!(models, [(None, 200), (Some("m"), 21)]);
    let top: Vec<_> = september.top.iter().map(|of| (of.external_id.as_deref(), of.tokens)).collect();
    assert_eq!(top, [(Some("not yet"), 104), (Some("told"), 101)]);
    assert_eq!(september.top.iter().map(|of| of.is_provisional).collect::<Vec<_>>(), [true, false]);
    let october = db.store.consolidated(month("2026-10"), &spans("2026-10"), 10).await.unwrap();
    assert_eq!((october.users, october.sums.tokens, october.top[0].user), (1, 100, users[2]));
    // User by user, idle ones too, in pages.
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = db.store.consolidated_users(month("2026-09"), &spans("2026-09"), after, 1).await.unwrap();
        let Some(one) = page.first() else { break };
        after = Some(one.user);
        listed.push((one.user, one.tokens, one.is_provisional));
    }
    let mut expected =
        vec![(users[0], 101, false), (users[1], 104, true), (users[2], 16, true), (users[3], 0, true)];
    expected.sort();
    assert_eq!(listed, expected);
}
