//! What is watched, without a picture: a real Prometheus reads a real service that works, and is asked every query of
//! every dashboard and rule; the panels that read Postgres run on the real schema. What may be empty is listed, with
//! the reason.

mod dashboards;
mod prometheus;
mod quiet;
mod traffic;

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use serde_json::Value;
use sqlx::{Column, Row, TypeInfo};

use self::{
    dashboards::{Panel, Query, dashboards},
    prometheus::Prometheus,
};
use crate::support::world::until;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_every_dashboard_and_rule_has_an_answer() {
    let issuer = traffic::issuer().await;
    let service = traffic::service(&issuer).await;
    let prometheus = Prometheus::watching(service.metrics).await;
    let receivers = traffic::receivers().await;
    let user = traffic::drive(&service, &receivers).await;
    // Rates need two scrapes with something between them.
    until("the rules have seen the traffic", async || {
        traffic::more(&service, user).await;
        prometheus.has("cota:operation_seconds:p99_5m{verb=\"extend\"} > 0").await
            && prometheus.has("cota:user_tokens:rate5m > 0").await
            && prometheus.has("cota:reserve_slow:ratio_rate3d >= 0").await
            && prometheus.has("cota:reserve_errors:ratio_rate3d >= 0").await
            && prometheus.has("rate(cota_notification_attempt_seconds_count[1m]) > 0").await
            && prometheus.has("cota:flushed_rows:rate5m{result=\"inserted\"} > 0").await
    })
    .await;

    let mut wrong = rules_without_an_answer(&prometheus).await;
    for panel in dashboards() {
        for query in panel.queries(&user.to_string()) {
            let answer = match &query {
                Query::Prometheus(expression) => prometheus.answer(expression).await,
                Query::Postgres { sql, is_series } => rows(&service, sql, *is_series).await,
            };
            judge(&panel, &query, answer, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    quiet::all_are_used();
    assert_eq!(prometheus.firing().await, [] as [String; 0], "alerts on a service that is well");
    service.finish().await;
}

/// Notes what is wrong with an answer: an error, or emptiness without a reason to.
fn judge(panel: &Panel, query: &Query, answer: Result<bool, String>, wrong: &mut Vec<String>) {
    let name = format!("{}: {}", panel.dashboard, panel.title);
    match answer {
        Err(error) => wrong.push(format!("{name}: {error}\n{query:?}")),
        Ok(false) if !quiet::may_be_empty(&panel.dashboard, &panel.title) => {
            wrong.push(format!("{name}: no data\n{query:?}"));
        }
        Ok(_) => {}
    }
}

/// Rules that do not work, or have nothing to work on.
async fn rules_without_an_answer(prometheus: &Prometheus) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut recorded, mut alerts) = (0, 0);
    for rule in prometheus.rules().await {
        let name = rule["name"].as_str().unwrap().to_owned();
        if rule["health"] != "ok" {
            wrong.push(format!("{name}: {} {}", rule["health"], rule["lastError"]));
        }
        let expression = rule["query"].as_str().unwrap();
        if rule["type"] == "recording" {
            recorded += 1;
            if !prometheus.answer(&name).await.unwrap() && !quiet::may_be_empty("rules", &name) {
                wrong.push(format!("{name}: records nothing"));
            }
        } else {
            alerts += 1;
            // An alert on a healthy service has no answer; but what it looks at must be there.
            for metric in metrics_in(expression) {
                if !prometheus.has(&metric).await && !quiet::may_be_empty("alerts", &metric) {
                    wrong.push(format!("{name}: there is no {metric}"));
                }
            }
        }
    }
    assert!(recorded > 20 && alerts > 20, "{recorded} recording rules, {alerts} alerts");
    wrong
}

/// Names of metrics in an expression.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')))
        .filter(|word| {
            ["cota_", "cota:", "process_"].iter().any(|prefix| word.starts_with(prefix)) || *word == "up"
        })
        .map(str::to_owned)
        .collect()
}

/// Whether this query of a panel has rows; they are of the types that Grafana can draw.
async fn rows(
    service: &crate::support::service::Service,
    sql: &str,
    is_series: bool,
) -> Result<bool, String> {
    let pool = service.world.database.pool();
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(pool).await;
    let rows = rows.map_err(|error| error.to_string())?;
    let Some(row) = rows.first() else { return Ok(false) };
    for (index, column) in row.columns().iter().enumerate() {
        let kind = column.type_info().name();
        let fits = match (is_series, index) {
            (true, 0) => column.name() == "time" && kind == "TIMESTAMPTZ",
            (true, _) => kind == "FLOAT8" || (column.name() == "metric" && kind == "TEXT"),
            // Grafana takes an exact decimal for text.
            (false, _) => kind != "NUMERIC",
        };
        if !fits {
            return Err(format!("column {} is {kind}", column.name()));
        }
    }
    Ok(true)
}

/// Runs a program of the Prometheus package on the rules; it must be content.
fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(root()).output();
    let output = output.expect("promtool is missing (Debian: apt-get install prometheus; script/test does)");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}\n{text}");
}

#[test]
fn promtool_takes_the_configuration_and_the_rules_and_their_cases_hold() {
    promtool(&["check", "config", "deploy/prometheus/prometheus.yml"]);
    let names = |folder: &str| -> Vec<String> {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| format!("{folder}/{}", entry.unwrap().file_name().display())).collect();
        names.sort();
        assert!(!names.is_empty());
        names
    };
    for (command, folder) in [("check", "deploy/prometheus/rules"), ("test", "deploy/prometheus/tests")] {
        let names = names(folder);
        let mut arguments = vec![command, "rules"];
        arguments.extend(names.iter().map(String::as_str));
        promtool(&arguments);
    }
}

/// Prometheus' own text: how it says an answer.
fn is_answer(result: &Value) -> bool {
    let samples = result.as_array().into_iter().flatten();
    samples.filter_map(|sample| sample["value"][1].as_str()).any(|value| value != "NaN")
}
