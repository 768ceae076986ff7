//! Who may call which route.
//!
//! Every route states its rule as an extractor, the first of its handler. The order of checks is the order of
//! the extractors: room, JWT, the caller's rate, access, ids in the path, shape of query and body. Access is decided
//! from the JWT and the path alone, before anything is looked up, so that a refusal says nothing about what exists.
//! Whoever is refused by then has had no byte of its body read.

use std::{marker::PhantomData, time::Duration};

use axum::{
    extract::{FromRequestParts, MatchedPath, RawPathParams},
    http::{HeaderMap, header, request::Parts},
};
use uuid::Uuid;

use super::{
    Api,
    code::Code,
    jwt::{AuthError, Principal, Role},
    limits::{Flight, keyed::Wait, networks::Peer},
    problem::Problem,
};
use crate::{
    config::millis,
    metrics,
    quota::{ReservationId, UserId},
    store::caller_known,
};

/// Who may use a route below `/users/{id}`.
pub trait Rule {
    /// Whether the call reports what was used or is needed no more. To refuse one would lose usage: it has room of its
    /// own, no rate, and its JWT is checked whatever its network did.
    const REPORTS: bool = false;

    /// `own` is whether the caller is a user and the path names that user.
    fn admits(role: Role, own: bool) -> bool;
}

/// Gateways and admins: reserve, settle and what belongs to it. Never a user, not even for its own id.
pub struct Hot;
/// Gateways and admins: settle, debit and release.
pub struct Report;
/// The user itself, gateways and admins: what a gateway reads to do its work.
pub struct Read;
/// The user itself and admins.
pub struct Own;
/// Admins alone.
pub struct AdminOnly;

impl Rule for Hot {
    fn admits(role: Role, _: bool) -> bool {
        matches!(role, Role::Gateway | Role::Admin)
    }
}

impl Rule for Report {
    const REPORTS: bool = true;

    fn admits(role: Role, own: bool) -> bool {
        Hot::admits(role, own)
    }
}

impl Rule for Read {
    fn admits(role: Role, own: bool) -> bool {
        own || matches!(role, Role::Gateway | Role::Admin)
    }
}

impl Rule for Own {
    fn admits(role: Role, own: bool) -> bool {
        own || role == Role::Admin
    }
}

impl Rule for AdminOnly {
    fn admits(role: Role, _: bool) -> bool {
        role == Role::Admin
    }
}

/// The user a route is about, once the caller has been admitted. Its call runs until this is dropped.
pub struct For<R> {
    pub user: UserId,
    _flight: Flight,
    rule: PhantomData<R>,
}

impl<R: Rule + Send> FromRequestParts<Api> for For<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let (principal, flight) = enter(parts, api, R::REPORTS).await?;
        let user = path_user(parts, api).await;
        // A user's own id, in its one spelling; a malformed id is nobody's.
        let own = principal.role == Role::User
            && user.is_some_and(|user| principal.subject.parse::<UserId>().is_ok_and(|own| own == user));
        if !R::admits(principal.role, own) {
            return Err(refused(parts, api, &principal, user));
        }
        let user = user.ok_or(Problem::new(Code::InvalidUserId))?;
        Ok(Self { user, _flight: flight, rule: PhantomData })
    }
}

/// A caller that the rule admits for any user at all, on routes that name no user in their path. Its call runs until
/// this is dropped.
pub struct ForAny<R> {
    pub caller: Principal,
    _flight: Flight,
    rule: PhantomData<R>,
}

impl<R: Rule + Send> FromRequestParts<Api> for ForAny<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let (caller, flight) = enter(parts, api, R::REPORTS).await?;
        if R::admits(caller.role, false) {
            Ok(Self { caller, _flight: flight, rule: PhantomData })
        } else {
            Err(refused(parts, api, &caller, None))
        }
    }
}

/// For the audit log as well as for the caller.
fn refused(parts: &Parts, api: &Api, caller: &Principal, user: Option<UserId>) -> Problem {
    let pattern = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    api.refusals.note(caller, user, format!("{} {pattern}", parts.method));
    Code::Forbidden.into()
}

/// An admin, on routes about no single user.
pub type Admin = ForAny<AdminOnly>;

/// The reservation id in the path.
pub struct PathReservation(pub ReservationId);

impl FromRequestParts<Api> for PathReservation {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        // Parameters that are no UTF-8 fail here: an id of the wrong form like any other.
        let params = RawPathParams::from_request_parts(parts, api).await.ok();
        let id = params.as_ref().and_then(|params| named(params, "rid"));
        id.and_then(|id| ReservationId::new(id).ok())
            .map(Self)
            .ok_or_else(|| Problem::new(Code::InvalidReservationId))
    }
}

/// The renewal in the path.
pub struct PathRenewal(pub Uuid);

impl FromRequestParts<Api> for PathRenewal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, api).await.ok();
        let text = params.as_ref().and_then(|params| named(params, "renewal"));
        text.and_then(one_spelling).map(Self).ok_or_else(|| Problem::new(Code::InvalidRenewalId))
    }
}

/// A UUID in its hyphenated form: its own parser would also take braces, and no hyphens.
pub fn one_spelling(text: &str) -> Option<Uuid> {
    text.parse::<Uuid>().ok().filter(|id| id.to_string().eq_ignore_ascii_case(text))
}

fn named<'a>(params: &'a RawPathParams, name: &str) -> Option<&'a str> {
    params.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

async fn path_user(parts: &mut Parts, api: &Api) -> Option<UserId> {
    match RawPathParams::from_request_parts(parts, api).await {
        Ok(params) => named(&params, "id")?.parse().ok(),
        // One parameter is no UTF-8, not necessarily this one: `/v1/users/{id}/…`.
        Err(_) => parts.uri.path().split('/').nth(3)?.parse().ok(),
    }
}

/// Room for the call, whom it is by, and whether that caller may go on.
async fn enter(parts: &Parts, api: &Api, reports: bool) -> Result<(Principal, Flight), Problem> {
    let flight = room(api, reports)?;
    let principal = match presented(&parts.headers).ok().and_then(|jwt| api.verifier.remembered(jwt)) {
        Some(known) => known,
        // Boxed: this is for the first call with a JWT, and would make every call's future larger.
        None => Box::pin(authenticate(parts, api, reports)).await?,
    };
    if !reports {
        admit(api, &principal)?;
    }
    caller_known(&principal.subject, principal.role);
    Ok((principal, flight))
}

/// Takes one call from the caller's budget.
pub fn admit(api: &Api, caller: &Principal) -> Result<(), Problem> {
    api.limits.callers.admit(caller).map_err(|wait| limited("callers", Code::RateLimited, wait))
}

/// Whoever comes with a ticket in the place of a JWT is the user whose it is. `redeem` takes the ticket.
pub async fn by_ticket(
    parts: &mut Parts,
    api: &Api,
    redeem: impl Future<Output = Result<Option<UserId>, Problem>>,
) -> Result<(UserId, Flight), Problem> {
    let flight = room(api, false)?;
    let (networks, peer) = (&api.limits.networks, parts.extensions.get::<Peer>().copied());
    let admitted = networks.admits(peer, &parts.headers);
    admitted.map_err(|wait| limited("networks", Code::TooManyRequests, wait))?;
    let Some(owner) = redeem.await? else {
        networks.failed(peer, &parts.headers);
        metrics::auth_refusal("ticket");
        return Err(Problem::unauthenticated("Bearer error=\"invalid_token\""));
    };
    admit(api, &Principal { subject: owner.to_string().into(), role: Role::User })?;
    // A malformed id is nobody's.
    match path_user(parts, api).await {
        Some(user) if user == owner => Ok((owner, flight)),
        _ => Err(Code::Forbidden.into()),
    }
}

fn room(api: &Api, reports: bool) -> Result<Flight, Problem> {
    api.limits.in_flight.enter(reports).ok_or_else(|| {
        metrics::limited("in_flight");
        Problem::new(Code::Overloaded)
    })
}

fn limited(limiter: &'static str, code: Code, Wait(seconds): Wait) -> Problem {
    metrics::limited(limiter);
    Problem::new(code).after(seconds)
}

/// Longest wait for a key that is not known yet, within the time a call may take.
const KEY_PATIENCE: Duration = Duration::from_secs(2);

/// Whom the call is by. `always`: the JWT is checked although its network may have to wait.
async fn authenticate(parts: &Parts, api: &Api, always: bool) -> Result<Principal, Problem> {
    let networks = &api.limits.networks;
    let peer = parts.extensions.get::<Peer>().copied();
    if !always {
        let admitted = networks.admits(peer, &parts.headers);
        admitted.map_err(|wait| limited("networks", Code::TooManyRequests, wait))?;
    }
    let verdict = match presented(&parts.headers) {
        Ok(jwt) => {
            let patience = KEY_PATIENCE.min(millis(api.config.request_deadline_ms));
            api.verifier.authenticate(jwt, patience).await
        }
        Err(reason) => Err(reason),
    };
    verdict.map_err(|reason| {
        networks.failed(peer, &parts.headers);
        metrics::auth_refusal(reason.as_str());
        tracing::debug!(reason = reason.as_str(), "JWT refused");
        Problem::unauthenticated(match reason {
            AuthError::Missing => "Bearer",
            _ => "Bearer error=\"invalid_token\"",
        })
    })
}

/// `Authorization: Bearer <JWT>`, or the bare JWT as the first clients send it.
fn presented(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Malformed);
    }
    let value = value.to_str().map_err(|_| AuthError::Malformed)?;
    match value.split_once(' ') {
        None if value.is_empty() => Err(AuthError::Missing),
        None => Ok(value),
        Some((scheme, jwt)) if scheme.eq_ignore_ascii_case("bearer") => Ok(jwt.trim_ascii()),
        Some(_) => Err(AuthError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn who_is_admitted_where() {
        use Role::{Admin, Gateway, User};
        fn admitted<R: Rule>() -> [bool; 4] {
            [(User, true), (User, false), (Gateway, false), (Admin, false)]
                .map(|(role, own)| R::admits(role, own))
        }
        assert_eq!(admitted::<Hot>(), [false, false, true, true]);
        assert_eq!(admitted::<Report>(), admitted::<Hot>());
        assert_eq!(admitted::<Read>(), [true, false, true, true]);
        assert_eq!(admitted::<Own>(), [true, false, false, true]);
        assert_eq!(admitted::<AdminOnly>(), [false, false, false, true]);
    }

    #[test]
    fn a_jwt_comes_with_or_without_its_scheme() {
        for (sent, found) in [
            (&["Bearer a.b.c"][..], Ok("a.b.c")),
            (&["bearer a.b.c"], Ok("a.b.c")),
            (&["BEARER  a.b.c "], Ok("a.b.c")),
            (&["a.b.c"], Ok("a.b.c")),
            (&[], Err(AuthError::Missing)),
            (&[""], Err(AuthError::Missing)),
            (&["Basic dTpw"], Err(AuthError::Malformed)),
            (&["Bearer a.b.c", "Bearer a.b.c"], Err(AuthError::Malformed)),
            (&["é"], Err(AuthError::Malformed)),
        ] {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(presented(&headers), found, "{sent:?}");
        }
    }
}
