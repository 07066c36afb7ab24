//! The session core: one pure function from a session, an input and an instant to the next session.
//!
//! Owns what a session is and how it moves. It must never act: a [`Step`] is a proposal, the caller commits it to the
//! kernel and the record and only then keeps its session. A refusal therefore changes nothing by construction.
//!
//! ```text
//! input ──► timers first ──► common checks ──► TABLE, row by row ──► Step { session', transitions, effects }
//!                                   └────────────── Refusal ◄──┘
//! ```

pub mod account;
pub mod encode;
#[cfg(any(test, feature = "sabotage"))]
pub mod explore;
pub mod flap;
mod guard;
pub mod input;
pub mod invariant;
mod machine;
pub mod page;
pub mod policy;
pub mod proof;
pub mod quality;
mod restart;
mod standing;
pub mod state;
pub mod transition;
#[cfg(any(test, feature = "sabotage"))]
pub mod twin;
pub mod units;
pub mod version;

pub use input::{Cause, Class, Ender, Input, Report, Request, Resume, Side};
pub use policy::Policy;
pub use proof::{Allowed, Confirmed, Opened, Switch, Validated};
pub use restart::{Claim, Elapsed};
pub use state::{Keys, Label, Path, State, Transport, TransportClass};

use core::fmt;

use crate::ids::{OwnerEpoch, PolicyVersion, SessionId, Version};
use crate::reason::Reason;
use crate::time::{Duration, Instant};
use flap::Meter;
use quality::Quality;

/// Everything a decision about a session depends on, and no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    id: SessionId,
    peer: [u8; 32],
    state: State,
    keys: Keys,
    version: Version,
    policy_version: PolicyVersion,
    created_at: Instant,
    expires_at: Instant,
    state_since: Instant,
    /// Since when it is unbound.
    lost_at: Option<Instant>,
    /// How long it had been unbound before this boot, and is still.
    lost_before: Duration,
    /// How long it was unbound altogether, before the present time.
    unbound: Duration,
    transport: Option<Transport>,
    reject_after: Instant,
    /// Highest nonce accepted, and the path it was accepted from.
    nonce: u64,
    nonce_path: Option<Path>,
    requests: Meter,
    switches: Meter,
    /// The switch budget was spent; only a refill clears it.
    spent: bool,
    recoveries: u32,
    attempts: u32,
    last_switch: Option<Instant>,
    moves: u32,
    quality: Quality,
    owner_epoch: OwnerEpoch,
}

/// What a session is born with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// Its name for life.
    pub id: SessionId,
    /// The peer's static public key.
    pub peer: [u8; 32],
    /// Which owner answers.
    pub owner_epoch: OwnerEpoch,
}

/// One row of the table that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Index of the row in [`transition::TABLE`].
    pub row: usize,
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// Primary reason.
    pub reason: Reason,
    /// More about it.
    pub details: Vec<Reason>,
    /// The version this transition has.
    pub version: Version,
    /// What caused it, as the record keeps it: applied to `before` it gives exactly this transition.
    pub input: Input,
    /// The session before.
    pub before: Session,
    /// The session after.
    pub after: Session,
}

impl Transition {
    /// Whether it bound the session to a transport after another one (its record is a TRANSPORT_SWITCH).
    #[must_use]
    pub fn is_switch(&self) -> bool {
        self.from != State::Birth && self.after.transport.is_some() && self.before.transport != self.after.transport
    }
}

/// What the caller has to make true for a step to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Bind the session to a transport; the previous one drains.
    Bind {
        /// The transport.
        to: Transport,
        /// What it was bound to before this step.
        previous: Option<Transport>,
    },
    /// Bind it to nothing.
    Unbind {
        /// What it was bound to.
        previous: Transport,
    },
    /// Wipe its keys: nothing is opened or sealed under them again.
    DropKeys,
    /// Remove it.
    End {
        /// Why.
        reason: Reason,
        /// How long it lived.
        lifetime: Duration,
        /// How often it moved.
        switches: u32,
        /// How long it was without a transport.
        unbound: Duration,
    },
}

/// A proposal: valid once its effects were committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The session afterwards.
    pub session: Session,
    /// At most two; none if the input only added to what is known (a report, a rekey).
    pub transitions: Vec<Transition>,
    /// At most three.
    pub effects: Vec<Effect>,
}

/// What kind of "no" it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// Not allowed, or not in this state.
    Invalid,
    /// Already so.
    NoOp,
    /// This very request was accepted before: answer it again, with the current version and state.
    Repeat,
    /// A timer is due and fires first: call [`Session::tick`] until it returns none. A fault of the caller.
    TimerDue,
}

/// A "no" that changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind.
    pub kind: RefusalKind,
    /// Why.
    pub reason: Reason,
    /// More about it.
    pub detail: Option<Reason>,
    /// When asking again may help.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) const fn new(kind: RefusalKind, reason: Reason) -> Self {
        Self { kind, reason, detail: None, retry_after: None }
    }

    pub(crate) const fn because(self, detail: Reason) -> Self {
        Self { detail: Some(detail), ..self }
    }

    pub(crate) const fn retry(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail {
            Some(detail) => write!(f, "{} ({detail})", self.reason),
            None => write!(f, "{}", self.reason),
        }
    }
}

impl core::error::Error for Refusal {}

impl Session {
    /// A session whose message 2 is about to leave.
    #[must_use]
    pub fn born(birth: Birth, policy: &Policy, now: Instant) -> Self {
        Self {
            id: birth.id,
            peer: birth.peer,
            state: State::Birth,
            keys: Keys::Live,
            version: Version(0),
            policy_version: policy.version,
            created_at: now,
            expires_at: now + policy.session_ttl,
            state_since: now,
            lost_at: None,
            lost_before: Duration::ZERO,
            unbound: Duration::ZERO,
            transport: None,
            reject_after: now,
            nonce: 0,
            nonce_path: None,
            requests: Meter::default(),
            switches: Meter::default(),
            spent: false,
            recoveries: 0,
            attempts: 0,
            last_switch: None,
            moves: 0,
            quality: Quality::default(),
            owner_epoch: birth.owner_epoch,
        }
    }

    /// Its name for life.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The peer's static public key.
    #[must_use]
    pub const fn peer(&self) -> &[u8; 32] {
        &self.peer
    }

    /// Its state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether its keys may be used.
    #[must_use]
    pub const fn keys(&self) -> Keys {
        self.keys
    }

    /// The version of its last transition.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The policy its last transition was decided under.
    #[must_use]
    pub const fn policy_version(&self) -> PolicyVersion {
        self.policy_version
    }

    /// The one transport it is bound to.
    #[must_use]
    pub const fn transport(&self) -> Option<&Transport> {
        self.transport.as_ref()
    }

    /// When it was born.
    #[must_use]
    pub const fn created_at(&self) -> Instant {
        self.created_at
    }

    /// When its life ends.
    #[must_use]
    pub const fn expires_at(&self) -> Instant {
        self.expires_at
    }

    /// Since when it is unbound.
    #[must_use]
    pub const fn lost_at(&self) -> Option<Instant> {
        self.lost_at
    }

    /// When its keys die.
    #[must_use]
    pub const fn reject_after(&self) -> Instant {
        self.reject_after
    }

    /// The highest nonce accepted.
    #[must_use]
    pub const fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Which owner it has.
    #[must_use]
    pub const fn owner_epoch(&self) -> OwnerEpoch {
        self.owner_epoch
    }

    /// How often it moved.
    #[must_use]
    pub const fn moves(&self) -> u32 {
        self.moves
    }

    /// Whether exactly one transport is active.
    #[must_use]
    pub const fn is_bound(&self) -> bool {
        self.transport.is_some()
    }

    /// Whether it is neither unconfirmed nor over.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        !matches!(self.state, State::Birth | State::Terminated)
    }
}

#[cfg(test)]
pub(crate) mod tests;
