//! The journal's native protocol: one datagram an entry, one field a line.
//!
//! Owns the form of an entry. Must never let a value end its field early: one with a line feed goes with its length.

use super::said::{Said, message_id, priority};

/// Longest value of a field in bytes: what a record holds is a tenth of it; more is cut.
const VALUE_MAX: usize = 4_096;
/// Facility "daemon".
const FACILITY: &str = "3";

/// An entry of the journal.
pub(super) fn entry(said: &Said) -> Vec<u8> {
    let mut entry = Vec::with_capacity(1_024);
    let priority = priority(said.severity).to_string();
    let id = message_id(&said.event);
    let fixed = [
        ("MESSAGE", said.message.as_str()),
        ("MESSAGE_ID", &id),
        ("PRIORITY", &priority),
        ("SYSLOG_FACILITY", FACILITY),
        ("SYSLOG_IDENTIFIER", "jvpn-ctl"),
    ];
    for (name, value) in fixed {
        field(&mut entry, name, value);
    }
    for (name, value) in &said.fields {
        field(&mut entry, &format!("JVPN_{}", name.to_ascii_uppercase()), value);
    }
    field(&mut entry, "JVPN_TS", &said.ts);
    entry
}

fn field(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = value.get(..value.floor_char_boundary(VALUE_MAX)).unwrap_or(value);
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::fanout::Taken;
    use super::*;

    /// What the journal reads in a datagram.
    pub(crate) fn read(mut entry: &[u8]) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let mut fields = Vec::new();
        while !entry.is_empty() {
            let end = entry.iter().position(|byte| matches!(byte, b'=' | b'\n')).expect("a name ends");
            let (name, rest) = (text(&entry[..end]), &entry[end + 1..]);
            let valid = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
            assert!(name.bytes().all(valid) && name.len() <= 64 && !name.starts_with(['_', '0']), "{name}");
            let (value, rest) = if entry[end] == b'=' {
                rest.split_at(rest.iter().position(|byte| *byte == b'\n').expect("a value ends"))
            } else {
                let (len, rest) = rest.split_at(8);
                rest.split_at(usize::try_from(u64::from_le_bytes(len.try_into().expect("eight"))).expect("small"))
            };
            assert_eq!(rest.first(), Some(&b'\n'));
            fields.push((name, text(value)));
            entry = &rest[1..];
        }
        fields
    }

    #[test]
    fn an_entry_reads_back_and_a_line_feed_forges_no_field() {
        let line = r#"{"ts":"2026-01-02T03:04:05Z","node":"gw","seq":"9","session_id":"ab","peer":"a\nPRIORITY=0\n","event":"STATE_CHANGE","from":"ATTACHED","to":"RECOVERING","reason":"RECOVERY_START","state_version":"3"}"#;
        let fields = read(&entry(&Said::of(&Taken::Line(line.into()), "now")));
        let of = |name: &str| {
            fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        for (name, value) in [
            ("JVPN_SESSION_ID", "ab"),
            ("JVPN_REASON", "RECOVERY_START"),
            ("JVPN_FROM", "ATTACHED"),
            ("JVPN_TO", "RECOVERING"),
            ("JVPN_STATE_VERSION", "3"),
            ("PRIORITY", "5"),
            ("JVPN_PEER", "a\nPRIORITY=0\n"),
            ("MESSAGE_ID", "9b1f3c62d07e4a5c8f6e2a4d71c0b302"),
        ] {
            assert_eq!(of(name), [value], "{name}");
        }
        assert!(of("MESSAGE")[0].contains("ATTACHED to RECOVERING"));
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let mut entry = Vec::new();
        field(&mut entry, "A", &format!("x{}", "ä".repeat(VALUE_MAX)));
        assert_eq!(read(&entry)[0].1.len(), VALUE_MAX - 1);
    }
}
