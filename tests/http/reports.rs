//! Monthly reports, of one user and of all, in every form; and the lists of anomalies.

use cota::quota::UserId;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Row;

use crate::support::{
    invariants::settle_down,
    service::{Answer, Service, send},
    world::until,
};

/// The running month by the clock of Postgres, in UTC, and the one before.
async fn months(service: &Service) -> (String, String) {
    let sql = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM') AS running,
                      to_char(date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 day', 'YYYY-MM') AS before";
    let row = sqlx::query(sql).fetch_one(service.world.database.pool()).await.unwrap();
    (row.get("running"), row.get("before"))
}

async fn debit(service: &Service, user: UserId, id: &str, tokens: u64, model: &str) {
    let body = json!({"id": id, "tokens": tokens, "model": model});
    service.post(&format!("/v1/users/{user}/debits"), &body).await.is(201);
    settle_down(&service.world).await;
}

async fn as_format(service: &Service, path: &str, jwt: &str, accept: &str) -> Answer {
    send(service.request(Method::GET, path, jwt).header("accept", accept)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_month_is_provisional_and_comes_in_three_forms() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    let own = service.user_jwt(user);
    debit(&service, user, "a", 70, "=cmd()").await;
    debit(&service, user, "b", 5, "<b>&\"bold\"</b>").await;
    let (running, before) = months(&service).await;
    let path = format!("/v1/users/{user}/reports/{running}");
    let report = service.get_as(&path, &own).await.is(200);
    let head = &report["report"];
    assert_eq!(
        (&head["provisional"], &head["tokens"], &head["requests"]),
        (&json!(true), &json!(75), &json!(2))
    );
    assert_eq!(head["closing"], json!({"total": 1_000, "used": 75, "remaining": 925}));
    assert_eq!((&head["granted_tokens"], &head["late_tokens"]), (&json!(1_000), &json!(0)));
    assert_eq!(report["models"][0]["model"], "=cmd()");
    assert_eq!(report["grants"], json!([{"kind": "bonus", "tokens": 1_000, "grants": 1}]));

    let csv = as_format(&service, &path, &own, "text/csv").await;
    assert_eq!((csv.status, csv.header("content-type")), (200, Some("text/csv; charset=utf-8")));
    assert!(csv.text.contains(&format!("\r\ntotal,{running},,75,2,0,0,0,0,,,true\r\n")), "{}", csv.text);
    assert!(csv.text.contains(&format!("\r\nmodel,{running},'=cmd(),70,1,")), "{}", csv.text);
    assert!(csv.text.contains(&format!("\r\ngranted,{running},bonus,1000,,,,,,,1,true\r\n")), "{}", csv.text);

    let page = as_format(&service, &path, &own, "text/html,application/xhtml+xml,*/*;q=0.8").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(page.text.contains("&lt;b&gt;&amp;&quot;bold&quot;&lt;/b&gt;"), "{}", page.text);
    assert!(!page.text.contains("<b>") && !page.text.contains("<script") && !page.text.contains("http"));
    assert!(page.text.contains("<html lang=\"en\">") && page.text.contains("Usage report"));
    // In the user's own language, whatever its browser asks for.
    service.world.sql("UPDATE user_accounts SET locale = 'pt-BR', external_id = '<i>ação</i>'").await;
    let page = send(service.request(Method::GET, &format!("{path}?format=html"), &own)).await;
    assert!(page.text.contains("<html lang=\"pt-BR\">") && page.text.contains("Relatório de uso"));
    assert!(page.text.contains("1.000") && page.text.contains("&lt;i&gt;ação&lt;/i&gt;"));

    let admin = service.admin_jwt();
    for (month, status, code) in [
        (before.as_str(), 404, "report_not_found"),
        ("9000-01", 404, "report_not_found"),
        ("2026-13", 422, "invalid_month"),
        ("2026-1", 422, "invalid_month"),
        ("x", 422, "invalid_month"),
    ] {
        let path = format!("/v1/users/{user}/reports/{month}");
        service.get_as(&path, admin).await.problem(status, code);
    }
    let refused = service.get_as(&format!("{path}?format=pdf"), admin).await.problem(422, "invalid_query");
    assert_eq!(refused["field"], "format");
    let nobody = UserId::generate();
    for rest in [format!("reports/{running}"), "reports".into(), "anomalies".into()] {
        service.get_as(&format!("/v1/users/{nobody}/{rest}"), admin).await.problem(404, "user_not_found");
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_has_ended_is_told_by_itself() {
    let service = Service::with(|config| config.usage.report_interval_ms = 50).await;
    let user = service.user(1_000).await;
    let (running, before) = months(&service).await;
    debit(&service, user, "a", 70, "m").await;
    // All of it was a month ago.
    let earlier = "UPDATE token_transactions
                   SET timestamp = date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '1 hour'";
    service.world.rewrite(earlier).await;
    service.world.sum_up_anew().await;
    let due = "UPDATE user_accounts SET created_at = created_at - interval '32 days',
                      reported_month = (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '2 months')::date";
    service.world.sql(due).await;
    let own = service.user_jwt(user);
    let path = format!("/v1/users/{user}/reports");
    let mut page = Value::Null;
    until("the month is told", async || {
        page = service.get_as(&path, &own).await.is(200);
        page["reports"][0]["month"] == json!(before)
    })
    .await;
    let report = &page["reports"][0];
    assert_eq!((&report["provisional"], &report["tokens"]), (&json!(false), &json!(70)));
    let full = service.get_as(&format!("{path}/{before}"), &own).await.is(200);
    assert_eq!(&full["report"], report);
    // The month that runs begins where that one ended.
    let now = service.get_as(&format!("{path}/{running}"), &own).await.is(200);
    assert_eq!((&now["report"]["tokens"], &now["report"]["provisional"]), (&json!(0), &json!(true)));
    assert_eq!(now["report"]["period_start"], report["period_end"]);
    let metrics = service.metrics().await;
    assert!(metrics.contains("cota_monthly_reports_total"), "{metrics}");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_listed_newest_first_in_pages() {
    let service = Service::start().await;
    let user = service.user(0).await;
    service
        .world
        .sql(
            "INSERT INTO monthly_reports (user_id, month, time_zone, period_start, period_end, tokens, requests,
                 input_tokens, output_tokens, cached_tokens, overages, late_tokens, granted_tokens, closing_total,
                 closing_used, models, days, grants)
             SELECT id, month, 'UTC', month, month + interval '1 month', 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, '[]', '[]', '[]'
             FROM user_accounts, generate_series(timestamp '2025-01-01', '2025-05-01', '1 month') AS month",
        )
        .await;
    let own = service.user_jwt(user);
    let (mut seen, mut before) = (Vec::new(), String::new());
    loop {
        let page = service.get_as(&format!("/v1/users/{user}/reports?limit=2{before}"), &own).await.is(200);
        let months = page["reports"].as_array().unwrap().iter();
        seen.extend(months.map(|report| report["month"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["2025-05", "2025-04", "2025-03", "2025-02", "2025-01"]);
    service.get_as(&format!("/v1/users/{user}/reports?before=x"), &own).await.problem(422, "invalid_query");
    service.world.sql("DELETE FROM monthly_reports").await;
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_all_users_at_once() {
    let service = Service::start().await;
    let (one, two) = (service.user(1_000).await, service.user(100).await);
    service.user(0).await;
    service.world.sql("UPDATE user_accounts SET external_id = '=1+1' WHERE total_tokens = 100").await;
    debit(&service, one, "a", 70, "m").await;
    debit(&service, two, "a", 100, "m").await;
    debit(&service, two, "b", 5, "n").await;
    let admin = service.admin_jwt();
    let report = service.get_as("/v1/reports/consolidated?limit=1", admin).await.is(200);
    let (running, _) = months(&service).await;
    assert_eq!(
        (&report["month"], &report["tokens"], &report["users"]),
        (&json!(running), &json!(175), &json!(2))
    );
    assert_eq!((&report["provisional"], &report["provisional_users"]), (&json!(true), &json!(3)));
    assert_eq!((&report["models"][0]["model"], &report["models"][0]["tokens"]), (&json!("m"), &json!(170)));
    let top = report["top_users"].as_array().unwrap();
    assert_eq!((top.len(), &top[0]["external_id"], &top[0]["tokens"]), (1, &json!("=1+1"), &json!(105)));
    let csv = as_format(&service, "/v1/reports/consolidated", admin, "text/csv").await;
    let lines: Vec<&str> = csv.text.split("\r\n").collect();
    assert_eq!((csv.status, lines.len()), (200, 1 + 3 + 1), "{}", csv.text);
    assert!(lines.contains(&&*format!("{two},'=1+1,105,2,0,0,0,0,true")), "{}", csv.text);
    let page = as_format(&service, "/v1/reports/consolidated", admin, "text/html").await;
    assert!(page.text.contains("All users") && page.text.contains("<td>=1+1</td>"), "{}", page.text);
    let earlier = service.get_as("/v1/reports/consolidated?month=2020-02", admin).await.is(200);
    assert_eq!((&earlier["tokens"], &earlier["models"]), (&json!(0), &json!([])));
    service.get_as("/v1/reports/consolidated?month=2020", admin).await.problem(422, "invalid_query");
    service.get_as("/v1/reports/consolidated?format=csv&limit=1", admin).await.problem(422, "invalid_query");

    let summary = service.get_as("/v1/summary", admin).await.is(200);
    assert_eq!(summary["users"], json!({"active": 3, "suspended": 0, "exhausted": 1}));
    assert_eq!(summary["tokens"], json!({"total": 1_100, "used": 175, "remaining": 925}));
    assert_eq!(summary["last_24_hours"], json!({"users": 2, "tokens": 175, "requests": 3, "anomalies": 0}));
    let own = service.user_jwt(one);
    for path in ["/v1/reports/consolidated", "/v1/summary", "/v1/anomalies"] {
        for jwt in [&*own, service.gateway_jwt()] {
            service.get_as(path, jwt).await.problem(403, "forbidden");
        }
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anomalies_are_listed_to_their_user_and_to_operators() {
    let service = Service::start().await;
    let (one, two) = (service.user(0).await, service.user(0).await);
    for n in 0..5 {
        let sql = "INSERT INTO anomalies (id, user_id, hour, time_zone, tokens, threshold_tokens, median_tokens,
                       mad_tokens, typical_tokens, samples)
                   VALUES ($1, $2, timestamptz '2026-01-01Z' + interval '1 hour' * $3, 'UTC', 10, 9, 8, 7, 6, 84)";
        let user = if n % 2 == 0 { one } else { two };
        let id = uuid::Uuid::now_v7();
        sqlx::query(sql).bind(id).bind(user.0).bind(n).execute(service.world.database.pool()).await.unwrap();
    }
    let own = service.user_jwt(one);
    let page = service.get_as(&format!("/v1/users/{one}/anomalies"), &own).await.is(200);
    let hours: Vec<&str> =
        page["anomalies"].as_array().unwrap().iter().map(|of| of["hour"].as_str().unwrap()).collect();
    assert_eq!(hours, ["2026-01-01T04:00:00.000Z", "2026-01-01T02:00:00.000Z", "2026-01-01T00:00:00.000Z"]);
    let (mut seen, mut before) = (0, String::new());
    loop {
        let page =
            service.get_as(&format!("/v1/anomalies?limit=2{before}"), service.admin_jwt()).await.is(200);
        seen += page["anomalies"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(seen, 5);
    service.finish().await;
}
