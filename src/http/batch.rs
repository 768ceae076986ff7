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

use super::{
    Api, Deadline,
    auth::{ForAny, Report, admit},
    bodies,
    code::{self, Code},
    debits::read_debit,
    json::Object,
    jwt::Principal,
    language::Language,
    operations::{first_status, refused},
    problem::{Problem, ProblemBody},
    request::LargeJsonBody,
    reservations::{read_extend, read_reserve, read_settle},
    views::{DoneView, json, status},
};
use crate::{
    ledger::{Done, Outcome, Refusal},
    quota::{Ask, ReservationId, UserId},
};

/// Most operations of one batch.
const MAX_OPERATIONS: usize = 256;
/// Largest body of a batch, in bytes; other calls have `http.max_body_bytes`.
const MAX_BODY_BYTES: usize = 512 * 1024;

/// The members that an operation has beside those of its single call: where that has them in its path, and its verb.
const NAMED: [&str; 2] = ["op", "user_id"];
const NAMED_WITH_ID: [&str; 3] = ["op", "user_id", "id"];
const RESERVE_OPERATION: [&str; 8] = joined(NAMED, bodies::Reserve::MEMBERS);
const DEBIT_OPERATION: [&str; 7] = joined(NAMED, bodies::Debit::MEMBERS);
const SETTLE_OPERATION: [&str; 7] = joined(NAMED_WITH_ID, bodies::Settle::MEMBERS);
const EXTEND_OPERATION: [&str; 6] = joined(NAMED_WITH_ID, bodies::Extend::MEMBERS);

/// One list after the other; `N` is the length of both.
const fn joined<const A: usize, const B: usize, const N: usize>(
    first: [&'static str; A],
    second: [&'static str; B],
) -> [&'static str; N] {
    assert!(A + B == N, "the lengths add up");
    let (mut all, mut i) = ([""; N], 0);
    while i < N {
        all[i] = if i < A { first[i] } else { second[i - A] };
        i += 1;
    }
    all
}

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

/// The operations of one account, in order, and where each stands in the batch.
struct Chain {
    user: UserId,
    places: Vec<usize>,
    asks: Vec<Ask>,
}

/// `POST /batch`: up to 256 operations on any accounts, for gateways and admins.
///
/// Answers 200 with one result per operation, in order: the status and body of its single call, `replayed` where that
/// would send `Idempotent-Replayed`, `retry_after` where it would send `Retry-After`. Equal to making the single calls
/// one by one in order; those of different accounts run at the same time. An operation that is malformed or refused
/// spoils no other; a body that is no batch is refused as a whole, before anything is done.
pub async fn batch(
    State(api): State<Api>,
    by: ForAny<Report>,
    headers: HeaderMap,
    LargeJsonBody(body): LargeJsonBody<MAX_BODY_BYTES>,
) -> Result<Response, Problem> {
    let operations = elements(&body)?;
    let (mut slots, mut chains, mut chain_of) =
        (Vec::with_capacity(operations.len()), Vec::new(), HashMap::new());
    for (place, raw) in operations.into_iter().enumerate() {
        match read(raw.get().as_bytes()).and_then(|operation| at_its_rate(&api, &by.caller, operation)) {
            Err(problem) => slots.push(Slot::refused(problem)),
            Ok((user, ask)) => {
                slots.push(Slot::waiting(&ask));
                let chain = *chain_of.entry(user).or_insert(chains.len());
                if chain == chains.len() {
                    chains.push(Chain { user, places: Vec::new(), asks: Vec::new() });
                }
                chains[chain].places.push(place);
                chains[chain].asks.push(ask);
            }
        }
    }
    run(&api, chains, &mut slots, api.deadline()).await;
    Ok(answer(&slots, Language::of(&headers), api.config.top_up_url.as_deref()))
}

/// Runs the chains beside each other until each operation has its answer.
async fn run(api: &Api, chains: Vec<Chain>, slots: &mut [Slot], deadline: Deadline) {
    let run =
        async |chain: Chain| (chain.places, api.ledger.chain(chain.user, chain.asks, deadline.inner).await);
    let mut running: FuturesUnordered<_> = chains.into_iter().map(run).collect();
    while let Ok(Some((places, answers))) = timeout_at(deadline.end, running.next()).await {
        for (place, answer) in places.into_iter().zip(answers) {
            slots[place].take(answer);
        }
    }
    for slot in slots.iter_mut().filter(|slot| slot.answer.is_none()) {
        slot.take(Err(Refusal::Unavailable { outcome: Outcome::Unknown }));
    }
}

/// The operations, each still to be read.
fn elements(body: &[u8]) -> Result<Vec<&RawValue>, Problem> {
    let body = Object::parse(body, &["operations"])?;
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
        "reserve" => {
            let body = Object::parse(raw, &RESERVE_OPERATION)?;
            let user = user_id(&body)?;
            Ok((user, Ask::Reserve(read_reserve(&body, body.reservation_id("id")?)?)))
        }
        "debit" => {
            let body = Object::parse(raw, &DEBIT_OPERATION)?;
            let user = user_id(&body)?;
            Ok((user, Ask::Debit(read_debit(&body, body.reservation_id("id")?)?)))
        }
        "settle" => {
            let body = Object::parse(raw, &SETTLE_OPERATION)?;
            let user = user_id(&body)?;
            Ok((user, Ask::Settle(read_settle(&body, required_id(&body)?)?)))
        }
        "extend" => {
            let body = Object::parse(raw, &EXTEND_OPERATION)?;
            let user = user_id(&body)?;
            Ok((user, Ask::Extend(read_extend(&body, required_id(&body)?)?)))
        }
        "release" => {
            let body = Object::parse(raw, &NAMED_WITH_ID)?;
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

#[derive(Serialize)]
struct Answers<'a> {
    results: Vec<ResultView<'a>>,
}

#[derive(Serialize)]
struct ResultView<'a> {
    status: u16,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
    body: BodyView<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum BodyView<'a> {
    Done(DoneView<'a>),
    Problem(ProblemBody<'a>),
}

fn answer(slots: &[Slot], language: Language, top_up_url: Option<&str>) -> Response {
    let view = |slot| result(slot, language, top_up_url);
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
fn result<'a>(slot: &'a Slot, language: Language, top_up_url: Option<&'a str>) -> Option<ResultView<'a>> {
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
                body: BodyView::Problem(problem.body(language, top_up_url)),
            }
        }
    })
}
