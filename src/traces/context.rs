//! The context of a trace as it comes with a request and leaves with another: W3C Trace Context, `traceparent` and
//! `tracestate`.

use std::str::FromStr;

use axum::http::{HeaderMap, HeaderValue};
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};

pub const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Length of a `traceparent` of version 00: `00-<32 digits>-<16 digits>-<2 digits>`.
const LENGTH: usize = 55;

/// A longer `tracestate` is not kept (W3C §3.3.1.5 asks for this much).
const MAX_STATE_BYTES: usize = 512;

/// What a request says of its trace.
pub enum Arrived {
    /// Nothing, or nothing that can be read.
    Nothing,
    /// Its caller does not record it.
    Unsampled,
    Sampled(Context),
}

/// Reads a request's trace context; for one that is not recorded, without an allocation.
pub fn arrived(headers: &HeaderMap) -> Arrived {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Arrived::Nothing };
    match read(value.as_bytes()) {
        None => Arrived::Nothing,
        Some((_, _, flags)) if flags & TraceFlags::SAMPLED.to_u8() == 0 => Arrived::Unsampled,
        Some((trace, span, _)) => {
            let parent = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, state(headers));
            Arrived::Sampled(Context::new().with_remote_span_context(parent))
        }
    }
}

/// Trace, parent and flags, if the value is well formed (W3C §3.2.2). A later version may go on after the flags.
fn read(value: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let ends = match value.get(LENGTH) {
        None => value.len() == LENGTH,
        Some(next) => *next == b'-' && !value.starts_with(b"00"),
    };
    if !ends || [2, 35, 52].iter().any(|dash| value[*dash] != b'-') {
        return None;
    }
    let version = number(&value[..2])?;
    let trace = TraceId::from(number(&value[3..35])?);
    let span = SpanId::from(u64::try_from(number(&value[36..52])?).ok()?);
    let flags = u8::try_from(number(&value[53..LENGTH])?).ok()?;
    let is_valid = version != 0xff && trace != TraceId::INVALID && span != SpanId::INVALID;
    is_valid.then_some((trace, span, flags))
}

/// Lower-case hexadecimal digits, 32 at most.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// What other tracing systems have added; nothing if that is too long or malformed.
fn state(headers: &HeaderMap) -> TraceState {
    let parts: Vec<&str> =
        headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let whole = parts.join(",");
    if whole.len() > MAX_STATE_BYTES {
        return TraceState::NONE;
    }
    TraceState::from_str(&whole).unwrap_or(TraceState::NONE)
}

/// The `traceparent` of what is sent to others, for a span that is recorded.
pub fn traceparent(span: &SpanContext) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("00-{}-{}-01", span.trace_id(), span.span_id())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn sampled(pairs: &[(&'static str, &str)]) -> Option<SpanContext> {
        match arrived(&headers(pairs)) {
            Arrived::Sampled(context) => Some(context.span().span_context().clone()),
            _ => None,
        }
    }

    #[test]
    fn a_sampled_context_is_taken_as_it_is_and_passed_on() {
        for value in [
            format!("00-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-ff"),
            format!("01-{TRACE}-{SPAN}-03"),
            format!("cc-{TRACE}-{SPAN}-01-what-comes-later"),
        ] {
            let parent = sampled(&[(TRACEPARENT, &value), (TRACESTATE, "a=1"), (TRACESTATE, "b=2")]).unwrap();
            assert_eq!(
                (parent.trace_id().to_string(), parent.span_id().to_string()),
                (TRACE.into(), SPAN.into())
            );
            assert_eq!(parent.trace_state().header(), "a=1,b=2");
            assert!(parent.is_remote() && parent.is_sampled());
            assert_eq!(traceparent(&parent).unwrap(), &*format!("00-{TRACE}-{SPAN}-01"));
        }
    }

    #[test]
    fn a_caller_that_records_nothing_is_followed() {
        for flags in ["00", "02", "fe"] {
            let found = arrived(&headers(&[(TRACEPARENT, &format!("00-{TRACE}-{SPAN}-{flags}"))]));
            assert!(matches!(found, Arrived::Unsampled), "{flags}");
        }
    }

    #[test]
    fn what_is_malformed_is_as_good_as_nothing() {
        let zeros = "0".repeat(32);
        for value in [
            String::new(),
            "x".into(),
            "-".repeat(55),
            "0".repeat(55),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("01-{TRACE}-{SPAN}-01.more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!(" 0-{TRACE}-{SPAN}-01"),
        ] {
            let found = arrived(&headers(&[(TRACEPARENT, &value)]));
            assert!(matches!(found, Arrived::Nothing), "{value:?}");
        }
        let once = format!("00-{TRACE}-{SPAN}-01");
        assert!(matches!(arrived(&headers(&[(TRACEPARENT, &once), (TRACEPARENT, &once)])), Arrived::Nothing));
        assert!(matches!(arrived(&HeaderMap::new()), Arrived::Nothing));
        let long = format!("a={}", "x".repeat(MAX_STATE_BYTES));
        for state in ["no pair", "A=1", &long] {
            let parent = sampled(&[(TRACEPARENT, &once), (TRACESTATE, state)]).unwrap();
            assert_eq!(parent.trace_state(), &TraceState::NONE, "{state}");
        }
    }
}
