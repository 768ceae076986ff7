//! What answers look like.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{code::Code, openapi::schemas, problem::Problem};
use crate::{
    ledger::Done,
    quota::{Balance, Reservation, Transaction},
};

/// Writes `body` straight to bytes.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let mut bytes = Vec::with_capacity(512);
    match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => {
            let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            (status, [content_type], bytes).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be written");
            Problem::new(Code::Internal).into_response()
        }
    }
}

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The status of a call that was answered with `first` when it was made: a replay makes nothing.
pub fn status(replayed: bool, first: StatusCode) -> StatusCode {
    if replayed { StatusCode::OK } else { first }
}

/// As [`json`]; a replay says so in its header and has its own [`status`].
pub fn replayable(replayed: bool, first: StatusCode, body: &impl Serialize) -> Response {
    let mut response = json(status(replayed, first), body);
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// A time, RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Time(Timestamp);

impl Time {
    /// `None` for what is no time of this calendar.
    pub fn from_ms(ms: u64) -> Option<Self> {
        i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(Self)
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.3}", self.0))
    }
}

/// `available` is `total` − `used` − `reserved`.
#[derive(Serialize, ToSchema)]
#[schema(as = Balance)]
pub struct BalanceView {
    /// All that was granted.
    total: u64,
    /// All that was charged.
    used: u64,
    /// What pending reservations hold.
    reserved: u64,
    /// What can be reserved; below zero after an overage.
    available: i64,
}

impl From<&Balance> for BalanceView {
    fn from(balance: &Balance) -> Self {
        let Balance { total, used, reserved } = *balance;
        Self { total, used, reserved, available: balance.available() }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Reservation)]
pub struct ReservationView<'a> {
    #[schema(value_type = schemas::ReservationId)]
    id: &'a str,
    #[schema(value_type = schemas::ReservationState)]
    state: &'static str,
    /// What was held.
    tokens: u64,
    /// What the running call has reported as used.
    used_tokens: u64,
    /// What was charged, by settle or by expiry; null while nothing is.
    #[schema(required)]
    charged_tokens: Option<u64>,
    #[schema(required, value_type = Option<String>)]
    model: Option<&'a str>,
    /// As it was sent; absent when none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = schemas::Metadata)]
    metadata: Option<&'a RawValue>,
    #[schema(required, value_type = Option<schemas::Time>)]
    reserved_at: Option<Time>,
    #[schema(required, value_type = Option<schemas::Time>)]
    expires_at: Option<Time>,
}

impl<'a> From<&'a Reservation> for ReservationView<'a> {
    fn from(reservation: &'a Reservation) -> Self {
        Self {
            id: reservation.id.as_str(),
            state: reservation.state.as_str(),
            tokens: reservation.tokens,
            used_tokens: reservation.used_tokens,
            charged_tokens: reservation.charged_tokens,
            model: reservation.model.as_ref().map(|model| model.as_str()),
            // It was JSON when it came in; should it no longer be, the rest of the answer is still right.
            metadata: reservation.metadata.as_ref().and_then(|json| serde_json::from_str(json.as_str()).ok()),
            reserved_at: Time::from_ms(reservation.reserved_at_ms),
            expires_at: Time::from_ms(reservation.expires_at_ms),
        }
    }
}

/// The reservation, and the balance after it.
#[derive(Serialize, ToSchema)]
pub struct Reserved<'a> {
    pub reservation: ReservationView<'a>,
    pub balance: BalanceView,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Transaction)]
pub struct TransactionView<'a> {
    id: Uuid,
    /// What the reservation or debit was charged in all.
    tokens: u64,
    /// Known once there are prices.
    #[schema(required)]
    cost_usd: Option<&'static str>,
    #[schema(required)]
    model: Option<&'a str>,
    #[schema(value_type = Vec<schemas::Flag>)]
    flags: Vec<&'static str>,
    #[schema(required, value_type = Option<schemas::Time>)]
    settled_at: Option<Time>,
}

impl<'a> From<&'a Transaction> for TransactionView<'a> {
    fn from(transaction: &'a Transaction) -> Self {
        Self {
            id: transaction.id,
            tokens: transaction.tokens,
            cost_usd: None,
            model: transaction.model.as_ref().map(|model| model.as_str()),
            flags: transaction.flags.names(),
            settled_at: Time::from_ms(transaction.settled_at_ms),
        }
    }
}

/// What was charged, and the balance after it.
#[derive(Serialize, ToSchema)]
pub struct Settled<'a> {
    pub transaction: TransactionView<'a>,
    pub balance: BalanceView,
}

/// Answer of whichever verb it was.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Done)]
pub enum DoneView<'a> {
    Held(Reserved<'a>),
    Charged(Settled<'a>),
}

impl<'a> From<&'a Done> for DoneView<'a> {
    fn from(done: &'a Done) -> Self {
        match done {
            Done::Held(receipt) => Self::Held(Reserved {
                reservation: (&receipt.subject).into(),
                balance: (&receipt.balance).into(),
            }),
            Done::Charged(receipt) => Self::Charged(Settled {
                transaction: (&receipt.subject).into(),
                balance: (&receipt.balance).into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, to_value};

    use super::*;
    use crate::quota::{Flags, Kind, Metadata, Model, ReservationId, State};

    fn reservation() -> Reservation {
        Reservation {
            id: ReservationId::new("r-1").unwrap(),
            state: State::Pending,
            tokens: 50,
            used_tokens: 0,
            charged_tokens: None,
            model: Some(Model::new("gpt").unwrap()),
            metadata: Some(Metadata::new("{\"b\": 1,\"a\":2.50}").unwrap()),
            reserved_at_ms: 1_700_000_000_000,
            expires_at_ms: 1_700_000_600_007,
        }
    }

    #[test]
    fn a_reservation_as_it_is_written() {
        let reservation = reservation();
        let balance = Balance { total: 100, used: 70, reserved: 50 };
        let body = Reserved { reservation: (&reservation).into(), balance: (&balance).into() };
        let text = serde_json::to_string(&body).unwrap();
        assert!(text.contains("\"metadata\":{\"b\": 1,\"a\":2.50}"), "{text}");
        let mut value: Value = serde_json::from_str(&text).unwrap();
        value["reservation"].as_object_mut().unwrap().remove("metadata");
        assert_eq!(
            value,
            json!({
                "reservation": {
                    "id": "r-1", "state": "pending", "tokens": 50, "used_tokens": 0, "charged_tokens": null,
                    "model": "gpt", "reserved_at": "2023-11-14T22:13:20.000Z",
                    "expires_at": "2023-11-14T22:23:20.007Z",
                },
                "balance": {"total": 100, "used": 70, "reserved": 50, "available": -20},
            })
        );
    }

    #[test]
    fn a_transaction_as_it_is_written() {
        let transaction = Transaction {
            id: Uuid::nil(),
            reservation: ReservationId::new("r-1").unwrap(),
            kind: Kind::Settle,
            tokens: 60,
            model: None,
            flags: Flags::OVERAGE.union(Flags::LATE),
            settled_at_ms: 1_700_000_000_120,
        };
        assert_eq!(
            to_value(TransactionView::from(&transaction)).unwrap(),
            json!({
                "id": Uuid::nil(), "tokens": 60, "cost_usd": null, "model": null, "flags": ["overage", "late"],
                "settled_at": "2023-11-14T22:13:20.120Z",
            })
        );
    }

    #[test]
    fn a_time_out_of_range_is_null_and_no_panic() {
        assert!(Time::from_ms(u64::MAX).is_none());
        assert!(Time::from_ms(i64::MAX as u64).is_none());
    }
}
