//! What was sent to a webhook endpoint.

use axum::{
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    auth::{For, Own},
    bodies,
    code::Code,
    openapi::{
        parameters::{DeliveryPath, DeliveryQuery, WebhookPath},
        schemas,
    },
    problem::Problem,
    request::{NoBody, Params},
    views::{Time, json},
    webhooks::{PathWebhook, path_part},
};
use crate::{
    ledger::Outcome,
    notify::webhook::event_id,
    store::{Delivery, DeliveryState},
};

/// The delivery in the path. One of the wrong form is nobody's.
pub struct PathDelivery(i64);

impl FromRequestParts<Api> for PathDelivery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let id = path_part(parts, api, "did").await.and_then(|id| id.parse().ok());
        id.map(Self).ok_or_else(|| Code::DeliveryNotFound.into())
    }
}

/// An event on its way to an endpoint.
#[derive(Serialize, ToSchema)]
#[schema(as = Delivery)]
struct DeliveryView<'a> {
    #[schema(value_type = schemas::DeliveryId)]
    id: i64,
    /// As its webhook says in `webhook-id`; the same in every attempt.
    event_id: String,
    /// The kind of the event.
    #[schema(value_type = String)]
    r#type: &'a str,
    #[schema(value_type = schemas::DeliveryState)]
    state: &'static str,
    /// Since it was queued, or last sent again on request.
    attempts: u32,
    #[schema(required, value_type = Option<schemas::Time>)]
    last_attempt_at: Option<Time>,
    /// What the receiver answered last; null when it did not.
    #[schema(required)]
    last_status: Option<u16>,
    /// Why there was no answer.
    #[schema(required)]
    last_error: Option<&'a str>,
    /// While it is pending.
    #[schema(required, value_type = Option<schemas::Time>)]
    next_attempt_at: Option<Time>,
    #[schema(value_type = schemas::Time)]
    created_at: Time,
}

impl<'a> From<&'a Delivery> for DeliveryView<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        Self {
            id: delivery.id,
            event_id: event_id(delivery.event_id),
            r#type: &delivery.kind,
            state: delivery.state.as_str(),
            attempts: delivery.attempts,
            last_attempt_at: delivery.last_attempt_at.map(Into::into),
            last_status: delivery.last_status,
            last_error: delivery.last_error.as_deref(),
            next_attempt_at: delivery.next_attempt_at.map(Into::into),
            created_at: delivery.created_at.into(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Deliveries)]
struct Page<'a> {
    deliveries: Vec<DeliveryView<'a>>,
    /// Send it as `before` for the next page; null on the last one.
    #[schema(required, value_type = Option<schemas::DeliveryId>)]
    next: Option<i64>,
}

/// List what was sent to a webhook endpoint
///
/// In pages, newest first; as far back as the operator keeps it (30 days). The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/webhooks/{wid}/deliveries", operation_id = "listDeliveries", tag = "Webhooks",
    params(WebhookPath, DeliveryQuery),
    responses((status = 200, body = Page, description = "A page.")),
)]
pub async fn list(
    State(api): State<Api>,
    caller: For<Own>,
    PathWebhook(id): PathWebhook,
    mut query: Params,
) -> Result<Response, Problem> {
    let limit = query.take_limit()?;
    let before = query.take_parsed::<i64>("before")?;
    let state = match query.take("state") {
        None => None,
        Some(word) => Some(
            DeliveryState::from_name(&word).ok_or_else(|| Problem::new(Code::InvalidQuery).field("state"))?,
        ),
    };
    query.end()?;
    // One more than asked for tells whether there is a next page.
    let call = api.endpoints.deliveries(caller.user, id, before, state, limit + 1);
    let mut deliveries = api.deadline().store(Outcome::None, call).await?;
    let more = deliveries.len() > limit as usize;
    deliveries.truncate(limit as usize);
    let next = deliveries.last().filter(|_| more).map(|last| last.id);
    Ok(json(StatusCode::OK, &Page { deliveries: deliveries.iter().map(Into::into).collect(), next }))
}

#[derive(Serialize, ToSchema)]
#[schema(as = OneDelivery)]
struct OneDelivery<'a> {
    delivery: DeliveryView<'a>,
}

/// Send a webhook again
///
/// As if it had never been sent, under the same `webhook-id`, whatever became of it. The user and admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/webhooks/{wid}/deliveries/{did}/resend", operation_id = "resendDelivery",
    tag = "Webhooks",
    params(DeliveryPath),
    request_body = bodies::Empty,
    responses((status = 202, body = OneDelivery, description = "It will be sent within moments.")),
)]
pub async fn resend(
    State(api): State<Api>,
    caller: For<Own>,
    PathWebhook(id): PathWebhook,
    PathDelivery(delivery): PathDelivery,
    _: NoBody,
) -> Result<Response, Problem> {
    let call = api.endpoints.resend(caller.user, id, delivery);
    let delivery = api.deadline().store(Outcome::Unknown, call).await?;
    Ok(json(StatusCode::ACCEPTED, &OneDelivery { delivery: (&delivery).into() }))
}
