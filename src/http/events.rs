//! A user's balance and events as they happen: server-sent events (the HTML standard, section 9.2).

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until};
use utoipa::ToSchema;

use super::{
    Api,
    auth::{self, For, Own},
    bodies,
    code::Code,
    limits::Flight,
    openapi::{
        parameters::{EventQuery, LastEvent, UserPath},
        schemas,
    },
    problem::Problem,
    request::{NoBody, Params},
    views::{BalanceView, Time, json},
};
use crate::{
    ledger::{Account, Outcome},
    notify::{
        live::{Full, Watch},
        webhook::payload,
    },
    quota::UserId,
    store::UserStatus,
};

/// How often a stream says something at least. The listener cuts one of which nothing is taken for longer than twice
/// this.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How soon a client comes back by itself after the end of a stream.
const RETRY: &str = "retry: 2000\n\n";

/// Events that are read at a time.
const PAGE: u32 = 100;

/// Pause after a fault of Postgres.
const FAULT_PAUSE: Duration = Duration::from_millis(500);

/// How long a ticket is good.
const TICKET_SECONDS: u64 = 60;

/// Whoever may watch a user: by its JWT, or by a ticket. Its call runs until this is dropped.
pub struct Watcher {
    user: UserId,
    _caller: Caller,
}

/// What is held while the call runs.
#[expect(dead_code, reason = "holds the place of the call")]
enum Caller {
    Known(For<Own>),
    Ticket(Flight),
}

impl FromRequestParts<Api> for Watcher {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let ticket = match Params::from_request_parts(parts, api).await {
            Ok(mut query) if !parts.headers.contains_key(header::AUTHORIZATION) => query.take("ticket"),
            _ => None,
        };
        match ticket {
            None => {
                let caller = For::<Own>::from_request_parts(parts, api).await?;
                Ok(Self { user: caller.user, _caller: Caller::Known(caller) })
            }
            Some(ticket) => {
                let redeem = async {
                    let call = api.store.redeem_ticket(hash(&ticket));
                    api.deadline().store(Outcome::Unknown, call).await
                };
                let (user, flight) = auth::by_ticket(parts, api, redeem).await?;
                Ok(Self { user, _caller: Caller::Ticket(flight) })
            }
        }
    }
}

fn hash(ticket: &str) -> [u8; 32] {
    Sha256::digest(ticket.as_bytes()).into()
}

#[derive(Serialize, ToSchema)]
#[schema(as = EventTicket)]
struct Ticket<'a> {
    /// To be sent as `ticket` in the query of the stream, once.
    ticket: &'a str,
    /// It must be sent before.
    #[schema(value_type = schemas::Time)]
    expires_at: Time,
}

/// Get a ticket for the live stream
///
/// For browsers, whose `EventSource` sends no `Authorization`: the ticket opens the stream of this user once, within 60
/// seconds. The user and admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/events/ticket", operation_id = "issueEventTicket", tag = "Live",
    params(UserPath),
    request_body = bodies::Empty,
    responses((status = 201, body = Ticket, description = "A ticket.")),
)]
pub async fn ticket(State(api): State<Api>, caller: For<Own>, _: NoBody) -> Result<Response, Problem> {
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| {
        tracing::error!("the system gives no random bytes");
        Problem::new(Code::Internal)
    })?;
    let ticket = BASE64.encode(secret);
    let call = api.store.issue_ticket(caller.user, hash(&ticket), Duration::from_secs(TICKET_SECONDS));
    let expires_at = api.deadline().store(Outcome::Unknown, call).await?;
    let expires_at = expires_at.ok_or(Problem::new(Code::UserNotFound))?;
    Ok(json(StatusCode::CREATED, &Ticket { ticket: &ticket, expires_at: expires_at.into() }))
}

/// Watch a user live
///
/// Server-sent events: `balance` with the balance as it is, first of all and whenever it has changed, and every event of the
/// account under its kind (`alert.warning`, …), with its `id` and what a webhook carries as `data`. Both come within a second.
///
/// A client that sends `Last-Event-ID` (browsers do so when they come back by themselves), or `after` in the query, first
/// gets the events after that one; else events begin with the next. A stream ends after an hour, when the service stops,
/// and when nothing of it is taken. The user and admins; in the place of a JWT the query may have a `ticket`.
#[utoipa::path(
    get, path = "/v1/users/{id}/events", operation_id = "watchUser", tag = "Live",
    params(UserPath, EventQuery, LastEvent),
    responses((status = 200, content_type = "text/event-stream", body = String, description = "The stream.")),
    security(("jwt" = []), ("ticket" = [])),
)]
pub async fn watch(
    State(api): State<Api>,
    caller: Watcher,
    headers: HeaderMap,
    mut query: Params,
) -> Result<Response, Problem> {
    let user = caller.user;
    query.take("ticket");
    let asked = query.take("after");
    query.end()?;
    let after = match headers.get(LAST_EVENT_ID) {
        Some(value) => Some(event_id(value.to_str().ok(), "Last-Event-ID")?),
        None => asked.map(|text| event_id(Some(&text), "after")).transpose()?,
    };
    let last = api.deadline().store(Outcome::None, api.live.last_event(user)).await?;
    let last = last.ok_or(Problem::new(Code::UserNotFound))?;
    let watch = api.live.watch(user).map_err(|full| match full {
        Full::OfUser => Problem::new(Code::TooManyStreams),
        Full::InAll => Problem::new(Code::Overloaded),
    })?;
    let stream = Stream::new(api, watch, after.unwrap_or(last));
    let body = Body::from_stream(stream::unfold(stream, Stream::next));
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Proxies that gather answers (nginx) are told to pass this one on as it comes.
    let unbuffered = (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(([content_type, unbuffered], body).into_response())
}

const LAST_EVENT_ID: &str = "last-event-id";

fn event_id(text: Option<&str>, field: &'static str) -> Result<i64, Problem> {
    let digits = text.filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| Problem::new(Code::InvalidQuery).field(field))
}

/// The balance, when it has changed.
#[derive(Serialize)]
struct BalanceEvent {
    user_id: String,
    status: &'static str,
    balance: BalanceView,
}

/// A stream between two of its pieces. It holds nothing but its place: what it sends next it looks up when it is asked.
struct Stream {
    api: Api,
    watch: Watch,
    /// The last event that was sent.
    after: i64,
    /// The account as it was sent last.
    account: Option<Account>,
    pieces: VecDeque<Bytes>,
    keep_alive: Interval,
    ends_at: Instant,
}

impl Stream {
    fn new(api: Api, watch: Watch, after: i64) -> Self {
        let mut keep_alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ends_at = Instant::now() + api.live.longest();
        let pieces = VecDeque::from([Bytes::from_static(RETRY.as_bytes())]);
        Self { api, watch, after, account: None, pieces, keep_alive, ends_at }
    }

    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Some((Ok(piece), self));
            }
            let seen = *self.watch.seen.borrow_and_update();
            if seen.gone {
                return None;
            }
            self.look_at(seen.account);
            let failed = seen.last_event > self.after && !self.read_events().await?;
            if !self.pieces.is_empty() {
                continue;
            }
            let live = self.api.live.clone();
            tokio::select! {
                biased;
                () = live.closing() => return None,
                () = sleep_until(self.ends_at) => return None,
                _ = self.keep_alive.tick() => self.pieces.push_back(Bytes::from_static(b":\n\n")),
                () = sleep(FAULT_PAUSE), if failed => {}
                changed = self.watch.seen.changed(), if !failed => changed.ok()?,
            }
        }
    }

    fn look_at(&mut self, account: Option<Account>) {
        let Some(now) = account.filter(|now| self.account.as_ref() != Some(now)) else { return };
        self.account = Some(now);
        let status = if now.suspended { UserStatus::Suspended } else { UserStatus::Active };
        let event = BalanceEvent {
            user_id: self.watch.user.to_string(),
            status: status.as_str(),
            balance: (&now.balance).into(),
        };
        // Numbers and words: writing them cannot fail.
        let data = serde_json::to_string(&event).unwrap_or_default();
        self.pieces.push_back(format!("event: balance\ndata: {data}\n\n").into());
    }

    /// The next events; false when Postgres did not answer, `None` when this version cannot read them: the client may
    /// find another one.
    async fn read_events(&mut self) -> Option<bool> {
        let events = match self.watch.store().events_after(self.watch.user, self.after, PAGE).await {
            Ok(events) => events,
            Err(error) if error.is_retryable() => return Some(false),
            Err(error) => {
                tracing::error!(%error, "a live stream cannot go on");
                return None;
            }
        };
        for event in &events {
            self.after = event.id;
            // JSON as it is written here has no line breaks.
            let head = format!("id: {}\nevent: {}\ndata: ", event.id, event.kind.as_str());
            self.pieces.push_back([head.as_bytes(), &payload(event), b"\n\n"].concat().into());
        }
        Some(true)
    }
}
