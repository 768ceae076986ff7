//! The languages of titles and details.

use axum::http::{HeaderMap, header};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    English,
    Portuguese,
}

impl Language {
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Portuguese => "pt-BR",
        }
    }

    /// The language of a locale, if it is spoken here.
    pub fn of_locale(locale: &str) -> Option<Self> {
        weigh(locale).map(|(language, _)| language)
    }

    /// The best of `Accept-Language` that is spoken here; English when it names neither.
    pub fn of(headers: &HeaderMap) -> Self {
        let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        let weighed = accepted.into_iter().flat_map(|list| list.split(',')).filter_map(weigh);
        // The first of the heaviest, so that the caller's order decides among equals.
        let best = weighed.fold(None, |best: Option<(Self, u16)>, range| match best {
            Some(held) if held.1 >= range.1 => Some(held),
            _ => Some(range),
        });
        best.map_or(Self::English, |(language, _)| language)
    }
}

/// One language range with its quality in thousandths; `None` for what is not spoken here or has quality 0.
fn weigh(range: &str) -> Option<(Language, u16)> {
    let mut parts = range.split(';');
    let primary = parts.next()?.trim().split('-').next()?;
    let language = if primary.eq_ignore_ascii_case("pt") {
        Language::Portuguese
    } else if primary.eq_ignore_ascii_case("en") || primary == "*" {
        Language::English
    } else {
        return None;
    };
    let quality = match parts.find_map(|part| part.trim().strip_prefix("q=")) {
        Some(text) => text.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q))?,
        None => 1.0,
    };
    (quality > 0.0).then_some((language, (quality * 1000.0) as u16))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_heaviest_language_spoken_here_wins() {
        for (accepted, language) in [
            ("pt-BR", Language::Portuguese),
            ("pt", Language::Portuguese),
            ("PT-br,en;q=0.8", Language::Portuguese),
            ("en, pt-BR;q=0.9", Language::English),
            ("en;q=0.5, pt;q=0.7", Language::Portuguese),
            ("de, fr;q=0.9, pt;q=0.1", Language::Portuguese),
            ("pt;q=0", Language::English),
            ("pt;q=nan", Language::English),
            ("de", Language::English),
            ("*", Language::English),
            ("", Language::English),
            (";;,,q=", Language::English),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_str(accepted).unwrap());
            assert_eq!(Language::of(&headers), language, "{accepted}");
        }
        assert_eq!(Language::of(&HeaderMap::new()), Language::English);
    }
}
