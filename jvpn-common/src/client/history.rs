//! What people are told: events as they happen, the view when they ask.
//!
//! Owns the client's own history and the last reasons. Must never be read by a decision.

use super::command::{Command, Event, EventKind};
use super::paths::Path;
use super::view::{PathState, PathView, Phase, View};
use super::{Engine, REASONS_MAX};
use crate::ids::{Incarnation, OwnerEpoch, Version};
use crate::reason::Reason;
use crate::time::Duration;

impl Engine {
    /// An event about the session as it is, to be completed by the caller.
    pub(super) fn event(&self, kind: EventKind, reason: Reason, acknowledged: bool) -> Event {
        let session = self.session.as_ref();
        Event {
            at: self.now,
            kind,
            acknowledged,
            session: session.map(|session| session.id),
            reason,
            detail: None,
            state: session.map_or(0, |session| session.state),
            version: session.map_or(Version(0), |session| session.version),
            from: None,
            to: None,
            detect: Duration::ZERO,
            prove: Duration::ZERO,
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        if self.reasons.len() == REASONS_MAX {
            self.reasons.pop_back();
        }
        self.reasons.push_front(event.reason);
        self.commands.push_back(Command::Event(Box::new(event)));
    }

    /// What there is to see.
    #[must_use]
    pub fn view(&self) -> View {
        let session = self.session.as_ref();
        View {
            phase: self.phase(),
            session: session.map(|session| session.id),
            state: session.map_or(0, |session| session.state),
            version: session.map_or(Version(0), |session| session.version),
            owner_epoch: session.map_or(OwnerEpoch(0), |session| session.owner_epoch),
            incarnation: session.map_or(Incarnation(0), |session| session.incarnation),
            epoch: session.map(|session| session.keys.epoch()),
            addresses: session.map(|session| session.addresses.clone()).unwrap_or_default(),
            mtu: session.map_or(0, |session| session.mtu),
            policy: session.map(|session| session.policy.clone()).unwrap_or_default(),
            policy_at: session.map(|session| session.policy_at),
            conditions: self.conditions.iter().copied().collect(),
            reasons: self.reasons.iter().copied().collect(),
            paths: self.paths.values().map(|path| self.path_view(path)).collect(),
            switches: session.map_or(0, |session| session.switches),
            since: session.map(|session| session.since),
        }
    }

    fn phase(&self) -> Phase {
        let usable = self.paths.values().any(Path::usable);
        match &self.session {
            _ if self.closed => Phase::Closed,
            Some(session) if session.lost.is_some() || session.outage.is_some() => Phase::Recovering,
            Some(_) if self.handshake.is_some() => Phase::Recovering,
            Some(_) => Phase::Connected,
            None if usable => Phase::Connecting,
            None => Phase::Waiting,
        }
    }

    fn path_view(&self, path: &Path) -> PathView {
        let session = self.session.as_ref();
        let active = session.is_some_and(|session| session.active == path.id() && session.lost.is_none());
        let within = session.map_or(Duration::MAX, |session| session.timing.standby_interval * 2);
        let suspect = active && session.is_some_and(|session| session.suspicion.is_some());
        let state = match path.heard {
            _ if !path.up => PathState::Down,
            _ if suspect => PathState::Suspect,
            None => PathState::New,
            Some(_) if path.alive(self.now, within) => PathState::Alive,
            Some(_) if path.missed <= 1 => PathState::Suspect,
            Some(_) => PathState::Dead,
        };
        let link = path.link.as_ref();
        PathView {
            path: path.id(),
            label: path.info.label,
            class: path.info.class,
            metered: path.info.metered,
            endpoint: path.endpoint,
            state,
            active,
            validated: link.is_some_and(|link| link.validated),
            bound: link.is_some_and(|link| link.bound),
            locator: link.map(|link| (link.k, link.locator)),
            srtt: path.rtt.srtt(),
            jitter: path.rtt.rttvar(),
            loss_permille: path.loss.permille(),
            data_loss_permille: path.delivery.lost(self.now),
            mtu: link.and_then(|link| link.mtu.proven()),
            heard: path.heard,
            held_by: self.held_back(path.id()).filter(|_| !active && path.up),
            beside: path.info.beside.is_some() && !active,
            mapping: path.mapping.life(),
            patience: path.patience.waits(self.now),
        }
    }
}
