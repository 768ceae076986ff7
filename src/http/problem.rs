//! What an error looks like to a caller: RFC 9457 problem+json with a stable code.
//!
//! A [`Problem`] is a code and the facts that go with it. It becomes text only at the edge of the router, where
//! the caller's language and the configuration are known; until then it travels in the response's extensions.

use std::borrow::Cow;

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use utoipa::ToSchema;

use super::{code::Code, language::Language};
use crate::{
    config::HttpConfig,
    ledger::{Outcome, Refusal},
    quota::{AmountError, IdError, MAX_OPERATION_TOKENS, ReservationId, ShortBudget, State},
};

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    code: Code,
    facts: Box<Facts>,
}

/// What the caller can act on, beside the code.
#[derive(Clone, Debug, Default, PartialEq)]
struct Facts {
    /// The member of the body, query parameter or header that is at fault.
    field: Option<Cow<'static, str>>,
    limit: Option<u64>,
    short: Vec<ShortBudget>,
    state: Option<State>,
    reservation_id: Option<ReservationId>,
    /// On every 503.
    outcome: Option<Outcome>,
    /// On 429, and on 503: seconds after which another try is worth it, at least 1.
    retry_after: Option<u32>,
    /// On 401: whether credentials were there at all.
    challenge: Option<&'static str>,
}

/// How to get going again, told in refusals for want of tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct TopUp<'a> {
    /// In the caller's language.
    pub instructions: Option<&'a str>,
    pub url: Option<&'a str>,
}

impl<'a> TopUp<'a> {
    /// As the configuration says it in this language.
    pub fn of(config: &'a HttpConfig, language: Language) -> Self {
        let instructions = match language {
            Language::English => &config.top_up_text,
            Language::Portuguese => &config.top_up_text_pt,
        };
        let instructions = Some(instructions.as_str()).filter(|text| !text.is_empty());
        Self { instructions, url: config.top_up_url.as_deref() }
    }
}

/// Longest name of a caller's own that an answer repeats, in bytes.
const MAX_ECHO: usize = 64;

/// Seconds after which a 503 is worth another try; recoveries and restarts take about as long.
const RETRY_AFTER_SECONDS: u32 = 1;

impl Problem {
    pub fn new(code: Code) -> Self {
        let status = code.status().as_u16();
        let outcome = (status == 503).then_some(Outcome::None);
        let retry_after = matches!(status, 429 | 503).then_some(RETRY_AFTER_SECONDS);
        Self { code, facts: Box::new(Facts { outcome, retry_after, ..Facts::default() }) }
    }

    pub fn code(&self) -> Code {
        self.code
    }

    /// Names the member, parameter or header at fault.
    #[must_use]
    pub fn field(mut self, name: &'static str) -> Self {
        self.facts.field = Some(Cow::Borrowed(name));
        self
    }

    /// Names a member that only the caller knows; repeated up to a bound.
    #[must_use]
    pub fn unknown_name(mut self, name: &str) -> Self {
        let end = name.floor_char_boundary(MAX_ECHO);
        self.facts.field = Some(Cow::Owned(name[..end].to_owned()));
        self
    }

    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.facts.limit = Some(limit);
        self
    }

    /// The reservation the call was about: needed to ask again, above all when the server made the id.
    #[must_use]
    pub fn reservation(mut self, id: ReservationId) -> Self {
        self.facts.reservation_id = Some(id);
        self
    }

    /// When another try is worth it.
    #[must_use]
    pub fn after(mut self, seconds: u32) -> Self {
        self.facts.retry_after = Some(seconds.max(1));
        self
    }

    /// A 401 and its challenge.
    pub fn unauthenticated(challenge: &'static str) -> Self {
        let mut problem = Self::new(Code::Unauthenticated);
        problem.facts.challenge = Some(challenge);
        problem
    }

    /// A 503 that says whether the call may have had an effect.
    pub fn unavailable(code: Code, outcome: Outcome) -> Self {
        let mut problem = Self::new(code);
        problem.facts.outcome = Some(outcome);
        problem
    }

    /// Seconds to wait before another try, on every 429 and 503.
    pub fn retry_after(&self) -> Option<u32> {
        self.facts.retry_after
    }

    /// The body of the answer.
    pub fn body<'a>(&'a self, language: Language, top_up: TopUp<'a>) -> ProblemBody<'a> {
        ProblemBody { problem: self, language, top_up }
    }

    /// The answer in full.
    pub fn render(self, language: Language, top_up: TopUp<'_>) -> Response {
        let status = self.code.status();
        // Strings, numbers and short lists: serialising them cannot fail, and an empty body still has its status.
        let body = serde_json::to_vec(&self.body(language, top_up)).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: HeaderValue| headers.insert(name, value);
        set(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        set(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
        set(header::VARY, HeaderValue::from_static("accept-language"));
        if let Some(seconds) = self.retry_after() {
            set(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.facts.challenge {
            set(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

/// Carries the problem to the edge, which renders it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UserNotFound => Code::UserNotFound.into(),
            Refusal::Suspended => Code::UserSuspended.into(),
            Refusal::Insufficient { short } => {
                let mut problem = Self::new(Code::InsufficientTokens);
                problem.facts.short = short;
                problem
            }
            Refusal::Mismatch => Code::IdempotencyMismatch.into(),
            Refusal::Finished { state } => {
                let mut problem = Self::new(Code::ReservationFinished);
                problem.facts.state = Some(state);
                problem
            }
            Refusal::ReservationNotFound => Code::ReservationNotFound.into(),
            Refusal::AmountOutOfRange => Self::new(Code::AmountOutOfRange).limit(MAX_OPERATION_TOKENS),
            Refusal::Overloaded => Self::unavailable(Code::Overloaded, Outcome::None),
            Refusal::Unavailable { outcome } => Self::unavailable(Code::LedgerUnavailable, outcome),
        }
    }
}

impl From<AmountError> for Problem {
    fn from(error: AmountError) -> Self {
        match error {
            AmountError::Invalid => Code::InvalidAmount.into(),
            AmountError::OutOfRange => Self::new(Code::AmountOutOfRange).limit(MAX_OPERATION_TOKENS),
        }
    }
}

impl From<IdError> for Problem {
    fn from(error: IdError) -> Self {
        match error {
            IdError::User => Code::InvalidUserId.into(),
            IdError::Reservation => Code::InvalidReservationId.into(),
        }
    }
}

/// A problem in words; see [`Problem::body`].
pub struct ProblemBody<'a> {
    problem: &'a Problem,
    language: Language,
    top_up: TopUp<'a>,
}

/// A budget that cannot take what a reservation asks of it.
#[derive(Serialize, ToSchema)]
#[schema(as = ShortBudget)]
pub struct Short {
    /// Which: `balance` is the user's own.
    #[schema(value_type = String)]
    budget: &'static str,
    /// Below zero after an overage.
    available: i64,
    requested: u64,
}

impl Serialize for ProblemBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Problem { code, facts } = self.problem;
        let text = code.text(self.language);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("urn:cota:problem:{}", code.as_str()))?;
        map.serialize_entry("title", text.title)?;
        map.serialize_entry("status", &code.status().as_u16())?;
        map.serialize_entry("detail", text.detail)?;
        map.serialize_entry("code", code.as_str())?;
        if let Some(field) = &facts.field {
            map.serialize_entry("field", field)?;
        }
        if let Some(limit) = facts.limit {
            map.serialize_entry("limit", &limit)?;
        }
        if let Some(first) = facts.short.first() {
            map.serialize_entry("available", &first.available)?;
            map.serialize_entry("requested", &first.requested)?;
            let short: Vec<Short> = facts
                .short
                .iter()
                .map(|s| Short { budget: s.budget.kind(), available: s.available, requested: s.requested })
                .collect();
            map.serialize_entry("short", &short)?;
        }
        if *code == Code::InsufficientTokens {
            if let Some(text) = self.top_up.instructions {
                map.serialize_entry("instructions", text)?;
            }
            if let Some(url) = self.top_up.url {
                map.serialize_entry("top_up_url", url)?;
            }
        }
        if let Some(state) = facts.state {
            map.serialize_entry("state", state.as_str())?;
        }
        if let Some(id) = &facts.reservation_id {
            map.serialize_entry("reservation_id", id.as_str())?;
        }
        if let Some(outcome) = facts.outcome {
            map.serialize_entry("outcome", outcome.as_str())?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::quota::{BudgetId, UserId};

    async fn rendered(problem: Problem, language: Language, url: Option<&str>) -> (Response<()>, Value) {
        let config = HttpConfig { top_up_url: url.map(String::from), ..HttpConfig::default() };
        let (parts, body) = problem.render(language, TopUp::of(&config, language)).into_parts();
        let body = to_bytes(body, 65_536).await.unwrap();
        (Response::from_parts(parts, ()), serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn want_of_tokens_names_every_short_budget_and_no_retry() {
        let short =
            ShortBudget { budget: BudgetId::Balance(UserId::generate()), requested: 90, available: -5 };
        let problem = Problem::from(Refusal::Insufficient { short: vec![short] });
        let (head, body) = rendered(problem, Language::English, Some("https://example.com/buy")).await;
        assert_eq!(head.status(), 402);
        assert_eq!(head.headers().get("retry-after"), None);
        assert_eq!(head.headers()["content-type"], "application/problem+json");
        assert_eq!(
            body,
            json!({
                "type": "urn:cota:problem:insufficient_tokens", "title": "Not enough tokens", "status": 402,
                "detail": Code::InsufficientTokens.text(Language::English).detail,
                "code": "insufficient_tokens", "available": -5, "requested": 90,
                "short": [{"budget": "balance", "available": -5, "requested": 90}],
                "instructions": HttpConfig::default().top_up_text,
                "top_up_url": "https://example.com/buy",
            })
        );
    }

    #[tokio::test]
    async fn a_503_says_its_outcome_its_reservation_and_when_to_retry() {
        let id = ReservationId::new("r-1").unwrap();
        for (refusal, code, outcome) in [
            (Refusal::Overloaded, "overloaded", "none"),
            (Refusal::Unavailable { outcome: Outcome::None }, "ledger_unavailable", "none"),
            (Refusal::Unavailable { outcome: Outcome::Unknown }, "ledger_unavailable", "unknown"),
        ] {
            let (head, body) =
                rendered(Problem::from(refusal).reservation(id.clone()), Language::English, None).await;
            assert_eq!(head.status(), 503);
            assert_eq!(head.headers()["retry-after"], "1");
            assert_eq!(body["code"], code);
            assert_eq!(body["outcome"], outcome);
            assert_eq!(body["reservation_id"], "r-1");
        }
    }

    #[tokio::test]
    async fn every_503_code_has_an_outcome_and_no_other_has() {
        for code in Code::ALL {
            let (head, body) = rendered(Problem::new(code), Language::English, None).await;
            assert_eq!(body.get("outcome").is_some(), head.status() == 503, "{code:?}");
            let retried = matches!(head.status().as_u16(), 429 | 503);
            assert_eq!(head.headers().contains_key("retry-after"), retried, "{code:?}");
        }
    }

    #[test]
    fn each_refusal_has_its_code() {
        for (refusal, code) in [
            (Refusal::UserNotFound, Code::UserNotFound),
            (Refusal::Suspended, Code::UserSuspended),
            (Refusal::Insufficient { short: vec![] }, Code::InsufficientTokens),
            (Refusal::Mismatch, Code::IdempotencyMismatch),
            (Refusal::Finished { state: State::Released }, Code::ReservationFinished),
            (Refusal::ReservationNotFound, Code::ReservationNotFound),
            (Refusal::AmountOutOfRange, Code::AmountOutOfRange),
            (Refusal::Overloaded, Code::Overloaded),
            (Refusal::Unavailable { outcome: Outcome::Unknown }, Code::LedgerUnavailable),
        ] {
            assert_eq!(Problem::from(refusal).code(), code);
        }
    }

    #[tokio::test]
    async fn a_finished_reservation_says_how_and_portuguese_is_spoken() {
        let problem = Problem::from(Refusal::Finished { state: State::Expired });
        let (head, body) = rendered(problem, Language::Portuguese, None).await;
        assert_eq!((head.status().as_u16(), &body["state"]), (409, &json!("expired")));
        assert_eq!(head.headers()["content-language"], "pt-BR");
        let (_, body) = rendered(Code::Forbidden.into(), Language::Portuguese, None).await;
        assert_eq!(body["title"], "Acesso negado");
    }

    #[tokio::test]
    async fn a_callers_own_name_is_repeated_only_up_to_a_bound() {
        let (_, body) = rendered(
            Problem::new(Code::UnknownField).unknown_name(&"é".repeat(500)),
            Language::English,
            None,
        )
        .await;
        assert_eq!(body["field"], "é".repeat(32));
    }
}
