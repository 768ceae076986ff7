//! A user's transactions: pages, filters, and the whole as CSV.

use std::collections::BTreeSet;

use cota::quota::UserId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    invariants::settle_down,
    service::{Service, send},
};

/// Debits, and waits until the ledger has it.
async fn debit(service: &Service, user: UserId, body: Value) {
    service.post(&format!("/v1/users/{user}/debits"), &body).await.is(201);
    settle_down(&service.world).await;
}

async fn history(service: &Service, user: UserId, query: &str) -> Value {
    let path = format!("/v1/users/{user}/history{query}");
    service.get_as(&path, &service.user_jwt(user)).await.is(200)
}

fn ids(page: &Value) -> Vec<String> {
    let rows = page["transactions"].as_array().unwrap().iter();
    rows.map(|row| row["reservation_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_listed_with_all_their_facts() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    assert_eq!(history(&service, user, "").await, json!({"transactions": [], "next": null}));
    service.reserve(user, "r-1", 10).await.is(201);
    let usage = json!({"input_tokens": 7, "output_tokens": 5, "cached_input_tokens": 3});
    let body = json!({"usage": usage, "model": "modelo-ç", "request_id": "req 1"});
    let settled = service.post(&service.reservation(user, "r-1", "/settle"), &body).await.is(200);
    settle_down(&service.world).await;
    let page = history(&service, user, "").await;
    let row = &page["transactions"][0];
    for name in ["id", "settled_at", "model", "flags", "cost_usd", "tokens"] {
        assert_eq!(row[name], settled["transaction"][name], "{name}");
    }
    assert_eq!((&row["kind"], &row["request_id"]), (&json!("settle"), &json!("req 1")));
    assert_eq!((&row["input_tokens"], &row["output_tokens"]), (&json!(7), &json!(5)));
    assert_eq!((&row["cached_input_tokens"], &row["flags"]), (&json!(3), &json!(["overage"])));
    let nobody = format!("/v1/users/{}/history", UserId::generate());
    service.get_as(&nobody, service.admin_jwt()).await.problem(404, "user_not_found");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_neither_repeat_nor_leave_out_a_row_while_rows_arrive() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    for n in 0..7 {
        debit(&service, user, json!({"id": format!("d{n}"), "tokens": 1})).await;
    }
    // Several at one time: their ids decide.
    service.world.rewrite("UPDATE token_transactions SET timestamp = date_trunc('hour', timestamp)").await;
    service.world.sum_up_anew().await;
    let (mut seen, mut query, mut pages) = (Vec::new(), String::from("?limit=2"), 0);
    loop {
        let page = history(&service, user, &query).await;
        seen.extend(ids(&page));
        pages += 1;
        // Newer than all of them, so that it is on none of the pages to come.
        debit(&service, user, json!({"id": format!("later{pages}"), "tokens": 1})).await;
        match page["next"].as_str() {
            Some(next) => query = format!("?limit=2&before={next}"),
            None => break,
        }
    }
    assert_eq!((pages, seen.len()), (4, 7), "{seen:?}");
    let expected: BTreeSet<String> = (0..7).map(|n| format!("d{n}")).collect();
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(ids(&history(&service, user, "?limit=500").await).len(), 11);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_are_by_time_model_and_kind() {
    let service = Service::start().await;
    let (user, other) = (service.user(1_000).await, service.user(1_000).await);
    for (n, model) in ["a", "b", "a", "b", "a"].iter().enumerate() {
        debit(&service, user, json!({"id": format!("d{n}"), "tokens": 1, "model": model})).await;
    }
    debit(&service, user, json!({"id": "d5", "tokens": 1})).await;
    debit(&service, other, json!({"id": "foreign", "tokens": 1, "model": "a"})).await;
    service.reserve(user, "r", 1).await.is(201);
    service.settle(user, "r", 1).await.is(200);
    settle_down(&service.world).await;
    // d<n> was n hours before now.
    let shift = "UPDATE token_transactions
                 SET timestamp = timestamp - interval '1 hour' * substr(reservation_id, 2, 1)::int
                 WHERE kind = 'debit' AND reservation_id <> 'foreign'";
    service.world.rewrite(shift).await;
    service.world.sum_up_anew().await;
    let all = history(&service, user, "").await;
    assert_eq!(ids(&all), ["r", "d0", "d1", "d2", "d3", "d4", "d5"]);
    let at = |n: usize| all["transactions"][n]["settled_at"].as_str().unwrap().to_owned();
    for (query, expected) in [
        ("?model=a".to_owned(), vec!["d0", "d2", "d4"]),
        ("?model=none".to_owned(), vec![]),
        ("?kind=settle".to_owned(), vec!["r"]),
        ("?kind=debit&model=b".to_owned(), vec!["d1", "d3"]),
        ("?kind=settle&model=b".to_owned(), vec![]),
        // The first instant is within, the last is not.
        (format!("?from={}", at(2)), vec!["r", "d0", "d1"]),
        (format!("?to={}", at(5)), vec!["d5"]),
        (format!("?from={}&to={}", at(5), at(3)), vec!["d3", "d4"]),
        (format!("?from={}&to={}&model=a", at(5), at(2)), vec!["d2", "d4"]),
    ] {
        assert_eq!(ids(&history(&service, user, &query).await), expected, "{query}");
    }
    // Pages go on within a filter.
    let first = history(&service, user, "?model=a&limit=1").await;
    let next = first["next"].as_str().unwrap();
    assert_eq!(ids(&history(&service, user, &format!("?model=a&limit=5&before={next}")).await), ["d2", "d4"]);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_filter_is_refused() {
    let service = Service::start().await;
    let user = service.user(1).await;
    for (query, field) in [
        ("?limit=0", "limit"),
        ("?limit=501", "limit"),
        ("?before=x", "before"),
        ("?from=yesterday", "from"),
        ("?from=1969-12-31T23:59:59Z", "from"),
        ("?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
        ("?from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z", "to"),
        ("?model=", "model"),
        ("?model=a%00b", "model"),
        ("?kind=reserve", "kind"),
        ("?format=xml", "format"),
        ("?format=csv&limit=5", "limit"),
        ("?other=1", "other"),
        ("?kind=debit&kind=settle", "kind"),
    ] {
        let path = format!("/v1/users/{user}/history{query}");
        let problem = service.get_as(&path, service.admin_jwt()).await.problem(422, "invalid_query");
        assert_eq!(problem["field"], field, "{query}");
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_history_comes_as_csv_that_is_no_formula() {
    let service = Service::start().await;
    let user = service.user(10_000).await;
    let first = json!({"id": "-1", "tokens": 3, "model": "=1+1", "request_id": "a,\"b\""});
    debit(&service, user, first).await;
    // More than one chunk of rows.
    for batch in 0..9 {
        let operations: Vec<Value> = (0..250)
            .map(|n| {
                let id = format!("b{batch}-{n}");
                json!({"op": "debit", "user_id": user.to_string(), "id": id, "tokens": 1})
            })
            .collect();
        service.batch(&operations).await;
    }
    settle_down(&service.world).await;
    let path = format!("/v1/users/{user}/history");
    let own = service.user_jwt(user);
    let asked = send(service.request(Method::GET, &format!("{path}?format=csv"), &own)).await;
    let accepted = send(service.request(Method::GET, &path, &own).header("accept", "text/csv")).await;
    assert_eq!((asked.status, &asked.text), (200, &accepted.text));
    assert_eq!(asked.header("content-type"), Some("text/csv; charset=utf-8"));
    let name = format!("attachment; filename=\"history-{user}.csv\"");
    assert_eq!(asked.header("content-disposition"), Some(&*name));
    let lines: Vec<&str> = asked.text.split("\r\n").collect();
    assert_eq!(
        lines[0],
        "id,settled_at,reservation_id,kind,tokens,model,request_id,input_tokens,output_tokens,\
         cached_input_tokens,cost_usd,flags"
    );
    assert_eq!((lines.len(), lines.last()), (1 + 2_251 + 1, Some(&"")));
    let rows: BTreeSet<&str> = lines[1..lines.len() - 1].iter().map(|line| &line[..36]).collect();
    assert_eq!(rows.len(), 2_251, "each row once");
    let oldest = lines[lines.len() - 2];
    assert!(oldest.contains(",'-1,debit,3,'=1+1,\"a,\"\"b\"\"\",,,,,"), "{oldest}");
    let nobody = format!("/v1/users/{}/history?format=csv", UserId::generate());
    service.get_as(&nobody, service.admin_jwt()).await.problem(404, "user_not_found");
    service.finish().await;
}
