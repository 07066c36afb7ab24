//! A session across a start of the gateway: another boot clock, a version some client knows better.
//!
//! Owns the translation of instants from one boot to the next, and the leap above a claim. Must never make a
//! life longer, and never take a version back.

use super::quality::Quality;
use super::{Session, version};
use crate::ids::{OwnerEpoch, Version};
use crate::limits::VERSION_LEAP_MAX;
use crate::time::{Duration, Instant};

/// What a store knows of a session after its gateway was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed {
    /// Boot time when the session was stored.
    pub then: Instant,
    /// Boot time now; another clock after a reboot.
    pub now: Instant,
    /// How much time passed between the two, by the wall clock when the boot is another; a step of that clock may only shorten lives.
    pub between: Duration,
}

impl Session {
    /// The same session after the gateway was started again, perhaps on another boot clock. It still needs
    /// [`super::Input::ControllerRestarted`].
    #[must_use]
    pub fn restored(&self, elapsed: Elapsed, version: Version, owner_epoch: OwnerEpoch) -> Self {
        let Elapsed { then, now, between } = elapsed;
        let start = now.before(between);
        let moved = |at: Instant| {
            if at >= then { start + at.since(then) } else { start.before(then.since(at)) }
        };
        let mut session = self.clone();
        session.version = self.version.max(version);
        session.owner_epoch = self.owner_epoch.max(owner_epoch);
        session.created_at = moved(self.created_at);
        session.expires_at = (now + self.expires_at.since(then).saturating_sub(between))
            .min(now + self.expires_at.since(self.created_at));
        session.state_since = moved(self.state_since);
        // What lies before this boot cannot be an instant of it: it is kept as a length.
        session.lost_at = self.lost_at.map(moved);
        if let (Some(old), Some(new)) = (self.lost_at, session.lost_at) {
            let whole = then.since(old) + between;
            session.lost_before = self.lost_before + whole.saturating_sub(now.since(new));
        }
        // Its keys died with the process; `ControllerRestarted` says so, not the key timer.
        session.reject_after = Instant(u64::MAX);
        session.requests = self.requests.rebased(then, now);
        session.switches = self.switches.rebased(then, now);
        session.last_switch = self.last_switch.map(moved);
        session.quality = Quality::default();
        if let Some(transport) = &mut session.transport {
            transport.since = moved(transport.since);
        }
        session
    }

    /// The same session with a version and owner above what a client claims to have seen; none if the claim is
    /// beyond belief. The gap goes to the record.
    #[must_use]
    pub fn raised(&self, version: Version, owner_epoch: OwnerEpoch) -> Option<(Self, Option<version::Gap>)> {
        let (version, gap) = version::leap(self.version, version)?;
        let owner_epoch = match owner_epoch.0.checked_sub(self.owner_epoch.0) {
            None | Some(0) => self.owner_epoch,
            Some(ahead) if ahead <= VERSION_LEAP_MAX => OwnerEpoch(owner_epoch.0.checked_add(1)?),
            Some(_) => return None,
        };
        let raised = Self { version, owner_epoch, ..self.clone() };
        Some((raised, gap))
    }

    /// The same session under another name: a deliberate bug.
    pub(crate) fn renamed(&self) -> Self {
        Self { id: crate::ids::SessionId(self.id.0.map(|byte| !byte)), ..self.clone() }
    }

    /// The same session as if no request had been accepted: a deliberate bug.
    pub(crate) fn forgetting_nonce(&self) -> Self {
        Self { nonce: 0, nonce_path: None, ..self.clone() }
    }
}
