//! An e-mail in full: its head, a text and the same in HTML.
//!
//! Everything that varies is a value of the event, an address of the configuration or of the user. In HTML all of it is
//! escaped; in the head a line break is refused before lettre sees it.

use jiff::{Timestamp, tz::TimeZone};
use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
};
use serde_json::Value;

use super::texts::{FACTS, Frame, Language, Text, frame, text};
use crate::store::{Event, User};

/// Why an e-mail cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("the address of the user cannot be written to")]
    Address,
    #[error("the e-mail cannot be put together")]
    Parts,
}

/// What stays the same for all e-mails.
#[derive(Clone, Debug)]
pub struct Letterhead {
    pub from: Mailbox,
    pub top_up_url: Option<String>,
}

/// The e-mail that tells this user of this event. Its `Message-ID` is the event's: whoever gets it twice can tell.
///
/// # Errors
/// When the address is none, or would break out of its line.
pub fn message(
    letterhead: &Letterhead,
    event: &Event,
    user: &User,
    now: Timestamp,
) -> Result<Message, MessageError> {
    let to: Address = user.email.parse().map_err(|_| MessageError::Address)?;
    if user.email.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(MessageError::Address);
    }
    let language = Language::of(user.locale.as_deref());
    let zone = user.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC);
    let letter = Letter {
        text: text(event.kind, language),
        frame: frame(language),
        language,
        facts: facts(&event.data, language),
        happened: moment(event.created_at, &zone, language),
        top_up_url: letterhead.top_up_url.as_deref(),
    };
    let domain = letterhead.from.email.domain();
    Message::builder()
        .from(letterhead.from.clone())
        .to(Mailbox::new(None, to))
        .subject(letter.text.subject)
        .date(now.into())
        .message_id(Some(format!("<cota-event-{}@{domain}>", event.id)))
        // RFC 3834: no machine is to answer this.
        .raw_header(raw("Auto-Submitted", "auto-generated"))
        .raw_header(raw("Content-Language", language.tag()))
        .multipart(MultiPart::alternative_plain_html(letter.plain(), letter.html()))
        .map_err(|_| MessageError::Parts)
}

fn raw(name: &'static str, value: &'static str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

/// An e-mail before it is text.
struct Letter<'a> {
    text: Text,
    frame: Frame,
    language: Language,
    facts: Vec<(&'static str, String)>,
    happened: String,
    top_up_url: Option<&'a str>,
}

impl Letter<'_> {
    fn offer(&self) -> Option<&str> {
        self.top_up_url.filter(|_| self.text.offers_top_up)
    }

    /// The facts, and when it happened.
    fn rows(&self) -> impl Iterator<Item = (&str, &str)> {
        let facts = self.facts.iter().map(|(name, value)| (*name, value.as_str()));
        facts.chain([(self.frame.happened, self.happened.as_str())])
    }

    fn plain(&self) -> String {
        let mut plain = format!("{}\n\n{}\n\n", self.text.subject, self.text.body);
        for (name, value) in self.rows() {
            plain.push_str(&format!("{name}: {value}\n"));
        }
        if let Some(url) = self.offer() {
            plain.push_str(&format!("\n{}: {url}\n", self.frame.top_up));
        }
        plain.push_str(&format!("\n-- \n{}\n", self.frame.why));
        plain
    }

    fn html(&self) -> String {
        let row = |(name, value): (&str, &str)| {
            format!(
                "<tr><td style=\"padding:2px 16px 2px 0;color:#555\">{}</td><td style=\"padding:2px 0\">{}</td></tr>",
                escaped(name),
                escaped(value)
            )
        };
        let rows: String = self.rows().map(row).collect();
        let offer = self.offer().map_or_else(String::new, |url| {
            format!(
                "<p style=\"margin:24px 0\"><a href=\"{}\" style=\"background:#1a56db;color:#fff;padding:10px 18px;\
                 border-radius:6px;text-decoration:none\">{}</a></p>",
                escaped(url),
                escaped(self.frame.top_up)
            )
        });
        format!(
            "<!doctype html><html lang=\"{}\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\
             <body style=\"margin:0;padding:24px;font:16px/1.5 system-ui,sans-serif;color:#111\">\
             <div style=\"max-width:560px;margin:0 auto\"><h1 style=\"font-size:20px\">{title}</h1><p>{}</p>\
             <table style=\"border-collapse:collapse;font-size:15px\">{rows}</table>{offer}\
             <p style=\"margin-top:32px;font-size:13px;color:#666\">{}</p></div></body></html>",
            self.language.tag(),
            escaped(self.text.body),
            escaped(self.frame.why),
            title = escaped(self.text.subject),
        )
    }
}

/// Longest value that is shown, in characters.
const MAX_VALUE: usize = 200;

/// What the event tells, as far as we have a name for it.
fn facts(data: &Value, language: Language) -> Vec<(&'static str, String)> {
    let name = |names: [&'static str; 2]| names[usize::from(language == Language::Portuguese)];
    let shown =
        FACTS.iter().filter_map(|(key, names)| Some((name(*names), value(data.get(key)?, key, language)?)));
    shown.collect()
}

fn value(value: &Value, key: &str, language: Language) -> Option<String> {
    match value {
        Value::Number(number) if key == "threshold" => {
            let percent = (number.as_f64()? * 10_000.0).round() / 100.0;
            Some(format!("{} %", decimal(&percent.to_string(), language)))
        }
        Value::Number(number) => Some(grouped(&number.to_string(), language)),
        // One line, whatever it holds.
        Value::String(text) if !text.is_empty() => {
            Some(text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_VALUE).collect())
        }
        _ => None,
    }
}

/// Digits in groups of three, as the language has them.
fn grouped(number: &str, language: Language) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let (whole, fraction) =
        digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    if !whole.bytes().all(|b| b.is_ascii_digit()) {
        return number.to_owned();
    }
    let separator = if language == Language::English { ',' } else { '.' };
    let mut text = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(separator);
        }
        text.push(digit);
    }
    match fraction {
        Some(fraction) => {
            format!("{text}{}{fraction}", if language == Language::English { '.' } else { ',' })
        }
        None => text,
    }
}

fn decimal(number: &str, language: Language) -> String {
    if language == Language::English { number.to_owned() } else { number.replace('.', ",") }
}

fn moment(at: Timestamp, zone: &TimeZone, language: Language) -> String {
    let format = if language == Language::English { "%Y-%m-%d %H:%M %Z" } else { "%d/%m/%Y %H:%M %Z" };
    at.to_zoned(zone.clone()).strftime(format).to_string()
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
