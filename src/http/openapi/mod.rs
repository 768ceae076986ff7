//! The description of the API, OpenAPI 3.1, at `/openapi.json`, and a page to browse it, at `/docs`.
//!
//! **To add a route**:
//! 1. annotate its handler with `#[utoipa::path]` (method, path, operation id, tag, parameters, body, answers that are
//!    successes); the first line of its comment is the summary, the rest the description, and says who may call it;
//! 2. declare its body in [`super::bodies`] and read it by `MEMBERS`, its parameters in [`parameters`], and derive
//!    `ToSchema` for what it answers;
//! 3. name the handler in [`Description`], its problem codes in [`problems`], and give it examples in `examples.json`.
//!
//! What all operations share (problems, examples, headers) is added by [`Shared`]. Tests hold the description
//! against the router, the codes, the handlers and the answers that the other tests get.

mod examples;
pub mod pages;
pub mod parameters;
pub mod problems;
pub mod schemas;
#[cfg(test)]
mod tests;

use utoipa::{
    Modify, OpenApi,
    openapi::{
        self, Components, Content, HeaderBuilder, ObjectBuilder, PathItem, Ref, RefOr, Required, Response,
        path::{Operation, ParameterBuilder, ParameterIn},
        request_body::RequestBody,
        schema::Type,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{
    adjustments, alerts, anomalies, audit, batch, credits, debits, deliveries, events, health, history,
    metrics, notification_settings, personal, renewals, reports, reservations, tokens, user_health, users,
    webhooks,
};

/// The order of `paths` and `tags` is the order in which they are shown.
#[derive(OpenApi)]
#[openapi(
    info(title = "Cota", description = include_str!("about.md")),
    paths(
        reservations::reserve,
        reservations::list,
        reservations::show,
        reservations::settle,
        reservations::release,
        reservations::extend,
        debits::debit,
        batch::batch,
        tokens::show,
        metrics::show,
        history::list,
        anomalies::of_user,
        reports::list,
        reports::show,
        user_health::show,
        users::create,
        users::list,
        users::show,
        users::update,
        users::suspend,
        users::resume,
        personal::delete,
        personal::export,
        credits::credit,
        credits::list,
        reports::consolidated,
        reports::summary,
        anomalies::of_all,
        audit::list,
        audit::verify,
        webhooks::create,
        webhooks::list,
        webhooks::show,
        webhooks::update,
        webhooks::rotate,
        webhooks::delete,
        deliveries::list,
        deliveries::resend,
        notification_settings::show,
        notification_settings::replace,
        events::watch,
        events::ticket,
        adjustments::adjust,
        alerts::show_config,
        alerts::set_config,
        alerts::list,
        renewals::show_config,
        renewals::set_config,
        renewals::list,
        renewals::confirm,
        health::alive,
        health::ready,
        pages::describe,
    ),
    // What only parameters refer to is not collected by itself.
    components(schemas(
        problems::ProblemBody,
        schemas::DeliveryId,
        schemas::DeliveryState,
        schemas::AuditNumber,
        schemas::EntityTags,
        schemas::EventId,
        schemas::Flagged,
        schemas::IdempotencyKey,
        schemas::ListFormat,
        schemas::PageLimit,
        schemas::ReportFormat,
        schemas::Pending,
        schemas::Sought,
    )),
    tags(
        (name = "Reservations", description = "Reserve before a model call, settle after it."),
        (name = "Debits", description = "Settle what was used without a reservation."),
        (name = "Batch", description = "Many of these in one call."),
        (name = "Balance", description = "What a user has left."),
        (name = "Usage", description = "What a user used, how fast, and for what."),
        (name = "Reports", description = "A user's months, to keep and to print."),
        (name = "Users", description = "Create, find, change, suspend and resume users."),
        (name = "Credits", description = "Give users tokens, and correct what was given or charged."),
        (name = "Alerts", description = "What users are told about their usage, and from where on."),
        (name = "Renewals", description = "Tokens that are added by themselves when few are left."),
        (name = "Overview", description = "All users at once, for operators."),
        (name = "Audit", description = "What is on record, and whether the record is whole."),
        (name = "Webhooks", description = "Be told of what happens to an account."),
        (name = "Notifications", description = "What a user is told, and how."),
        (name = "Live", description = "Balances and events as they happen."),
        (name = "Service", description = "For probes and tools; no JWT is needed."),
    ),
    security(("jwt" = [])),
    modifiers(&Shared),
)]
pub struct Description;

/// What all operations share.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut openapi::OpenApi) {
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            complete(operation);
        }
        let components = document.components.get_or_insert_default();
        for (body, members) in [
            ("Reserve", ["tokens", "estimate"]),
            ("Settle", ["tokens", "usage"]),
            ("Debit", ["tokens", "usage"]),
        ] {
            require_one(components, body, members);
            require_one(components, &format!("{body}Operation"), members);
        }
        agree_with_payment(components);
        define(components);
    }
}

/// The operations of a path.
fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, post, put, patch, delete, .. } = path;
    [get, post, put, patch, delete].into_iter().flatten()
}

/// Adds the answers that are no success, the examples, and what stands in every head.
fn complete(operation: &mut Operation) {
    let id = operation.operation_id.clone().unwrap_or_default();
    for (status, response) in problems::responses(&id) {
        operation.responses.responses.entry(status).or_insert(response.into());
    }
    examples::add(&id, operation);
    if let Some(RefOr::T(body)) = &mut operation.request_body
        && may_be_absent(body)
    {
        body.required = Some(Required::False);
    }
    let parameters = operation.parameters.get_or_insert_default();
    for name in ["X-Request-Id", "Accept-Language"] {
        parameters.push(refer("parameters", name));
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(Response { headers, .. }) = response else { continue };
        headers.entry("X-Request-Id".into()).or_insert_with(|| RefOr::T(openapi::Header::default()));
        // Handlers name their headers; what these are stands in one place.
        for (name, header) in headers.iter_mut() {
            *header = refer("headers", name);
        }
    }
}

/// Whether it is a body that needs no member, and may be left out.
fn may_be_absent(body: &RequestBody) -> bool {
    let absent = ["Empty", "RenewalPayment"].map(Ref::from_schema_name);
    body.content.values().any(|content| match content {
        RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) => absent.contains(schema),
        _ => false,
    })
}

/// What stands under this name in the components.
fn refer<T>(kind: &str, name: &str) -> RefOr<T> {
    RefOr::Ref(Ref::new(format!("#/components/{kind}/{name}")))
}

/// Exactly one of these members has to be there. utoipa's types cannot say it; what it calls extensions is written as
/// it is named.
fn require_one(components: &mut Components, body: &str, members: [&str; 2]) {
    if let Some(RefOr::T(openapi::Schema::Object(object))) = components.schemas.get_mut(body) {
        let each = members.iter().map(|member| serde_json::json!({"required": [member]}));
        let extensions = object.extensions.get_or_insert_default();
        extensions.insert("oneOf".into(), each.collect());
    }
}

/// A credit is a purchase with a whole payment, or a bonus without any of it; a renewal may have one.
fn agree_with_payment(components: &mut Components) {
    if let Some(RefOr::T(openapi::Schema::Object(object))) = components.schemas.get_mut("Credit") {
        let kind = |kind: &str| serde_json::json!({"kind": {"const": kind}});
        let any = credits::PAYMENT_MEMBERS.map(|member| serde_json::json!({"required": [member]}));
        let cases = serde_json::json!([
            {"properties": kind("purchase"), "required": ["payment_method", "amount", "currency"]},
            {"properties": kind("bonus"), "not": {"anyOf": any}},
        ]);
        object.extensions.get_or_insert_default().insert("oneOf".into(), cases);
    }
    if let Some(RefOr::T(openapi::Schema::Object(object))) = components.schemas.get_mut("RenewalPayment") {
        let whole = ["payment_method", "amount", "currency"];
        let needs = credits::PAYMENT_MEMBERS.map(|member| (member.to_owned(), serde_json::json!(whole)));
        let needs: serde_json::Map<_, _> = needs.into_iter().collect();
        object.extensions.get_or_insert_default().insert("dependentRequired".into(), needs.into());
    }
}

/// Headers of answers, as they are referred to by name.
const HEADERS: [(&str, &str); 7] = [
    (
        "X-Request-Id",
        "As it was sent: 1–128 printable ASCII characters. Absent when none was, or one of another form.",
    ),
    ("Content-Language", "The language of `title` and `detail`: `en` or `pt-BR`."),
    ("WWW-Authenticate", "`Bearer`, and `error=\"invalid_token\"` when a JWT was there."),
    ("Retry-After", "Seconds after which another try is worth it."),
    ("Allow", "The methods that this path takes."),
    (
        "Idempotent-Replayed",
        "`true` when the call had been answered before and nothing happened now; else absent.",
    ),
    (
        "ETag",
        "Names what is shown. Send it as `If-Match` with a change, or as `If-None-Match` to read what is new alone.",
    ),
];

/// What operations refer to by name.
fn define(components: &mut Components) {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    for (name, about) in HEADERS {
        let header = HeaderBuilder::new().schema(Some(text())).description(Some(about)).build();
        components.headers.insert(name.into(), header.into());
    }
    for (name, about) in [
        (
            "X-Request-Id",
            "The caller's own id of the request, for the log and back to it; one of another form than \
                          1–128 printable ASCII characters is ignored.",
        ),
        ("Accept-Language", "`pt-BR` for problems in Portuguese."),
    ] {
        let parameter =
            ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).schema(Some(text()));
        components.parameters.insert(name.into(), RefOr::T(parameter.description(Some(about)).build()));
    }
    components.examples.extend(problems::examples().map(|(name, example)| (name.into(), example.into())));
    let of_the_router = problems::of_the_router().map(|(name, response)| (name.into(), response.into()));
    components.responses.extend(of_the_router);
    let jwt = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("A JWT with `sub`, `role` (`user`, `gateway` or `admin`), `iss`, `aud` and `exp`."))
        .build();
    components.security_schemes.insert("jwt".into(), RefOr::T(SecurityScheme::Http(jwt)));
    let ticket = ApiKeyValue::with_description("ticket", "From `…/events/ticket`; good once.");
    components
        .security_schemes
        .insert("ticket".into(), RefOr::T(SecurityScheme::ApiKey(ApiKey::Query(ticket))));
}
