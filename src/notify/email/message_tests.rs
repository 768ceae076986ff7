//! E-mails as they are put together: heads, both bodies, and what is escaped.

use serde_json::json;

use super::*;
use crate::{
    quota::{AlertThreshold, EventKind, UserId},
    store::UserStatus,
};

fn user(email: &str, locale: Option<&str>, zone: Option<&str>) -> User {
    let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    User {
        id: UserId::generate(),
        email: email.into(),
        external_id: None,
        status: UserStatus::Active,
        locale: locale.map(Into::into),
        time_zone: zone.map(Into::into),
        alert_threshold: AlertThreshold::from_ten_thousandths(8_000).unwrap(),
        total_tokens: 0,
        used_tokens: 0,
        version: 1,
        created_at: at,
        updated_at: at,
    }
}

fn event(kind: EventKind, data: Value) -> Event {
    let created_at: Timestamp = "2026-01-31T15:04:05Z".parse().unwrap();
    Event { id: 42, user: UserId::generate(), kind, data, created_at }
}

fn letterhead() -> Letterhead {
    Letterhead {
        from: "Cota <cota@example.com>".parse().unwrap(),
        top_up_url: Some("https://example.com/top-up?a=1&b=2".into()),
    }
}

fn written(kind: EventKind, data: Value, user: &User) -> Result<String, MessageError> {
    let now: Timestamp = "2026-01-31T15:05:00Z".parse().unwrap();
    let message = message(&letterhead(), &event(kind, data), user, now)?;
    Ok(String::from_utf8(message.formatted()).unwrap())
}

/// The two bodies, their transfer encodings undone.
fn letter(kind: EventKind, data: Value, language: Language) -> (String, String) {
    let letter = Letter {
        text: text(kind, language),
        frame: frame(language),
        language,
        facts: facts(&data, language),
        happened: "then".into(),
        top_up_url: Some("https://example.com/?a=1&b=2"),
    };
    (letter.plain(), letter.html())
}

#[test]
fn a_mail_has_what_it_needs_and_the_same_id_each_time() {
    let ana = user("ana@example.com", None, None);
    let mail = written(EventKind::AlertWarning, json!({"spent": 80, "limit": 100}), &ana).unwrap();
    let again = written(EventKind::AlertWarning, json!({"spent": 80, "limit": 100}), &ana).unwrap();
    for text in [&mail, &again] {
        let head = text.split_once("\r\n\r\n").unwrap().0;
        for line in [
            "From: Cota <cota@example.com>",
            "To: ana@example.com",
            "Subject: Most of your tokens are used",
            "Date: Sat, 31 Jan 2026 15:05:00 +0000",
            "Message-ID: <cota-event-42@example.com>",
            "Auto-Submitted: auto-generated",
            "Content-Language: en",
        ] {
            assert!(head.lines().any(|found| found == line), "{line}: {head}");
        }
    }
    assert!(
        mail.contains("multipart/alternative") && mail.contains("text/plain") && mail.contains("text/html")
    );
}

#[test]
fn numbers_and_times_are_those_of_the_readers_language() {
    let data =
        json!({"spent": 1_234_567, "limit": 2_000_000, "remaining": -5_000, "threshold": 0.805, "note": "x"});
    let (plain, _) = letter(EventKind::AlertCritical, data.clone(), Language::English);
    for line in ["Used: 1,234,567", "Of in all: 2,000,000", "Left: -5,000", "Threshold: 80.5 %"] {
        assert!(plain.lines().any(|found| found == line), "{line}: {plain}");
    }
    assert!(!plain.contains("note"), "what has no name is not shown");
    let (plain, html) = letter(EventKind::AlertCritical, data, Language::Portuguese);
    for line in ["Usado: 1.234.567", "Restante: -5.000", "Limiar: 80,5 %", "Quando: then"] {
        assert!(plain.lines().any(|found| found == line), "{line}: {plain}");
    }
    assert!(html.contains("lang=\"pt-BR\"") && html.contains("1.234.567"));
    let at: Timestamp = "2026-01-31T15:04:05Z".parse().unwrap();
    let zone = TimeZone::get("America/Sao_Paulo").unwrap();
    assert_eq!(moment(at, &zone, Language::Portuguese), "31/01/2026 12:04 -03");
    assert_eq!(moment(at, &TimeZone::UTC, Language::English), "2026-01-31 15:04 UTC");
    for (number, english) in [
        ("0", "0"),
        ("999", "999"),
        ("1000", "1,000"),
        ("-1000000", "-1,000,000"),
        ("1234.5", "1,234.5"),
        ("1e20", "1e20"),
    ] {
        assert_eq!(grouped(number, Language::English), english);
    }
}

#[test]
fn nothing_that_varies_becomes_markup_or_a_line_of_its_own() {
    let data = json!({"reason": "<img src=x onerror=\"alert('1')\">&\r\nBcc: eve@example.com", "month": "é".repeat(500)});
    let (plain, html) = letter(EventKind::CreditGranted, data, Language::English);
    assert!(
        html.contains("&lt;img src=x onerror=&quot;alert(&#39;1&#39;)&quot;&gt;&amp;  Bcc: eve@example.com")
    );
    assert!(!html.contains("<img") && !plain.lines().any(|line| line.starts_with("Bcc")));
    assert!(plain.lines().all(|line| line.chars().count() < 250));
}

#[test]
fn what_helps_is_offered_where_it_helps() {
    for kind in EventKind::ALL {
        let (plain, html) = letter(kind, json!({}), Language::English);
        let offers = text(kind, Language::English).offers_top_up;
        assert_eq!(plain.contains("https://example.com/?a=1&b=2"), offers, "{kind:?}");
        assert_eq!(html.contains("href=\"https://example.com/?a=1&amp;b=2\""), offers, "{kind:?}");
    }
    assert!(text(EventKind::AlertBlocked, Language::Portuguese).offers_top_up);
}

#[test]
fn addresses_that_are_none_are_refused() {
    for address in [
        "",
        "ana",
        "ana@",
        "ana@example.com\r\nBcc: eve@example.com",
        "ana@example.com, eve@example.com",
        "Ana <ana@example.com>",
        "ana @example.com",
    ] {
        let refused = written(EventKind::AlertWarning, json!({}), &user(address, None, None));
        assert_eq!(refused, Err(MessageError::Address), "{address:?}");
    }
    let subject =
        written(EventKind::AlertWarning, json!({}), &user("ana@example.com", Some("pt-BR"), None)).unwrap();
    assert!(subject.contains("Subject: A maior parte dos seus tokens foi usada"));
    let encoded = written(
        EventKind::AccountSuspended,
        json!({}),
        &user("ana@example.com", Some("pt-BR"), Some("America/Sao_Paulo")),
    );
    assert!(encoded.unwrap().is_ascii(), "whatever is not ASCII is encoded");
}
