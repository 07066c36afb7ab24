//! RFC 5424: one datagram a message, the fields as structured data.
//!
//! Owns the form of a message. Must never let a value end its parameter early.

use super::said::{Said, priority};
use jiff::Timestamp;
use std::fmt::Write as _;

/// The structured data's name. 32473 is the enterprise number that RFC 5612 sets aside for examples: this project has none.
const SD_ID: &str = "jvpn@32473";
/// Facility "daemon".
const FACILITY: u8 = 3;
/// Longest value of a parameter in bytes; more is cut, so that a message fits every receiver's 8 KiB.
const VALUE_MAX: usize = 256;
/// Longest host name of a header, by the RFC.
const HOST_MAX: usize = 255;

/// What of a header stays the same.
#[derive(Clone, Debug)]
pub(super) struct Header {
    host: String,
    pid: u32,
}

impl Header {
    /// Of this process.
    pub(super) fn own() -> Self {
        let name = rustix::system::uname();
        Self::of(&name.nodename().to_string_lossy(), std::process::id())
    }

    fn of(host: &str, pid: u32) -> Self {
        let host: String = host.chars().filter(char::is_ascii_graphic).take(HOST_MAX).collect();
        Self { host: if host.is_empty() { "-".to_owned() } else { host }, pid }
    }

    /// A message.
    pub(super) fn message(&self, said: &Said) -> Vec<u8> {
        let pri = FACILITY * 8 + priority(said.severity);
        // At most six digits after the point.
        let ts = said.ts.parse::<Timestamp>().map_or_else(|_| "-".to_owned(), |ts| format!("{ts:.6}"));
        let Self { host, pid } = self;
        let mut message = format!("<{pri}>1 {ts} {host} jvpn-ctl {pid} {} [{SD_ID}", said.event);
        for (name, value) in &said.fields {
            let _ = write!(message, " {name}=\"");
            escape(&mut message, value);
            message.push('"');
        }
        message.push_str("] ");
        if !said.message.is_ascii() {
            // Says that what follows is UTF-8.
            message.push('\u{feff}');
        }
        message.push_str(&said.message);
        message.into_bytes()
    }
}

fn escape(to: &mut String, value: &str) {
    for c in value.get(..value.floor_char_boundary(VALUE_MAX)).unwrap_or(value).chars() {
        if matches!(c, '"' | '\\' | ']') {
            to.push('\\');
        }
        to.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fanout::Taken;
    use super::*;

    fn message(line: &str) -> String {
        let said = Said::of(&Taken::Line(line.into()), "2026-01-02T03:04:05.1Z");
        String::from_utf8(Header::of("gw host", 7).message(&said)).expect("text")
    }

    #[test]
    fn a_message_has_every_part_in_its_place() {
        let line = r#"{"ts":"2026-01-02T03:04:05.123456789Z","node":"gw","seq":"9","session_id":"ab","peer":"till","event":"STATE_CHANGE","from":"ATTACHED","to":"RECOVERING","reason":"RECOVERY_START","details":{"reasons":["LOSS"]},"state_version":"3"}"#;
        assert_eq!(
            message(line),
            "<29>1 2026-01-02T03:04:05.123456Z gwhost jvpn-ctl 7 STATE_CHANGE [jvpn@32473 event=\"STATE_CHANGE\" node=\"gw\" \
             seq=\"9\" session_id=\"ab\" peer=\"till\" from=\"ATTACHED\" to=\"RECOVERING\" reason=\"RECOVERY_START\" \
             detail=\"LOSS\" state_version=\"3\" severity=\"low\"] till: STATE_CHANGE, ATTACHED to RECOVERING, \
             RECOVERY_START + LOSS"
        );
    }

    #[test]
    fn a_quote_a_backslash_and_a_bracket_end_nothing_and_other_scripts_are_marked() {
        let text = message(r#"{"event":"SECURITY_EVENT","peer":"ä\"] x=\"1\\"}"#);
        assert!(text.contains(r#" peer="ä\"\] x=\"1\\" "#), "{text}");
        assert!(text.contains("] \u{feff}ä"), "{text}");
        assert!(text.contains("<28>1 2026-01-02T03:04:05.100000Z "), "{text}");
        assert_eq!(Header::of("", 1).host, "-");
    }

    #[test]
    fn a_message_keeps_its_bounds() {
        let long = "]".repeat(10_000);
        assert!(message(&format!(r#"{{"event":"STATE_CHANGE","node":"{long}"}}"#)).len() < 2_048);
        let events = jvpn_common::event::Event::ALL;
        assert!(events.iter().all(|event| event.name().len() <= 32), "MSGID has at most 32 characters");
    }
}
