//! The words of the description: ids, amounts, texts and times, with the bounds the code itself keeps.

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema,
        extensions::Extensions,
        schema::{KnownFormat, SchemaFormat, SchemaType, Type},
    },
};
use uuid::Uuid;

use crate::{
    accounts::{
        MAX_NAME_LENGTH,
        credits::{self, MAX_METHOD_LENGTH, MAX_REASON_LENGTH, MAX_REFERENCE_LENGTH},
        users::{MAX_EMAIL_LENGTH, MAX_LOCALE_LENGTH},
    },
    http::{
        code::Code,
        format::Format,
        history, metrics,
        request::{DEFAULT_PAGE, MAX_PAGE},
    },
    ledger::Outcome,
    notify::{endpoints::MAX_OVERLAP_SECONDS, webhook::MAX_URL_LENGTH},
    quota::{
        self, EventKind, Flags, MAX_METADATA_LENGTH, MAX_MODEL_LENGTH, MAX_OPERATION_TOKENS,
        MAX_RENEWALS_PER_MONTH, MAX_REQUEST_ID_LENGTH, MAX_RESERVATION_ID_LENGTH, MAX_TOTAL_TOKENS,
        MAX_TTL_SECONDS,
    },
    store::{self, GrantKind, UserStatus},
};

/// Declares schemas that are referred to by name; the comment is what readers of the description see.
macro_rules! schemas {
    ($($(#[doc = $about:literal])+ $name:ident = $object:expr;)+) => {
        $(
            $(#[doc = $about])+
            pub struct $name;

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    let about = concat!($($about, "\n"),+);
                    let about: Vec<&str> = about.lines().map(str::trim).collect();
                    $object.description(Some(about.join("\n").trim())).into()
                }
            }

            impl ToSchema for $name {}
        )+
    };
}

schemas! {
    /// A person or service with a quota: a UUID in its hyphenated, lower-case form, and not nil.
    UserId = uuid("0198c5a2-7d34-7c11-9f5e-2b6a3c1d4e5f").extensions(Some(without_nil()));

    /// The caller's idempotency key of a reservation or debit, scoped to the user.
    ReservationId = string("call-7")
        .min_length(Some(1))
        .max_length(Some(MAX_RESERVATION_ID_LENGTH))
        .pattern(Some("^[A-Za-z0-9._-]+$"));

    /// Makes a repeat harmless: printable ASCII.
    IdempotencyKey = text(MAX_NAME_LENGTH, "invoice-1017").pattern(Some("^[ -~]+$"));

    /// `*`, or tags as they came in `ETag`, with commas between them.
    EntityTags = string("\"3-0f1e2d3c4b5a6978\"")
        .pattern(Some(r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#));

    /// Rows of a page.
    PageLimit = whole(1, u64::from(MAX_PAGE), 20).default(Some(json!(DEFAULT_PAGE)));

    /// A row's place in its chain of the audit log.
    AuditNumber = whole(1, i64::MAX as u64, 42);

    /// The one state that can be asked for.
    Pending = one_of([quota::State::Pending.as_str()]);

    /// Text to find a user by.
    Sought = string("ana@example.com").pattern(Some(r"^[^\x00]*$"));

    /// LLM tokens of one operation: a whole number, written in digits alone.
    Tokens = whole(0, MAX_OPERATION_TOKENS, 1_200);

    /// LLM tokens of a credit: a whole number, written in digits alone.
    CreditTokens = whole(1, MAX_OPERATION_TOKENS, 50_000);

    /// Seconds until a reservation expires.
    TtlSeconds = whole(1, u64::from(MAX_TTL_SECONDS), 300);

    /// Name of a model as the gateway calls it. The bound counts bytes of UTF-8.
    Model = printable(MAX_MODEL_LENGTH, "demo-model");

    /// The gateway's own id of a call. The bound counts bytes of UTF-8.
    RequestId = printable(MAX_REQUEST_ID_LENGTH, "req-1");

    /// Any JSON object, kept as it was sent: at most 1024 bytes, and never looked into.
    Metadata = ObjectBuilder::new()
        .schema_type(Type::Object)
        .extensions(Some(Extensions::from_iter([("x-max-bytes", MAX_METADATA_LENGTH)])))
        .examples([json!({"conversation": "c-42"})]);

    /// An e-mail address as mail servers take it.
    Email = string("ana@example.com")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Email)))
        .max_length(Some(MAX_EMAIL_LENGTH));

    /// Any text without NUL. The bound counts bytes of UTF-8.
    ExternalId = without_nul(MAX_NAME_LENGTH, "crm:42");

    /// A language tag in the form of BCP 47.
    Locale = string("pt-BR")
        .max_length(Some(MAX_LOCALE_LENGTH))
        .pattern(Some("^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"));

    /// A time zone by its IANA name.
    TimeZone = string("America/Sao_Paulo").format(Some(SchemaFormat::Custom("iana-time-zone".into())));

    /// A share above 0 and at most 1, with up to four decimals; without an exponent.
    AlertThreshold = ObjectBuilder::new()
        .schema_type(Type::Number)
        .minimum(Some(0.0001))
        .maximum(Some(1.0))
        .examples([json!(0.8)]);

    /// Everything.
    Whole = ObjectBuilder::new()
        .schema_type(Type::Number)
        .extensions(Some(Extensions::from_iter([("const", 1)])))
        .examples([json!(1)]);

    /// How far usage has come: `warning` (early), `critical` (urgent), `blocked` (everything is used, reserves are
    /// refused).
    AlertLevel = one_of(quota::Level::ALL.map(quota::Level::as_str));

    /// A share above 0 and below 1, with up to four decimals; without an exponent.
    RenewalThreshold = ObjectBuilder::new()
        .schema_type(Type::Number)
        .minimum(Some(0.0001))
        .maximum(Some(0.9999))
        .examples([json!(0.1)]);

    /// Renewals of a calendar month in the user's time zone; 0 for none.
    MaxRenewals = whole(0, u64::from(MAX_RENEWALS_PER_MONTH), 3);

    /// `immediate`: granted as soon as it is due. `on_payment`: requested then, and granted once it is confirmed as paid.
    RenewalMode = one_of(quota::RenewalMode::ALL.map(quota::RenewalMode::as_str));

    /// What has become of a renewal; all but `pending` are final.
    RenewalState = one_of(store::RenewalState::ALL.map(store::RenewalState::as_str));

    /// `true` or `false`.
    Flagged = ObjectBuilder::new().schema_type(Type::Boolean).examples([json!(true)]);

    /// Any text without NUL. The bound counts bytes of UTF-8.
    Reason = without_nul(MAX_REASON_LENGTH, "invoice 1017");

    /// What kind of credit.
    CreditKind = one_of(credits::CreditKind::ALL.map(credits::CreditKind::as_str));

    /// Which way an adjustment goes: `up` gives tokens, `down` takes them.
    Direction = one_of(credits::Direction::ALL.map(credits::Direction::as_str));

    /// The id of a transaction, as settle and debit answer with it.
    TransactionId = string("3f1c2a4e-5b6d-5e8f-9a0b-1c2d3e4f5a6b")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)));

    /// An amount of money as a decimal text: up to 9 digits, and up to 9 decimals. No sign, no exponent.
    Money = string("99.90").pattern(Some(r"^[0-9]{1,9}(\.[0-9]{1,9})?$"));

    /// A currency by its code of three capital letters (ISO 4217).
    Currency = string("BRL").pattern(Some("^[A-Z]{3}$"));

    /// A payment method or provider. The bound counts bytes of UTF-8.
    PaymentName = printable(MAX_METHOD_LENGTH, "pix");

    /// A payment by its provider's own id. The bound counts bytes of UTF-8.
    PaymentReference = printable(MAX_REFERENCE_LENGTH, "E18236120202601311203s0923a7b2c1");

    /// The word in the place of numbers when a call's usage was lost.
    UsageUnknown = one_of(["unknown"]);

    /// A time in UTC, with milliseconds.
    Time = string("2026-01-31T12:00:00.000Z")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));

    /// What has become of a reservation; all but `pending` are final.
    ReservationState = one_of(quota::State::ALL.map(quota::State::as_str));

    /// What is particular about a transaction: `overage` (more than was reserved), `estimated` (reserved amount or
    /// reported progress in the place of unknown usage), `late` (settled after its expiry), `recovered` (charged
    /// without a hold, which was lost).
    Flag = one_of(Flags(u8::MAX).names());

    /// `suspended`: reserves are refused; what is under way may still settle.
    Status = one_of([UserStatus::Active, UserStatus::Suspended].map(UserStatus::as_str));

    /// What made a grant.
    Kind = one_of(GrantKind::ALL.map(GrantKind::as_str));

    /// What made a transaction: `expiry` (progress charged because a reservation expired), `correction` (the difference
    /// that a later settle makes to it).
    TransactionKind = one_of([quota::Kind::Settle, quota::Kind::Debit, quota::Kind::Expiry, quota::Kind::Correction]
        .map(quota::Kind::as_str));

    /// A place in a history. Opaque: as it came in `next`.
    HistoryCursor = string(&history::example_cursor()).pattern(Some("^[0-9a-f]{48}$"));

    /// In which form the answer is wanted; decides before `Accept`.
    ListFormat = one_of([Format::Json, Format::Csv].map(Format::as_str));

    /// A calendar month.
    Month = string("2026-01").pattern(Some("^[0-9]{4}-(0[1-9]|1[0-2])$"));

    /// A day.
    Day = string("2026-01-31").format(Some(SchemaFormat::KnownFormat(KnownFormat::Date)));

    /// In which form the answer is wanted; decides before `Accept`.
    ReportFormat = one_of([Format::Json, Format::Csv, Format::Html].map(Format::as_str));

    /// A number that may be `null`.
    MetricName = one_of(metrics::MAY_BE_UNKNOWN);

    /// Why a number is `null`.
    UnknownReason = one_of(metrics::Reason::ALL.map(metrics::Reason::as_str));

    /// How is projected: a mean day is what the complete days used, divided by their number.
    ProjectionMethod = one_of([metrics::METHOD]);
    /// What can happen to an account.
    Event = one_of(EventKind::ALL.map(EventKind::as_str));

    /// An address on the public internet: `https`, without user name and fragment. The bound counts bytes.
    WebhookUrl = text(MAX_URL_LENGTH, "https://hooks.example.com/cota")
        .format(Some(SchemaFormat::Custom("uri".into())));

    /// `whsec_` and base64 of 32 bytes.
    WebhookSecret = string("whsec_9dQ2kS6tX0m1vB3nZ7cF5hJ8rL4wY2pA6eG0iU1oT3s=")
        .pattern(Some("^whsec_[A-Za-z0-9+/]{43}=$"));

    /// What was or is to be sent to an endpoint.
    DeliveryId = whole(1, MAX_TOTAL_TOKENS, 17);

    /// The id of an event, as the live stream says it.
    EventId = whole(0, MAX_TOTAL_TOKENS, 42);

    /// Seconds in which two secrets sign.
    OverlapSeconds = whole(0, u64::from(MAX_OVERLAP_SECONDS), 3_600);

    /// Why nothing is sent to an endpoint.
    DisabledReason = one_of(store::DisabledReason::ALL.map(store::DisabledReason::as_str));

    /// What has become of a delivery: `pending` (to be sent, or just being sent), `delivered`, `failed` (given up).
    DeliveryState = one_of(store::DeliveryState::ALL.map(store::DeliveryState::as_str));

    /// Whether a call that got no definite answer may have had an effect.
    OutcomeWord = one_of([Outcome::None, Outcome::Unknown].map(Outcome::as_str));

    /// Why a call was not done. Stable: decide by it.
    ProblemCode = one_of(Code::ALL.map(Code::as_str));
}

fn string(example: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).examples([example])
}

fn uuid(example: &str) -> ObjectBuilder {
    string(example)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
        .pattern(Some("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))
}

/// utoipa's types have no `not`; what it calls extensions is written as it is named.
fn without_nil() -> Extensions {
    Extensions::from_iter([("not", json!({"const": Uuid::nil()}))])
}

fn whole(least: u64, most: u64, example: u64) -> ObjectBuilder {
    // Both are far below 2^53.
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(least as f64))
        .maximum(Some(most as f64))
        .examples([example])
}

fn printable(longest: usize, example: &str) -> ObjectBuilder {
    text(longest, example).pattern(Some(r"^[^\x00-\x1F\x7F-\x9F]+$"))
}

fn without_nul(longest: usize, example: &str) -> ObjectBuilder {
    text(longest, example).pattern(Some(r"^[^\x00]+$"))
}

fn text(longest: usize, example: &str) -> ObjectBuilder {
    string(example).min_length(Some(1)).max_length(Some(longest))
}

fn one_of(words: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.into_iter().map(Value::from)))
}
