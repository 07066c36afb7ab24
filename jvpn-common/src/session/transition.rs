//! The transition table, as data.
//!
//! Owns every way a session can move. Must never grow a second copy: `docs/lifecycle.md`, its graph and the
//! machine all read [`TABLE`].

use super::state::{State, named};
use crate::reason::Reason;

named! {
    /// Where a session is: its state, with DEGRADED split by whether it is bound.
    Place {
        /// BIRTH.
        Birth = 1 "BIRTH",
        /// ATTACHED.
        Attached = 2 "ATTACHED",
        /// VOLATILE.
        Volatile = 3 "VOLATILE",
        /// RECOVERING.
        Recovering = 4 "RECOVERING",
        /// DEGRADED with a transport.
        DegradedBound = 5 "DEGRADED(bound)",
        /// DEGRADED without.
        DegradedUnbound = 6 "DEGRADED(unbound)",
        /// TERMINATED.
        Terminated = 7 "TERMINATED",
    }
}

impl Place {
    /// The state it belongs to.
    #[must_use]
    pub const fn state(self) -> State {
        match self {
            Self::Birth => State::Birth,
            Self::Attached => State::Attached,
            Self::Volatile => State::Volatile,
            Self::Recovering => State::Recovering,
            Self::DegradedBound | Self::DegradedUnbound => State::Degraded,
            Self::Terminated => State::Terminated,
        }
    }
}

named! {
    /// What a row answers to.
    On {
        /// The handshake was confirmed.
        Confirm = 1 "confirm",
        /// `PENDING_TIMEOUT` passed without a CONFIRM.
        BirthTimeout = 2 "timer: confirm",
        /// Terminate, peer removed, shutdown, before CONFIRM.
        Abandon = 3 "terminate, peer removed, shutdown",
        /// A report about the active transport.
        Quality = 4 "quality",
        /// Quality was good for long enough.
        Stable = 5 "timer: stability",
        /// VOLATILE for too long.
        VolatileMax = 6 "timer: volatile_max",
        /// Reattach REBIND under the active binding's locator.
        Rebind = 7 "reattach REBIND",
        /// Reattach BETTER (or REBIND under another locator) of a bound session.
        Better = 8 "reattach BETTER",
        /// The active transport is gone; first half of LOST and of RESUME of a bound session.
        TransportLost = 9 "transport lost",
        /// Keys passed `reject_after`.
        KeyExpired = 10 "timer: key",
        /// A reattach or RESUME of an unbound session; second half of LOST and of RESUME.
        Accept = 11 "reattach or resume",
        /// RECOVERING for too long.
        RecoveryWindow = 12 "timer: recovery window",
        /// A proven attempt failed.
        AttemptFailed = 13 "attempt failed",
        /// The controller was started again.
        Restarted = 14 "controller restarted",
        /// Unbound for too long.
        LossTtl = 15 "timer: loss TTL",
        /// Lived for too long.
        SessionTtl = 16 "timer: session TTL",
        /// The client ends it.
        ClientEnds = 17 "terminate by client",
        /// An operator ends it.
        OperatorEnds = 18 "terminate by operator",
        /// A policy bound with proven cause, or the peer was removed.
        PolicyEnds = 19 "peer removed, policy bound",
        /// A newer session of the peer was confirmed.
        Superseded = 20 "superseded",
        /// A newer owner was seen.
        NewerOwner = 21 "newer owner",
        /// Keys may be known.
        Compromise = 22 "compromise suspected",
        /// An invariant does not hold.
        Broken = 23 "invariant broken",
    }
}

named! {
    /// What must hold for a row to apply; evaluated in `guard`.
    Guard {
        /// Nothing more.
        Always = 1 "",
        /// The timer's instant has come.
        Due = 2 "due",
        /// Two reports below the floor.
        TwoReports = 3 "two reports below the floor",
        /// Bad for `volatility_hold`.
        Held = 4 "below threshold, held ≥ volatility_hold",
        /// Improvement, cooldown, rate.
        BetterBounds = 5 "improvement, cooldown, rate",
        /// `max_recoveries_degraded` not reached.
        RecoveriesLeft = 6 "recoveries left",
        /// Switch budget left.
        BudgetLeft = 7 "switch budget left",
        /// Switch budget and recoveries left.
        BothLeft = 8 "switch budget and recoveries left",
        /// `max_recovery_attempts` exceeded.
        AttemptsSpent = 9 "attempts exceeded",
        /// Its epoch is above ours.
        EpochAbove = 10 "owner_epoch above ours",
    }
}

/// What a row does to the session beside its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Binds it to the input's transport; quality windows restart.
    Bind,
    /// Binds it to nothing.
    Unbind,
    /// Its keys are stale.
    StaleKeys,
    /// Counts a recovery of a DEGRADED session.
    CountRecovery,
    /// The switch budget is spent until a refill.
    Spend,
    /// Budgets are full again.
    Refill,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Places it leaves.
    pub from: &'static [Place],
    /// What it answers to.
    pub on: On,
    /// What must hold.
    pub guard: Guard,
    /// Where it leads; none is "the same place".
    pub to: Option<Place>,
    /// Primary reason.
    pub reason: Reason,
    /// Detail that every such transition has.
    pub detail: Option<Reason>,
    /// What else it does.
    pub acts: &'static [Act],
}

use Act::{Bind, CountRecovery, Refill, Spend, StaleKeys, Unbind};
use Place::{Attached, Birth, DegradedBound, DegradedUnbound, Recovering, Terminated, Volatile};

const BOUND: &[Place] = &[Attached, Volatile, DegradedBound];
const UNBOUND: &[Place] = &[Recovering, DegradedUnbound];
const LIVE: &[Place] = &[Attached, Volatile, Recovering, DegradedBound, DegradedUnbound];

const fn row(from: &'static [Place], on: On, guard: Guard, to: Option<Place>, reason: Reason) -> Row {
    Row { from, on, guard, to, reason, detail: None, acts: &[] }
}

const fn end(on: On, guard: Guard, reason: Reason) -> Row {
    row(LIVE, on, guard, Some(Terminated), reason).act(&[Unbind, StaleKeys])
}

impl Row {
    const fn act(self, acts: &'static [Act]) -> Self {
        Self { acts, ..self }
    }

    const fn because(self, detail: Reason) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// Whether it leaves this place on this.
    #[must_use]
    pub fn concerns(&self, place: Place, on: On) -> bool {
        self.on == on && self.from.contains(&place)
    }
}

/// The table. Rows are tried from top to bottom; the first whose guard holds applies; anything else is refused.
pub const TABLE: &[Row] = &[
    row(&[Birth], On::Confirm, Guard::Always, Some(Attached), Reason::HandshakeOk).act(&[Bind]),
    row(&[Birth], On::BirthTimeout, Guard::Due, Some(Terminated), Reason::HandshakeFail).act(&[StaleKeys]),
    row(&[Birth], On::Abandon, Guard::Always, Some(Terminated), Reason::HandshakeFail).act(&[StaleKeys]),
    row(&[Attached], On::Quality, Guard::TwoReports, Some(Volatile), Reason::QualityFloorViolation),
    row(&[Attached], On::Quality, Guard::Held, Some(Volatile), Reason::VolatilitySignal),
    row(&[Volatile], On::Stable, Guard::Due, Some(Attached), Reason::HealthRecovered),
    row(&[Volatile], On::VolatileMax, Guard::Due, Some(DegradedBound), Reason::EnterDegradedMode),
    row(&[DegradedBound], On::Stable, Guard::Due, Some(Attached), Reason::ExitDegradedMode).act(&[Refill]),
    row(BOUND, On::Rebind, Guard::Always, None, Reason::TransportSwitchOk).because(Reason::SourceChanged).act(&[Bind]),
    row(&[Attached, Volatile], On::Better, Guard::BetterBounds, Some(Attached), Reason::TransportSwitchOk).act(&[Bind]),
    row(&[DegradedBound], On::Better, Guard::BetterBounds, None, Reason::TransportSwitchOk).act(&[Bind]),
    row(&[Attached, Volatile], On::TransportLost, Guard::Always, Some(Recovering), Reason::RecoveryStart)
        .act(&[Unbind]),
    row(&[DegradedBound], On::TransportLost, Guard::RecoveriesLeft, Some(Recovering), Reason::RecoveryRetry)
        .act(&[Unbind, CountRecovery]),
    row(&[DegradedBound], On::TransportLost, Guard::Always, Some(DegradedUnbound), Reason::RecoveryBoundsExceeded)
        .act(&[Unbind]),
    row(BOUND, On::KeyExpired, Guard::Due, Some(Recovering), Reason::RecoveryStart)
        .because(Reason::KeyExpired)
        .act(&[Unbind, StaleKeys]),
    row(UNBOUND, On::KeyExpired, Guard::Due, None, Reason::KeyExpired).act(&[StaleKeys]),
    row(&[Recovering], On::Accept, Guard::BudgetLeft, Some(Attached), Reason::ReattachAccept).act(&[Bind]),
    row(&[Recovering], On::Accept, Guard::Always, Some(DegradedBound), Reason::EnterDegradedMode).act(&[Bind, Spend]),
    row(&[DegradedUnbound], On::Accept, Guard::BothLeft, Some(Attached), Reason::ExitDegradedMode).act(&[Bind]),
    row(&[DegradedUnbound], On::Accept, Guard::Always, Some(DegradedBound), Reason::ReattachAccept).act(&[Bind]),
    row(&[Recovering], On::RecoveryWindow, Guard::Due, Some(DegradedUnbound), Reason::RecoveryBoundsExceeded),
    row(&[Recovering], On::AttemptFailed, Guard::AttemptsSpent, Some(DegradedUnbound), Reason::RecoveryBoundsExceeded),
    row(BOUND, On::Restarted, Guard::Always, Some(Recovering), Reason::ControllerRestart).act(&[Unbind, StaleKeys]),
    row(UNBOUND, On::Restarted, Guard::Always, None, Reason::ControllerRestart).act(&[StaleKeys]),
    row(UNBOUND, On::LossTtl, Guard::Due, Some(Terminated), Reason::TtlTransportLossExpired).act(&[StaleKeys]),
    end(On::SessionTtl, Guard::Due, Reason::TtlSessionExpired),
    end(On::ClientEnds, Guard::Always, Reason::ClientTermination),
    end(On::OperatorEnds, Guard::Always, Reason::OperatorTermination),
    end(On::PolicyEnds, Guard::Always, Reason::PolicyTermination),
    end(On::Superseded, Guard::Always, Reason::SessionSuperseded),
    end(On::NewerOwner, Guard::EpochAbove, Reason::OwnershipConflict),
    end(On::Compromise, Guard::Always, Reason::SecKeyCompromiseSuspected),
    end(On::Broken, Guard::Always, Reason::FatalProtocolError),
];

/// Timers in the order in which they fire when several are due. Ownership, transport death and quality lie
/// between them too; they arrive as inputs, since only the world outside can know.
pub const TIMERS: &[On] =
    &[On::SessionTtl, On::LossTtl, On::KeyExpired, On::BirthTimeout, On::RecoveryWindow, On::VolatileMax, On::Stable];
