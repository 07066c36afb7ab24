//! An event as other systems' logs want it: fields by name, a severity, one sentence.
//!
//! Owns what is taken from a line of the record, and the message ids. Must never pass on what a session core was
//! (`before`), nor a line of another shape than a record as if it were one.

use super::fanout::Taken;
use super::ocsf;
use crate::audit;
use jvpn_common::event::{Event, Severity};
use serde_json::{Value, json};

/// First fifteen bytes of every message id; the last one is the number of the event. Drawn once, never to change.
const MESSAGE_IDS: &str = "9b1f3c62d07e4a5c8f6e2a4d71c0b3";
/// The number of "events were lost here", which is no event of the record.
const DROPPED: u8 = 0xff;

/// An event to be handed on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    /// Event of the record, or DROPPED.
    pub(super) event: String,
    pub(super) severity: Severity,
    /// RFC 3339, nanoseconds.
    pub(super) ts: String,
    /// One sentence.
    pub(super) message: String,
    /// Names in lower case, in a fixed order; one that has several values comes several times.
    pub(super) fields: Vec<(&'static str, String)>,
}

/// Severity as syslog numbers it: 2 critical, 3 error, 4 warning, 5 notice, 6 informational.
pub(super) const fn priority(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Informational => 6,
    }
}

/// The journal's message id of an event.
pub(super) fn message_id(event: &str) -> String {
    let number = event.parse::<Event>().map_or(DROPPED, Event::number);
    format!("{MESSAGE_IDS}{number:02x}")
}

impl Said {
    /// What a queue gave; `now` is for what has no time of its own.
    pub(super) fn of(taken: &Taken, now: &str) -> Self {
        let record = match taken {
            Taken::Line(line) => serde_json::from_str(line).unwrap_or_else(|_| json!({ "event": "UNKNOWN" })),
            Taken::Lost(count) => json!({ "event": "DROPPED", "count": count }),
        };
        let text = |at: &str| {
            let value = record.pointer(at)?;
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Some(text).filter(|text| !text.is_empty() && !value.is_null())
        };
        let event = text("/event").unwrap_or_else(|| "UNKNOWN".to_owned());
        let severity = audit::severity(&record).unwrap_or(Severity::Medium);
        let mut fields = Vec::new();
        let places = [
            ("event", "/event"),
            ("node", "/node"),
            ("seq", "/seq"),
            ("session_id", "/session_id"),
            ("peer", "/peer"),
            ("from", "/from"),
            ("to", "/to"),
            ("reason", "/reason"),
            ("state_version", "/state_version"),
            ("policy_version", "/policy_version"),
            ("transport", "/transport/to/label"),
            ("remote", "/transport/to/remote"),
            ("what", "/details/what"),
            ("hash", "/hash"),
            ("count", "/count"),
        ];
        for (name, at) in places {
            fields.extend(text(at).map(|value| (name, value)));
            if name == "reason" {
                let codes = record.pointer("/details/reasons").and_then(Value::as_array);
                let codes = codes.into_iter().flatten().filter_map(Value::as_str);
                fields.extend(codes.map(|code| ("detail", code.to_owned())));
            }
        }
        fields.push(("severity", severity.name().to_owned()));
        let ts = text("/ts").unwrap_or_else(|| now.to_owned());
        Self { message: ocsf::message(&record), event, severity, ts, fields }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_a_message_id_of_its_own() {
        let mut ids: Vec<_> = Event::ALL.iter().map(|event| message_id(event.name())).collect();
        ids.push(message_id("DROPPED"));
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())), "{ids:?}");
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn a_record_gives_its_fields_and_a_loss_gives_its_number() {
        let line = r#"{"ts":"2026-01-02T03:04:05.000000006Z","at":"7","node":"gw","seq":"9","session_id":"ab","peer":"till","event":"TRANSPORT_SWITCH","from":"ATTACHED","to":"RECOVERING","reason":"RECOVERY_START","details":{"reasons":["NO_DELIVERY","LOSS"]},"state_version":"3","policy_version":5,"transport":{"from":null,"to":{"label":"lte","remote":"192.0.2.1:9"}},"before":"c2VjcmV0","hash":"ff"}"#;
        let said = Said::of(&Taken::Line(line.into()), "now");
        assert_eq!(
            (said.event.as_str(), said.severity, said.ts.as_str()),
            ("TRANSPORT_SWITCH", Severity::Low, "2026-01-02T03:04:05.000000006Z")
        );
        let of = |name| {
            said.fields.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(of("detail"), ["NO_DELIVERY", "LOSS"]);
        assert_eq!(
            [of("seq"), of("policy_version"), of("transport"), of("count")],
            [vec!["9"], vec!["5"], vec!["lte"], vec![]]
        );
        assert!(!format!("{said:?}").contains("c2VjcmV0"), "what the core was stays in the record");
        let lost = Said::of(&Taken::Lost(7), "now");
        assert_eq!((lost.event.as_str(), lost.ts.as_str(), lost.severity), ("DROPPED", "now", Severity::Medium));
        assert!(lost.fields.contains(&("count", "7".to_owned())) && lost.message.starts_with("7 events"), "{lost:?}");
        assert_eq!(Said::of(&Taken::Line("junk".into()), "now").event, "UNKNOWN");
    }
}
