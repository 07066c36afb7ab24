//! When another path is better.
//!
//! Owns the comparison and its patience. Must never call a path better that has not carried a full packet
//! and been proven: a planned jump loses nothing, so there is time.

use super::Engine;
use super::command::PathId;
use super::paths::Path;
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
        let (old, new) = (active.score(self.now), path.score(self.now));
        u16::try_from(old.saturating_sub(new).saturating_mul(1_000).checked_div(old).unwrap_or(0)).unwrap_or(1_000)
    }

    /// What keeps a standby path from being asked for as the better one; none: three such looks in a row, and it is.
    pub(super) fn held_back(&self, id: PathId) -> Option<Reason> {
        let session = self.session.as_ref()?;
        let (active, path) = (self.paths.get(&session.active)?, self.paths.get(&id)?);
        let gain = active.score(self.now).saturating_sub(path.score(self.now));
        // A path that loses what it carries is worth leaving however short its round trip is.
        let leaks = |path: &Path| path.delivery.lost(self.now).is_some_and(|lost| lost > session.timing.loss_permille);
        let large = gain * 1_000 >= nanos(BETTER_FLOOR)
            || path.info.class < active.info.class
            || (leaks(active) && !leaks(path));
        let link = path.link.as_ref().filter(|link| link.validated);
        match link {
            None => Some(Reason::PathUnvalidated),
            Some(link) if !link.mtu.carries(session.v6_inside()) => Some(Reason::Mtu),
            _ if path.barred.is_some_and(|until| until > self.now) => Some(Reason::TransportSwitchDenied),
            _ if self.shares_transport(id) || !large => Some(Reason::ImprovementTooSmall),
            _ if self.improvement(id) < session.timing.improvement_permille.max(1) => Some(Reason::ImprovementTooSmall),
            _ if session.timing.policy.better_switching == BetterSwitching::Frozen => Some(Reason::SwitchingFrozen),
            _ if self.now.since(session.bound_at) < session.timing.cooldown => Some(Reason::CooldownActive),
            _ => None,
        }
    }

    /// An echo came from a standby path: is it the better one?
    pub(super) fn consider_better(&mut self, id: PathId) {
        let held = self.held_back(id);
        let Some(session) = &self.session else { return };
        let Some(active) = self.paths.get(&session.active) else { return };
        let may_soon = matches!(held, None | Some(Reason::CooldownActive | Reason::SwitchingFrozen));
        let better = id != session.active && may_soon;
        let free =
            held.is_none() && session.request.is_none() && session.suspicion.is_none() && self.handshake.is_none();
        let Some(path) = self.paths.get(&id) else { return };
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
        if path.loss_permille(self.now) > timing.loss_permille {
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
