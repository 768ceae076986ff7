//! In which form an answer is wanted: by `format` in the query, else by `Accept`.

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};

use super::{code::Code, problem::Problem, request::Params};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv,
    /// A page to read and print.
    Html,
}

impl Format {
    /// The word in the query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Html => "html",
        }
    }

    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("application", "json"),
            Self::Csv => ("text", "csv"),
            Self::Html => ("text", "html"),
        }
    }

    /// The wanted one of those that are offered; the first of these for whoever has no wish, or none that can be met.
    ///
    /// # Errors
    /// When the query names another.
    pub fn wanted(headers: &HeaderMap, query: &mut Params, offered: &[Self]) -> Result<Self, Problem> {
        if let Some(word) = query.take("format") {
            let named = offered.iter().copied().find(|format| format.as_str() == word);
            return named.ok_or_else(|| Problem::new(Code::InvalidQuery).field("format"));
        }
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = accepted.flat_map(|list| list.split(',')).filter_map(|range| weigh(range, offered));
        // The first of the heaviest, so that the caller's order decides among equals.
        let best = ranges.fold(None, |best: Option<(Self, f32)>, range| match best {
            Some(held) if held.1 >= range.1 => Some(held),
            _ => Some(range),
        });
        Ok(best.map(|(format, _)| format).or(offered.first().copied()).unwrap_or(Self::Json))
    }
}

/// The first offer in one media range, with its quality; `None` when there is none, or its quality is 0.
fn weigh(range: &str, offered: &[Format]) -> Option<(Format, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let (kind, subkind) = parts.next()?.split_once('/')?;
    let fits = |wanted: &str, ours: &str| wanted == "*" || wanted.eq_ignore_ascii_case(ours);
    let format = offered.iter().copied().find(|format| {
        let ours = format.media_type();
        fits(kind, ours.0) && fits(subkind, ours.1)
    })?;
    let quality = match parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q="))) {
        Some(text) => text.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q))?,
        None => 1.0,
    };
    (quality > 0.0).then_some((format, quality))
}

/// An answer to be kept as a file of this name, which is of our own making: letters, digits, points and hyphens.
pub fn csv(name: &str, body: impl Into<axum::body::Body>) -> Response {
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    let mut response = ([content_type], body.into()).into_response();
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{name}.csv\"")) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_offer_wins_and_who_asks_for_nothing_gets_the_first() {
        use Format::{Csv, Html, Json};
        let all = [Json, Csv, Html];
        for (accept, offered, format) in [
            ("", &all[..], Json),
            ("*/*", &all, Json),
            ("text/csv", &all, Csv),
            ("TEXT/CSV; charset=utf-8", &all, Csv),
            ("text/*", &all, Csv),
            ("text/html,application/xhtml+xml,*/*;q=0.8", &all, Html),
            ("text/html,application/xhtml+xml,*/*;q=0.8", &all[..2], Json),
            ("text/csv;q=0.5, application/json;q=0.4", &all, Csv),
            ("text/csv;q=0, text/html;q=0.1", &all, Html),
            ("image/png", &all, Json),
            ("nonsense", &all, Json),
            ("text/csv;q=nan", &all, Json),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            let mut query = Params::of("/");
            assert_eq!(Format::wanted(&headers, &mut query, offered).ok(), Some(format), "{accept}");
            let mut query = Params::of("/?format=csv");
            assert_eq!(Format::wanted(&headers, &mut query, offered).ok(), Some(Csv), "the query decides");
            let refused = Format::wanted(&headers, &mut Params::of("/?format=xml"), offered);
            assert_eq!(refused.unwrap_err().code(), Code::InvalidQuery);
        }
    }
}
