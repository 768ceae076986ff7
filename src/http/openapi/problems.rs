//! Which operation may be refused with which codes, and what such an answer looks like.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        AllOfBuilder, Content, ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Schema,
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
    config::HttpConfig,
    http::{
        batch::MAX_OPERATIONS,
        code::Code::{self, *},
        language::Language,
        problem::{Problem, Short, TopUp},
        request::MAX_PAGE,
    },
    ledger::{Outcome, Refusal},
    quota::{
        self, BudgetId, MAX_OPERATION_TOKENS, MAX_RENEWALS_PER_MONTH, MAX_TTL_SECONDS, ShortBudget, State,
        UserId,
    },
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
    CALLER: Unauthenticated Forbidden Overloaded Starting Internal;
    /// What may be refused for its rate: all but what reports usage or is needed no more.
    RATE: TooManyRequests RateLimited;
    /// A user in the path.
    USER: InvalidUserId UserNotFound;
    /// A reservation in the path.
    RESERVATION: InvalidReservationId;
    /// A webhook endpoint in the path.
    WEBHOOK: InvalidUserId WebhookNotFound;
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
    LEDGER: LedgerUnavailable;
    /// A call on Postgres.
    STORE: StoreUnavailable;
}

operations! {
    "reserve": CALLER RATE USER BODY LEDGER,
        InvalidReservationId MissingField ConflictingFields InvalidAmount AmountOutOfRange InvalidModel InvalidTtl
        InvalidMetadata InsufficientTokens UserSuspended IdempotencyMismatch ReservationFinished;
    "settle": CALLER USER RESERVATION BODY CHARGE LEDGER,
        ReservationNotFound IdempotencyMismatch ReservationFinished;
    "release": CALLER USER RESERVATION NO_BODY LEDGER, ReservationFinished;
    "extend": CALLER RATE USER RESERVATION BODY LEDGER,
        MissingField InvalidAmount AmountOutOfRange InvalidTtl InsufficientTokens ReservationNotFound
        ReservationFinished;
    "debit": CALLER USER BODY CHARGE LEDGER, InvalidReservationId IdempotencyMismatch;
    "batch": CALLER BODY, MissingField InvalidBatch;
    "showReservation": CALLER RATE USER RESERVATION QUERY LEDGER, ReservationNotFound;
    "listReservations": CALLER RATE USER QUERY LEDGER;
    "showTokens": CALLER RATE USER QUERY LEDGER;
    "showMetrics": CALLER RATE USER QUERY LEDGER STORE;
    "listHistory" "listUserAnomalies" "listReports": CALLER RATE USER QUERY STORE;
    "showReport": CALLER RATE USER QUERY STORE, InvalidMonth ReportNotFound;
    "listAnomalies" "showConsolidated" "showSummary": CALLER RATE QUERY STORE;
    "createUser": CALLER RATE BODY STORE,
        MissingField InvalidUserId InvalidEmail InvalidExternalId InvalidLocale InvalidTimeZone EmailTaken
        ExternalIdTaken UserIdTaken;
    "listUsers": CALLER RATE QUERY STORE;
    "showUser": CALLER RATE USER QUERY STORE;
    "updateUser": CALLER RATE USER BODY STORE,
        MissingField InvalidEmail InvalidExternalId InvalidLocale InvalidTimeZone InvalidAlertThreshold
        InvalidEntityTag EmailTaken ExternalIdTaken PreconditionFailed PreconditionRequired;
    "suspendUser" "resumeUser" "deleteUser": CALLER RATE USER NO_BODY STORE;
    "exportUser": CALLER RATE USER QUERY STORE;
    "credit": CALLER RATE USER BODY STORE,
        MissingIdempotencyKey InvalidIdempotencyKey IdempotencyMismatch MissingField ConflictingFields InvalidAmount
        AmountOutOfRange InvalidKind InvalidReason InvalidPayment PaymentUsed;
    "adjust": CALLER RATE USER BODY STORE,
        MissingIdempotencyKey InvalidIdempotencyKey IdempotencyMismatch MissingField InvalidAmount AmountOutOfRange
        InvalidDirection InvalidReason InvalidTransactionId TransactionNotFound AdjustmentTooLarge;
    "listCredits" "listAlerts" "showAlertConfig" "listRenewals" "showAutoRenewal": CALLER RATE USER QUERY STORE;
    "showHealth": CALLER RATE USER QUERY STORE;
    "setAlertConfig": CALLER RATE USER BODY STORE,
        MissingField InvalidAlertThreshold InvalidEntityTag PreconditionFailed PreconditionRequired;
    "setAutoRenewal": CALLER RATE USER BODY STORE,
        MissingField InvalidAmount AmountOutOfRange InvalidAlertThreshold InvalidRenewal InvalidEntityTag
        PreconditionFailed PreconditionRequired;
    "confirmRenewal": CALLER RATE USER BODY STORE,
        InvalidRenewalId RenewalNotFound RenewalFinished MissingField InvalidPayment IdempotencyMismatch PaymentUsed
        AmountOutOfRange;
    "listAudit": CALLER RATE USER QUERY STORE;
    "verifyAudit": CALLER RATE QUERY STORE;
    "createWebhook": CALLER RATE USER BODY STORE,
        MissingField InvalidWebhookUrl InvalidEvents WebhookUrlTaken TooManyWebhooks;
    "listWebhooks": CALLER RATE QUERY STORE, InvalidUserId;
    "showWebhook": CALLER RATE WEBHOOK QUERY STORE;
    "updateWebhook": CALLER RATE WEBHOOK BODY STORE,
        MissingField InvalidWebhookUrl InvalidEvents WebhookUrlTaken InvalidEntityTag PreconditionFailed
        PreconditionRequired;
    "rotateWebhookSecret": CALLER RATE WEBHOOK BODY STORE, InvalidOverlap;
    "deleteWebhook": CALLER RATE WEBHOOK QUERY STORE;
    "listDeliveries": CALLER RATE WEBHOOK QUERY STORE;
    "resendDelivery": CALLER RATE WEBHOOK NO_BODY STORE, DeliveryNotFound WebhookDisabled;
    "showNotificationSettings": CALLER RATE USER QUERY STORE;
    "replaceNotificationSettings": CALLER RATE USER BODY STORE,
        MissingField InvalidEvents InvalidEntityTag PreconditionFailed PreconditionRequired;
    "watchUser": CALLER RATE USER QUERY STORE, TooManyStreams;
    "issueEventTicket": CALLER RATE USER NO_BODY STORE;
    "alive" "ready": ;
    "describe": , Starting;
}

/// What an operation of a batch may be refused with, while the batch itself is answered with 200.
const OF_AN_OPERATION: &[&[Code]] = &[
    USER,
    RESERVATION,
    CHARGE,
    LEDGER,
    &[
        InvalidBody,
        UnknownField,
        DuplicateField,
        UnknownOperation,
        InvalidTtl,
        InvalidMetadata,
        InsufficientTokens,
    ],
    &[UserSuspended, ReservationNotFound, IdempotencyMismatch, ReservationFinished, RateLimited, Overloaded],
];

/// Whether the codes of this operation stand above.
#[cfg(test)]
pub fn is_entered(operation: &str) -> bool {
    groups(operation).is_some()
}

/// What no operation answers, but the router where there is none.
const OF_THE_ROUTER: [Code; 2] = [RouteNotFound, MethodNotAllowed];

/// The codes of these groups, each once.
fn codes(groups: &[&[Code]]) -> Vec<Code> {
    let is_listed = |code: &Code| groups.iter().any(|group| group.contains(code));
    Code::ALL.into_iter().filter(is_listed).collect()
}

/// The answers of an operation that are no success, by status. A test sees to it that every operation is entered above.
pub fn responses(operation: &str) -> impl Iterator<Item = (String, Response)> {
    let mut by_status = BTreeMap::<StatusCode, Vec<Code>>::new();
    for code in codes(groups(operation).unwrap_or_default()) {
        by_status.entry(code.status()).or_default().push(code);
    }
    by_status.into_iter().map(|(status, codes)| (status.as_u16().to_string(), response(status, &codes)))
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
    // utoipa's types have no `const`; what it calls extensions is written as it is named.
    let same_status = Extensions::from_iter([("const", status.as_u16())]);
    let same_status = ObjectBuilder::new().schema_type(Type::Integer).extensions(Some(same_status));
    let schema = with_one_of(codes, ObjectBuilder::new().property("status", same_status));
    let examples = codes.iter().map(|code| (code.as_str(), refer("examples", code.as_str())));
    let content: Content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build();
    let mut response = ResponseBuilder::new()
        .description(about.trim_end())
        .content("application/problem+json", content)
        .build();
    let particular = match status {
        StatusCode::UNAUTHORIZED => Some("WWW-Authenticate"),
        StatusCode::METHOD_NOT_ALLOWED => Some("Allow"),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some("Retry-After"),
        _ => None,
    };
    for name in particular.into_iter().chain(["Content-Language"]) {
        response.headers.insert(name.into(), refer("headers", name));
    }
    response
}

/// A problem with one of these codes, and what else is known of it.
fn with_one_of(codes: &[Code], known: ObjectBuilder) -> AllOfBuilder {
    let words: Vec<Value> = codes.iter().map(|code| code.as_str().into()).collect();
    let code = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
    let these = known.schema_type(Type::Object).property("code", code);
    AllOfBuilder::new().item(Ref::from_schema_name("Problem")).item(these)
}

/// What an operation of a batch is refused with: a problem like that of its single call.
pub struct OperationProblem;

impl PartialSchema for OperationProblem {
    fn schema() -> RefOr<Schema> {
        with_one_of(&codes(OF_AN_OPERATION), ObjectBuilder::new()).into()
    }
}

impl ToSchema for OperationProblem {}

/// One answer of each code, as it is really written; but of what only an operation of a batch is refused with, since no
/// answer consists of it.
pub fn examples() -> impl Iterator<Item = (&'static str, Example)> {
    Code::ALL.into_iter().filter(|code| *code != UnknownOperation).map(|code| {
        let problem = sample(code);
        let config =
            HttpConfig { top_up_url: Some("https://example.com/top-up".into()), ..HttpConfig::default() };
        let top_up = TopUp::of(&config, Language::English);
        let value = json!(problem.body(Language::English, top_up));
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
        BodyTooLarge => Problem::new(code).limit(HttpConfig::default().max_body_bytes as u64),
        AmountOutOfRange => field("tokens").limit(MAX_OPERATION_TOKENS),
        InvalidTtl => field("ttl_seconds").limit(MAX_TTL_SECONDS.into()),
        UnknownField => Problem::new(code).unknown_name("token"),
        InvalidBody | DuplicateField | MissingField | InvalidAmount => field("tokens"),
        ConflictingFields => field("usage"),
        InvalidReservationId | UserIdTaken => field("id"),
        InvalidModel => field("model"),
        InvalidRequestId => field("request_id"),
        InvalidMetadata => field("metadata"),
        InvalidMonth => field("month"),
        InvalidEmail | EmailTaken => field("email"),
        InvalidExternalId | ExternalIdTaken => field("external_id"),
        InvalidLocale => field("locale"),
        InvalidTimeZone => field("time_zone"),
        InvalidAlertThreshold => field("alert_threshold"),
        InvalidEntityTag | PreconditionRequired | PreconditionFailed => field("If-Match"),
        InvalidBatch => field("operations").limit(MAX_OPERATIONS as u64),
        UnknownOperation => field("op"),
        InvalidKind => field("kind"),
        InvalidPayment => field("amount"),
        PaymentUsed => field("provider_reference"),
        InvalidRenewal => field("max_renewals").limit(MAX_RENEWALS_PER_MONTH.into()),
        InvalidDirection => field("direction"),
        InvalidTransactionId | TransactionNotFound => field("transaction_id"),
        AdjustmentTooLarge => field("tokens").limit(1_200),
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
    /// How to get going again, in the language of `title`; the operator's own words.
    #[schema(nullable = false)]
    instructions: Option<String>,
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
