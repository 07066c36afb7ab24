//! A session across a start of the gateway: another boot clock, a version some client knows better.
//!
//! Owns the translation of instants from one boot to the next, what a client's claim means, and the leap above it. Must
//! never make a life longer, never take a version or an owner back, and never go on with what another owner has.

use super::quality::Quality;
use super::{Session, version};
use crate::ids::{OwnerEpoch, Version};
use crate::limits::VERSION_LEAP_MAX;
use crate::time::{Duration, Instant};

/// What a client's claim of the highest version and owner it has seen means to a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing newer than what is known here.
    Known,
    /// More than the store knew that the session was restored from: it goes on above the claim, and with a new owner. Versions
    /// that are in no record here are named.
    Behind(Box<Session>, Option<version::Gap>),
    /// Another gateway went on with it: this is the lowest epoch that owner can have.
    Owned(OwnerEpoch),
}

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

    /// The owner a start of a gateway makes of itself, when it takes a session from its store. Every start is another
    /// one: a copy of a store that is started elsewhere knows nothing of what the first went on to say.
    #[must_use]
    pub const fn next_owner(&self) -> OwnerEpoch {
        self.owner_epoch.next()
    }

    /// What a client's claim means; none if it is beyond belief. A session is `held` since this process confirmed a
    /// handshake of it: from then on nothing of it was acknowledged here that is not known here, so that whoever acknowledged
    /// more is another. A restored one that is not yet held may be older than what its client saw, and nobody has seen its epoch
    /// yet.
    #[must_use]
    pub fn claimed(&self, version: Version, owner_epoch: OwnerEpoch, held: bool) -> Option<Claim> {
        let (raised, gap) = version::leap(self.version, version)?;
        if owner_epoch.0.saturating_sub(self.owner_epoch.0) > VERSION_LEAP_MAX {
            return None;
        }
        let behind = version > self.version;
        let above = self.owner_epoch.max(owner_epoch).0.checked_add(1).map(OwnerEpoch)?;
        Some(match held {
            true if owner_epoch > self.owner_epoch => Claim::Owned(owner_epoch),
            true if behind => Claim::Owned(above),
            false if behind || owner_epoch >= self.owner_epoch => {
                Claim::Behind(Box::new(Self { version: raised, owner_epoch: above, ..self.clone() }), gap)
            }
            _ => Claim::Known,
        })
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
