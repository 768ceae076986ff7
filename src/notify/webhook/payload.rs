//! What a webhook carries.

use serde::Serialize;
use serde_json::Value;

use crate::store::Event;

/// The body of a webhook. Anything a receiver does not know it passes over.
#[derive(Serialize)]
struct Payload<'a> {
    r#type: &'a str,
    /// When it happened, which may be long before it arrives.
    timestamp: String,
    id: String,
    user_id: String,
    data: &'a Value,
}

/// The id of an event for its receivers, by which they tell a repeat.
pub fn event_id(event: i64) -> String {
    format!("evt_{event}")
}

/// The body. Below 20 kB: an event has at most 16 KiB of facts.
pub fn payload(event: &Event) -> Vec<u8> {
    let payload = Payload {
        r#type: event.kind.as_str(),
        timestamp: format!("{:.3}", event.created_at),
        id: event_id(event.id),
        user_id: event.user.to_string(),
        data: &event.data,
    };
    // Texts and JSON that was read before: writing it cannot fail, and nothing at all is no signed event.
    serde_json::to_vec(&payload).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::quota::{EventKind, UserId};

    fn event(data: Value) -> Event {
        let user: UserId = "0198c5a2-7d34-7c11-9f5e-2b6a3c1d4e5f".parse().unwrap();
        let created_at: Timestamp = "2026-01-31T12:00:00.123456Z".parse().unwrap();
        Event { id: 42, user, kind: EventKind::AlertWarning, data, created_at }
    }

    #[test]
    fn a_payload_says_what_when_and_of_whom() {
        let text = String::from_utf8(payload(&event(json!({"percent": 80})))).unwrap();
        assert_eq!(
            text,
            r#"{"type":"alert.warning","timestamp":"2026-01-31T12:00:00.123Z","id":"evt_42","#.to_owned()
                + r#""user_id":"0198c5a2-7d34-7c11-9f5e-2b6a3c1d4e5f","data":{"percent":80}}"#
        );
    }

    #[test]
    fn the_largest_event_stays_small() {
        // 16 KiB as Postgres writes it, which is never shorter.
        let data = json!({"x": "a".repeat(16_384 - 9)});
        let length = payload(&event(data)).len();
        assert!((16_384..20_000).contains(&length), "{length}");
    }
}
