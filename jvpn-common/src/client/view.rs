//! What people see of the client: a copy, made when asked.
//!
//! Owns the shape of `status` and `paths` on a client. Must never hold a key, and never be read by a decision.

use super::command::{PathClass, PathId};
use crate::ids::{Epoch, Incarnation, Locator, OwnerEpoch, SessionId, TransportIndex, Version};
use crate::message::Label;
use crate::reason::Reason;
use crate::time::{Duration, Instant};
use core::net::SocketAddr;
use ipnet::IpNet;

/// What the engine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No usable path.
    Waiting,
    /// A handshake is under way and there is no session.
    Connecting,
    /// The session is bound, as far as the gateway acknowledged.
    Connected,
    /// The active path is lost, or a resume is under way.
    Recovering,
    /// Closed by the client.
    Closed,
}

/// How a path is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// Nothing is known yet.
    New,
    /// Echoes come back.
    Alive,
    /// Something that must be answered is not.
    Suspect,
    /// Nothing came back for long.
    Dead,
    /// The link is gone.
    Down,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    /// Its name.
    pub path: PathId,
    /// What people call it.
    pub label: Label,
    /// How much it is wanted.
    pub class: PathClass,
    /// Whether bytes cost money.
    pub metered: bool,
    /// Which of the gateway's endpoints it uses.
    pub endpoint: Option<SocketAddr>,
    /// How it is doing.
    pub state: PathState,
    /// Whether inner packets go this way.
    pub active: bool,
    /// Whether the gateway believes its address at the moment.
    pub validated: bool,
    /// Whether the last echo said that the gateway sends this way.
    pub bound: bool,
    /// Transport index and locator it uses.
    pub locator: Option<(TransportIndex, Locator)>,
    /// Smoothed round trip.
    pub srtt: Option<Duration>,
    /// Its variation.
    pub jitter: Option<Duration>,
    /// Probes lost of the last 64, in 1/1000.
    pub loss_permille: u16,
    /// Data lost on its way up, in 1/1000; none while too little goes this way to say.
    pub data_loss_permille: Option<u16>,
    /// Proven path MTU.
    pub mtu: Option<u16>,
    /// When anything authenticated last came from it.
    pub heard: Option<Instant>,
    /// What keeps a standby path from being asked for as the better one.
    pub held_by: Option<Reason>,
    /// Whether it is another port of a transport in use, opened before a NAT forgets the first one.
    pub beside: bool,
    /// How long its NAT's mappings live at least, once that was learned.
    pub mapping: Option<Duration>,
    /// How long its answers may be owed before it is suspect, since it was once given up in a mere pause.
    pub patience: Option<Duration>,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// What the engine is doing.
    pub phase: Phase,
    /// The session.
    pub session: Option<SessionId>,
    /// Number of its state as last acknowledged, 0 without session.
    pub state: u8,
    /// Its version as last acknowledged.
    pub version: Version,
    /// Its owner.
    pub owner_epoch: OwnerEpoch,
    /// Which start of the gateway answered last.
    pub incarnation: Incarnation,
    /// Epoch in use.
    pub epoch: Option<Epoch>,
    /// Inner addresses.
    pub addresses: Vec<IpNet>,
    /// Inner MTU.
    pub mtu: u16,
    /// Policy snapshot in its own encoding.
    pub policy: Vec<u8>,
    /// When it came.
    pub policy_at: Option<Instant>,
    /// Conditions that hold: GATEWAY_UNRESPONSIVE and the like.
    pub conditions: Vec<Reason>,
    /// Why the last thing happened, newest first.
    pub reasons: Vec<Reason>,
    /// Every path, by id.
    pub paths: Vec<PathView>,
    /// Bindings acknowledged since the session began.
    pub switches: u32,
    /// When the session began.
    pub since: Option<Instant>,
}
