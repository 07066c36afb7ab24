//! What the gateway engine is told at its start.
//!
//! Owns the shape of its configuration: keys, peers, policies, identity of this start. Must never read a file.

use crate::crypto::Suite;
use crate::ids::{Incarnation, OwnerEpoch};
use crate::secret::{PresharedKey, PrivateKey, PublicKey};
use crate::session::policy::Policy;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Someone who may have a session.
#[derive(Debug)]
pub struct Peer {
    /// Name in configuration and record.
    pub name: String,
    /// Mixed into the handshake; all zero when none is configured.
    pub preshared_key: PresharedKey,
    /// Inner addresses of its session.
    pub addresses: Vec<IpNet>,
    /// Prefixes behind it.
    pub routes: Vec<IpNet>,
    /// Its policy.
    pub policy: Arc<Policy>,
}

/// The engine's configuration.
#[derive(Debug)]
pub struct Config {
    /// Name of this node in the record.
    pub node: String,
    /// The gateway's static key.
    pub private_key: Arc<PrivateKey>,
    /// Who may have a session.
    pub peers: BTreeMap<PublicKey, Peer>,
    /// Ciphers in the order this gateway prefers.
    pub suites: Vec<Suite>,
    /// Slots of the maps.
    pub max_sessions: u32,
    /// Workers; a locator's low byte modulo this names one.
    pub workers: u32,
    /// Inner MTU.
    pub mtu: u16,
    /// Which start this is.
    pub incarnation: Incarnation,
    /// Which owner this is.
    pub owner_epoch: OwnerEpoch,
    /// Message 1 a second above which mac2 is asked for.
    pub load_threshold: u32,
}
