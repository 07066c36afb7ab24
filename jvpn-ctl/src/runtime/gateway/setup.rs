//! From configuration to an engine's configuration.
//!
//! Owns the conversion of keys, peers and policies. Must never print a key.

use super::workers;
use crate::config::Emergency;
use crate::config::gateway::{GatewayConfig, GatewayKeys, PeerConfig};
use crate::runtime::clock;
use jvpn_common::crypto::Suite;
use jvpn_common::event::{self, Record};
use jvpn_common::gateway::{Config, Peer};
use jvpn_common::ids::{Incarnation, OwnerEpoch, PolicyVersion};
use jvpn_common::limits::OVERHEAD_V6;
use jvpn_common::secret::{PresharedKey, PublicKey};
use jvpn_common::session::Policy;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Message 1 a second above which mac2 is asked for: what one core answers in a third of a second.
const LOAD_THRESHOLD: u32 = 1_000;

/// The suites this machine does well, best first.
#[must_use]
pub fn suites() -> Vec<Suite> {
    if std::arch::is_x86_feature_detected!("aes") {
        vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
    } else {
        vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm]
    }
}

/// Inner MTU: what is left of the configured outer MTU after the larger of the two overheads.
#[must_use]
pub fn inner_mtu(config: &GatewayConfig) -> u16 {
    config.mtu.min(1_500) - OVERHEAD_V6
}

/// The engine's configuration.
#[must_use]
pub fn engine(
    config: &GatewayConfig,
    emergency: &Emergency,
    mut keys: GatewayKeys,
    (incarnation, owner_epoch): (Incarnation, OwnerEpoch),
) -> Config {
    let policies = policies(config, emergency);
    let mut peers = BTreeMap::new();
    for peer in &config.peers {
        let preshared_key = keys.preshared.remove(&peer.name).unwrap_or_else(PresharedKey::none);
        let policy = policies.get(&peer.public_key).cloned().unwrap_or_default();
        let (addresses, routes) = (peer.addresses.clone(), peer.routes.clone());
        peers.insert(peer.public_key, Peer { name: peer.name.clone(), preshared_key, addresses, routes, policy });
    }
    Config {
        node: config.name.clone(),
        private_key: Arc::new(keys.private),
        peers,
        suites: suites(),
        max_sessions: config.max_sessions,
        workers: workers::number(config),
        mtu: inner_mtu(config),
        incarnation,
        owner_epoch,
        load_threshold: LOAD_THRESHOLD,
    }
}

/// The policy of each peer under its version, emergencies included.
#[must_use]
pub fn policies(config: &GatewayConfig, emergency: &Emergency) -> BTreeMap<PublicKey, Arc<Policy>> {
    let mut texts: BTreeMap<PolicyVersion, Arc<Policy>> = BTreeMap::new();
    let mut of = |peer: &PeerConfig| {
        let policy = emergency.policy_of(config, peer);
        Arc::clone(texts.entry(policy.version).or_insert_with(|| Arc::new(policy)))
    };
    config.peers.iter().map(|peer| (peer.public_key, of(peer))).collect()
}

/// The records of these policies, each text once: who reads the record replays what was decided under them.
pub fn policy_records<'a>(node: &str, policies: impl Iterator<Item = &'a Arc<Policy>>) -> Vec<Record> {
    let texts: BTreeMap<_, _> = policies.map(|policy| (policy.version, policy)).collect();
    let ts = crate::audit::wall_clock();
    let context = event::Context { ts: &ts, at: clock::boot(), node, seq: 0, peer: "" };
    texts.values().map(|policy| Record::policy(&context, policy)).collect()
}
