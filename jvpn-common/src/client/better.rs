//! When another path is better.
//!
//! Owns the comparison and its patience. Must never call a path better that has not carried a full packet
//! and been proven: a planned jump loses nothing, so there is time.

use super::Engine;
use super::command::PathId;
use super::timing::{BETTER_FLOOR, BETTER_STREAK};
use crate::message::reattach::Purpose;
use crate::reason::Reason;
use crate::session::policy::BetterSwitching;
use crate::time::nanos;

impl Engine {
    /// By how much `path` is better than the active one, in 1/1000.
    pub(super) fn improvement(&self, path: PathId) -> u16 {
        let active = self.session.as_ref().and_then(|session| self.paths.get(&session.active));
        let (Some(active), Some(path)) = (active, self.paths.get(&path)) else { return 0 };
        let (old, new) = (active.score(), path.score());
        u16::try_from(old.saturating_sub(new).saturating_mul(1_000).checked_div(old).unwrap_or(0)).unwrap_or(1_000)
    }

    /// An echo came from a standby path: is it the better one?
    pub(super) fn consider_better(&mut self, id: PathId) {
        let improvement = self.improvement(id);
        let now = self.now;
        let Some(session) = &self.session else { return };
        let Some(active) = self.paths.get(&session.active) else { return };
        let Some(path) = self.paths.get(&id) else { return };
        let proven = path.link.as_ref().is_some_and(|link| link.validated && link.mtu.carries(session.v6_inside()));
        let gain = active.score().saturating_sub(path.score());
        let large = gain * 1_000 >= nanos(BETTER_FLOOR) || path.info.class < active.info.class;
        let better = id != session.active
            && !self.shares_transport(id)
            && proven
            && large
            && improvement >= session.timing.improvement_permille.max(1)
            && path.barred.is_none_or(|until| until <= now);
        let free = session.timing.policy.better_switching == BetterSwitching::Allowed
            && session.request.is_none()
            && session.suspicion.is_none()
            && self.handshake.is_none()
            && now.since(session.bound_at) >= session.timing.cooldown;
        let why = if path.info.class < active.info.class { Reason::BetterPath } else { self.complaint(session.active) };
        let Some(path) = self.paths.get_mut(&id) else { return };
        path.streak = if better { path.streak.saturating_add(1) } else { 0 };
        if path.streak >= BETTER_STREAK && free {
            path.streak = 0;
            self.start_request(Purpose::BetterQuality, id, Some(why));
        }
    }

    /// What is wrong with a path, if policy's thresholds say so.
    fn complaint(&self, id: PathId) -> Reason {
        let (Some(session), Some(path)) = (&self.session, self.paths.get(&id)) else { return Reason::BetterPath };
        let timing = &session.timing;
        if path.loss.permille() > timing.loss_permille {
            Reason::Loss
        } else if path.rtt.srtt().is_some_and(|srtt| srtt > timing.rtt) {
            Reason::Rtt
        } else if path.rtt.rttvar().is_some_and(|rttvar| rttvar > timing.jitter) {
            Reason::Jitter
        } else {
            Reason::BetterPath
        }
    }
}
