//! Who is under emergency: their sessions move only when they must, until somebody takes it back.
//!
//! Owns the file in the state directory that keeps it over restarts, and what it makes of a policy. Must never be
//! forgotten by a reload: every policy of a peer is made here, configured class and emergency together.

use super::gateway::{GatewayConfig, PeerConfig};
use jvpn_common::session::Policy;
use jvpn_common::session::policy::BetterSwitching;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Name of the file. It is there only while somebody is under emergency.
const FILE: &str = "emergency.json";

/// Who is under emergency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Emergency {
    /// Everybody, later peers included.
    pub all: bool,
    /// Peers by name.
    pub peers: BTreeSet<String>,
    /// Since when everybody is, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_since: Option<String>,
    /// Since when a peer is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub since: BTreeMap<String, String>,
}

/// Sessions that move only when they must.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frozen {
    /// Whose; empty: everybody's, later peers included.
    pub peers: Vec<String>,
    /// The class it is put over, or that says so itself; none: each peer's own.
    pub policy: Option<String>,
    /// Since when, RFC 3339; none when a class says so, or an older build began it.
    pub since: Option<String>,
    /// How to end it.
    pub end: String,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {cause}", path = path.display())]
pub struct EmergencyError {
    path: PathBuf,
    cause: std::io::Error,
}

impl Emergency {
    /// What the state directory says; nobody when it says nothing.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn load(state_dir: &Path) -> Result<Self, EmergencyError> {
        let path = state_dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.map_err(|cause| EmergencyError { path: path.clone(), cause })?,
        };
        serde_json::from_str(&text).map_err(|error| EmergencyError { path, cause: error.into() })
    }

    /// Keeps it, whole or not at all.
    ///
    /// # Errors
    /// The disk refuses; what was there before is still there.
    pub fn store(&self, state_dir: &Path) -> Result<(), EmergencyError> {
        let (path, new) = (state_dir.join(FILE), state_dir.join(".emergency.json.new"));
        let written = || -> std::io::Result<()> {
            if *self == Self::default() {
                return match std::fs::remove_file(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    removed => removed,
                };
            }
            let mut file = std::fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            std::fs::File::open(state_dir)?.sync_all()
        };
        written().map_err(|cause| EmergencyError { path: path.clone(), cause })
    }

    /// Puts a peer, or everybody, under emergency; one that is already stays so since then.
    pub fn begin(&mut self, peer: Option<String>, now: String) {
        match peer {
            None if self.all => {}
            None => (self.all, self.all_since) = (true, Some(now)),
            Some(peer) => {
                if self.peers.insert(peer.clone()) {
                    self.since.insert(peer, now);
                }
            }
        }
    }

    /// Takes a peer out; says whether it was under emergency by name.
    pub fn end(&mut self, peer: &str) -> bool {
        self.since.remove(peer);
        self.peers.remove(peer)
    }

    /// Whether a peer is under emergency.
    #[must_use]
    pub fn covers(&self, peer: &str) -> bool {
        self.all || self.peers.contains(peer)
    }

    /// The policy of a peer, under its version.
    #[must_use]
    pub fn policy_of(&self, config: &GatewayConfig, peer: &PeerConfig) -> Policy {
        let mut policy = config.policies.get(&peer.policy).cloned().unwrap_or_default();
        if self.covers(&peer.name) {
            policy.better_switching = BetterSwitching::Frozen;
        }
        policy.versioned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_outlives_its_writer_and_leaves_no_file_when_it_is_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut on = Emergency::default();
        on.begin(Some("till".to_owned()), "2026-01-02T03:04:05Z".to_owned());
        assert_eq!(Emergency::load(dir.path()).expect("nobody"), Emergency::default());
        on.store(dir.path()).expect("kept");
        assert_eq!(Emergency::load(dir.path()).expect("there"), on);
        assert!(on.covers("till") && !on.covers("other"));
        for _ in 0..2 {
            Emergency::default().store(dir.path()).expect("over");
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0);
    }

    #[test]
    fn it_is_in_force_since_it_began_however_often_it_is_asked_for_and_over_when_it_ends() {
        let mut emergency = Emergency::default();
        for hour in ["03", "04"] {
            let now = format!("2026-01-02T{hour}:00:00Z");
            emergency.begin(Some("till".to_owned()), now.clone());
            emergency.begin(None, now);
        }
        let first = "2026-01-02T03:00:00Z";
        assert_eq!(emergency.all_since.as_deref(), Some(first));
        assert_eq!(emergency.since.get("till").map(String::as_str), Some(first));
        assert!(emergency.end("till") && !emergency.end("till"));
        assert!(emergency.since.is_empty() && emergency.covers("till"), "everybody is");
    }

    #[test]
    fn a_file_without_times_is_one_of_an_older_build() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(FILE), r#"{"all":false,"peers":["till"]}"#).expect("written");
        let old = Emergency::load(dir.path()).expect("read");
        assert!(old.covers("till") && old.since.is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(FILE), "{\"all\":true}x").expect("written");
        let error = Emergency::load(dir.path()).expect_err("refused").to_string();
        assert!(error.contains("emergency.json"), "{error}");
    }
}
