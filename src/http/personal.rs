//! What a user can ask of an operator about itself: everything that is kept, and to be forgotten.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    Api,
    auth::{AdminOnly, For},
    code::Code,
    openapi::{parameters::UserPath, schemas},
    problem::Problem,
    request::{NoBody, Params},
    users::UserView,
    views::{Time, json},
};
use crate::ledger::Outcome;

/// Exports at once: each holds a connection to Postgres for as long as its reader takes.
pub const MAX_EXPORTS: usize = 2;

/// Of a deletion's time, what is left for its answer.
const MARGIN: Duration = Duration::from_millis(300);

#[derive(Serialize, ToSchema)]
#[schema(as = DeletedUser)]
struct DeletedView {
    #[schema(value_type = schemas::UserId)]
    id: String,
    /// Whether all that tells of the person is gone already; if not, it will be within the hour.
    erased: bool,
    /// Whether Redis refuses its reserves already; if not, it will within moments.
    effective: bool,
}

/// Delete a user
///
/// Address, external id, locale, zone, the reasons of its credits, metadata of its calls, webhooks and events are erased. Its
/// transactions and grants stay, as nobody's. Reserves are refused from now on; what is under way may still settle. The address
/// may be used again. May be repeated; it cannot be undone. Admins.
#[utoipa::path(
    delete, path = "/v1/users/{id}", operation_id = "deleteUser", tag = "Users",
    params(UserPath),
    request_body = super::bodies::Empty,
    responses((status = 200, body = DeletedView, description = "Deleted, now or before.")),
)]
pub async fn delete(State(api): State<Api>, caller: For<AdminOnly>, _: NoBody) -> Result<Response, Problem> {
    let deadline = api.deadline();
    let call = api.accounts.delete_user(caller.user, deadline.end - MARGIN);
    let done = deadline.store(Outcome::Unknown, call).await?;
    let id = caller.user.to_string();
    Ok(json(StatusCode::OK, &DeletedView { id, erased: done.erased, effective: done.effective }))
}

/// Shows in the description what [`export`] writes piece by piece.
#[derive(ToSchema)]
#[schema(as = Export)]
#[expect(dead_code, reason = "describes what is written, and is never made")]
struct ExportView<'a> {
    #[schema(value_type = schemas::Time)]
    exported_at: Time,
    user: UserView<'a>,
    /// By table, every row that is about the user, as it is in one snapshot. What is sealed is left out.
    #[schema(value_type = Object)]
    tables: Map<String, Value>,
}

/// Export everything that is kept of a user
///
/// One JSON document, sent as it is read; one that breaks off is no whole export. Two at once; a third is told to come
/// back. Admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/export", operation_id = "exportUser", tag = "Users",
    params(UserPath),
    responses((status = 200, body = ExportView, description = "Everything.")),
)]
pub async fn export(
    State(api): State<Api>,
    caller: For<AdminOnly>,
    query: Params,
) -> Result<Response, Problem> {
    query.end()?;
    let permit = api.exports.clone().try_acquire_owned().map_err(|_| Problem::new(Code::Overloaded))?;
    let user = api.deadline().store(Outcome::None, api.accounts.user(caller.user)).await?;
    let tables = api.deadline().store(Outcome::None, api.accounts.export(caller.user)).await?;
    let head = Head { exported_at: Timestamp::now().into(), user: (&user).into() };
    let mut head = serde_json::to_string(&head).map_err(|_| Problem::new(Code::Internal))?;
    // The document is written in pieces: its end comes last.
    head.truncate(head.len() - 1);
    head.push_str(",\"tables\":{");
    let pieces = stream::iter([Ok(head)]).chain(tables).chain(stream::iter([Ok("}}".to_owned())]));
    let pieces = pieces.map_ok(Bytes::from).map(move |piece| {
        let _held = &permit;
        if let Err(error) = &piece {
            tracing::warn!(%error, "an export broke off");
        }
        piece
    });
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(([content_type], Body::from_stream(pieces)).into_response())
}

#[derive(Serialize)]
struct Head<'a> {
    exported_at: Time,
    user: UserView<'a>,
}
