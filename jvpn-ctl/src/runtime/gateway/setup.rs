//! From configuration to an engine's configuration.
//!
//! Owns the conversion of keys, peers and policies. Must never print a key.

use crate::config::gateway::{GatewayConfig, GatewayKeys};
use crate::runtime::clock;
use anyhow::{Context, Result};
use jvpn_common::crypto::Suite;
use jvpn_common::event::{self, Record};
use jvpn_common::gateway::{Config, Peer};
use jvpn_common::ids::{Incarnation, OwnerEpoch, PolicyVersion};
use jvpn_common::limits::OVERHEAD_V6;
use jvpn_common::secret::PresharedKey;
use jvpn_common::session::Policy;
use sha2::{Digest, Sha256};
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

/// A policy class with its version: the first four bytes of the SHA-256 of its text, so that a record names
/// exactly the text it was decided under.
fn versioned(policy: &Policy) -> Policy {
    let mut policy = Policy { version: PolicyVersion(0), ..policy.clone() };
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(policy.text().as_bytes()));
    policy.version = PolicyVersion(u32::from_be_bytes([a, b, c, d]));
    policy
}

/// Inner MTU: what is left of the configured outer MTU after the larger of the two overheads.
#[must_use]
pub fn inner_mtu(config: &GatewayConfig) -> u16 {
    config.mtu.min(1_500) - OVERHEAD_V6
}

/// The engine's configuration.
///
/// # Errors
/// When a key or a policy cannot be used.
pub fn engine(
    config: &GatewayConfig,
    mut keys: GatewayKeys,
    incarnation: Incarnation,
    owner_epoch: OwnerEpoch,
) -> Result<Config> {
    let policies: BTreeMap<&str, Arc<Policy>> =
        config.policies.iter().map(|(name, policy)| (name.as_str(), Arc::new(versioned(policy)))).collect();
    let mut peers = BTreeMap::new();
    for peer in &config.peers {
        let preshared_key = keys.preshared.remove(&peer.name).unwrap_or_else(PresharedKey::none);
        let policy =
            policies.get(peer.policy.as_str()).cloned().with_context(|| format!("policy `{}`", peer.policy))?;
        let (addresses, routes) = (peer.addresses.clone(), peer.routes.clone());
        peers.insert(peer.public_key, Peer { name: peer.name.clone(), preshared_key, addresses, routes, policy });
    }
    Ok(Config {
        node: config.name.clone(),
        private_key: Arc::new(keys.private),
        peers,
        suites: suites(),
        max_sessions: config.max_sessions,
        workers: 1,
        mtu: inner_mtu(config),
        incarnation,
        owner_epoch,
        load_threshold: LOAD_THRESHOLD,
    })
}

/// The records of the policies of an engine's peers that are `wanted`, with their full text: who reads the record
/// replays what was decided under them.
pub fn policy_records(config: &Config, wanted: impl Fn(PolicyVersion) -> bool) -> Vec<Record> {
    let policies: BTreeMap<_, _> = config.peers.values().map(|peer| (peer.policy.version, &peer.policy)).collect();
    let ts = crate::audit::wall_clock();
    let context = event::Context { ts: &ts, at: clock::boot(), node: &config.node, seq: 0, peer: "" };
    let wanted = policies.iter().filter(|(version, _)| wanted(**version));
    wanted.map(|(_, policy)| Record::policy(&context, policy)).collect()
}
