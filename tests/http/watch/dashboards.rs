//! The dashboards in `grafana/dashboards/`, and their queries as Grafana would send them.

use std::fs;

use serde_json::Value;

use super::root;

/// A panel with queries.
#[derive(Debug)]
pub struct Panel {
    pub dashboard: String,
    pub title: String,
    targets: Vec<Value>,
    /// The dashboard's variables that are queries.
    variables: Vec<String>,
}

#[derive(Debug)]
pub enum Query {
    Prometheus(String),
    Postgres {
        sql: String,
        /// To be drawn over time.
        is_series: bool,
    },
}

/// All panels; a dashboard's variables come as a panel of their own.
pub fn dashboards() -> Vec<Panel> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("grafana/dashboards")).unwrap() {
        let path = entry.unwrap().path();
        let dashboard: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert_eq!(dashboard["uid"], format!("cota-{name}"), "links go by the name of the file");
        let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
        let queries = variables.filter(|variable| variable["type"] == "query");
        found.push(Panel {
            dashboard: name.clone(),
            title: "variables".into(),
            targets: Vec::new(),
            variables: queries.map(|variable| variable["query"].as_str().unwrap().to_owned()).collect(),
        });
        for panel in dashboard["panels"].as_array().unwrap() {
            let targets = panel["targets"].as_array().cloned().unwrap_or_default();
            assert!(panel["type"] == "row" || !targets.is_empty(), "{name}: {}", panel["title"]);
            let title = panel["title"].as_str().unwrap().to_owned();
            assert!(panel["type"] == "row" || title.ends_with('?'), "{name}: {title}: what does it answer?");
            found.push(Panel { dashboard: name.clone(), title, targets, variables: Vec::new() });
        }
    }
    assert!(found.len() > 80, "{}", found.len());
    found
}

impl Panel {
    /// Its queries, for this user.
    pub fn queries(&self, user: &str) -> Vec<Query> {
        let query = |target: &Value| match (target["expr"].as_str(), target["rawSql"].as_str()) {
            (Some(expression), _) => Query::Prometheus(for_prometheus(expression, user)),
            (_, Some(sql)) => {
                Query::Postgres { sql: for_postgres(sql, user), is_series: target["format"] == "time_series" }
            }
            _ => panic!("{}: {}: a target without a query", self.dashboard, self.title),
        };
        let variables = self.variables.iter();
        let of_variables =
            variables.map(|sql| Query::Postgres { sql: for_postgres(sql, user), is_series: false });
        self.targets.iter().map(query).chain(of_variables).collect()
    }
}

/// What Grafana fills in: a range of an hour, and a rate over four scrapes at least.
fn for_prometheus(expression: &str, user: &str) -> String {
    let filled =
        expression.replace("$__rate_interval", "1m").replace("$__range", "1h").replace("$user", user);
    assert!(!filled.contains('$'), "{filled}: a variable that this test does not know");
    filled
}

/// `$__timeFilter(column)` and the variables `who` and `user`, as text in quotes.
fn for_postgres(sql: &str, user: &str) -> String {
    let mut filled = String::new();
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once("$__timeFilter(") {
        let (column, after) = after.split_once(')').unwrap();
        filled += &format!("{before}{column} BETWEEN now() - interval '7 days' AND now()");
        rest = after;
    }
    filled += rest;
    let quoted = format!("'{user}'");
    let filled = filled.replace("${user:sqlstring}", &quoted).replace("${who:sqlstring}", &quoted);
    assert!(!filled.contains('$'), "{filled}: a macro that this test does not know");
    filled
}
