//! From configuration to an engine's configuration.
//!
//! Owns the conversion of keys, peers and policies. Must never print a key.

use crate::config::gateway::{GatewayConfig, GatewayKeys};
use crate::config::policy::PolicyText;
use anyhow::{Context, Result, anyhow};
use jvpn_common::crypto::Suite;
use jvpn_common::gateway::{Config, Peer};
use jvpn_common::ids::{Incarnation, OwnerEpoch, PolicyVersion};
use jvpn_common::secret::{PresharedKey, PrivateKey, PublicKey, Secret};
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
///
/// # Errors
/// For an unknown base, a bad value or a contradiction; `check` finds the line.
pub fn policy(text: &PolicyText) -> Result<Policy> {
    let mut policy = Policy::shipped(&text.base).ok_or_else(|| anyhow!("no policy class is called `{}`", text.base))?;
    policy.name.clone_from(&text.name);
    for (key, value) in &text.keys {
        policy.set(key, value).with_context(|| format!("policy `{}`", text.name))?;
    }
    policy.check().map_err(|contradiction| anyhow!("policy `{}`: {contradiction}", text.name))?;
    policy.version = PolicyVersion(0);
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(policy.text().as_bytes()));
    policy.version = PolicyVersion(u32::from_be_bytes([a, b, c, d]));
    Ok(policy)
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
    let mut policies = BTreeMap::new();
    for (name, text) in &config.policies {
        policies.insert(name.clone(), Arc::new(policy(text)?));
    }
    let mut peers = BTreeMap::new();
    for peer in &config.peers {
        let public = PublicKey::from_bytes(peer.public_key.0).with_context(|| format!("public key of `{}`", peer.name))?;
        let preshared_key = match keys.preshared.get_mut(&peer.name) {
            Some(bytes) => PresharedKey::from_secret(Secret::take(bytes)),
            None => PresharedKey::none(),
        };
        let policy = policies.get(&peer.policy).cloned().with_context(|| format!("policy `{}`", peer.policy))?;
        let (addresses, routes) = (peer.addresses.clone(), peer.routes.clone());
        peers.insert(public, Peer { name: peer.name.clone(), preshared_key, addresses, routes, policy });
    }
    let private = PrivateKey::from_secret(Secret::take(&mut keys.private)).context("private key of the gateway")?;
    Ok(Config {
        node: config.name.clone(),
        private_key: Arc::new(private),
        peers,
        suites: suites(),
        max_sessions: config.max_sessions,
        workers: 1,
        mtu: config.mtu,
        incarnation,
        owner_epoch,
        load_threshold: LOAD_THRESHOLD,
    })
}
