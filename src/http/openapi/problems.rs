//! Which operation may be refused with which codes, and what such an answer looks like.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{
        AllOfBuilder, Content, ContentBuilder, ObjectBuilder, Ref, Response, ResponseBuilder,
        example::{Example, ExampleBuilder},
        extensions::Extensions,
        schema::Type,
    },
};

use super::{
    refer,
    schemas::{OutcomeWord, ProblemCode, ReservationId, ReservationState},
};
use crate::{
    http::{
        code::Code::{self, *},
        language::Language,
        problem::{Problem, Short},
        request::MAX_PAGE,
    },
    ledger::{Outcome, Refusal},
    quota::{self, BudgetId, MAX_OPERATION_TOKENS, MAX_TTL_SECONDS, ShortBudget, State, UserId},
};

/// Codes that operations share, named after what their handlers take or ask.
macro_rules! groups {
    ($($(#[$about:meta])* $group:ident: $($code:ident)+;)+) => {
        $($(#[$about])* const $group: &[Code] = &[$($code),+];)+
    };
}

/// The groups of each operation, by its operation id, and the codes it has of its own.
macro_rules! operations {
    ($($($operation:literal)+: $($group:ident)* $(, $($code:ident)+)?;)+) => {
        fn groups(operation: &str) -> Option<&'static [&'static [Code]]> {
            match operation {
                $($($operation)|+ => Some(&[$($group,)* $(&[$($code),+])?]),)+
                _ => None,
            }
        }
    };
}

groups! {
    /// Every operation that needs a JWT.
    CALLER: Unauthenticated Forbidden Internal;
    /// A user in the path.
    USER: InvalidUserId UserNotFound;
    /// A reservation in the path.
    RESERVATION: InvalidReservationId;
    /// A JSON body.
    BODY: MalformedJson IncompleteBody BodyTimeout BodyTooLarge UnsupportedMediaType InvalidBody UnknownField
        DuplicateField;
    /// A body that may be absent, and has no members.
    NO_BODY: MalformedJson IncompleteBody BodyTimeout BodyTooLarge UnsupportedMediaType InvalidBody UnknownField;
    /// A query, if only to be empty.
    QUERY: InvalidQuery;
    /// `tokens`, `usage`, `model` and `request_id`.
    CHARGE: MissingField ConflictingFields InvalidAmount AmountOutOfRange InvalidModel InvalidRequestId;
    /// A call on the ledger.
    LEDGER: Overloaded LedgerUnavailable;
    /// A call on Postgres.
    STORE: StoreUnavailable;
}

operations! {
    "reserve": CALLER USER BODY LEDGER,
        InvalidReservationId MissingField ConflictingFields InvalidAmount AmountOutOfRange InvalidModel InvalidTtl
        InvalidMetadata InsufficientTokens UserSuspended IdempotencyMismatch ReservationFinished;
    "settle": CALLER USER RESERVATION BODY CHARGE LEDGER,
        ReservationNotFound IdempotencyMismatch ReservationFinished;
    "release": CALLER USER RESERVATION NO_BODY LEDGER, ReservationFinished;
    "extend": CALLER USER RESERVATION BODY LEDGER,
        MissingField InvalidAmount AmountOutOfRange InvalidTtl InsufficientTokens ReservationNotFound
        ReservationFinished;
    "debit": CALLER USER BODY CHARGE LEDGER, InvalidReservationId IdempotencyMismatch;
    "showReservation": CALLER USER RESERVATION QUERY LEDGER, ReservationNotFound;
    "listReservations": CALLER USER QUERY LEDGER;
    "showTokens": CALLER USER QUERY LEDGER;
    "createUser": CALLER BODY STORE,
        MissingField InvalidUserId InvalidEmail InvalidExternalId InvalidLocale InvalidTimeZone EmailTaken
        ExternalIdTaken UserIdTaken;
    "listUsers": CALLER QUERY STORE;
    "showUser": CALLER USER QUERY STORE;
    "suspendUser" "resumeUser": CALLER USER NO_BODY STORE;
    "credit": CALLER USER BODY STORE,
        MissingIdempotencyKey InvalidIdempotencyKey IdempotencyMismatch MissingField InvalidAmount AmountOutOfRange
        InvalidKind InvalidReason;
    "listCredits": CALLER USER QUERY STORE;
    "alive" "ready" "describe": ;
}

/// Whether the codes of this operation stand above.
#[cfg(test)]
pub fn is_entered(operation: &str) -> bool {
    groups(operation).is_some()
}

/// What no operation answers, but the router where there is none.
const OF_THE_ROUTER: [Code; 2] = [RouteNotFound, MethodNotAllowed];

/// The codes of an operation by status, each once. A test sees to it that every operation is entered above.
fn codes(operation: &str) -> BTreeMap<StatusCode, Vec<Code>> {
    let groups = groups(operation).unwrap_or_default();
    let mut by_status = BTreeMap::<StatusCode, Vec<Code>>::new();
    for code in Code::ALL {
        if groups.iter().any(|group| group.contains(&code)) {
            by_status.entry(code.status()).or_default().push(code);
        }
    }
    by_status
}

/// The answers of an operation that are no success, by status.
pub fn responses(operation: &str) -> impl Iterator<Item = (String, Response)> {
    let by_status = codes(operation).into_iter();
    by_status.map(|(status, codes)| (status.as_u16().to_string(), response(status, &codes)))
}

/// The answers of the router itself.
pub fn of_the_router() -> impl Iterator<Item = (&'static str, Response)> {
    OF_THE_ROUTER.into_iter().map(|code| (code.as_str(), response(code.status(), &[code])))
}

fn response(status: StatusCode, codes: &[Code]) -> Response {
    let mut about = String::new();
    for code in codes {
        about.push_str(&format!("- `{}`: {}\n", code.as_str(), code.text(Language::English).detail));
    }
    let words: Vec<Value> = codes.iter().map(|code| code.as_str().into()).collect();
    // utoipa's types have no `const`; what it calls extensions is written as it is named.
    let same_status = Extensions::from_iter([("const", status.as_u16())]);
    let these = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("status", ObjectBuilder::new().schema_type(Type::Integer).extensions(Some(same_status)))
        .property("code", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)));
    let schema = AllOfBuilder::new().item(Ref::from_schema_name("Problem")).item(these);
    let examples = codes.iter().map(|code| (code.as_str(), refer("examples", code.as_str())));
    let content: Content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build();
    let mut response = ResponseBuilder::new()
        .description(about.trim_end())
        .content("application/problem+json", content)
        .build();
    let particular = match status {
        StatusCode::UNAUTHORIZED => Some("WWW-Authenticate"),
        StatusCode::METHOD_NOT_ALLOWED => Some("Allow"),
        StatusCode::SERVICE_UNAVAILABLE => Some("Retry-After"),
        _ => None,
    };
    for name in particular.into_iter().chain(["Content-Language"]) {
        response.headers.insert(name.into(), refer("headers", name));
    }
    response
}

/// One answer of each code, as it is really written.
pub fn examples() -> impl Iterator<Item = (&'static str, Example)> {
    Code::ALL.into_iter().map(|code| {
        let problem = sample(code);
        let value = json!(problem.body(Language::English, Some("https://example.com/top-up")));
        (
            code.as_str(),
            ExampleBuilder::new().summary(code.text(Language::English).title).value(Some(value)).build(),
        )
    })
}

/// A problem of this code with the facts it usually has.
fn sample(code: Code) -> Problem {
    let field = |name| Problem::new(code).field(name);
    let of_a_reservation = |problem: Problem| match quota::ReservationId::new("call-7") {
        Ok(id) => problem.reservation(id),
        Err(_) => problem,
    };
    match code {
        InsufficientTokens => {
            let budget = BudgetId::Balance(UserId::generate());
            let short = vec![ShortBudget { budget, requested: 50, available: 40 }];
            of_a_reservation(Refusal::Insufficient { short }.into())
        }
        ReservationFinished => of_a_reservation(Refusal::Finished { state: State::Settled }.into()),
        LedgerUnavailable => of_a_reservation(Refusal::Unavailable { outcome: Outcome::Unknown }.into()),
        UserSuspended | ReservationNotFound | IdempotencyMismatch | Overloaded => {
            of_a_reservation(Problem::new(code))
        }
        StoreUnavailable => Problem::unavailable(code, Outcome::Unknown),
        BodyTooLarge => Problem::new(code).limit(crate::config::HttpConfig::default().max_body_bytes as u64),
        AmountOutOfRange => field("tokens").limit(MAX_OPERATION_TOKENS),
        InvalidTtl => field("ttl_seconds").limit(MAX_TTL_SECONDS.into()),
        UnknownField => Problem::new(code).unknown_name("token"),
        InvalidBody | DuplicateField | MissingField | InvalidAmount => field("tokens"),
        ConflictingFields => field("usage"),
        InvalidReservationId | UserIdTaken => field("id"),
        InvalidModel => field("model"),
        InvalidRequestId => field("request_id"),
        InvalidMetadata => field("metadata"),
        InvalidEmail | EmailTaken => field("email"),
        InvalidExternalId | ExternalIdTaken => field("external_id"),
        InvalidLocale => field("locale"),
        InvalidTimeZone => field("time_zone"),
        InvalidKind => field("kind"),
        InvalidReason => field("reason"),
        MissingIdempotencyKey | InvalidIdempotencyKey => field("Idempotency-Key"),
        InvalidQuery => field("limit").limit(MAX_PAGE.into()),
        _ => Problem::new(code),
    }
}

/// An answer that is no success (RFC 9457). Decide by `code`; `title` and `detail` are for people, in the language
/// that `Accept-Language` asks for. Nothing was changed by a call that ends in 4xx. A 503 says by `outcome` whether it
/// may have had an effect: repeat it with the same id or key.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "describes what `Problem` writes, and is never made")]
pub struct ProblemBody {
    /// `urn:cota:problem:` and the code.
    #[schema(pattern = "^urn:cota:problem:[a-z_]+$")]
    r#type: String,
    title: String,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    detail: String,
    code: ProblemCode,
    /// The member, parameter or header at fault.
    #[schema(nullable = false)]
    field: Option<String>,
    /// The most that is allowed.
    #[schema(nullable = false)]
    limit: Option<u64>,
    /// What was available in the first budget that is short; below zero after an overage.
    #[schema(nullable = false)]
    available: Option<i64>,
    /// What was asked of it.
    #[schema(nullable = false)]
    requested: Option<u64>,
    /// Every budget that cannot take the reservation.
    #[schema(nullable = false)]
    short: Option<Vec<Short>>,
    /// Where tokens can be bought.
    #[schema(nullable = false)]
    top_up_url: Option<String>,
    /// What has become of a reservation that is finished.
    #[schema(nullable = false)]
    state: Option<ReservationState>,
    /// The id to ask again with, also when the server made it.
    #[schema(nullable = false)]
    reservation_id: Option<ReservationId>,
    #[schema(nullable = false)]
    outcome: Option<OutcomeWord>,
}
