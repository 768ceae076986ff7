//! A user's transactions.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Api,
    auth::{For, Own},
    code::Code,
    csv::Csv,
    export::{self, Rows},
    format::Format,
    openapi::{
        parameters::{HistoryQuery, UserPath},
        schemas,
    },
    problem::Problem,
    request::Params,
    views::{Time, json},
};
use crate::{
    ledger::Outcome,
    quota::{Kind, Model},
    store::{HistoryFilter, HistoryKey, HistoryRow},
};

/// A transaction as the ledger keeps it.
#[derive(Serialize, ToSchema)]
#[schema(as = LedgerTransaction)]
struct RowView<'a> {
    id: Uuid,
    #[schema(value_type = schemas::ReservationId)]
    reservation_id: &'a str,
    #[schema(value_type = schemas::TransactionKind)]
    kind: &'static str,
    /// Negative only in a correction.
    tokens: i64,
    #[schema(required, value_type = Option<String>)]
    model: Option<&'a str>,
    #[schema(required, value_type = Option<String>)]
    request_id: Option<&'a str>,
    #[schema(required)]
    input_tokens: Option<i64>,
    #[schema(required)]
    output_tokens: Option<i64>,
    #[schema(required)]
    cached_input_tokens: Option<i64>,
    /// Known once there are prices.
    #[schema(required, value_type = Option<String>)]
    cost_usd: Option<&'a str>,
    #[schema(value_type = Vec<schemas::Flag>)]
    flags: Vec<&'static str>,
    #[schema(value_type = schemas::Time)]
    settled_at: Time,
}

impl<'a> From<&'a HistoryRow> for RowView<'a> {
    fn from(row: &'a HistoryRow) -> Self {
        Self {
            id: row.id,
            reservation_id: &row.reservation,
            kind: row.kind.as_str(),
            tokens: row.tokens,
            model: row.model.as_deref(),
            request_id: row.request_id.as_deref(),
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            cached_input_tokens: row.cached_tokens,
            cost_usd: row.cost_usd.as_deref(),
            flags: row.flags.names(),
            settled_at: row.at.into(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = History)]
struct Page<'a> {
    transactions: Vec<RowView<'a>>,
    /// Send it as `before` for the next page, with the same filters; null on the last one.
    #[schema(required, value_type = Option<schemas::HistoryCursor>)]
    next: Option<String>,
}

/// List a user's transactions
///
/// In pages, newest first; as CSV (`format=csv` or `Accept: text/csv`) all at once, without `limit` and `before`. Rows
/// that arrive while pages are read neither repeat nor hide others. The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/history", operation_id = "listHistory", tag = "Usage",
    params(UserPath, HistoryQuery),
    responses((
        status = 200, description = "A page, or as CSV all.",
        content((Page = "application/json"), (String = "text/csv; charset=utf-8")),
    )),
)]
pub async fn list(
    State(api): State<Api>,
    caller: For<Own>,
    headers: HeaderMap,
    mut query: Params,
) -> Result<Response, Problem> {
    let format = Format::wanted(&headers, &mut query, &[Format::Json, Format::Csv])?;
    let filter = filter(&mut query)?;
    if format == Format::Csv {
        query.end()?;
        let name = format!("history-{}", caller.user);
        return export::csv(&name, Whole { api, caller, filter }).await;
    }
    let limit = query.take_limit()?;
    let before = match query.take("before") {
        Some(cursor) => Some(parse(&cursor).ok_or(Problem::new(Code::InvalidQuery).field("before"))?),
        None => None,
    };
    query.end()?;
    // One more than asked for tells whether there is a next page.
    let call = api.accounts.history(caller.user, &filter, before, limit + 1);
    let mut rows = api.deadline().store(Outcome::None, call).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|last| cursor(last.key()));
    Ok(json(StatusCode::OK, &Page { transactions: rows.iter().map(Into::into).collect(), next }))
}

fn filter(query: &mut Params) -> Result<HistoryFilter, Problem> {
    let wrong = |name| Problem::new(Code::InvalidQuery).field(name);
    let (from, to) = (query.take_time("from")?, query.take_time("to")?);
    if from.is_some_and(|from| to.is_some_and(|to| from >= to)) {
        return Err(wrong("to"));
    }
    let model = query.take("model");
    if model.as_ref().is_some_and(|model| Model::new(model).is_err()) {
        return Err(wrong("model"));
    }
    let kind = match query.take("kind") {
        Some(word) => Some(Kind::from_name(&word).ok_or(wrong("kind"))?),
        None => None,
    };
    Ok(HistoryFilter { from, to, model, kind })
}

/// The key of a row as callers pass it on: microseconds and id, in hexadecimal digits.
fn cursor(key: HistoryKey) -> String {
    format!("{:016x}{}", key.at.as_microsecond(), key.id.simple())
}

fn parse(cursor: &str) -> Option<HistoryKey> {
    let is_hex = cursor.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let (at, id) = cursor.split_at_checked(16).filter(|(_, id)| is_hex && id.len() == 32)?;
    let micros = i64::from_str_radix(at, 16).ok()?;
    let at = Timestamp::from_microsecond(micros).ok()?;
    Some(HistoryKey { at, id: Uuid::try_parse(id).ok()? })
}

/// An example of a cursor, for the description.
pub fn example_cursor() -> String {
    cursor(HistoryKey { at: Timestamp::UNIX_EPOCH, id: Uuid::max() })
}

/// All rows of a user that pass the filter.
struct Whole {
    api: Api,
    caller: For<Own>,
    filter: HistoryFilter,
}

impl Rows for Whole {
    type Row = HistoryRow;

    const COLUMNS: &'static [&'static str] = &[
        "id",
        "settled_at",
        "reservation_id",
        "kind",
        "tokens",
        "model",
        "request_id",
        "input_tokens",
        "output_tokens",
        "cached_input_tokens",
        "cost_usd",
        "flags",
    ];
    const CHUNK: usize = 1_000;

    async fn read(&self, after: Option<&HistoryRow>) -> Result<Vec<HistoryRow>, Problem> {
        let after = after.map(HistoryRow::key);
        let call = self.api.accounts.history(self.caller.user, &self.filter, after, Self::CHUNK as u32);
        self.api.deadline().store(Outcome::None, call).await
    }

    fn write(csv: &mut Csv, row: &HistoryRow) {
        csv.value(row.id);
        csv.value(format_args!("{:.3}", row.at));
        csv.text(&row.reservation);
        csv.text(row.kind.as_str());
        csv.value(row.tokens);
        csv.optional_text(row.model.as_deref());
        csv.optional_text(row.request_id.as_deref());
        csv.optional_value(row.input_tokens);
        csv.optional_value(row.output_tokens);
        csv.optional_value(row.cached_tokens);
        csv.optional_value(row.cost_usd.as_deref());
        csv.text(&row.flags.names().join(" "));
        csv.end_row();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_has_one_spelling() {
        let at = Timestamp::from_microsecond(1_764_000_000_123_000).unwrap();
        let key = HistoryKey { at, id: Uuid::from_u128(0xabc) };
        let text = cursor(key);
        assert_eq!(parse(&text), Some(key));
        for other in
            ["", "0", &text[1..], &text.to_uppercase(), &format!("{text}0"), &format!("+{}", &text[1..])]
        {
            assert_eq!(parse(other), None, "{other}");
        }
        assert!(
            parse(&format!("{}{}", "7".repeat(16), "0".repeat(32))).is_none(),
            "no time of this calendar"
        );
        assert!(parse(&"é".repeat(24)).is_none());
    }
}
