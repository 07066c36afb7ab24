//! What the client holds of its session: what the gateway acknowledged, and what is under way.
//!
//! Owns the record of acknowledged facts (version, state, owner) and the only function that raises them.
//! Must never run ahead of the gateway.

use super::command::PathId;
use super::jump::Request;
use super::keys::KeySet;
use super::rekey::Rekey;
use super::timing::{Timing, UNRESPONSIVE_FOR};
use crate::ids::{Incarnation, OwnerEpoch, SessionId, Version};
use crate::message::handshake::Outcome;
use crate::message::{Accepted, Label};
use crate::reason::Reason;
use crate::session::State;
use crate::time::Instant;
use ipnet::IpNet;
use std::collections::VecDeque;

/// Identifiers of the gateway's own messages that are remembered, so that a repeated one acts once.
const SEEN_MAX: usize = 16;

/// The active path was given up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    /// First sign.
    pub(super) first: Instant,
    /// Decision.
    pub(super) since: Instant,
    /// What failed.
    pub(super) reason: Reason,
    /// The path's name.
    pub(super) from: Option<Label>,
}

/// A path is suspect: three probes on it and on a rival are under way.
#[derive(Debug)]
pub(super) struct Suspicion {
    /// When what is unanswered was sent.
    pub(super) first: Instant,
    /// Who is asked beside the suspect.
    pub(super) rival: Option<PathId>,
    /// Rivals that were asked.
    pub(super) tried: Vec<PathId>,
    /// Probes that confirm it.
    pub(super) burst: u32,
    /// Probes of the burst sent, and when the last was.
    pub(super) sent: u32,
    pub(super) last: Instant,
    /// Whether the rival answered.
    pub(super) answered: bool,
    /// Whether the suspect answered what was owed, late.
    pub(super) came: bool,
}

/// Data goes out and nothing that opens under the data keys comes back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DataSilence {
    pub(super) since: Option<Instant>,
    pub(super) pings: u32,
    pub(super) next: Option<Instant>,
}

/// The session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) version: Version,
    pub(super) state: u8,
    pub(super) owner_epoch: OwnerEpoch,
    pub(super) incarnation: Incarnation,
    pub(super) addresses: Vec<IpNet>,
    pub(super) mtu: u16,
    pub(super) policy: Vec<u8>,
    /// Number of the message that brought it, and when; zero for the handshake.
    pub(super) policy_id: u64,
    pub(super) policy_at: Instant,
    pub(super) timing: Timing,
    pub(super) keys: KeySet,
    /// Path of the last acknowledged binding.
    pub(super) active: PathId,
    /// When it was acknowledged.
    pub(super) bound_at: Instant,
    /// Whether the worker has a way to send.
    pub(super) carrying: bool,
    pub(super) lost: Option<Lost>,
    /// Since when nothing works and there is nowhere to go.
    pub(super) outage: Option<Instant>,
    pub(super) suspicion: Option<Suspicion>,
    /// Probes sent before are no evidence any more: the path has answered a burst since.
    pub(super) cleared_at: Instant,
    pub(super) request: Option<Request>,
    pub(super) nonce: u64,
    pub(super) nonce_floor: u64,
    pub(super) next_id: u64,
    pub(super) rekey: Option<Rekey>,
    pub(super) rekey_pause: Option<Instant>,
    pub(super) reported: Option<Instant>,
    pub(super) silence: DataSilence,
    /// Since when echoes say that the worker is not alive.
    pub(super) unresponsive: Option<Instant>,
    /// When the probe was sent whose echo on another path said, after that, that the worker is alive.
    pub(super) alive_elsewhere: Option<Instant>,
    /// When the last such echo came.
    pub(super) unresponsive_seen: Instant,
    /// Highest data counter a notice was believed for, of the active transport.
    pub(super) noticed: Option<u64>,
    seen: VecDeque<u64>,
    pub(super) switches: u32,
    pub(super) since: Instant,
    /// Why the session this one replaces is gone, as the gateway said.
    pub(super) replaces: Option<Reason>,
}

impl Session {
    /// A session as message 2 described it, bound to `active`.
    pub(super) fn new(accepted: Accepted, keys: KeySet, active: PathId, now: Instant) -> Self {
        let replaces = match accepted.outcome {
            Outcome::New(reason) => reason,
            Outcome::Resumed | Outcome::Rekeyed => None,
        };
        Self {
            replaces,
            id: accepted.session,
            version: accepted.version,
            state: State::Attached.number(),
            owner_epoch: accepted.owner_epoch,
            incarnation: accepted.incarnation,
            addresses: accepted.addresses,
            mtu: accepted.mtu,
            timing: Timing::of(&accepted.policy),
            policy: accepted.policy,
            policy_id: 0,
            policy_at: now,
            keys,
            active,
            bound_at: now,
            carrying: false,
            lost: None,
            outage: None,
            suspicion: None,
            cleared_at: now,
            request: None,
            nonce: 0,
            nonce_floor: 0,
            next_id: 2,
            rekey: None,
            rekey_pause: None,
            reported: None,
            silence: DataSilence::default(),
            unresponsive: None,
            alive_elsewhere: None,
            unresponsive_seen: now,
            noticed: None,
            seen: VecDeque::new(),
            switches: 0,
            since: now,
        }
    }

    /// Whether IPv6 is inside.
    pub(super) fn v6_inside(&self) -> bool {
        self.addresses.iter().any(|address| matches!(address, IpNet::V6(_)))
    }

    /// Takes what the gateway says of version, state and owner; `false`, and nothing changes, when it is
    /// older than what is known already.
    pub(super) fn acknowledge(
        &mut self,
        version: Version,
        state: u8,
        owner_epoch: OwnerEpoch,
        believe_all: bool,
    ) -> bool {
        if !believe_all && (version < self.version || owner_epoch < self.owner_epoch) {
            return false;
        }
        (self.version, self.state, self.owner_epoch) = (version, state, owner_epoch);
        true
    }

    /// Whether echoes said lately that the worker is not alive: no answer can come, and none is missed.
    pub(super) fn frozen(&self, now: Instant) -> bool {
        self.unresponsive.is_some() && now.since(self.unresponsive_seen) < UNRESPONSIVE_FOR
    }

    /// Identifier for the next message.
    pub(super) fn message_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Whether a message of the gateway is new; remembers it.
    pub(super) fn first_time(&mut self, id: u64) -> bool {
        if self.seen.contains(&id) {
            return false;
        }
        if self.seen.len() == SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(id);
        true
    }
}
