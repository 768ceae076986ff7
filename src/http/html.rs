//! Pages that are whole in themselves: text that is escaped, and numbers as the reader writes them.

use std::{
    fmt::{Display, Write},
    sync::LazyLock,
};

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

use super::language::Language;

/// Markup in the making. What is marked up stands in the code; everything else goes through [`Html::text`].
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Markup of our own.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// A text of whatever origin, for content or for an attribute in double quotes.
    pub fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing to a text cannot fail.
        let _ = write!(Escaped(&mut self.0), "{text}");
        self
    }

    /// A text between an opening and a closing tag of our own.
    pub fn within(&mut self, open: &'static str, text: impl Display, close: &'static str) -> &mut Self {
        self.raw(open).text(text).raw(close)
    }

    /// The answer: a page of this title in the one style that it may have.
    pub fn page(self, language: Language, title: &str) -> Response {
        let mut page = Self::default();
        page.raw("<!DOCTYPE html>\n<html lang=\"").text(language.tag()).raw(
            "\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
        );
        page.within("<title>", title, "</title>");
        page.raw("<style>").raw(STYLE).raw("</style></head><body>");
        page.0.push_str(&self.0);
        page.raw("</body></html>\n");
        let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        ([content_type, (POLICY, ALLOWED.clone())], page.0).into_response()
    }
}

struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for letter in text.chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                letter => self.0.push(letter),
            }
        }
        Ok(())
    }
}

const STYLE: &str = include_str!("html.css");
const POLICY: HeaderName = header::CONTENT_SECURITY_POLICY;

/// A page may show itself in its own style, and nothing else: no script, no other file.
static ALLOWED: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    // Base64 has no character that a header may not have.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// A whole number in groups of three digits.
pub struct Number(pub i64, pub Language);

impl Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = self.0.unsigned_abs().to_string();
        // The sign that is as wide as a digit.
        let mut grouped = String::from(if self.0 < 0 { "−" } else { "" });
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                grouped.push(match self.1 {
                    Language::English => ',',
                    Language::Portuguese => '.',
                });
            }
            grouped.push(digit);
        }
        f.pad(&grouped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_becomes_markup() {
        let mut html = Html::default();
        html.within("<td>", "<script>alert(\"&'x\")</script>", "</td>");
        assert_eq!(html.0, "<td>&lt;script&gt;alert(&quot;&amp;&#39;x&quot;)&lt;/script&gt;</td>");
    }

    #[test]
    fn numbers_are_grouped_as_the_reader_does_it() {
        let (english, portuguese) = (Language::English, Language::Portuguese);
        for (number, language, written) in [
            (0, english, "0"),
            (999, english, "999"),
            (1_000, english, "1,000"),
            (-1_234_567, english, "−1,234,567"),
            (1_234_567, portuguese, "1.234.567"),
            (i64::MIN, portuguese, "−9.223.372.036.854.775.808"),
        ] {
            assert_eq!(Number(number, language).to_string(), written);
        }
    }

    #[test]
    fn the_policy_allows_the_style_and_nothing_else() {
        let policy = ALLOWED.to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"));
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import") && !STYLE.contains("</"));
    }
}
