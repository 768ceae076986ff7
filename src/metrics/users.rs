//! The page of the busiest users: the one place where a user's id is a label. How many there are is bounded by who
//! fills the page.

use std::fmt::{Display, Write as _};

use super::{Kind, Metric};

/// The metrics of `/metrics/users`, as `docs/METRICS.md` lists them.
pub const PER_USER: [Metric; 3] = [
    Metric {
        name: "cota_user_settled_tokens_total",
        kind: Kind::Counter,
        labels: &["user_id"],
        help: "Tokens of a user that this replica wrote to Postgres, since the user came to this page; _other: of all others.",
    },
    Metric {
        name: "cota_user_transactions_total",
        kind: Kind::Counter,
        labels: &["user_id"],
        help: "The transactions they were settled in.",
    },
    Metric {
        name: "cota_user_last_settled_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &["user_id"],
        help: "When the last transaction was settled, in Unix time.",
    },
];

/// One user, or all others.
#[derive(Clone, Debug, PartialEq)]
pub struct UserRow {
    /// Must need no escaping in a label, as UUIDs and plain words do.
    pub id: String,
    pub tokens: u64,
    pub transactions: u64,
    /// Unix milliseconds by the clock of Redis.
    pub last_at_ms: u64,
}

/// The page in Prometheus' text format.
pub fn render_users(rows: &[UserRow]) -> String {
    let values: [fn(&UserRow) -> f64; 3] =
        [|row| row.tokens as f64, |row| row.transactions as f64, |row| row.last_at_ms as f64 / 1000.0];
    let mut page = String::with_capacity(1_000 + rows.len() * 300);
    for (metric, value) in PER_USER.iter().zip(values) {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        // Writing to a string cannot fail.
        let _ = write_metric(&mut page, metric, &kind, rows.iter().map(|row| (&row.id, value(row))));
    }
    page
}

fn write_metric(
    page: &mut String,
    metric: &Metric,
    kind: &str,
    samples: impl Iterator<Item = (impl Display, f64)>,
) -> std::fmt::Result {
    let Metric { name, help, .. } = metric;
    writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
    for (id, value) in samples {
        writeln!(page, "{name}{{user_id=\"{id}\"}} {value}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_in_the_text_format() {
        let row = |id: &str, tokens| UserRow {
            id: id.into(),
            tokens,
            transactions: 2,
            last_at_ms: 1_800_000_000_250,
        };
        let page = render_users(&[row("a", 9_007_199_254_740_991), row("_other", 0)]);
        let lines: Vec<&str> = page.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE cota_user_settled_tokens_total counter",
                "cota_user_settled_tokens_total{user_id=\"a\"} 9007199254740991",
                "cota_user_settled_tokens_total{user_id=\"_other\"} 0",
                "# TYPE cota_user_transactions_total counter",
                "cota_user_transactions_total{user_id=\"a\"} 2",
                "cota_user_transactions_total{user_id=\"_other\"} 2",
                "# TYPE cota_user_last_settled_timestamp_seconds gauge",
                "cota_user_last_settled_timestamp_seconds{user_id=\"a\"} 1800000000.25",
                "cota_user_last_settled_timestamp_seconds{user_id=\"_other\"} 1800000000.25",
            ]
        );
    }
}
