//! What the API answers, field by field: the JSON schemas are generated from here.
//!
//! Owns the shapes. A field is only ever added. Must never hold a secret.

use crate::audit::Step;
use crate::config::{Frozen, Role};
use jvpn_common::reason::Reason;
use jvpn_common::session::account::Bound;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod policy;

pub use policy::{EmergencyState, PolicyValue, PolicyView, Reload, Reloaded};

/// Something with a name and a number for its form.
pub trait Body {
    /// `jvpn.NAME/NUMBER`.
    const SCHEMA: &'static str;
}

/// What every answer is wrapped in.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Envelope<T> {
    /// Which form this is.
    pub schema: String,
    /// What it says.
    #[serde(flatten)]
    pub body: T,
}

impl<T: Body> From<T> for Envelope<T> {
    fn from(body: T) -> Self {
        Self { schema: T::SCHEMA.to_owned(), body }
    }
}

macro_rules! bodies {
    ($($ty:ident $schema:literal;)*) => {
        $(impl Body for $ty { const SCHEMA: &'static str = $schema; })*

        /// Every form with its JSON schema, for the committed files.
        #[must_use]
        pub fn schemas() -> Vec<(&'static str, schemars::Schema)> {
            vec![$(($schema, schemars::schema_for!(Envelope<$ty>)),)*]
        }
    };
}

bodies! {
    Status "jvpn.status/1";
    Sessions "jvpn.sessions/1";
    OneSession "jvpn.session/1";
    History "jvpn.history/1";
    Paths "jvpn.paths/1";
    Jumped "jvpn.jump/1";
    Terminated "jvpn.terminate/1";
    Reloaded "jvpn.peers-reload/1";
    Reload "jvpn.reload/1";
    PolicyView "jvpn.policy/1";
    EmergencyState "jvpn.emergency/1";
    ErrorBody "jvpn.error/1";
}

/// How a daemon is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Gateway or client.
    pub role: Role,
    /// Its configured name.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub started: String,
    /// Whether nothing is wrong.
    pub healthy: bool,
    /// What is wrong, with its fix.
    pub problems: Vec<Problem>,
    /// How the kernel program is attached to the first interface; none when it is not.
    pub xdp: Option<Xdp>,
    /// The same for every interface.
    #[serde(default)]
    pub interfaces: Vec<Xdp>,
    /// What was dropped since the start, by verdict (upper case) and by counter of the worker (lower case), if at all.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// Sessions by state.
    pub sessions: BTreeMap<String, u64>,
    /// A client's own session.
    pub session: Option<Session>,
    /// Which start of the gateway this is; text, since it may exceed 2^53.
    pub incarnation: Option<String>,
    /// Emergencies in force on a gateway: whose optional moves are frozen.
    #[serde(default)]
    pub emergencies: Vec<Frozen>,
}

/// Something wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// What is wrong.
    pub problem: String,
    /// The exact fix.
    pub fix: String,
}

/// An attached kernel program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Xdp {
    /// Interface.
    pub iface: String,
    /// `native`, `generic`, or `missing` when the interface or the program on it is gone.
    pub mode: String,
    /// The kernel's number of the program; zero when it is missing.
    pub prog_id: u32,
}

/// A transport a session is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transport {
    /// The client's name for it.
    pub name: String,
    /// Address and port on this side.
    pub local: String,
    /// Address and port on the other side.
    pub remote: String,
    /// Since when, RFC 3339.
    pub since: String,
}

/// A transport a session could move to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// The client's name for it.
    pub name: String,
    /// Address and port on the other side.
    pub remote: String,
    /// Whether its address answered a challenge lately.
    pub validated: bool,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// Its id, 32 hexadecimal digits.
    pub session_id: String,
    /// Name of its peer.
    pub peer: String,
    /// State.
    pub state: String,
    /// Why it is in this state.
    pub reason: Option<String>,
    /// Number of its last transition.
    pub state_version: u64,
    /// What it is bound to.
    pub transport: Option<Transport>,
    /// What it could move to.
    pub candidates: Vec<Candidate>,
    /// Inner addresses.
    pub addresses: Vec<String>,
    /// When it began, RFC 3339.
    pub created: String,
    /// How often it moved.
    pub switches: u64,
    /// Bytes from the other side.
    pub rx_bytes: u64,
    /// Bytes to the other side.
    pub tx_bytes: u64,
    /// Its class of policy.
    pub policy: String,
    /// Conditions beside the state, such as GATEWAY_UNRESPONSIVE on a client.
    #[serde(default)]
    pub conditions: Vec<String>,
}

/// All sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sessions {
    /// Live ones, in order of id.
    pub sessions: Vec<Session>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OneSession {
    /// The session.
    pub session: Session,
    /// The bounds of its policy that a report, a request or a failed attempt meets now, on a gateway.
    #[serde(default)]
    pub bounds: Vec<BoundView>,
}

/// A bound of a policy, and what is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BoundView {
    /// The policy's key, or what was looked at.
    pub name: String,
    /// What is seen.
    pub observed: String,
    /// How it has to be: `below`, `at most`, `at least`, or nothing.
    pub relation: String,
    /// The bound.
    pub limit: String,
    /// Whether it is so; if not, this holds the session back, or is about to move it.
    pub holds: bool,
    /// In words.
    pub text: String,
}

impl From<&Bound> for BoundView {
    fn from(bound: &Bound) -> Self {
        Self {
            name: bound.name.to_owned(),
            observed: bound.observed.clone(),
            relation: bound.relation.to_owned(),
            limit: bound.limit.clone(),
            holds: bound.holds,
            text: bound.to_string(),
        }
    }
}

/// The timeline of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// Whose.
    pub session_id: String,
    /// Oldest first.
    pub history: Vec<Step>,
}

/// One path as a client sees it; a gateway fills what it knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PathView {
    /// Its name.
    pub name: String,
    /// Whose session it belongs to.
    pub session_id: Option<String>,
    /// Interface.
    pub interface: Option<String>,
    /// Address and port on this side.
    pub local: String,
    /// Address and port on the other side.
    pub remote: String,
    /// primary, secondary, backup or never.
    pub class: String,
    /// active, standby, second port, suspect, dead or unproven.
    pub state: String,
    /// Smoothed round trip, ms.
    pub rtt_ms: Option<f64>,
    /// Share of probes lost, percent.
    pub loss_percent: Option<f64>,
    /// Data lost on the way up, percent; of a path that was left, what it last was. None while too little is known.
    pub data_loss_percent: Option<f64>,
    /// Variation of the round trip, ms.
    pub jitter_ms: Option<f64>,
    /// Proven path MTU.
    pub mtu: Option<u16>,
    /// What the gateway says of it: `bound`, `not bound`, `not alive`.
    pub gateway_says: Option<String>,
    /// What keeps a client from asking for this path as the better one: a reason code; none on the active one.
    pub held_by: Option<String>,
    /// How long the NAT on this path keeps a mapping, s, once it was learned.
    pub mapping_s: Option<f64>,
    /// How long an answer may be owed before the path is suspect, ms, once it was given up in what turned out a pause.
    #[serde(default)]
    pub patience_ms: Option<f64>,
}

/// Every path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Paths {
    /// In order of preference.
    pub paths: Vec<PathView>,
}

/// A jump that was made, or would be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Jumped {
    /// Which session.
    pub session_id: String,
    /// Where it was.
    pub from: Option<String>,
    /// Where it is.
    pub to: String,
    /// Number of the transition; none for a dry run, or when it is there already.
    pub state_version: Option<u64>,
    /// From the request to the answer, ms.
    pub took_ms: Option<f64>,
    /// Whether nothing was done.
    pub dry_run: bool,
}

/// Why an operator ends a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// It is no longer wanted
    #[default]
    Operator,
    /// Its keys, or the peer's, may be known to others
    KeyCompromise,
}

impl EndReason {
    /// The code of the record.
    #[must_use]
    pub const fn code(self) -> Reason {
        match self {
            Self::Operator => Reason::OperatorTermination,
            Self::KeyCompromise => Reason::SecKeyCompromiseSuspected,
        }
    }
}

/// A session that was ended, or would be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Terminated {
    /// Which session.
    pub session_id: String,
    /// Why.
    pub reason: String,
    /// Number of the transition; none for a dry run.
    pub state_version: Option<u64>,
    /// Whether nothing was done.
    pub dry_run: bool,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// In words.
    pub error: String,
    /// The reason code of a refusal.
    #[serde(default)]
    pub reason: Option<String>,
    /// The bound that refused.
    #[serde(default)]
    pub detail: Option<String>,
}
