//! Many operations in one call, each with its own answer.

use std::collections::HashMap;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::timeout_at;
use utoipa::ToSchema;

use super::{
    Api, Deadline,
    auth::{ForAny, Report, admit},
    bodies::{self, DebitOperation, ExtendOperation, ReleaseOperation, ReserveOperation, SettleOperation},
    code::{self, Code},
    debits::read_debit,
    json::Object,
    jwt::Principal,
    language::Language,
    openapi::problems::OperationProblem,
    operations::{first_status, refused},
    problem::{Problem, ProblemBody, TopUp},
    request::LargeJsonBody,
    reservations::{read_extend, read_reserve, read_settle},
    views::{DoneView, json, status},
};
use crate::{
    ledger::{Chain, Done, Outcome, Refusal},
    quota::{Ask, ReservationId, UserId},
};

/// Most operations of one batch.
pub const MAX_OPERATIONS: usize = 256;
/// Largest body of a batch, in bytes; other calls have `http.max_body_bytes`.
const MAX_BODY_BYTES: usize = 512 * 1024;

/// One operation of a batch and its place in the answer.
struct Slot {
    id: Option<ReservationId>,
    /// Of its single call, done for the first time.
    first: StatusCode,
    answer: Option<Result<Done, Problem>>,
}

impl Slot {
    fn refused(problem: Problem) -> Self {
        Self { id: None, first: problem.code().status(), answer: Some(Err(problem)) }
    }

    fn waiting(ask: &Ask) -> Self {
        Self { id: Some(ask.id().clone()), first: first_status(ask), answer: None }
    }

    fn take(&mut self, answer: Result<Done, Refusal>) {
        let problem = |refusal| match self.id.take() {
            Some(id) => refused(refusal, id),
            None => refusal.into(),
        };
        self.answer = Some(answer.map_err(problem));
    }
}

/// The operations of the accounts, in order, and where each stands in the batch.
#[derive(Default)]
struct Chains {
    chain_of: HashMap<UserId, usize>,
    chains: Vec<(UserId, Vec<Ask>)>,
    places: Vec<Vec<usize>>,
}

impl Chains {
    fn push(&mut self, place: usize, user: UserId, ask: Ask) {
        let chain = *self.chain_of.entry(user).or_insert(self.chains.len());
        if chain == self.chains.len() {
            self.chains.push((user, Vec::new()));
            self.places.push(Vec::new());
        }
        self.chains[chain].1.push(ask);
        self.places[chain].push(place);
    }
}

/// Do many operations in one call
///
/// Up to 256, on any users, with one result per operation, in order: the status and body of its single call. Equal to
/// making the single calls one by one in order; those of different users run at the same time. An operation that is
/// malformed or refused spoils no other; a body that is no batch is refused as a whole, before anything is done.
/// Gateways and admins.
#[utoipa::path(
    post, path = "/v1/batch", operation_id = "batch", tag = "Batch",
    request_body = bodies::Batch,
    responses((status = 200, body = Answers, description = "Each operation has its own answer.")),
)]
pub async fn batch(
    State(api): State<Api>,
    by: ForAny<Report>,
    headers: HeaderMap,
    LargeJsonBody(body): LargeJsonBody<MAX_BODY_BYTES>,
) -> Result<Response, Problem> {
    let operations = elements(&body)?;
    let (mut slots, mut chains) = (Vec::with_capacity(operations.len()), Chains::default());
    for (place, raw) in operations.into_iter().enumerate() {
        match read(raw.get().as_bytes()).and_then(|operation| at_its_rate(&api, &by.caller, operation)) {
            Err(problem) => slots.push(Slot::refused(problem)),
            Ok((user, ask)) => {
                slots.push(Slot::waiting(&ask));
                chains.push(place, user, ask);
            }
        }
    }
    run(&api, chains, &mut slots, api.deadline()).await;
    let language = Language::of(&headers);
    Ok(answer(&slots, language, TopUp::of(&api.config, language)))
}

/// Runs the chains beside each other until each operation has its answer.
async fn run(api: &Api, chains: Chains, slots: &mut [Slot], deadline: Deadline) {
    let Ok(begun) = timeout_at(deadline.end, api.ledger.begin(chains.chains, deadline.inner)).await else {
        return give_up(slots);
    };
    let run = async |chain: Chain<'_>, places| (places, chain.run().await);
    let chains = begun.into_iter().zip(chains.places);
    let mut running: FuturesUnordered<_> = chains.map(|(chain, places)| run(chain, places)).collect();
    while let Ok(Some((places, answers))) = timeout_at(deadline.end, running.next()).await {
        for (place, answer) in places.into_iter().zip(answers) {
            slots[place].take(answer);
        }
    }
    give_up(slots);
}

/// Whatever has no answer by now.
fn give_up(slots: &mut [Slot]) {
    for slot in slots.iter_mut().filter(|slot| slot.answer.is_none()) {
        slot.take(Err(Refusal::Unavailable { outcome: Outcome::Unknown }));
    }
}

/// The operations, each still to be read.
fn elements(body: &[u8]) -> Result<Vec<&RawValue>, Problem> {
    let body = Object::parse(body, &bodies::Batch::MEMBERS)?;
    let missing = || Problem::new(Code::MissingField).field("operations");
    let raw = body.raw("operations").ok_or_else(missing)?;
    let operations: Vec<&RawValue> =
        serde_json::from_str(raw).map_err(|_| Problem::new(Code::InvalidBody).field("operations"))?;
    if (1..=MAX_OPERATIONS).contains(&operations.len()) {
        Ok(operations)
    } else {
        Err(Problem::new(Code::InvalidBatch).field("operations").limit(MAX_OPERATIONS as u64))
    }
}

/// What asks for room counts as the single call does; what reports usage is never refused for its rate. So the batch
/// itself comes in as a report.
fn at_its_rate(api: &Api, caller: &Principal, operation: (UserId, Ask)) -> Result<(UserId, Ask), Problem> {
    if matches!(operation.1, Ask::Reserve(_) | Ask::Extend(_)) {
        admit(api, caller)?;
    }
    Ok(operation)
}

/// One operation; refused with the codes of its single call.
fn read(raw: &[u8]) -> Result<(UserId, Ask), Problem> {
    let glance = Object::glance(raw, &["op"])?;
    let verb = glance.text("op")?.ok_or_else(|| Problem::new(Code::MissingField).field("op"))?;
    match &*verb {
        ReserveOperation::OP => {
            let body = Object::parse(raw, &ReserveOperation::MEMBERS)?;
            let user = user_id(&body)?;
            Ok((user, Ask::Reserve(read_reserve(&body, body.reservation_id("id")?)?)))
        }
        DebitOperation::OP => {
            let body = Object::parse(raw, &DebitOperation::MEMBERS)?;
            let user = user_id(&body)?;
            Ok((user, Ask::Debit(read_debit(&body, body.reservation_id("id")?)?)))
        }
        SettleOperation::OP => {
            let body = Object::parse(raw, &SettleOperation::MEMBERS)?;
            let user = user_id(&body)?;
            Ok((user, Ask::Settle(read_settle(&body, required_id(&body)?)?)))
        }
        ExtendOperation::OP => {
            let body = Object::parse(raw, &ExtendOperation::MEMBERS)?;
            let user = user_id(&body)?;
            Ok((user, Ask::Extend(read_extend(&body, required_id(&body)?)?)))
        }
        ReleaseOperation::OP => {
            let body = Object::parse(raw, &ReleaseOperation::MEMBERS)?;
            let user = user_id(&body)?;
            Ok((user, Ask::Release(required_id(&body)?)))
        }
        _ => Err(Problem::new(Code::UnknownOperation).field("op")),
    }
}

fn user_id<const N: usize>(body: &Object<'_, N>) -> Result<UserId, Problem> {
    let text = body.text("user_id")?.ok_or_else(|| Problem::new(Code::MissingField).field("user_id"))?;
    text.parse().map_err(|error| Problem::from(error).field("user_id"))
}

/// The reservation's id, which the single call has in its path.
fn required_id<const N: usize>(body: &Object<'_, N>) -> Result<ReservationId, Problem> {
    body.reservation_id("id")?.ok_or_else(|| Problem::new(Code::MissingField).field("id"))
}

#[derive(Serialize, ToSchema)]
#[schema(as = BatchResults)]
struct Answers<'a> {
    /// As many as there were operations, in their order.
    results: Vec<ResultView<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BatchResult)]
struct ResultView<'a> {
    /// Of the single call.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    /// `true` where the single call would send `Idempotent-Replayed`; else absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
    /// Seconds, where the single call would send `Retry-After`; else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retry_after: Option<u32>,
    #[schema(value_type = OperationAnswer)]
    body: BodyView<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum BodyView<'a> {
    Done(DoneView<'a>),
    Problem(ProblemBody<'a>),
}

/// The body of the single call.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes a body, and is never made")]
enum OperationAnswer {
    Done(DoneView<'static>),
    Problem(OperationProblem),
}

fn answer(slots: &[Slot], language: Language, top_up: TopUp<'_>) -> Response {
    let view = |slot| result(slot, language, top_up);
    let results: Vec<ResultView<'_>> = slots.iter().filter_map(view).collect();
    let failed = results.iter().filter(|result| result.status >= 500).count();
    if failed > 0 {
        tracing::warn!(failed, of = results.len(), "operations of a batch not served");
    }
    let mut response = json(StatusCode::OK, &Answers { results });
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-language"));
    response
}

/// `None` for a slot without an answer, of which there is none once all has run.
fn result<'a>(slot: &'a Slot, language: Language, top_up: TopUp<'a>) -> Option<ResultView<'a>> {
    Some(match slot.answer.as_ref()? {
        Ok(done) => ResultView {
            status: status(done.replayed(), slot.first).as_u16(),
            replayed: done.replayed(),
            retry_after: None,
            body: BodyView::Done(done.into()),
        },
        Err(problem) => {
            code::count(problem.code());
            ResultView {
                status: problem.code().status().as_u16(),
                replayed: false,
                retry_after: problem.retry_after(),
                body: BodyView::Problem(problem.body(language, top_up)),
            }
        }
    })
}
