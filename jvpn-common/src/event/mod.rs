//! What happened, in words that stay: the audit record and the events of the stream.
//!
//! Owns the fields of a record and their form. Must never hold a key, a payload or a PSK, and has no wall
//! clock: the caller says what time it is.

mod chain;
mod checkpoint;
mod input;
mod replay;
mod severity;
pub(crate) mod wide;

pub use chain::{Hash, LineError, Sealed, Unsealed, follow, named, open, seal, seal_onto};
pub use checkpoint::{Checkpoint, Signed};
pub use input::Written;
pub use replay::{Mismatch, replay, replayed};
pub use severity::Severity;

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::ids::{PolicyVersion, SessionId, Version};
use crate::reason::Reason;
use crate::session::state::named;
use crate::session::version::Gap;
use crate::session::{
    Effect, Input, Label, Path, Policy, Refusal, Session, State, Transition, Transport, TransportClass,
};
use crate::time::{Duration, Instant};

/// Longest text of a name or detail, in characters; longer ones are cut.
const TEXT_MAX: usize = 256;

named! {
    /// What a record is about.
    Event {
        /// A handshake was confirmed.
        SessionCreated = 1 "SESSION_CREATED",
        /// A transition that left the session without another transport than before.
        StateChange = 2 "STATE_CHANGE",
        /// A transition that bound the session to a transport.
        TransportSwitch = 3 "TRANSPORT_SWITCH",
        /// A BETTER was not allowed.
        TransportSwitchDenied = 4 "TRANSPORT_SWITCH_DENIED",
        /// A reattach, a resume or any other input was refused; nothing changed.
        ReattachReject = 5 "REATTACH_REJECT",
        /// A policy came into force, or a bound decided.
        PolicyEvent = 6 "POLICY_EVENT",
        /// Something a security team wants to see.
        SecurityEvent = 7 "SECURITY_EVENT",
        /// A rekey was completed.
        KeyRotated = 8 "KEY_ROTATED",
        /// Keys passed their limit.
        KeyExpired = 9 "KEY_EXPIRED",
        /// This gateway became a session's owner.
        OwnerAcquired = 10 "OWNER_ACQUIRED",
        /// Another gateway became it.
        OwnerTransferred = 11 "OWNER_TRANSFERRED",
        /// A claim was refused.
        OwnerRejected = 12 "OWNER_REJECTED",
        /// A session ended: what its life was like.
        Termination = 13 "TERMINATION",
        /// Versions that were skipped; they are not missing.
        Gap = 14 "GAP",
        /// A condition beside the state, on a client.
        Condition = 15 "CONDITION",
    }
}

/// A transport as a record shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransportText {
    /// Transport index.
    pub k: crate::ids::TransportIndex,
    /// The client's outer address.
    pub remote: core::net::SocketAddr,
    /// Index of the gateway's address.
    pub gateway: u16,
    /// What the client calls it.
    pub label: Label,
    /// Its class.
    pub class: TransportClass,
    /// Proven path MTU.
    pub mtu: u16,
    /// When it was bound, boot time.
    #[serde(with = "wide")]
    pub since: Instant,
}

impl From<&Transport> for TransportText {
    fn from(transport: &Transport) -> Self {
        Self {
            k: transport.k,
            remote: transport.path.remote(),
            gateway: transport.path.gateway(),
            label: transport.label,
            class: transport.class,
            mtu: transport.mtu,
            since: transport.since,
        }
    }
}

impl From<&TransportText> for Transport {
    fn from(text: &TransportText) -> Self {
        Self {
            k: text.k,
            path: Path::new(text.remote, text.gateway),
            label: text.label,
            class: text.class,
            mtu: text.mtu,
            since: text.since,
        }
    }
}

/// Transport before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// Before.
    pub from: Option<TransportText>,
    /// After.
    pub to: Option<TransportText>,
}

/// What only the caller knows of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context<'a> {
    /// Wall clock, RFC 3339 with nanoseconds: a label, nothing is decided by it.
    pub ts: &'a str,
    /// Boot time at which it was decided.
    pub at: Instant,
    /// Which gateway or client writes.
    pub node: &'a str,
    /// Number of the record on this node.
    pub seq: u64,
    /// The peer's configured name.
    pub peer: &'a str,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Wall clock, RFC 3339 with nanoseconds.
    pub ts: String,
    /// Boot time, nanoseconds.
    #[serde(with = "wide")]
    pub at: Instant,
    /// Who wrote it.
    pub node: String,
    /// Its number there.
    #[serde(with = "wide")]
    pub seq: u64,
    /// Which session.
    pub session_id: Option<SessionId>,
    /// The peer's configured name.
    pub peer: String,
    /// What it is about.
    pub event: Event,
    /// State before.
    pub from: Option<State>,
    /// State after.
    pub to: Option<State>,
    /// Primary reason.
    pub reason: Option<Reason>,
    /// More: `reasons` is a list of codes, the rest is measurements.
    pub details: BTreeMap<Cow<'static, str>, Value>,
    /// Version of the transition, or of the session at that time.
    #[serde(with = "wide")]
    pub state_version: Version,
    /// Policy it was decided under.
    pub policy_version: PolicyVersion,
    /// Transports before and after.
    pub transport: Move,
    /// What caused it.
    pub input: Option<Written>,
    /// The session before, canonical encoding, base64.
    pub before: Option<String>,
    /// SHA-256 of the canonical encoding of the session afterwards, hexadecimal.
    pub after: Option<String>,
}

/// A text of bounded length without control characters.
#[must_use]
pub fn bounded(text: &str) -> String {
    // Nearly every text: a gateway under a storm writes ten thousands a second.
    if text.len() <= TEXT_MAX && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(2 * bytes.len());
    hex_onto(&mut text, bytes);
    String::from_utf8(text).expect("digits")
}

/// The same behind what `text` holds already.
fn hex_onto(text: &mut Vec<u8>, bytes: &[u8]) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

fn codes(reasons: &[Reason]) -> Value {
    reasons.iter().map(|reason| Value::from(reason.name())).collect()
}

fn millis(duration: Duration) -> Value {
    Value::from(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl Record {
    /// A record about a session, without a transition.
    #[must_use]
    pub fn about(context: &Context<'_>, session: &Session, event: Event, reason: Option<Reason>) -> Self {
        let transport = session.transport().map(TransportText::from);
        Self {
            session_id: Some(session.id()),
            from: Some(session.state()),
            to: Some(session.state()),
            reason,
            state_version: session.version(),
            policy_version: session.policy_version(),
            transport: Move { from: transport.clone(), to: transport },
            ..Self::plain(context, event)
        }
    }

    /// A record about no session in particular.
    #[must_use]
    pub fn plain(context: &Context<'_>, event: Event) -> Self {
        Self {
            ts: bounded(context.ts),
            at: context.at,
            node: bounded(context.node),
            seq: context.seq,
            session_id: None,
            peer: bounded(context.peer),
            event,
            from: None,
            to: None,
            reason: None,
            details: BTreeMap::new(),
            state_version: Version(0),
            policy_version: PolicyVersion(0),
            transport: Move::default(),
            input: None,
            before: None,
            after: None,
        }
    }

    /// The one record of a transition.
    #[must_use]
    pub fn transition(context: &Context<'_>, transition: &Transition) -> Self {
        let before = STANDARD.encode(transition.before.encode());
        Self::changed(context, transition, before, &transition.after.encode())
    }

    /// The records of transitions of which each goes on where the one before it ended: between two of them there is one
    /// session, which is encoded once.
    #[must_use]
    pub fn transitions(context: &Context<'_>, transitions: &[Transition]) -> Vec<Self> {
        let mut encoded = transitions.first().map(|first| first.before.encode()).unwrap_or_default();
        let record = |transition: &Transition| {
            let before = STANDARD.encode(&encoded);
            transition.after.encode_into(&mut encoded);
            Self::changed(context, transition, before, &encoded)
        };
        transitions.iter().map(record).collect()
    }

    /// The record of a transition with the session before it, in base64, and its encoding afterwards.
    fn changed(context: &Context<'_>, transition: &Transition, before: String, after: &[u8]) -> Self {
        let event = if transition.is_switch() { Event::TransportSwitch } else { Event::StateChange };
        let mut record = Self::about(context, &transition.after, event, Some(transition.reason));
        record.from = Some(transition.from);
        record.transport.from = transition.before.transport().map(TransportText::from);
        record.input = Some(Written::from(&transition.input));
        record.before = Some(before);
        record.after = Some(hex(&Sha256::digest(after)));
        if !transition.details.is_empty() {
            record.note("reasons", codes(&transition.details));
        }
        record
    }

    /// What was refused; the session stays as it is.
    #[must_use]
    pub fn refused(context: &Context<'_>, session: &Session, input: &Input, refusal: &Refusal) -> Self {
        let denied = refusal.reason == Reason::TransportSwitchDenied;
        let event = if denied { Event::TransportSwitchDenied } else { Event::ReattachReject };
        let mut record = Self::about(context, session, event, Some(refusal.reason));
        record.input = Some(Written::from(input));
        if let Some(detail) = refusal.detail {
            record.note("reasons", codes(&[detail]));
        }
        if let Some(after) = refusal.retry_after {
            record.note("retry_after_ms", millis(after));
        }
        record
    }

    /// What the life of a session was like, from its [`Effect::End`].
    #[must_use]
    pub fn ended(context: &Context<'_>, session: &Session, effect: &Effect) -> Option<Self> {
        let Effect::End { reason, lifetime, switches, unbound } = effect else {
            return None;
        };
        let record = Self::about(context, session, Event::Termination, Some(*reason));
        let record = record.with("lifetime_ms", millis(*lifetime)).with("unbound_ms", millis(*unbound));
        Some(record.with("switches", (*switches).into()))
    }

    /// A policy came into force: its full text, once per version.
    #[must_use]
    pub fn policy(context: &Context<'_>, policy: &Policy) -> Self {
        let mut record = Self::plain(context, Event::PolicyEvent).with("text", policy.text().into());
        record.policy_version = policy.version;
        record
    }

    /// Versions that were skipped.
    #[must_use]
    pub fn gap(context: &Context<'_>, session: &Session, gap: Gap) -> Self {
        let record = Self::about(context, session, Event::Gap, None);
        record.with("first", gap.first.to_string().into()).with("last", gap.last.to_string().into())
    }

    /// The record with one more detail; texts are bounded.
    #[must_use]
    pub fn with(mut self, key: impl Into<Cow<'static, str>>, value: Value) -> Self {
        self.note(key, value);
        self
    }

    /// The same where it lies.
    pub fn note(&mut self, key: impl Into<Cow<'static, str>>, value: Value) {
        let key = key.into();
        let value = match value {
            Value::String(text) if key != "text" => Value::String(bounded(&text)),
            other => other,
        };
        self.details.insert(key, value);
    }

    /// What only its writer knew.
    pub(crate) fn context(&self) -> Context<'_> {
        Context { ts: &self.ts, at: self.at, node: &self.node, seq: self.seq, peer: &self.peer }
    }

    /// The JSON line, without `prev` and `hash`.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = Vec::new();
        self.write(&mut line);
        String::from_utf8(line).expect("JSON is text")
    }

    /// The same behind what `to` holds already.
    fn write(&self, to: &mut Vec<u8>) {
        serde_json::to_writer(to, self).expect("a record has text keys and finite numbers only");
    }
}

#[cfg(test)]
mod tests;
