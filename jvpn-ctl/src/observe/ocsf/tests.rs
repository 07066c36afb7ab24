//! Every event that can be emitted, held against `tests/schema/ocsf-4014.json` by a small checker of our own.

use super::*;
use jvpn_common::event::{Context, Event, Record};
use jvpn_common::ids::{OwnerEpoch, SessionId};
use jvpn_common::session::{Birth, Ender, Input, Policy, Session};
use jvpn_common::time::Instant;

const NOW: &str = "2026-01-02T03:04:05Z";

fn schema() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/schema/ocsf-4014.json");
    serde_json::from_str(&std::fs::read_to_string(file).expect("it is there")).expect("JSON")
}

/// What of a value does not fit its attribute.
fn wrong_value(schema: &Value, name: &str, attribute: &Value, value: &Value) -> Option<String> {
    let kind = attribute["type"].as_str().expect("a type");
    let fits = match kind {
        "integer" | "long" | "timestamp" => value.is_i64() || value.is_u64(),
        "port" => value.as_u64().is_some_and(|port| port <= 65_535),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "ip" => value.as_str().is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_ok()),
        "object" => value.is_object(),
        other => return Some(format!("{name}: this checker knows no type {other}")),
    };
    if !fits {
        return Some(format!("{name}: {value} is no {kind}"));
    }
    if let Some(values) = attribute.get("enum").and_then(Value::as_object)
        && !values.contains_key(&value.to_string())
    {
        return Some(format!("{name}: {value} is none of its values"));
    }
    let object = attribute.get("object").and_then(Value::as_str)?;
    let object = schema["objects"].get(object)?;
    wrong(schema, object, value).map(|wrong| format!("{name}.{wrong}"))
}

/// The first thing that does not fit: an attribute that is not listed, missing, of another type or value.
fn wrong(schema: &Value, class: &Value, event: &Value) -> Option<String> {
    let attributes = class["attributes"].as_object().expect("attributes");
    let fields = event.as_object().expect("an object");
    for (name, value) in fields {
        let Some(attribute) = attributes.get(name) else { return Some(format!("{name} is not an attribute")) };
        if let Some(wrong) = wrong_value(schema, name, attribute, value) {
            return Some(wrong);
        }
        // A caption belongs to its number; `Other` has the source's own.
        let caption = name.strip_suffix("_id").and_then(|sibling| fields.get(sibling)).and_then(Value::as_str);
        let known = attribute.get("enum").and_then(|values| values.get(value.to_string())).and_then(Value::as_str);
        if let (Some(caption), Some(known)) = (caption, known)
            && known != "Other"
            && caption != known
        {
            return Some(format!("{name}: {value} is `{known}`, not `{caption}`"));
        }
    }
    let missing = attributes
        .iter()
        .find(|(name, attribute)| attribute["requirement"] == "required" && !fields.contains_key(*name));
    if let Some((name, _)) = missing {
        return Some(format!("{name} is missing"));
    }
    let any = class.get("at_least_one").and_then(Value::as_array);
    let none = any.filter(|any| !any.iter().filter_map(Value::as_str).any(|name| fields.contains_key(name)));
    none.map(|any| format!("none of {any:?}"))
}

fn check(schema: &Value, record: &Value) -> Value {
    let made = event(record, NOW.parse().expect("a time"));
    if let Some(wrong) = wrong(schema, schema, &made) {
        panic!("{wrong}\n{made:#}\nof {record:#}");
    }
    assert_eq!(made["metadata"]["version"], schema["version"]);
    assert_eq!(made["type_uid"], 401_400 + made["activity_id"].as_u64().expect("a number"));
    made
}

fn session() -> Session {
    let birth = Birth { id: SessionId([7; 16]), peer: [9; 32], owner_epoch: OwnerEpoch(1) };
    Session::born(birth, &Policy::field(), Instant(5))
}

#[test]
fn every_event_with_every_reason_is_valid() {
    let schema = schema();
    let mut seen = 0;
    for &kind in Event::ALL {
        for reason in Reason::ALL.iter().copied().map(Some).chain([None]) {
            for peer in ["", "till \"17\""] {
                let context =
                    Context { ts: "2026-01-02T03:04:05.000000006Z", at: Instant(9), node: "gw", seq: 1 << 60, peer };
                let record = Record::about(&context, &session(), kind, reason).with("reasons", json!(["LOSS"]));
                check(&schema, &serde_json::to_value(&record).expect("JSON"));
                let plain = Record::plain(&context, kind).with("acknowledged", true.into());
                check(&schema, &serde_json::to_value(&plain).expect("JSON"));
                seen += 2;
            }
        }
    }
    assert_eq!(seen, Event::ALL.len() * (Reason::ALL.len() + 1) * 4);
}

#[test]
fn real_records_the_policy_and_a_dropped_line_are_valid_and_hold_no_core() {
    let schema = schema();
    let context = Context { ts: "2026-01-02T03:04:05.000000006Z", at: Instant(9), node: "gw", seq: 3, peer: "till" };
    let end = session().step(&Input::Terminate { by: Ender::Operator }, &Policy::field(), Instant(9)).expect("it ends");
    let mut record = serde_json::to_value(Record::transition(&context, &end.transitions[0])).expect("JSON");
    let to = json!({ "k": 0, "remote": "[::ffff:192.0.2.1]:40000", "gateway": 0, "label": "wifi", "class": "primary", "mtu": 1400, "since": "5" });
    record["transport"]["to"] = to;
    let made = check(&schema, &record);
    assert!(made.to_string().contains("HANDSHAKE_FAIL") && !made.to_string().contains("\"before\""), "{made}");
    assert_eq!(
        made["src_endpoint"],
        json!({ "name": "till", "ip": "192.0.2.1", "port": 40000, "interface_name": "wifi" })
    );
    assert_eq!((&made["user"]["name"], &made["session"]["uid"]), (&"till".into(), &"07".repeat(16).into()));
    assert_eq!(made["message"], "till: STATE_CHANGE, BIRTH to TERMINATED, HANDSHAKE_FAIL");
    let policy = check(&schema, &serde_json::to_value(Record::policy(&context, &Policy::field())).expect("JSON"));
    assert!(!policy.to_string().contains("session_ttl"), "{policy}");
    let dropped = check(&schema, &json!({ "event": "DROPPED", "count": 7 }));
    assert!(dropped["message"].as_str().is_some_and(|said| said.starts_with("7 events")));
}

#[test]
fn opening_closing_and_renewing_have_their_activity() {
    let schema = schema();
    for (kind, id, name) in
        [("SESSION_CREATED", 1, "Open"), ("TERMINATION", 2, "Close"), ("KEY_ROTATED", 3, "Renew"), ("GAP", 99, "GAP")]
    {
        let made = check(&schema, &json!({ "event": kind, "ts": NOW, "node": "gw" }));
        assert_eq!((&made["activity_id"], &made["activity_name"]), (&id.into(), &name.into()));
        assert_eq!(made["time"], 1_767_323_045_000_u64);
    }
}

#[test]
fn the_checker_finds_what_is_not_valid() {
    let schema = schema();
    let good = event(&json!({ "event": "GAP", "ts": NOW, "node": "gw" }), NOW.parse().expect("a time"));
    assert_eq!(wrong(&schema, &schema, &good), None);
    let changed = |change: fn(&mut Value)| {
        let mut event = good.clone();
        change(&mut event);
        wrong(&schema, &schema, &event).expect("not valid")
    };
    assert_eq!(changed(|event| event["colour"] = "red".into()), "colour is not an attribute");
    assert_eq!(changed(|event| event["time"] = "now".into()), "time: \"now\" is no timestamp");
    assert_eq!(changed(|event| event["severity_id"] = 7.into()), "severity_id: 7 is none of its values");
    assert_eq!(changed(|event| event["severity"] = "Low".into()), "severity_id: 3 is `Medium`, not `Low`");
    assert_eq!(changed(|event| event["device"]["name"] = 7.into()), "device.name: 7 is no string");
    assert_eq!(
        changed(|event| drop(event["metadata"].as_object_mut().expect("one").remove("product"))),
        "metadata.product is missing"
    );
    assert_eq!(changed(|event| drop(event.as_object_mut().expect("one").remove("time"))), "time is missing");
    assert!(changed(|event| event["dst_endpoint"] = json!({})).starts_with("dst_endpoint.none of"));
}
