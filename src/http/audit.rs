//! What is on record about a user, and whether the record is whole.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Api,
    auth::{Admin, For, Own},
    openapi::{
        parameters::{AuditQuery, UserPath},
        schemas,
    },
    problem::Problem,
    request::Params,
    views::{Time, json},
};
use crate::{
    accounts::audit::NEWEST_ROWS,
    ledger::Outcome,
    store::{AuditRow, Finding, Verification},
};

#[derive(Serialize, ToSchema)]
#[schema(as = AuditRow)]
struct RowView<'a> {
    /// Its place in the chain of acts.
    number: u64,
    /// SHA-256 over the row and the hash of the one before it, in hexadecimal.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    hash: String,
    #[schema(value_type = schemas::Time)]
    at: Time,
    /// Subject of the JWT; `hmac:…` in the place of one that is an e-mail address; `cota` for the service itself.
    actor: &'a str,
    /// `user`, `gateway`, `admin` or `service`.
    actor_role: &'a str,
    /// What was done, such as `user.suspended`.
    action: &'a str,
    /// Facts that go with the action.
    #[schema(value_type = Object)]
    data: &'a RawValue,
}

impl<'a> From<&'a AuditRow> for RowView<'a> {
    fn from(row: &'a AuditRow) -> Self {
        Self {
            number: row.number,
            hash: hex(&row.hash),
            at: row.at.into(),
            actor: &row.actor,
            actor_role: &row.actor_role,
            action: &row.action,
            data: &row.data,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Serialize, ToSchema)]
#[schema(as = AuditRows)]
struct Page<'a> {
    rows: Vec<RowView<'a>>,
    /// Send it as `before` for the next page; null on the last one.
    #[schema(required)]
    next: Option<u64>,
}

/// List what is on record about a user
///
/// What was done to the account and its settings, and which calls about it were refused. In pages, newest first. The
/// user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/audit", operation_id = "listAudit", tag = "Audit",
    params(UserPath, AuditQuery),
    responses((status = 200, body = Page, description = "A page.")),
)]
pub async fn list(State(api): State<Api>, caller: For<Own>, mut query: Params) -> Result<Response, Problem> {
    let limit = query.take_limit()?;
    let before = query.take_parsed::<u64>("before")?;
    query.end()?;
    // One more than asked for tells whether there is a next page.
    let call = api.accounts.audit_of(caller.user, before, limit + 1);
    let mut rows = api.deadline().store(Outcome::None, call).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|last| last.number);
    Ok(json(StatusCode::OK, &Page { rows: rows.iter().map(Into::into).collect(), next }))
}

#[derive(Serialize, ToSchema)]
struct FindingView {
    /// Number of a partition; -1 is the chain of acts.
    chain: i16,
    /// The row of the chain where it shows.
    #[schema(required)]
    number: Option<u64>,
    what: String,
}

impl From<&Finding> for FindingView {
    fn from(finding: &Finding) -> Self {
        Self { chain: finding.chain, number: finding.number, what: finding.flaw.to_string() }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = AuditVerification)]
struct VerificationView {
    /// Nothing was found.
    sound: bool,
    /// How many of the newest rows of each chain were checked at most.
    newest: u32,
    /// Rows that were checked.
    rows: u64,
    /// Transactions that were checked against them.
    transactions: u64,
    findings: Vec<FindingView>,
    /// Findings beyond those.
    more_findings: u64,
}

impl From<&Verification> for VerificationView {
    fn from(found: &Verification) -> Self {
        Self {
            sound: found.is_sound(),
            newest: NEWEST_ROWS,
            rows: found.rows,
            transactions: found.transactions,
            findings: found.findings.iter().map(Into::into).collect(),
            more_findings: found.more,
        }
    }
}

/// Check the newest rows of the audit log
///
/// Every link, and every booked batch against the ledger. The whole log, grants and checkpoints are checked by
/// `cota audit verify`. Admins.
#[utoipa::path(
    get, path = "/v1/audit/verify", operation_id = "verifyAudit", tag = "Audit",
    responses((status = 200, body = VerificationView, description = "What was found.")),
)]
pub async fn verify(State(api): State<Api>, _: Admin, query: Params) -> Result<Response, Problem> {
    query.end()?;
    let found = api.deadline().store(Outcome::None, api.accounts.verify_newest_audit()).await?;
    if !found.is_sound() {
        tracing::error!(findings = found.findings.len() as u64 + found.more, "the audit log is not sound");
    }
    Ok(json(StatusCode::OK, &VerificationView::from(&found)))
}
