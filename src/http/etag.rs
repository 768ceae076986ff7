//! Optimistic locking: `ETag` out, `If-Match` and `If-None-Match` in (RFC 9110, sections 8.8.3 and 13.1).
//!
//! A tag is strong, and of two parts: the version of the row, which every change through this API raises by one, and a
//! digest of what a read shows. They serve two purposes. `If-None-Match` asks whether a read would show anything else,
//! so it compares the whole. `If-Match` protects what others have changed, so it compares the version: tokens that
//! were settled since are part of what a read shows, and no reason to refuse a change of the address.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{code::Code, problem::Problem};
use crate::store::Expected;

/// The tag of what a read of the resource shows, at this version.
pub fn of(version: u64, shown: &impl Serialize) -> String {
    // What can be sent can be written; should it not, the version alone is still a tag.
    let digest = Sha256::digest(serde_json::to_vec(shown).unwrap_or_default());
    let mark =
        digest.iter().take(8).fold(String::with_capacity(16), |mark, byte| mark + &format!("{byte:02x}"));
    format!("\"{version}-{mark}\"")
}

/// The answer with its tag.
pub fn tagged(mut response: Response, tag: &str) -> Response {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The answer to a read, or 304 with its tag when the caller has what it shows.
pub fn unless_known(headers: &HeaderMap, answer: Response) -> Response {
    let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default();
    let is_known = match tags(headers, &header::IF_NONE_MATCH) {
        Some(Ok(Tags::Any)) => true,
        Some(Ok(Tags::List(tags))) => tags.iter().any(|known| known.opaque == tag.trim_matches('"')),
        // Whoever sends what is no list of tags is given the whole answer.
        Some(Err(Malformed)) | None => false,
    };
    if is_known { tagged(StatusCode::NOT_MODIFIED.into_response(), tag) } else { answer }
}

/// The versions that the caller's change may be made to.
///
/// # Errors
/// `precondition_required` without `If-Match`, `invalid_entity_tag` when it is neither `*` nor a list of tags.
pub fn if_match(headers: &HeaderMap) -> Result<Expected, Problem> {
    match tags(headers, &header::IF_MATCH) {
        None => Err(Problem::new(Code::PreconditionRequired).field("If-Match")),
        Some(Err(Malformed)) => Err(Problem::new(Code::InvalidEntityTag).field("If-Match")),
        Some(Ok(Tags::Any)) => Ok(Expected::Any),
        // A weak tag never matches, and neither does one that is none of ours.
        Some(Ok(Tags::List(tags))) => Ok(Expected::OneOf(
            tags.iter().filter(|tag| !tag.weak).filter_map(|tag| version(tag.opaque)).collect(),
        )),
    }
}

/// The version in one of our tags.
fn version(opaque: &str) -> Option<u64> {
    let (version, mark) = opaque.split_once('-')?;
    // One spelling per version: `parse` alone would also take a sign.
    let digits = version.bytes().all(|b| b.is_ascii_digit()) && mark.len() == 16;
    digits.then(|| version.parse().ok()).flatten()
}

enum Tags<'a> {
    Any,
    List(Vec<Tag<'a>>),
}

struct Tag<'a> {
    weak: bool,
    opaque: &'a str,
}

struct Malformed;

/// The tags of a header that may be sent in several lines; `None` when it was not sent.
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Result<Tags<'a>, Malformed>> {
    let lines: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    if lines.is_empty() {
        return None;
    }
    if let [line] = lines.as_slice()
        && line.as_bytes().trim_ascii() == b"*"
    {
        return Some(Ok(Tags::Any));
    }
    let mut tags = Vec::new();
    for line in lines {
        let Ok(text) = line.to_str() else { return Some(Err(Malformed)) };
        if read_list(text, &mut tags).is_none() {
            return Some(Err(Malformed));
        }
    }
    Some(if tags.is_empty() { Err(Malformed) } else { Ok(Tags::List(tags)) })
}

/// One line: tags with commas between them. A comma inside a tag is its own.
fn read_list<'a>(text: &'a str, tags: &mut Vec<Tag<'a>>) -> Option<()> {
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        // RFC 9110, 5.6.1: empty elements of a list are passed over.
        if let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_ascii_start();
            continue;
        }
        let (weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
        let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
        if !opaque.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        tags.push(Tag { weak, opaque });
        rest = after.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    const MARK: &str = "0123456789abcdef";

    #[test]
    fn a_change_may_be_made_to_the_versions_named() {
        let one = format!("\"7-{MARK}\"");
        for (lines, expected) in [
            (vec![one.clone()], Ok(Expected::OneOf(vec![7]))),
            (vec![format!(" {one} , \"8-{MARK}\",")], Ok(Expected::OneOf(vec![7, 8]))),
            (vec![one.clone(), format!("\"9-{MARK}\"")], Ok(Expected::OneOf(vec![7, 9]))),
            (vec![format!("\"a,b\", {one}")], Ok(Expected::OneOf(vec![7]))),
            (vec!["*".into()], Ok(Expected::Any)),
            // Known, and never a match.
            (vec![format!("W/{one}")], Ok(Expected::OneOf(vec![]))),
            (vec!["\"\"".into()], Ok(Expected::OneOf(vec![]))),
            (vec![format!("\"+7-{MARK}\"")], Ok(Expected::OneOf(vec![]))),
            (vec!["\"7\"".into()], Ok(Expected::OneOf(vec![]))),
            (vec![], Err(Code::PreconditionRequired)),
            (vec![String::new()], Err(Code::InvalidEntityTag)),
            (vec!["7".into()], Err(Code::InvalidEntityTag)),
            (vec![format!("{one}{one}")], Err(Code::InvalidEntityTag)),
            (vec!["\"7".into()], Err(Code::InvalidEntityTag)),
            (vec![format!("w/{one}")], Err(Code::InvalidEntityTag)),
            (vec!["\"a b\"".into()], Err(Code::InvalidEntityTag)),
            (vec![format!("*, {one}")], Err(Code::InvalidEntityTag)),
            (vec!["*".into(), one.clone()], Err(Code::InvalidEntityTag)),
            (vec!["\"é\"".into()], Err(Code::InvalidEntityTag)),
        ] {
            let borrowed: Vec<&str> = lines.iter().map(String::as_str).collect();
            let found = if_match(&headers(header::IF_MATCH, &borrowed)).map_err(|problem| problem.code());
            assert_eq!(found, expected, "{lines:?}");
        }
    }

    #[test]
    fn a_read_is_spared_only_what_it_knows_whole() {
        let (tag, shown) = (of(7, &"a"), of(7, &"b"));
        assert_ne!(tag, shown);
        for (lines, spared) in [
            (vec![tag.clone()], true),
            (vec![format!("\"x\", W/{tag}")], true),
            (vec!["*".into()], true),
            (vec![shown], false),
            (vec![of(8, &"a")], false),
            (vec!["nonsense".into()], false),
            (vec![], false),
        ] {
            let borrowed: Vec<&str> = lines.iter().map(String::as_str).collect();
            let answer = unless_known(
                &headers(header::IF_NONE_MATCH, &borrowed),
                tagged(StatusCode::OK.into_response(), &tag),
            );
            let expected = if spared { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
            assert_eq!(answer.status(), expected, "{lines:?}");
            assert_eq!(answer.headers()["etag"], tag);
        }
    }
}
