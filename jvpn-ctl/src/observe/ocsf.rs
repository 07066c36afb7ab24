//! Events in the Open Cybersecurity Schema Framework, class 4014, Tunnel Activity.
//!
//! Owns the mapping. Must never drop what has no place there (it goes into `unmapped`), nor carry what a session core
//! was (`before`) to another system.

#[cfg(test)]
mod tests;

use crate::audit;
use jiff::Timestamp;
use jvpn_common::event::Severity;
use jvpn_common::reason::Reason;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;

/// The version of the schema.
pub const VERSION: &str = "1.7.0";
/// Network Activity.
const CATEGORY: u64 = 4;
/// Tunnel Activity.
const CLASS: u64 = 4014;

/// What a record's event is there.
const fn activity(event: &str) -> (u64, Option<&'static str>) {
    match event.as_bytes() {
        b"SESSION_CREATED" => (1, Some("Open")),
        b"TERMINATION" => (2, Some("Close")),
        b"KEY_ROTATED" => (3, Some("Renew")),
        _ => (99, None),
    }
}

/// Whether it went as somebody wanted.
fn status(event: &str) -> (u64, &'static str) {
    match event {
        "REATTACH_REJECT" | "TRANSPORT_SWITCH_DENIED" | "OWNER_REJECTED" => (2, "Failure"),
        "SECURITY_EVENT" | "GAP" | "CONDITION" | "DROPPED" => (0, "Unknown"),
        _ => (1, "Success"),
    }
}

/// A line of the stream as an event of class 4014; `now` is for lines that have no time of their own.
#[must_use]
pub fn event(record: &Value, now: Timestamp) -> Value {
    let text = |key: &str| record.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = text("event").unwrap_or("UNKNOWN");
    let (activity_id, activity_name) = activity(name);
    let activity_name = activity_name.unwrap_or(name);
    let severity = audit::severity(record).unwrap_or(Severity::Medium);
    let (status_id, status) = status(name);
    let time = text("ts").and_then(|ts| ts.parse::<Timestamp>().ok()).unwrap_or(now);
    let mut event = json!({
        "activity_id": activity_id,
        "activity_name": activity_name,
        "category_uid": CATEGORY,
        "category_name": "Network Activity",
        "class_uid": CLASS,
        "class_name": "Tunnel Activity",
        "type_uid": CLASS * 100 + activity_id,
        "type_name": format!("Tunnel Activity: {}", if activity_id == 99 { "Other" } else { activity_name }),
        "time": time.as_millisecond(),
        "severity_id": severity.number(),
        "severity": capital(severity.name()),
        "status_id": status_id,
        "status": status,
        "message": message(record),
        "metadata": metadata(record),
        "protocol_name": "Jumping VPN",
        "tunnel_type_id": 0,
        "tunnel_type": "Unknown",
        "unmapped": unmapped(record),
    });
    let Some(fields) = event.as_object_mut() else { return event };
    if let Some(reason) = text("reason") {
        fields.insert("status_code".into(), reason.into());
        let meaning = reason.parse::<Reason>().map(Reason::meaning);
        fields.extend(meaning.ok().map(|meaning| ("status_detail".to_owned(), meaning.into())));
    }
    if let Some(id) = text("session_id") {
        fields.insert("session".into(), json!({ "uid": id, "is_vpn": true }));
    }
    parties(record, fields);
    event
}

/// Who reported it, and the two ends of the tunnel: the client opened it.
fn parties(record: &Value, fields: &mut Map<String, Value>) {
    let text = |key: &str| record.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let Some(node) = text("node") else { return };
    fields.insert("device".into(), json!({ "type_id": 0, "name": node }));
    let peer = text("peer");
    // A client's record says what was acknowledged.
    if record.pointer("/details/acknowledged").is_some() {
        fields.insert("src_endpoint".into(), json!({ "name": node }));
        fields.extend(peer.map(|peer| ("dst_endpoint".to_owned(), json!({ "name": peer }))));
        return;
    }
    fields.insert("dst_endpoint".into(), json!({ "name": node }));
    let transport =
        ["/transport/to", "/transport/from"].into_iter().find_map(|at| record.pointer(at).filter(|to| to.is_object()));
    let mut source = Map::new();
    source.extend(peer.map(|peer| ("name".to_owned(), peer.into())));
    if let Some(transport) = transport {
        let remote =
            transport.get("remote").and_then(Value::as_str).and_then(|remote| remote.parse::<SocketAddr>().ok());
        if let Some(remote) = remote {
            source.insert("ip".into(), remote.ip().to_canonical().to_string().into());
            source.insert("port".into(), remote.port().into());
        }
        let label = transport.get("label").and_then(Value::as_str).filter(|label| !label.is_empty());
        source.extend(label.map(|label| ("interface_name".to_owned(), label.into())));
    }
    if !source.is_empty() {
        fields.insert("src_endpoint".into(), source.into());
    }
    fields.extend(peer.map(|peer| ("user".to_owned(), json!({ "name": peer }))));
}

fn metadata(record: &Value) -> Value {
    let text = |key: &str| record.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let product = json!({ "name": "Jumping VPN", "vendor_name": "Jumping VPN", "version": env!("CARGO_PKG_VERSION") });
    let mut metadata = json!({ "version": VERSION, "product": product, "log_name": "jvpn" });
    let Some(fields) = metadata.as_object_mut() else { return metadata };
    let uid = text("node").zip(text("seq")).map(|(node, seq)| format!("{node}/{seq}"));
    for (key, value) in [
        ("event_code", text("event").map(str::to_owned)),
        ("original_time", text("ts").map(str::to_owned)),
        ("correlation_uid", text("session_id").map(str::to_owned)),
        ("uid", uid),
    ] {
        fields.extend(value.map(|value| (key.to_owned(), value.into())));
    }
    metadata
}

/// What has no attribute there.
fn unmapped(record: &Value) -> Value {
    let keys = ["from", "to", "state_version", "policy_version", "details", "transport", "input", "hash", "count"];
    let held =
        keys.into_iter().filter_map(|key| record.get(key).filter(|value| !value.is_null()).map(|value| (key, value)));
    // The text of a policy is in the record; an event says which one it was.
    let short = |key: &str, value: &Value| match (key, value.as_object()) {
        ("details", Some(details)) => Value::Object(
            details.iter().filter(|(key, _)| *key != "text").map(|(key, value)| (key.clone(), value.clone())).collect(),
        ),
        _ => value.clone(),
    };
    Value::Object(held.map(|(key, value)| (key.to_owned(), short(key, value))).collect())
}

/// One sentence.
pub(super) fn message(record: &Value) -> String {
    let text = |key: &str| record.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut said = text("event").unwrap_or("UNKNOWN").to_owned();
    if let Some(count) = record.get("count").filter(|_| said == "DROPPED") {
        return format!("{count} events were too fast for this stream and are not in it; the record has them");
    }
    if let Some(peer) = text("peer") {
        said = format!("{peer}: {said}");
    }
    match (text("from"), text("to")) {
        (Some(from), Some(to)) if from != to => said.push_str(&format!(", {from} to {to}")),
        (_, Some(to)) => said.push_str(&format!(", {to}")),
        _ => {}
    }
    said.extend(text("reason").map(|reason| format!(", {reason}")));
    let codes = record.pointer("/details/reasons").and_then(Value::as_array);
    said.extend(codes.into_iter().flatten().filter_map(Value::as_str).map(|code| format!(" + {code}")));
    said
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}
