//! Reports as pages to read and print.

use axum::response::Response;
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::words::{Words, time};
use crate::{
    http::{
        html::{Html, Number},
        language::Language,
    },
    quota::period::Month,
    store::{Consolidated, DayUse, ModelUse, Report},
};

/// The page of a user's month; the user goes by the operator's own name for it, or by its id.
pub fn of_report(report: &Report, external_id: Option<&str>, language: Language) -> Response {
    let words = Words::of(language);
    let zone = TimeZone::get(&report.time_zone).unwrap_or(TimeZone::UTC);
    let mut html = Html::default();
    head(&mut html, words, report.month, report.is_provisional);
    html.raw("<p>").text(words.user).raw(": ");
    match external_id {
        Some(name) => {
            html.within("<strong>", name, "</strong> <span class=\"faint\">").text(report.user).raw("</span>")
        }
        None => html.within("<strong>", report.user, "</strong>"),
    };
    html.raw("</p><p>").text(words.period).raw(": ").text(time(report.start, &zone, language)).raw(" ");
    html.text(words.until).raw(" ").text(time(report.end, &zone, language)).raw(" (");
    html.text(&report.time_zone).raw(")</p></header>");
    note(&mut html, words, report.is_provisional);

    let sums = &report.sums;
    let mut figures = vec![
        (words.used, sums.tokens),
        (words.requests, sums.requests),
        (words.granted, report.granted_tokens),
        (words.remaining, report.closing_total - report.closing_used),
    ];
    if sums.overages > 0 {
        figures.push((words.overages, sums.overages));
    }
    if report.late_tokens != 0 {
        figures.push((words.late, report.late_tokens));
    }
    list(&mut html, &figures, language);
    if report.late_tokens != 0 {
        html.within("<p class=\"faint\">", words.late_note, "</p>");
    }
    html.within("<h2>", words.by_day, "</h2>");
    if report.days.is_empty() {
        html.within("<p>", words.nothing, "</p>");
    } else {
        chart(&mut html, report.month, &report.days, language);
    }
    models(&mut html, words, &report.models, language);
    grants(&mut html, words, report, language);
    foot(&mut html, words, report.produced_at, &zone, language);
    html.page(language, &format!("{} {}", words.report, report.month))
}

/// The page of a month over all users.
pub fn of_all(month: Month, report: &Consolidated, now: Timestamp, language: Language) -> Response {
    let words = Words::of(language);
    let is_provisional = report.provisional_users > 0;
    let mut html = Html::default();
    head(&mut html, words, month, is_provisional);
    html.within("<p><strong>", words.all_users, "</strong></p></header>");
    note(&mut html, words, is_provisional);
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut figures = vec![
        (words.used, report.sums.tokens),
        (words.requests, report.sums.requests),
        (words.users, count(report.users)),
        (words.overages, report.sums.overages),
    ];
    if is_provisional {
        figures.push((words.untold, count(report.provisional_users)));
    }
    if report.late_tokens != 0 {
        figures.push((words.late, report.late_tokens));
    }
    list(&mut html, &figures, language);
    models(&mut html, words, &report.models, language);
    if !report.top.is_empty() {
        html.within("<h2>", words.by_user, "</h2>");
        let heads = [words.user, words.tokens, words.requests, words.input, words.output, words.cached];
        table(&mut html, &heads, report.top.iter(), |html, user| {
            match &user.external_id {
                Some(name) => html.within("<td>", name, "</td>"),
                None => html.within("<td>", user.user, "</td>"),
            };
            [user.tokens, user.requests, user.input_tokens, user.output_tokens, user.cached_tokens]
                .into_iter()
                .for_each(|number| cell(html, number, language));
        });
    }
    foot(&mut html, words, now, &TimeZone::UTC, language);
    html.page(language, &format!("{} {month}", words.report))
}

fn head(html: &mut Html, words: &Words, month: Month, is_provisional: bool) {
    html.raw("<header><h1>").text(words.report).raw(": ").text(words.month(month));
    if is_provisional {
        html.within("<span class=\"badge\">", words.provisional, "</span>");
    }
    html.raw("</h1>");
}

fn note(html: &mut Html, words: &Words, is_provisional: bool) {
    if is_provisional {
        html.within("<p class=\"faint\">", words.provisional_note, "</p>");
    }
}

fn list(html: &mut Html, figures: &[(&str, i64)], language: Language) {
    html.raw("<dl class=\"figures\">");
    for (name, number) in figures {
        html.within("<div><dt>", name, "</dt>");
        html.within("<dd>", Number(*number, language), "</dd></div>");
    }
    html.raw("</dl>");
}

fn cell(html: &mut Html, number: i64, language: Language) {
    html.within("<td>", Number(number, language), "</td>");
}

fn table<T>(
    html: &mut Html,
    heads: &[&str],
    rows: impl Iterator<Item = T>,
    mut row: impl FnMut(&mut Html, T),
) {
    html.raw("<table><thead><tr>");
    for head in heads {
        html.within("<th>", head, "</th>");
    }
    html.raw("</tr></thead><tbody>");
    for of in rows {
        html.raw("<tr>");
        row(html, of);
        html.raw("</tr>");
    }
    html.raw("</tbody></table>");
}

fn models(html: &mut Html, words: &Words, models: &[ModelUse], language: Language) {
    if models.is_empty() {
        return;
    }
    html.within("<h2>", words.by_model, "</h2>");
    let heads = [words.model, words.tokens, words.requests, words.input, words.output, words.cached];
    table(html, &heads, models.iter(), |html, model| {
        html.within("<td>", model.model.as_deref().unwrap_or(words.no_model), "</td>");
        [model.tokens, model.requests, model.input_tokens, model.output_tokens, model.cached_tokens]
            .into_iter()
            .for_each(|number| cell(html, number, language));
    });
}

fn grants(html: &mut Html, words: &Words, report: &Report, language: Language) {
    if !report.grants.is_empty() {
        html.within("<h2>", words.grants, "</h2>");
        table(html, &[words.kind, words.count, words.tokens], report.grants.iter(), |html, grant| {
            html.within("<td>", words.kind(&grant.kind), "</td>");
            cell(html, grant.grants, language);
            cell(html, grant.tokens, language);
        });
    }
    html.within("<h2>", words.closing, "</h2>");
    let rows = [
        (words.total, report.closing_total),
        (words.used, report.closing_used),
        (words.remaining, report.closing_total - report.closing_used),
    ];
    html.raw("<table><tbody>");
    for (name, tokens) in rows {
        html.within("<tr><td>", name, "</td>");
        cell(html, tokens, language);
        html.raw("</tr>");
    }
    html.raw("</tbody></table>");
}

fn foot(html: &mut Html, words: &Words, produced: Timestamp, zone: &TimeZone, language: Language) {
    html.raw("<footer>").text(words.produced).raw(": ").text(time(produced, zone, language)).raw("</footer>");
}

const WIDTH: i64 = 840;
/// Height of the highest bar.
const HEIGHT: i64 = 130;
/// Above the bars: the number of the highest. Below: the days.
const TOP: i64 = 18;

/// Bars, one for each day of the period, with the height of what was used. Days that gave back show no bar.
fn chart(html: &mut Html, month: Month, days: &[DayUse], language: Language) {
    let most = days.iter().map(|day| day.tokens).max().unwrap_or(0).max(1);
    let first = days.first().map_or(month.first_day(), |day| day.day.min(month.first_day()));
    let all: Vec<Date> = std::iter::successors(Some(first), |day| {
        day.tomorrow().ok().filter(|next| month_or_before(*next, month))
    })
    .take(64)
    .collect();
    let step = WIDTH / i64::try_from(all.len().max(1)).unwrap_or(1);
    html.raw("<svg viewBox=\"0 0 840 170\" role=\"img\" aria-label=\"")
        .text(Words::of(language).by_day)
        .raw("\">");
    html.raw("<text x=\"0\" y=\"11\">").text(Number(most, language)).raw("</text>");
    html.raw("<line x1=\"0\" y1=\"").text(TOP).raw("\" x2=\"840\" y2=\"").text(TOP).raw("\"/>");
    html.raw("<line x1=\"0\" y1=\"")
        .text(TOP + HEIGHT)
        .raw("\" x2=\"840\" y2=\"")
        .text(TOP + HEIGHT)
        .raw("\"/>");
    for (place, day) in (0_i64..).zip(&all) {
        let tokens = days.iter().find(|of| of.day == *day).map_or(0, |of| of.tokens);
        // Wide enough for any sum; a day with any use shows.
        let height = i128::from(tokens.max(0)) * i128::from(HEIGHT) / i128::from(most);
        let height = i64::try_from(height).unwrap_or(HEIGHT).max(i64::from(tokens > 0));
        let x = place * step;
        if height > 0 {
            html.raw("<rect x=\"").text(x + 2).raw("\" y=\"").text(TOP + HEIGHT - height).raw("\" width=\"");
            html.text(step - 4).raw("\" height=\"").text(height).raw("\"><title>").text(day).raw(": ");
            html.text(Number(tokens, language)).raw("</title></rect>");
        }
        html.raw("<text text-anchor=\"middle\" x=\"")
            .text(x + step / 2)
            .raw("\" y=\"")
            .text(TOP + HEIGHT + 15);
        html.raw("\">").text(day.day()).raw("</text>");
    }
    html.raw("</svg>");
}

fn month_or_before(day: Date, month: Month) -> bool {
    day <= month.first_day().last_of_month()
}
