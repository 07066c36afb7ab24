//! What must hold for a row of the table, and what is said when it does not.
//!
//! Owns deadlines and bounds. Must never change a session.

use super::input::{Cause, Input};
use super::policy::{BetterSwitching, Policy};
use super::state::{Keys, State};
use super::transition::{Guard, On};
use super::{Refusal, RefusalKind, Session};
use crate::limits::PENDING_TIMEOUT;
use crate::reason::Reason;
use crate::time::{Duration, Instant};

/// How soon a client over the abuse limit may ask again; at most 1 s, so that an honest one is not locked out.
const RETRY: Duration = Duration::from_secs(1);

/// Everything a guard may look at.
pub(super) struct View<'a> {
    pub(super) session: &'a Session,
    pub(super) input: &'a Input,
    pub(super) policy: &'a Policy,
    pub(super) now: Instant,
}

pub(super) fn invalid(reason: Reason) -> Refusal {
    Refusal::new(RefusalKind::Invalid, reason)
}

fn denied(detail: Reason) -> Refusal {
    invalid(Reason::TransportSwitchDenied).because(detail)
}

impl Session {
    /// When a timer of this session fires, if it runs at all.
    pub(super) fn deadline(&self, timer: On, policy: &Policy) -> Option<Instant> {
        let since_good = |window| self.quality.good_since.map(|since| since + window);
        match (timer, self.state) {
            (On::SessionTtl, _) if self.is_live() => Some(self.expires_at),
            (On::LossTtl, State::Recovering | State::Degraded) => {
                self.lost_at.map(|at| at + policy.transport_loss_ttl.saturating_sub(self.lost_before))
            }
            (On::KeyExpired, _) if self.is_live() && self.keys == Keys::Live => Some(self.reject_after),
            (On::BirthTimeout, State::Birth) => Some(self.created_at + PENDING_TIMEOUT),
            (On::RecoveryWindow, State::Recovering) => {
                self.lost_at.map(|at| at + policy.max_recovery_window.saturating_sub(self.lost_before))
            }
            (On::VolatileMax, State::Volatile) => Some(self.state_since + policy.volatile_max),
            (On::Stable, State::Volatile) => since_good(policy.stability_window),
            (On::Stable, State::Degraded) if self.is_bound() => since_good(policy.degraded_stability_window),
            _ => None,
        }
    }

    /// Whether the switch budget is spent.
    fn budget_spent(&self, policy: &Policy, now: Instant) -> bool {
        self.spent || self.switches.count(now) >= policy.max_switches_per_min
    }
}

impl View<'_> {
    /// Whether a guard holds; otherwise what to answer if no later row applies.
    pub(super) fn holds(&self, guard: Guard, on: On) -> Result<(), Refusal> {
        let (session, policy, now) = (self.session, self.policy, self.now);
        let recoveries_left = session.recoveries < policy.max_recoveries_degraded;
        let (holds, otherwise) = match guard {
            Guard::Always => (true, Reason::PolicyDenied),
            Guard::Due => (session.deadline(on, policy).is_some_and(|at| at <= now), Reason::SessionExpired),
            Guard::TwoReports => (session.quality.below_floor(), Reason::Loss),
            Guard::Held => (session.quality.held_bad(policy, now), Reason::Loss),
            Guard::BetterBounds => return self.better(),
            Guard::RecoveriesLeft => (recoveries_left, Reason::RecoveryBoundsExceeded),
            Guard::BudgetLeft => (!session.budget_spent(policy, now), Reason::SwitchRateLimited),
            Guard::BothLeft => (recoveries_left && !session.budget_spent(policy, now), Reason::SwitchRateLimited),
            Guard::AttemptsSpent => (session.attempts > policy.max_recovery_attempts, Reason::CommitFailed),
            Guard::EpochAbove => (
                matches!(self.input, Input::NewerOwner { epoch } if *epoch > session.owner_epoch),
                Reason::OwnershipConflict,
            ),
        };
        if holds { Ok(()) } else { Err(invalid(otherwise)) }
    }

    /// The bounds only BETTER meets.
    fn better(&self) -> Result<(), Refusal> {
        let (session, policy, now) = (self.session, self.policy, self.now);
        let Input::Reattach(switch) = self.input else {
            return Err(denied(Reason::NoValidCandidate));
        };
        let (request, to) = (switch.request(), switch.transport());
        if policy.better_switching == BetterSwitching::Frozen {
            return Err(denied(Reason::SwitchingFrozen));
        }
        if session.transport.is_some_and(|active| active.k == to.k && active.path == to.path) {
            return Err(denied(Reason::NoValidCandidate));
        }
        if request.cause == Cause::Quality {
            if request.improvement < policy.improvement.0 {
                return Err(denied(Reason::ImprovementTooSmall));
            }
            let over = session.last_switch.map_or(now, |at| at + policy.cooldown);
            if over > now {
                return Err(denied(Reason::CooldownActive).retry(over.since(now)));
            }
        }
        if session.switches.count(now) >= policy.max_switches_per_min {
            return Err(denied(Reason::SwitchRateLimited).retry(RETRY));
        }
        Ok(())
    }

    /// What every reattach and resume meets before the table, cheapest first.
    pub(super) fn admitted(&self) -> Result<(), Refusal> {
        let session = self.session;
        match self.input {
            Input::Reattach(switch) => {
                let (request, path) = (switch.request(), switch.transport().path);
                if request.nonce == session.nonce && session.nonce_path == Some(path) {
                    return Err(Refusal::new(RefusalKind::Repeat, Reason::ReattachAccept));
                }
                if request.nonce <= session.nonce {
                    return Err(invalid(Reason::FreshnessInvalid));
                }
                if request.last_version > session.version {
                    return Err(invalid(Reason::VersionFuture));
                }
                if session.keys == Keys::Stale {
                    return Err(invalid(Reason::KeysStale));
                }
                if session.requests.count(self.now) >= self.policy.max_requests_per_min {
                    return Err(invalid(Reason::RateLimited).because(Reason::SecAbuseControlPlane).retry(RETRY));
                }
                Ok(())
            }
            Input::Resume(resume) if resume.peer != session.peer => {
                Err(invalid(Reason::SessionNotFound).because(Reason::SecSessionFixationAttempt))
            }
            Input::Resume(resume) if resume.last_version > session.version => Err(invalid(Reason::VersionFuture)),
            Input::Resume(resume) if resume.reject_after <= self.now => Err(invalid(Reason::KeysStale)),
            Input::Quality(report) if report.is_empty() => Err(Refusal::new(RefusalKind::NoOp, Reason::NoDelivery)),
            Input::Confirm { reject_after, .. } if *reject_after <= self.now => Err(invalid(Reason::KeysStale)),
            _ => Ok(()),
        }
    }
}
