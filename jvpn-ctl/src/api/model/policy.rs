//! Answers about policies: what a peer is under, what a reload or an emergency changed.
//!
//! Owns their JSON form; the rules for it are those of the module above. Must never hold a key.

use crate::config::{Diff, Emergency};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What reading the peers again changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// Peers that may connect now.
    pub added: Vec<String>,
    /// Peers that may not any more; their sessions ended.
    pub removed: Vec<String>,
}

/// What reading the files again changed, or would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reload {
    /// `strict` or `grace`.
    pub mode: String,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// What is different.
    pub diff: Diff,
}

/// One bound of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyValue {
    /// The key.
    pub key: String,
    /// The value in force.
    pub value: String,
    /// Where it comes from: a place in a file, a shipped class, the default, an emergency, the gateway's snapshot.
    pub source: String,
    /// What it will be after the session's next transition, if that differs.
    pub next: Option<String>,
}

/// The policy a peer is under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyView {
    /// Whose.
    pub peer: String,
    /// Its class.
    pub policy: String,
    /// The version in force: what records of its session name.
    pub policy_version: u32,
    /// The version that counts after the session's next transition, after a reload with grace.
    pub next_version: Option<u32>,
    /// Whether it is under emergency.
    pub emergency: bool,
    /// Its session, if it has one.
    pub session_id: Option<String>,
    /// The version its client has; none without a session.
    pub client_version: Option<u32>,
    /// On a client: when the snapshot came, RFC 3339.
    pub received: Option<String>,
    /// Every key.
    pub values: Vec<PolicyValue>,
}

/// Who is under emergency now, and what the command changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmergencyState {
    /// Who.
    pub emergency: Emergency,
    /// What is different.
    pub diff: Diff,
}
