//! CONFIRM: from an answered handshake to a session.
//!
//! Owns the key set that is not confirmed yet and the moment it becomes the session's. Must never tell the
//! worker to seal under it before the gateway acknowledged the CONFIRM.

use super::Engine;
use super::command::{Command, EventKind, PathId, SetId};
use super::handshake::Goal;
use super::keys::KeySet;
use super::mtu::MtuSearch;
use super::paths::Link;
use super::session::Session;
use super::timing::{COMMIT_PAUSE, ENDED_PAUSE};
use crate::crypto::noise::Split;
use crate::crypto::{EpochKeys, Suite};
use crate::ids::{Incarnation, Locator, OwnerEpoch, TransportIndex, Version};
use crate::limits::{OVERHEAD_V4, OVERHEAD_V6, PATH_MTU_UNPROVEN, PENDING_TIMEOUT};
use crate::message::handshake::Outcome;
use crate::message::{Accepted, Control, Message};
use crate::reason::Reason;
use crate::time::Instant;
use core::net::SocketAddr;

/// Identifier of a set's CONFIRM; the session's own messages count from above it.
const CONFIRM_ID: u64 = 1;

/// A handshake that was answered.
#[derive(Debug)]
pub(super) struct Confirm {
    pub(super) keys: KeySet,
    accepted: Accepted,
    pub(super) path: PathId,
    to: SocketAddr,
    k: TransportIndex,
    locator: Locator,
    tries: u32,
    pub(super) next: Instant,
    pub(super) until: Instant,
}

impl Engine {
    pub(super) fn begin_confirm(&mut self, accepted: Accepted, split: Split, path: PathId, from: SocketAddr) {
        let Some(suite) = Suite::from_byte(accepted.suite) else { return };
        if accepted.outcome == Outcome::Rekeyed || !self.config.suites.contains(&suite) {
            return;
        }
        let seen = self.session.as_ref().map_or(OwnerEpoch(0), |session| session.owner_epoch);
        if accepted.outcome == Outcome::Resumed && accepted.owner_epoch < seen {
            // Somebody who had the session before another took it over: whoever goes on with it is above that one.
            let event = self.event(EventKind::HandshakeFailed, Reason::OwnershipConflict, false);
            return self.tell(event);
        }
        let id = SetId(self.next_set);
        self.next_set += 1;
        let (mut keys, data) =
            KeySet::new(id, accepted.epoch, suite, EpochKeys::derive(split), self.sabotage, self.now);
        let add = keys.add_locators(&accepted.locators);
        let Some((k, locator)) = keys.take_locator() else { return };
        self.commands.push_back(Command::Locators { set: id, steering: keys.steering(), add, remove: Vec::new() });
        self.commands.push_back(Command::InstallKeys(Box::new(data)));
        let (now, until) = (self.now, self.now + PENDING_TIMEOUT);
        let confirm = Confirm { keys, accepted, path, to: from, k, locator, tries: 0, next: now, until };
        if let Some(handshake) = &mut self.handshake {
            handshake.confirm = Some(confirm);
        }
    }

    /// Sends CONFIRM until it is acknowledged, and gives up when the gateway has forgotten it.
    pub(super) fn drive_confirm(&mut self) {
        let now = self.now;
        let Some(confirm) = self.handshake.as_mut().and_then(|handshake| handshake.confirm.as_mut()) else { return };
        if now >= confirm.until {
            self.drop_confirm();
            return;
        }
        if now < confirm.next {
            return;
        }
        let Some(path) = self.paths.get(&confirm.path) else { return };
        confirm.next = now + path.answer_wait() * (1 << confirm.tries.min(2));
        confirm.tries += 1;
        let body = Control::Confirm { label: path.info.label, class: path.info.class as u8, mtu: PATH_MTU_UNPROVEN };
        let message = Message { id: CONFIRM_ID, body };
        if let Some(bytes) = confirm.keys.seal(confirm.k, confirm.locator, &message) {
            self.commands.push_back(Command::Send { path: confirm.path, to: confirm.to, bytes });
        }
    }

    /// A gateway that started again after it answered knows nothing of the answer: nobody will acknowledge this CONFIRM.
    pub(super) fn drop_confirm_of_older(&mut self, incarnation: Incarnation) {
        let confirm = self.handshake.as_ref().and_then(|handshake| handshake.confirm.as_ref());
        if confirm.is_some_and(|confirm| confirm.accepted.incarnation < incarnation) {
            self.drop_confirm();
        }
    }

    pub(super) fn drop_confirm(&mut self) {
        let Some(handshake) = &mut self.handshake else { return };
        let Some(confirm) = handshake.confirm.take() else { return };
        handshake.next = self.now.max(self.pause_until);
        self.commands.push_back(Command::Forget { set: confirm.keys.id });
        let event = self.event(EventKind::HandshakeFailed, Reason::HandshakeFail, false);
        self.tell(event);
    }

    /// Something sealed under the unconfirmed set: its acknowledgement or its refusal.
    pub(super) fn on_pending_control(&mut self, message: &Message) {
        match &message.body {
            Control::Done if message.id == CONFIRM_ID => self.promote(),
            Control::Reject(reject) if message.id == CONFIRM_ID => {
                let gone = matches!(reject.reason, Reason::SessionNotFound | Reason::SessionExpired);
                self.pause_until = self.pause_until.max(self.now + COMMIT_PAUSE);
                self.drop_confirm();
                if gone && self.session.is_some() {
                    self.end_session(reject.reason);
                }
            }
            _ => {}
        }
    }

    /// The gateway installed the binding: the set is the session's now.
    fn promote(&mut self) {
        let Some(handshake) = self.handshake.take() else { return };
        let Some(confirm) = handshake.confirm else { return };
        let resumed = confirm.accepted.outcome == Outcome::Resumed;
        let old = self.session.take();
        let mut session = Session::new(confirm.accepted, confirm.keys, confirm.path, self.now);
        // Message 2 was sent before there was a transition; what is acknowledged is the first one.
        session.version = session.version.max(Version(1));
        let (mut detect, mut stale) = (None, None);
        match (old, resumed) {
            (Some(old), true) if old.id == session.id => {
                session.version = session.version.max(old.version);
                session.owner_epoch = session.owner_epoch.max(old.owner_epoch);
                (session.switches, session.since) = (old.switches + 1, old.since);
                (detect, stale) = (old.lost.map(|lost| lost.first), Some(old.keys.id));
            }
            (Some(old), _) => {
                self.session = Some(old);
                let reason = self.reason_of_end(&session, handshake.goal);
                self.end_session(reason);
            }
            (None, _) => {}
        }
        self.enter(session, confirm.path, confirm.to, (confirm.k, confirm.locator));
        // Only now: between two key sets nothing could be sent.
        self.commands.extend(stale.map(|set| Command::Forget { set }));
        let kind = if resumed { EventKind::Resumed } else { EventKind::SessionCreated };
        let reason = if resumed { Reason::ReattachAccept } else { Reason::HandshakeOk };
        let mut event = self.event(kind, reason, true);
        event.to = self.paths.get(&confirm.path).map(|path| path.info.label);
        event.detail = (handshake.goal == Goal::Resume).then_some(handshake.why);
        event.detect = detect.map_or(event.detect, |first| self.now.since(first));
        self.tell(event);
    }

    fn reason_of_end(&self, new: &Session, goal: Goal) -> Reason {
        match (goal, self.session.as_ref()) {
            (Goal::Resume, Some(old)) if old.id != new.id => new.replaces.unwrap_or(Reason::SessionNotFound),
            _ => Reason::SessionSuperseded,
        }
    }

    /// Makes `session` the session: every path starts over under its locators.
    fn enter(&mut self, session: Session, path: PathId, to: SocketAddr, first: (TransportIndex, Locator)) {
        for path in self.paths.values_mut() {
            path.link = None;
            path.reset();
        }
        let full = full_size(session.mtu, to.is_ipv6());
        let mut offset = [0; 8];
        self.entropy.fill(&mut offset);
        if let Some(path) = self.paths.get_mut(&path) {
            let search = MtuSearch::new(full, path.info.link_mtu, self.now);
            let mut link = Link::new(first.0, first.1, u64::from_le_bytes(offset), search);
            (link.acked, link.validated, link.bound) = (true, true, true);
            path.link = Some(link);
            path.endpoint = Some(to);
            path.hear(self.now);
        }
        let (id, addresses, mtu, policy) = (session.id, session.addresses.clone(), session.mtu, session.policy.clone());
        self.session = Some(session);
        // What the worker said of the keys before is not about these.
        (self.activity.rekey_due, self.activity.key_spent) = (false, false);
        self.pause = ENDED_PAUSE;
        self.counters.clear();
        for reason in core::mem::take(&mut self.conditions) {
            self.commands.push_back(Command::Condition { reason, set: false });
        }
        self.use_active();
        // The device after the way out of it: a session that goes on has its addresses already.
        self.commands.push_back(Command::Configure { session: id, addresses, mtu, policy });
        self.assign_links();
    }
}

/// Outer packet that carries a full inner one.
pub(super) fn full_size(inner: u16, v6: bool) -> u16 {
    inner.saturating_add(if v6 { OVERHEAD_V6 } else { OVERHEAD_V4 })
}
