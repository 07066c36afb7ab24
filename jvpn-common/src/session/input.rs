//! What can happen to a session.
//!
//! Owns the inputs of the core. Must never carry a secret: every input that moved a session is written to
//! the record as it is.

use super::proof::{Confirmed, Switch};
use super::state::named;
use crate::ids::{OwnerEpoch, Version};
use crate::reason::Reason;
use crate::time::{Duration, Instant};

named! {
    /// Why a client wants to move.
    Class {
        /// Same transport, its outer address changed.
        Rebind = 1 "REBIND",
        /// The active transport is gone.
        Lost = 2 "LOST",
        /// The active transport lives; this one is better.
        Better = 3 "BETTER",
    }
}

named! {
    /// Who wants a BETTER.
    Cause {
        /// The client's measurements.
        Quality = 1 "QUALITY",
        /// A person: improvement and cooldown do not count.
        Operator = 2 "OPERATOR",
        /// The end of a NAT's mapping, known in advance: as little a matter of improvement and cooldown.
        Mapping = 3 "MAPPING",
    }
}

named! {
    /// Which side noticed that a transport is gone.
    Side {
        /// The client said so.
        Client = 1 "CLIENT",
        /// Nothing opened for `gateway_dead_after`.
        Gateway = 2 "GATEWAY",
    }
}

named! {
    /// Who ends a session.
    Ender {
        /// The client closed it.
        Client = 1 "CLIENT",
        /// An operator.
        Operator = 2 "OPERATOR",
        /// A bound of policy whose cause was proven.
        Policy = 3 "POLICY",
    }
}

/// What a proven client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Why it moves.
    pub class: Class,
    /// Who wants it (BETTER only).
    pub cause: Cause,
    /// How much better, permille of the active transport's measure (BETTER only).
    pub improvement: u16,
    /// Orders requests; strictly growing.
    pub nonce: u64,
    /// The highest version the client has seen.
    pub last_version: Version,
    /// What failed, as the client saw it (a code of class Detail).
    pub evidence: Option<Reason>,
}

/// One report about the active transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Permille of packets lost.
    pub loss: u16,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Its variation.
    pub jitter: Duration,
    /// Packets that arrived in the time of the report; none, and none lost, is no evidence.
    pub delivered: u32,
}

impl Report {
    /// Whether it says nothing: no packet was sent that could have arrived.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.delivered == 0 && self.loss == 0
    }
}

/// A confirmed RESUME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The static key that was proven.
    pub peer: [u8; 32],
    /// The transport it was confirmed on.
    pub confirmed: Confirmed,
    /// The highest version the client has seen.
    pub last_version: Version,
    /// When the new keys die.
    pub reject_after: Instant,
}

/// Everything that can happen to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed: the first timer that is due fires.
    Tick,
    /// The handshake was confirmed.
    Confirm {
        /// The evidence.
        confirmed: Confirmed,
        /// When the keys die.
        reject_after: Instant,
    },
    /// A report about the active transport.
    Quality(Report),
    /// A proven wish to move.
    Reattach(Switch),
    /// A confirmed RESUME of this session.
    Resume(Resume),
    /// A rekey was completed.
    Rekeyed {
        /// When the new keys die.
        reject_after: Instant,
    },
    /// The client abandoned every request up to this nonce.
    NonceFloor {
        /// Lowest nonce that may still be accepted, minus one.
        nonce: u64,
    },
    /// A proven reattach could not be committed.
    AttemptFailed,
    /// The active transport is gone, and no other is offered.
    TransportLost {
        /// Who noticed.
        by: Side,
        /// What was seen (a code of class Detail).
        evidence: Option<Reason>,
    },
    /// The controller was started again; keys are gone.
    ControllerRestarted,
    /// The gateway ends in order; matters to unconfirmed sessions only.
    Shutdown,
    /// Somebody ends the session.
    Terminate {
        /// Who.
        by: Ender,
    },
    /// The peer is no longer configured.
    PeerRemoved,
    /// A newer session of this peer was confirmed.
    Superseded,
    /// An owner with this epoch was seen.
    NewerOwner {
        /// Its epoch.
        epoch: OwnerEpoch,
    },
    /// Keys may be known to others.
    CompromiseSuspected,
    /// Something that cannot be, was.
    InvariantBroken {
        /// Its number in `docs/lifecycle.md`.
        which: u8,
    },
}

impl Input {
    /// Its kind, as a record names it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tick => "TICK",
            Self::Confirm { .. } => "CONFIRM",
            Self::Quality(_) => "QUALITY",
            Self::Reattach(_) => "REATTACH",
            Self::Resume(_) => "RESUME",
            Self::Rekeyed { .. } => "REKEYED",
            Self::NonceFloor { .. } => "NONCE_FLOOR",
            Self::AttemptFailed => "ATTEMPT_FAILED",
            Self::TransportLost { .. } => "TRANSPORT_LOST",
            Self::ControllerRestarted => "CONTROLLER_RESTARTED",
            Self::Shutdown => "SHUTDOWN",
            Self::Terminate { .. } => "TERMINATE",
            Self::PeerRemoved => "PEER_REMOVED",
            Self::Superseded => "SUPERSEDED",
            Self::NewerOwner { .. } => "NEWER_OWNER",
            Self::CompromiseSuspected => "COMPROMISE_SUSPECTED",
            Self::InvariantBroken { .. } => "INVARIANT_BROKEN",
        }
    }
}
