//! What goes into the gateway engine and what comes out of it.
//!
//! Owns the types at its edge. Every [`Command::Commit`] and [`Command::Compute`] has an id, and exactly one
//! outcome with that id comes back, failure included. Must never do anything.

use super::handshake::{Job, JobResult};
use crate::crypto::Suite;
use crate::event::Record;
use crate::ids::{Epoch, Generation, OpId, RelayId, SessionId, Slot, TransportIndex, Version};
use crate::mapop::MapOp;
use crate::message::Label;
use crate::reason::Reason;
use crate::secret::{PublicKey, Secret};
use crate::session::Policy;
use crate::time::Instant;
use core::net::SocketAddr;
use ipnet::IpNet;
use std::sync::Arc;

/// How a datagram reached the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// At one of its own sockets.
    Local,
    /// Through a relay, which vouches for the client's address.
    Relay(RelayId),
}

impl Hop {
    /// The relay, if it is one.
    #[must_use]
    pub const fn relay(self) -> Option<RelayId> {
        match self {
            Self::Local => None,
            Self::Relay(relay) => Some(relay),
        }
    }
}

/// Where a datagram came from and where it arrived; answers go back the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The last hop.
    pub hop: Hop,
    /// The client's outer address.
    pub client: SocketAddr,
    /// The address it was sent to: the gateway's, or the relay's.
    pub gateway: SocketAddr,
}

/// What goes in.
#[derive(Debug)]
pub enum Input<'a> {
    /// A handshake or control datagram.
    Datagram {
        /// Where it came from.
        origin: Origin,
        /// The UDP payload; opened in place.
        bytes: &'a mut [u8],
    },
    /// A computation ended.
    Computed {
        /// The command's id.
        op: OpId,
        /// Its result.
        result: JobResult,
    },
    /// A commit was carried out, or rolled back whole.
    Committed {
        /// The command's id.
        op: OpId,
        /// Whether everything in it happened; else nothing did.
        done: bool,
    },
    /// What the worker saw of a slot since the last time.
    Activity {
        /// Which.
        slot: Slot,
        /// When something opened under its data keys last.
        opened: Option<Instant>,
        /// Since when inner packets have gone down without anything coming back.
        unanswered: Option<Instant>,
        /// Highest epoch anything opened under.
        epoch: Epoch,
    },
    /// The data keys of an epoch did as much as a rekey asks for, or all they may.
    Worn {
        /// Of which slot.
        slot: Slot,
        /// Which epoch.
        epoch: Epoch,
        /// Whether nothing more is sealed under them.
        spent: bool,
    },
    /// The runtime counted what a security team wants to see.
    Suspicious {
        /// Of which session.
        session: SessionId,
        /// SEC_FORGED_TAG, SEC_INNER_SPOOF or SEC_MAP_TAMPERED.
        reason: Reason,
        /// How often since the last time.
        causes: u64,
        /// What exactly, where the code alone does not say it; empty where it does.
        what: &'static str,
    },
    /// An operator or the runtime wants something.
    Order(Order),
    /// The time passed to `handle` is all there is: fire what is due.
    Wakeup,
}

/// What an operator or the runtime can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// End a session.
    Terminate {
        /// Which.
        session: SessionId,
        /// OPERATOR_TERMINATION, POLICY_TERMINATION (peer removed) or SEC_KEY_COMPROMISE_SUSPECTED.
        reason: Reason,
    },
    /// Ask the client to move; it may refuse.
    Jump {
        /// Which.
        session: SessionId,
        /// Where to.
        label: Label,
    },
    /// The process will stop: tell everybody.
    GoingAway,
    /// New sessions cannot be recorded (disk full), or can be again.
    Storage {
        /// Whether births are possible.
        available: bool,
    },
}

/// A datagram on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Back along this way.
    pub origin: Origin,
    /// The UDP payload.
    pub bytes: Vec<u8>,
}

/// Keys the worker needs to open and seal data of one epoch.
#[derive(Debug)]
pub struct DataKeys {
    /// Which epoch.
    pub epoch: Epoch,
    /// Which cipher.
    pub suite: Suite,
    /// Client to gateway.
    pub up: Secret<32>,
    /// Gateway to client.
    pub down: Secret<32>,
}

/// One step for the tunnel worker.
#[derive(Debug)]
pub enum WorkerOp {
    /// A session may send and receive: its keys, addresses and routes. Prefixes it shares with another slot
    /// of the same session go to this one.
    Install {
        /// Where.
        slot: Slot,
        /// Of which generation.
        generation: Generation,
        /// Whose.
        session: SessionId,
        /// First epoch.
        keys: DataKeys,
        /// Inner sources it owns and prefixes behind it.
        prefixes: Vec<IpNet>,
    },
    /// Receive under another epoch as well; send with it after the first packet that opens under it.
    Next {
        /// Where.
        slot: Slot,
        /// The keys.
        keys: DataKeys,
    },
    /// Forget an epoch's keys.
    Wipe {
        /// Where.
        slot: Slot,
        /// Which.
        epoch: Epoch,
    },
    /// The path of a transport carries this much, IP header included.
    PathMtu {
        /// Where.
        slot: Slot,
        /// Which transport.
        k: TransportIndex,
        /// Bytes.
        mtu: u16,
    },
    /// Forget every key of the slot; nothing is opened or sealed until it is installed anew.
    WipeAll {
        /// Where.
        slot: Slot,
    },
    /// The slot is free: keys wiped, prefixes gone.
    Free {
        /// Where.
        slot: Slot,
    },
}

/// What the store keeps of a session. No secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The session.
    pub session: SessionId,
    /// Its peer.
    pub peer: PublicKey,
    /// Inner addresses.
    pub addresses: Vec<IpNet>,
    /// The policy that is configured for its peer; none once there is no such peer.
    pub policy: Option<Arc<Policy>>,
    /// Versions below this may be used without writing.
    pub ceiling: Version,
    /// The session core in its canonical encoding.
    pub core: Vec<u8>,
    /// Boot time of that.
    pub at: Instant,
}

/// One step for the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// Keep this.
    Put {
        /// What.
        stored: Box<Stored>,
        /// Whether it must be on disk before the commit is done; else it may be written later.
        durable: bool,
    },
    /// Forget it.
    Remove(SessionId),
}

impl StoreOp {
    /// Whether whoever carries it out waits for the disk.
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        !matches!(self, Self::Put { durable: false, .. })
    }
}

/// Everything that happens at once or not at all, in this order: maps, store, record, worker, datagrams.
#[derive(Debug, Default)]
pub struct Commit {
    /// For the worker.
    pub worker: Vec<WorkerOp>,
    /// For the maps; the executor undoes them in reverse when a later step fails.
    pub maps: Vec<MapOp>,
    /// For the store.
    pub store: Vec<StoreOp>,
    /// For the record, written before any datagram leaves.
    pub records: Vec<Record>,
    /// Whether the datagrams wait for the disk (policy `audit = strict`).
    pub strict: bool,
    /// Sent last.
    pub send: Vec<Datagram>,
}

/// What comes out.
#[derive(Debug)]
pub enum Command {
    /// Send a datagram.
    Send(Datagram),
    /// Run handshake cryptography somewhere it delays nothing.
    Compute {
        /// Comes back in [`Input::Computed`].
        op: OpId,
        /// What to run.
        job: Box<Job>,
    },
    /// Do all of it or nothing.
    Commit {
        /// Comes back in [`Input::Committed`].
        op: OpId,
        /// What.
        commit: Box<Commit>,
    },
    /// Record something that changed nothing: a refusal, a security event.
    Record(Box<Record>),
}
