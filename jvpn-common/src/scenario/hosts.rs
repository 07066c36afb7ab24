//! The two hosts of a scenario: engines, keys and clocks.
//!
//! Owns what both sides are told at their start. Every key comes from the seed and is worth nothing. Must never be told
//! anything that a scenario does not describe.

use super::network::GATEWAY;
use super::rng::Rng;
use crate::client;
use crate::crypto::Suite;
use crate::gateway::{self, Peer};
use crate::ids::{Incarnation, OwnerEpoch};
use crate::secret::{PresharedKey, PrivateKey, PublicKey};
use crate::session::Policy;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Boot time at the start: nothing may be before zero.
pub(super) const START: Instant = Instant(1_000_000_000_000);
/// Wall clock then, nanoseconds since 1970.
pub(super) const WALL: u64 = 1_700_000_000_000_000_000;
/// Start of the gateway.
pub(super) const INCARNATION: u64 = 1;
/// Slots: a session, the one that follows it, and handshakes nobody confirmed.
pub(super) const SLOTS: u32 = 16;
/// The client's name.
const NAME: &str = "client";

/// Client, gateway, and the identity of the client.
pub(super) fn engines(policy: &Arc<Policy>, rng: &mut Rng) -> (client::Engine, gateway::Engine, PublicKey) {
    let (private, own) = (PrivateKey::generate(rng), PrivateKey::generate(rng));
    let (public, key) = (private.public(), own.public());
    let suites = vec![Suite::ChaCha20Poly1305];
    let peer = Peer {
        name: NAME.into(),
        preshared_key: PresharedKey::none(),
        addresses: "10.77.0.2/32".parse().into_iter().collect(),
        routes: Vec::new(),
        policy: policy.clone(),
    };
    let config = gateway::Config {
        node: "gateway".into(),
        private_key: Arc::new(private),
        peers: BTreeMap::from([(key, peer)]),
        suites: suites.clone(),
        max_sessions: SLOTS,
        workers: 1,
        mtu: 1_412,
        incarnation: Incarnation(INCARNATION),
        owner_epoch: OwnerEpoch(1),
        load_threshold: 1_000,
    };
    let gateway = gateway::Engine::new(config, Box::new(rng.fork()), START);
    let (name, psk, endpoints) = (NAME.into(), PresharedKey::none(), vec![GATEWAY]);
    let config = client::Config { name, private_key: own, gateway: public, psk, endpoints, suites };
    (client::Engine::new(config, Box::new(rng.fork()), START), gateway, key)
}
