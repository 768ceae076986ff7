//! What is watched: metrics, rules, alerts, dashboards and the runbook name each other rightly.

use std::collections::{BTreeMap, BTreeSet};

use cota::metrics::{self, Kind, Metric};

use super::{files, read};

const RULES: &str = "deploy/prometheus/rules";

/// What an operator wants to know of an alert.
const QUESTIONS: [&str; 5] = ["Means", "Impact", "Look", "Do", "Escalate"];

/// Rows of a table in a document: the first cell, in backquotes, and the whole line.
fn rows(document: &str) -> BTreeMap<String, String> {
    let first_cell = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    document.lines().filter_map(|line| Some((first_cell(line)?, line.to_owned()))).collect()
}

fn all_metrics() -> impl Iterator<Item = &'static Metric> {
    metrics::ALL.iter().chain(&metrics::PER_USER)
}

#[test]
fn every_metric_is_documented_as_it_is() {
    let document = read("docs/METRICS.md");
    let rows = rows(&document);
    for metric in all_metrics() {
        let row = rows.get(metric.name).unwrap_or_else(|| panic!("docs/METRICS.md lacks {}", metric.name));
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let expected = format!("| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help);
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            expected.split_whitespace().collect::<Vec<_>>()
        );
    }
    assert_eq!(rows.len(), all_metrics().count(), "docs/METRICS.md names a metric that is gone");
}

#[test]
fn metrics_are_named_in_one_place() {
    for (path, text) in files("src", "rs").into_iter().filter(|(path, _)| !path.starts_with("src/metrics")) {
        for kind in ["counter!(", "gauge!(", "histogram!("] {
            assert!(!text.contains(&format!("metrics::{kind}")), "{path}: record through crate::metrics");
        }
    }
}

/// The names of metrics in a text that may hold anything else.
fn names_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
        .filter(|word| word.starts_with("cota_"))
        .collect()
}

/// Whether Prometheus has a series of this name.
fn is_exported(name: &str) -> bool {
    all_metrics().any(|metric| match metric.kind {
        Kind::Histogram => ["_bucket", "_count", "_sum"]
            .iter()
            .any(|suffix| name.strip_suffix(suffix).is_some_and(|stem| stem == metric.name)),
        _ => metric.name == name,
    })
}

#[test]
fn rules_and_dashboards_ask_for_metrics_there_are() {
    let mut texts = files(RULES, "yml");
    texts.extend(files("deploy/prometheus/tests", "yml"));
    texts.extend(files("grafana/dashboards", "json"));
    for (path, text) in texts {
        let unknown: Vec<&str> = names_in(&text).into_iter().filter(|name| !is_exported(name)).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
}

/// Alerts by name, each with its lines.
fn alerts() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (path, text) in files(RULES, "yml") {
        for part in text.split("- alert: ").skip(1) {
            let (name, rest) = part.split_once('\n').unwrap();
            let end = rest.find("- alert: ").or_else(|| rest.find("- name: ")).unwrap_or(rest.len());
            assert!(found.insert(name.to_owned(), rest[..end].to_owned()).is_none(), "{path}: {name} twice");
        }
    }
    assert!(found.len() > 20, "{}", found.len());
    found
}

#[test]
fn every_alert_has_a_severity_and_its_section_in_the_runbook() {
    let document = read("docs/RUNBOOK.md");
    let mut sections: BTreeMap<&str, &str> = document
        .split("\n## ")
        .skip(1)
        .map(|section| section.split_once('\n').unwrap_or((section, "")))
        .collect();
    for (name, lines) in alerts() {
        assert!(
            lines.contains("severity: critical") || lines.contains("severity: warning"),
            "{name}: no severity"
        );
        assert!(lines.contains("summary: "), "{name}: no summary");
        let link = format!("runbook: docs/RUNBOOK.md#{}\n", name.to_lowercase());
        assert!(lines.contains(&link), "{name}: {link}");
        let section = sections.remove(&*name).unwrap_or_else(|| panic!("docs/RUNBOOK.md lacks {name}"));
        for question in QUESTIONS {
            assert!(section.contains(&format!("- **{question}**: ")), "docs/RUNBOOK.md, {name}: {question}");
        }
    }
    assert!(sections.is_empty(), "sections of alerts that are gone: {:?}", sections.keys());
}

#[test]
fn every_alert_is_tested_to_fire_and_to_stay_silent() {
    let tests = files("deploy/prometheus/tests", "yml").into_values().collect::<String>();
    for name in alerts().into_keys() {
        let cases: Vec<&str> =
            tests.split("- alertname: ").skip(1).filter(|case| case.lines().next() == Some(&*name)).collect();
        let silent = cases.iter().filter(|case| case.contains("exp_alerts: []")).count();
        assert!(silent > 0, "{name}: no case in which it stays silent");
        assert!(silent < cases.len(), "{name}: no case in which it fires");
    }
}
