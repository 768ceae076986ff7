//! Reports as CSV: one table, whose first column says what a row is about.

use axum::response::Response;

use crate::{
    http::{csv::Csv, format},
    store::{ConsolidatedUser, Report},
};

const COLUMNS: [&str; 12] = [
    "section",
    "month",
    "name",
    "tokens",
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "overages",
    "cost_usd",
    "count",
    "provisional",
];

/// Sections: `total`; `model` and `day` by name; `late`, `granted` by kind; `closing_total`, `closing_used` and
/// `closing_remaining`.
pub fn of_report(report: &Report) -> Response {
    let mut csv = Csv::with_header(&COLUMNS);
    let sums = &report.sums;
    let of_use = |csv: &mut Csv, section: &str, name: Option<&str>, tokens: i64, rest: &[i64]| {
        begin(csv, report, section, name, tokens);
        for place in 0..5 {
            csv.optional_value(rest.get(place));
        }
    };
    let all = [sums.requests, sums.input_tokens, sums.output_tokens, sums.cached_tokens, sums.overages];
    of_use(&mut csv, "total", None, sums.tokens, &all);
    end(&mut csv, report, sums.cost_usd.as_deref(), None);
    for model in &report.models {
        let parts =
            [model.requests, model.input_tokens, model.output_tokens, model.cached_tokens, model.overages];
        of_use(&mut csv, "model", model.model.as_deref(), model.tokens, &parts);
        end(&mut csv, report, None, None);
    }
    for day in &report.days {
        of_use(&mut csv, "day", Some(&day.day.to_string()), day.tokens, &[day.requests]);
        end(&mut csv, report, None, None);
    }
    for grant in &report.grants {
        of_use(&mut csv, "granted", Some(&grant.kind), grant.tokens, &[]);
        end(&mut csv, report, None, Some(grant.grants));
    }
    for (section, tokens) in [
        ("late", report.late_tokens),
        ("closing_total", report.closing_total),
        ("closing_used", report.closing_used),
        ("closing_remaining", report.closing_total - report.closing_used),
    ] {
        of_use(&mut csv, section, None, tokens, &[]);
        end(&mut csv, report, None, None);
    }
    format::csv(&format!("report-{}-{}", report.user, report.month), csv.into_bytes())
}

fn begin(csv: &mut Csv, report: &Report, section: &str, name: Option<&str>, tokens: i64) {
    csv.text(section);
    csv.value(report.month);
    csv.optional_text(name);
    csv.value(tokens);
}

fn end(csv: &mut Csv, report: &Report, cost_usd: Option<&str>, count: Option<i64>) {
    csv.optional_value(cost_usd);
    csv.optional_value(count);
    csv.value(report.is_provisional);
    csv.end_row();
}

/// Of the report over all users.
pub const USER_COLUMNS: [&str; 9] = [
    "user_id",
    "external_id",
    "tokens",
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "overages",
    "provisional",
];

pub fn of_user(csv: &mut Csv, user: &ConsolidatedUser) {
    csv.value(user.user);
    csv.optional_text(user.external_id.as_deref());
    for number in
        [user.tokens, user.requests, user.input_tokens, user.output_tokens, user.cached_tokens, user.overages]
    {
        csv.value(number);
    }
    csv.value(user.is_provisional);
    csv.end_row();
}
