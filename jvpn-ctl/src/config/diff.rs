//! What a configuration that was read again would change.
//!
//! Owns the comparison and which keys a running gateway cannot take. Must never leave a difference out: what is not
//! shown here would be changed behind somebody's back.

use super::emergency::Emergency;
use super::gateway::{GatewayConfig, PeerConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// One key with another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyChange {
    /// The key, as the file calls it.
    pub key: String,
    /// Value of the running gateway.
    pub from: String,
    /// Value in the file.
    pub to: String,
}

/// A peer's key with another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerChange {
    /// Whose.
    pub peer: String,
    /// The key, as the file calls it.
    pub key: String,
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
    /// What becomes of its session.
    pub effect: String,
}

/// A bound of policy with another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyChange {
    /// The class.
    pub policy: String,
    /// The bound.
    pub key: String,
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
    /// Peers it counts for.
    pub peers: Vec<String>,
}

/// Everything that would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// Keys that only another start takes; a reload is refused while there are any.
    pub restart: Vec<KeyChange>,
    /// Peers that may connect.
    pub added: Vec<String>,
    /// Peers that may not any more; their sessions end.
    pub removed: Vec<String>,
    /// Peers that are described otherwise.
    pub peers: Vec<PeerChange>,
    /// Bounds of policy.
    pub policies: Vec<PolicyChange>,
    /// What else is taken at once.
    pub settings: Vec<KeyChange>,
}

/// A configuration and who is under emergency with it.
pub type Side<'a> = (&'a GatewayConfig, &'a Emergency);

impl Diff {
    /// What the second one changes.
    #[must_use]
    pub fn between(old: Side<'_>, new: Side<'_>) -> Self {
        let same_key = |all: &[PeerConfig], peer: &PeerConfig| all.iter().any(|p| p.public_key == peer.public_key);
        let named = |peer: &PeerConfig| peer.name.clone();
        let (before, after) = (&old.0.peers, &new.0.peers);
        Self {
            restart: restart(old.0, new.0),
            added: after.iter().filter(|peer| !same_key(before, peer)).map(named).collect(),
            removed: before.iter().filter(|peer| !same_key(after, peer)).map(named).collect(),
            peers: pairs(before, after).flat_map(|(old, new)| described(old, new)).collect(),
            policies: policies(old, new),
            settings: change("reload", &old.0.reload.name(), &new.0.reload.name()).into_iter().collect(),
        }
    }

    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The differences, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let key = |change: &KeyChange| format!("{}: {} → {}", change.key, change.from, change.to);
        let restart = self.restart.iter().map(|change| format!("! gateway {} (needs another start)", key(change)));
        let removed = self.removed.iter().map(|peer| format!("- peer {peer} (its session ends)"));
        let added = self.added.iter().map(|peer| format!("+ peer {peer}"));
        let peers = self.peers.iter().map(|change| {
            let PeerChange { peer, key, from, to, effect } = change;
            format!("~ peer {peer} {key}: {from} → {to} ({effect})")
        });
        let policies = self.policies.iter().map(|change| {
            let PolicyChange { policy, key, from, to, peers } = change;
            let peers = if peers.is_empty() { "no peer".to_owned() } else { peers.join(", ") };
            format!("~ policy {policy} {key}: {from} → {to} ({peers})")
        });
        let settings = self.settings.iter().map(|change| format!("~ gateway {}", key(change)));
        restart.chain(removed).chain(added).chain(peers).chain(policies).chain(settings).collect()
    }
}

fn change<T: PartialEq + Debug>(key: &str, from: &T, to: &T) -> Option<KeyChange> {
    let text = |value: &T| format!("{value:?}");
    (from != to).then(|| KeyChange { key: key.to_owned(), from: text(from), to: text(to) })
}

/// Keys whose sockets, devices, maps or files are made at a start.
fn restart(old: &GatewayConfig, new: &GatewayConfig) -> Vec<KeyChange> {
    let addresses = |config: &GatewayConfig| texts(&config.addresses);
    let relays = |config: &GatewayConfig| -> Vec<String> {
        let relays = config.relays.iter();
        relays.map(|relay| format!("{} {} {}", relay.name, relay.public_key, relay.address)).collect()
    };
    let xdp = |config: &GatewayConfig| format!("{:?}", config.xdp).to_lowercase();
    let place = |place: &Option<std::path::PathBuf>| {
        place.as_ref().map_or_else(|| "its default".to_owned(), |place| place.display().to_string())
    };
    let all = [
        change("name", &old.name, &new.name),
        change("private_key_file", &old.private_key_file, &new.private_key_file),
        change("listen", &old.listen, &new.listen),
        change("interfaces", &old.interfaces, &new.interfaces),
        change("xdp", &xdp(old), &xdp(new)),
        change("tun", &old.tun, &new.tun),
        change("addresses", &addresses(old), &addresses(new)),
        change("masquerade", &old.masquerade, &new.masquerade),
        change("max_sessions", &old.max_sessions, &new.max_sessions),
        change("workers", &old.workers, &new.workers),
        change("mtu", &old.mtu, &new.mtu),
        change("relay_listen", &old.relay_listen, &new.relay_listen),
        change("[[relay]]", &relays(old), &relays(new)),
        change("[telemetry]", &old.telemetry, &new.telemetry),
        change("state_dir", &place(&old.paths.state_dir), &place(&new.paths.state_dir)),
        change("run_dir", &place(&old.paths.run_dir), &place(&new.paths.run_dir)),
        change("pin_root", &place(&old.paths.pin_root), &place(&new.paths.pin_root)),
    ];
    all.into_iter().flatten().collect()
}

fn texts<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

/// Peers that are the same identity in both.
fn pairs<'a>(old: &'a [PeerConfig], new: &'a [PeerConfig]) -> impl Iterator<Item = (&'a PeerConfig, &'a PeerConfig)> {
    new.iter().filter_map(|new| Some((old.iter().find(|old| old.public_key == new.public_key)?, new)))
}

/// What a session is born with does not change while it lives: another address is another session.
fn described(old: &PeerConfig, new: &PeerConfig) -> Vec<PeerChange> {
    let nets = |peer: &PeerConfig| (texts(&peer.addresses), texts(&peer.routes));
    let ((old_addresses, old_routes), (new_addresses, new_routes)) = (nets(old), nets(new));
    let (ends, later) = ("its session ends, the next one has it", "from its next handshake on");
    let all = [
        (change("name", &old.name, &new.name), "at once"),
        (change("addresses", &old_addresses, &new_addresses), ends),
        (change("routes", &old_routes, &new_routes), ends),
        (change("preshared_key_file", &old.preshared_key_file, &new.preshared_key_file), later),
        (change("policy", &old.policy, &new.policy), "its session goes on"),
    ];
    let told = |(change, effect): (Option<KeyChange>, &str)| {
        let KeyChange { key, from, to } = change?;
        Some(PeerChange { peer: new.name.clone(), key, from, to, effect: effect.to_owned() })
    };
    all.into_iter().filter_map(told).collect()
}

/// Whether the session of a peer that is described anew cannot go on.
#[must_use]
pub fn ends_session(old: &PeerConfig, new: &PeerConfig) -> bool {
    old.addresses != new.addresses || old.routes != new.routes
}

fn policies(old: Side<'_>, new: Side<'_>) -> Vec<PolicyChange> {
    let mut found: BTreeMap<(String, &'static str, String, String), Vec<String>> = BTreeMap::new();
    for (name, class) in &new.0.policies {
        let before = old.0.policies.get(name);
        for (key, from, to) in before.into_iter().flat_map(|before| before.changes(class)) {
            found.entry((name.clone(), key, from, to)).or_default();
        }
    }
    for (before, after) in pairs(&old.0.peers, &new.0.peers) {
        let (from, to) = (old.1.policy_of(old.0, before), new.1.policy_of(new.0, after));
        for (key, from, to) in from.changes(&to) {
            found.entry((after.policy.clone(), key, from, to)).or_default().push(after.name.clone());
        }
    }
    let change = |((policy, key, from, to), peers)| PolicyChange { policy, key: String::from(key), from, to, peers };
    found.into_iter().map(change).collect()
}

#[cfg(test)]
mod tests;
