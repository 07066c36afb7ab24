//! Owns reading what the product says about its sessions: active transport, identity, and the history as states,
//! reasons and versions. Never decides whether that is good.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line of a session's history, reduced to what acts are judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub ts: String,
    pub event: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub reason: Option<String>,
    pub state_version: Option<u64>,
    pub transport_from: Option<String>,
    pub transport_to: Option<String>,
}

impl Record {
    /// A transition: exactly these raise the state version.
    pub fn is_transition(&self) -> bool {
        matches!(self.event.as_str(), "STATE_CHANGE" | "TRANSPORT_SWITCH")
    }

    pub fn changes_transport(&self) -> bool {
        self.transport_to.is_some() && self.transport_from != self.transport_to
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        // A transport may be an object with a name.
        Value::Object(fields) => fields.get("name").and_then(text),
        _ => None,
    }
}

/// Integers that may exceed 2⁵³ are strings.
fn integer(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The records of `jvpn.history/1`.
pub fn history(document: &Value) -> Result<Vec<Record>> {
    let records = document["records"]
        .as_array()
        .or_else(|| document["history"].as_array())
        .context("jvpn.history/1 has neither records[] nor history[]")?;
    records
        .iter()
        .map(|record| {
            Ok(Record {
                ts: text(&record["ts"]).unwrap_or_default(),
                event: text(&record["event"]).context("a record without event")?,
                from: text(&record["from"]),
                to: text(&record["to"]),
                reason: text(&record["reason"]),
                state_version: integer(&record["state_version"]),
                // A timeline names only the transport afterwards, which says nothing about a change.
                transport_from: text(&record["transport"]["from"]).or(text(&record["transport"])),
                transport_to: text(&record["transport"]["to"]).or(text(&record["transport"])),
            })
        })
        .collect()
}

/// A live session as `jvpn.sessions/1` of the gateway shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub id: String,
    pub state: String,
    pub state_version: u64,
    pub transport: Option<String>,
    pub addresses: Vec<String>,
}

/// The one live session of the lab.
pub fn live_session(document: &Value) -> Result<Session> {
    let sessions = document["sessions"].as_array().context("jvpn.sessions/1 has no sessions[]")?;
    let live: Vec<&Value> = sessions.iter().filter(|s| s["state"] != "TERMINATED" && s["state"] != "BIRTH").collect();
    let [session] = live.as_slice() else {
        anyhow::bail!("{} live sessions instead of one: {document}", live.len());
    };
    let addresses = session["addresses"].as_array().into_iter().flatten().filter_map(text).collect();
    Ok(Session {
        id: text(&session["session_id"]).context("a session without id")?,
        state: text(&session["state"]).context("a session without state")?,
        state_version: integer(&session["state_version"]).context("a session without version")?,
        transport: text(&session["transport"]),
        addresses,
    })
}

/// Whether a `jvpn.status/1` names a problem, whatever else it says about it.
pub fn has_problem(status: &Value, code: &str) -> bool {
    let problems = status["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    problems.iter().any(|problem| problem.to_string().contains(code))
}

/// States in order: where the first transition came from, then where each went.
pub fn states(records: &[Record], before: &str) -> Vec<String> {
    let mut states = vec![before.to_owned()];
    for record in records.iter().filter(|record| record.is_transition()) {
        if let Some(to) = &record.to
            && states.last() != Some(to)
        {
            states.push(to.clone());
        }
    }
    states
}

pub fn reasons(records: &[Record]) -> Vec<String> {
    let transitions = records.iter().filter(|record| record.is_transition());
    transitions.filter_map(|record| record.reason.clone()).collect()
}

pub fn versions(records: &[Record]) -> Vec<u64> {
    let transitions = records.iter().filter(|record| record.is_transition());
    transitions.filter_map(|record| record.state_version).collect()
}

/// The first version that does not follow its predecessor by exactly one.
pub fn version_gap(before: u64, records: &[Record]) -> Option<(u64, u64)> {
    let mut last = before;
    for version in versions(records) {
        if version != last + 1 {
            return Some((last, version));
        }
        last = version;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({"schema": "jvpn.history/1", "records": [
            {"ts": "t1", "event": "STATE_CHANGE", "from": "ATTACHED", "to": "RECOVERING", "reason": "RECOVERY_START",
             "state_version": "8", "transport": {"from": "path-a", "to": null}},
            {"ts": "t2", "event": "REATTACH_REJECT", "reason": "RATE_LIMITED", "state_version": 8},
            {"ts": "t3", "event": "STATE_CHANGE", "from": "RECOVERING", "to": "ATTACHED", "reason": "REATTACH_ACCEPT",
             "state_version": 9, "transport": {"from": null, "to": {"name": "path-b"}}}]})
    }

    #[test]
    fn only_transitions_make_states_reasons_and_versions() {
        let records = history(&document()).expect("a valid history");
        assert_eq!(states(&records, "ATTACHED"), ["ATTACHED", "RECOVERING", "ATTACHED"]);
        assert_eq!(reasons(&records), ["RECOVERY_START", "REATTACH_ACCEPT"]);
        assert_eq!(versions(&records), [8, 9]);
        assert!(records[2].changes_transport());
    }

    #[test]
    fn a_timeline_that_names_only_the_transport_afterwards_is_no_change_by_itself() {
        let step = json!({"ts": "t", "event": "TRANSPORT_SWITCH", "to": "ATTACHED",
            "reason": "TRANSPORT_SWITCH_OK", "state_version": 4, "transport": "path-b"});
        let records = history(&json!({"history": [step]})).expect("a valid history");
        assert_eq!(records[0].transport_to.as_deref(), Some("path-b"));
        assert!(!records[0].changes_transport());
        assert!(history(&json!({})).is_err());
    }

    #[test]
    fn a_skipped_repeated_or_falling_version_is_a_gap() {
        let records = history(&document()).expect("a valid history");
        assert_eq!(version_gap(7, &records), None);
        assert_eq!(version_gap(6, &records), Some((6, 8)));
        assert_eq!(version_gap(8, &records), Some((8, 8)));
        assert_eq!(version_gap(9, &records), Some((9, 8)));
    }

    #[test]
    fn two_live_sessions_are_an_error_and_ended_ones_do_not_count() {
        let session = |id: &str, state: &str| {
            json!({"session_id": id, "state": state, "state_version": 3,
            "transport": {"name": "path-a"}, "addresses": ["10.77.0.17"]})
        };
        let one = json!({"sessions": [session("a", "TERMINATED"), session("b", "ATTACHED")]});
        assert_eq!(live_session(&one).expect("one live session").id, "b");
        let two = json!({"sessions": [session("a", "RECOVERING"), session("b", "ATTACHED")]});
        assert!(live_session(&two).is_err());
    }

    #[test]
    fn a_problem_is_found_as_text_or_object() {
        for problem in [json!("GATEWAY_UNRESPONSIVE: since 1 s"), json!({"code": "GATEWAY_UNRESPONSIVE"})] {
            assert!(has_problem(&json!({"problems": [problem]}), "GATEWAY_UNRESPONSIVE"));
        }
        assert!(!has_problem(&json!({"problems": []}), "GATEWAY_UNRESPONSIVE"));
    }
}
