//! Owns the acts of the demo as data, and the judgement of what was seen against what was promised. Pure: never
//! touches the lab.

use serde::{Deserialize, Serialize};

use super::flow::Account;
use super::record::{self, Record, Session};
use super::topology::Path;

/// What an act promises about traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Promise {
    /// The worse direction is silent for at most so many milliseconds.
    OutageMs(f64),
    /// The same, and the relay's map says that exactly one word was stored.
    OneStore(f64),
    /// Not one packet lost, not one twice.
    Seamless,
    /// The client names the unresponsive gateway within so many milliseconds, stays where it is, and traffic
    /// returns by itself.
    NoticedMs(f64),
}

/// One act.
#[derive(Debug)]
pub struct Act {
    pub name: &'static str,
    /// What is done, for people.
    pub what: &'static str,
    pub promise_text: &'static str,
    pub promise: Promise,
    /// Transport the session must use when the act begins.
    pub starts_on: Option<Path>,
    /// Reasons of the session's transitions, in this order.
    pub reasons: &'static [&'static str],
    /// Reasons that would mean something else happened.
    pub never: &'static [&'static str],
    /// Both paths lead to a relay, which is what moves the session.
    pub relayed: bool,
}

/// In the order they are played: each leaves the session where the next one wants it.
pub const ACTS: [Act; 6] = [
    Act {
        name: "silent_death",
        what: "every packet of the active path vanishes, both ways, no link event",
        promise_text: "outage at most 200 ms",
        promise: Promise::OutageMs(200.0),
        starts_on: Some(Path::A),
        reasons: &["RECOVERY_START", "REATTACH_ACCEPT"],
        never: &["CONTROLLER_RESTART", "SESSION_SUPERSEDED"],
        relayed: false,
    },
    Act {
        name: "nat_rebind",
        what: "the NAT of the active path forgets its mappings and gives another port",
        promise_text: "outage at most 150 ms",
        promise: Promise::OutageMs(150.0),
        starts_on: Some(Path::B),
        reasons: &["TRANSPORT_SWITCH_OK"],
        never: &["RECOVERY_START", "CONTROLLER_RESTART", "SESSION_SUPERSEDED"],
        relayed: false,
    },
    Act {
        name: "planned_jump",
        what: "the operator moves the session to the other path",
        promise_text: "0 packets lost, 0 duplicated",
        promise: Promise::Seamless,
        starts_on: Some(Path::B),
        reasons: &["TRANSPORT_SWITCH_OK"],
        never: &["RECOVERY_START", "CONTROLLER_RESTART", "SESSION_SUPERSEDED"],
        relayed: false,
    },
    Act {
        name: "restart",
        what: "the gateway's process is killed with SIGKILL and started again",
        promise_text: "outage at most 3 s, same session",
        promise: Promise::OutageMs(3_000.0),
        starts_on: None,
        reasons: &["CONTROLLER_RESTART", "REATTACH_ACCEPT"],
        never: &["SESSION_SUPERSEDED", "HANDSHAKE_OK"],
        relayed: false,
    },
    Act {
        name: "dead_gateway",
        what: "the gateway's process is frozen for 2 s, its kernel side goes on",
        promise_text: "client shows GATEWAY_UNRESPONSIVE within 1 s, does not jump, comes back by itself",
        promise: Promise::NoticedMs(1_000.0),
        starts_on: None,
        reasons: &[],
        never: &["RECOVERY_START", "TRANSPORT_SWITCH_OK", "REATTACH_ACCEPT", "SESSION_SUPERSEDED"],
        relayed: false,
    },
    Act {
        name: "relay",
        what: "a relay forwards the session; every packet between the client's path and it vanishes, no link event",
        promise_text: "outage at most 200 ms, moved by one store on the relay",
        promise: Promise::OneStore(200.0),
        starts_on: Some(Path::A),
        reasons: &["RECOVERY_START", "REATTACH_ACCEPT"],
        never: &["CONTROLLER_RESTART", "SESSION_SUPERSEDED"],
        relayed: true,
    },
];

pub fn named(name: &str) -> Option<&'static Act> {
    ACTS.iter().find(|act| act.name == name)
}

/// Everything an act is judged by, except the flows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub act: String,
    /// CLOCK_MONOTONIC, ns.
    pub fault_ns: u64,
    pub done: String,
    pub session_before: Session,
    pub session_after: Session,
    /// Inner addresses of the client's interface.
    pub addresses_before: Vec<String>,
    pub addresses_after: Vec<String>,
    pub records: Vec<Record>,
    pub tcp: Tcp,
    /// Time until the client named the gateway as unresponsive.
    pub noticed_ms: Option<f64>,
    /// Both flows arrived in the last half second of the window.
    pub back: bool,
    /// What `bpftool` said of the relay's slot before and after.
    #[serde(default)]
    pub relay: Option<[SlotSeen; 2]>,
}

/// A slot of `SESSIONS` as `bpftool map dump` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSeen {
    pub slot: u64,
    /// The active word.
    pub word: u64,
    /// The binding it names.
    pub client: String,
}

impl SlotSeen {
    /// How often the word was stored.
    fn stores(&self) -> u64 {
        self.word >> 32
    }
}

/// The transfer around an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tcp {
    pub alive: bool,
    pub same_connection: bool,
    pub advanced_before: bool,
    pub advanced_after: bool,
}

impl Tcp {
    pub fn right(self) -> bool {
        self.alive && self.same_connection && self.advanced_before && self.advanced_after
    }

    /// What a person wants to know of it.
    fn said(self) -> String {
        let parts = [
            (self.alive, "alive", "dead"),
            (self.same_connection, "the same connection", "another connection"),
            (self.advanced_before, "bytes came before", "no bytes came before"),
            (self.advanced_after, "and after", "none after"),
        ];
        parts.map(|(good, yes, no)| if good { yes } else { no }).join(", ")
    }
}

/// One promise, kept or broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub promise: String,
    pub kept: bool,
    pub seen: String,
}

fn check(promise: impl Into<String>, kept: bool, seen: impl Into<String>) -> Check {
    Check { promise: promise.into(), kept, seen: seen.into() }
}

/// Judges one act. All checks are returned, kept or not.
pub fn judge(act: &Act, evidence: &Evidence, account: &Account) -> Vec<Check> {
    let mut checks = judge_promise(act, evidence, account);
    let (before, after) = (&evidence.session_before, &evidence.session_after);
    checks.push(check("traffic is back", evidence.back, yes(evidence.back)));
    let ids = if before.id == after.id { before.id.clone() } else { format!("{} → {}", before.id, after.id) };
    checks.push(check("same session", before.id == after.id, ids));
    checks.push(check(
        "same inner addresses",
        before.addresses == after.addresses
            && evidence.addresses_before == evidence.addresses_after
            && !evidence.addresses_after.is_empty(),
        evidence.addresses_after.join(" "),
    ));
    checks.push(check("the TCP transfer went on", evidence.tcp.right(), evidence.tcp.said()));
    checks.push(check("the session ends the act attached", after.state == "ATTACHED", &after.state));
    let reasons = record::reasons(&evidence.records);
    checks.push(check(
        format!("the record says {}", said(act.reasons)),
        in_order(act.reasons, &reasons) && !reasons.iter().any(|r| act.never.contains(&r.as_str())),
        said(&reasons),
    ));
    let gap = record::version_gap(before.state_version, &evidence.records);
    let last = record::versions(&evidence.records).last().copied().unwrap_or(before.state_version);
    checks.push(check(
        "versions grow by one, without gap",
        gap.is_none() && last == after.state_version,
        grown(before.state_version, &record::versions(&evidence.records), after.state_version),
    ));
    checks
}

fn judge_promise(act: &Act, evidence: &Evidence, account: &Account) -> Vec<Check> {
    match act.promise {
        Promise::OutageMs(limit) => {
            vec![check(act.promise_text, account.outage_ms <= limit, format!("{:.1} ms", account.outage_ms))]
        }
        Promise::OneStore(limit) => {
            let outage = format!("{:.1} ms", account.outage_ms);
            let seen = evidence.relay.as_ref().map(|[before, after]| {
                let moved = before.slot == after.slot && after.stores() == before.stores() + 1;
                let said =
                    format!("word {:#018x} → {:#018x}, {} → {}", before.word, after.word, before.client, after.client);
                (moved && before.client != after.client, said)
            });
            let (moved, said) = seen.unwrap_or((false, "never looked".into()));
            vec![
                check(act.promise_text, account.outage_ms <= limit, outage),
                check("one store on the relay moved it", moved, said),
            ]
        }
        Promise::Seamless => vec![check(
            act.promise_text,
            account.lost == 0 && account.duplicated == 0 && account.sent > 0,
            format!("{} lost, {} duplicated of {}", account.lost, account.duplicated, account.sent),
        )],
        Promise::NoticedMs(limit) => {
            let jumped = evidence.records.iter().any(Record::changes_transport)
                || evidence.session_before.transport != evidence.session_after.transport;
            vec![
                check(
                    act.promise_text,
                    evidence.noticed_ms.is_some_and(|ms| ms <= limit),
                    evidence.noticed_ms.map_or("never shown".into(), |ms| format!("shown after {ms:.0} ms")),
                ),
                check("the session did not jump", !jumped, if jumped { "it jumped" } else { "it stayed" }),
            ]
        }
    }
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn grown(before: u64, versions: &[u64], after: u64) -> String {
    let steps: Vec<String> = std::iter::once(&before).chain(versions).map(u64::to_string).collect();
    let last = versions.last().copied().unwrap_or(before);
    let now = if last == after { String::new() } else { format!(", but now {after}") };
    format!("{}{now}", steps.join(" → "))
}

fn said<T: AsRef<str>>(reasons: &[T]) -> String {
    if reasons.is_empty() {
        return "nothing".into();
    }
    reasons.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" → ")
}

/// Whether all of `wanted` occur in `seen`, in order; others may be between.
fn in_order(wanted: &[&str], seen: &[String]) -> bool {
    let mut seen = seen.iter();
    wanted.iter().all(|reason| seen.any(|s| s == reason))
}

#[cfg(test)]
#[path = "act/tests.rs"]
mod tests;
