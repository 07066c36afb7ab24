//! What an echo or a notice tells.
//!
//! Owns the reading of hints. Must never move anything by itself: a hint starts a sealed exchange. Each echo
//! is accepted once, for a probe under way; each notice once, for a counter of the last two seconds.

use super::Engine;
use super::command::{Command, EventKind, PathId, Sealed};
use super::delivery::Counted;
use super::timing::{NOTICE_WINDOW, STALL};
use crate::ids::{Incarnation, TransportIndex};
use crate::message::reattach::Purpose;
use crate::reason::Reason;
use crate::wire::Kind;
use crate::wire::probe::{Body, STATUS_ALIVE, STATUS_BOUND};

impl Engine {
    pub(super) fn on_echo(&mut self, id: PathId, bytes: &[u8]) {
        let now = self.now;
        let Some(session) = &self.session else { return };
        let Some((header, k, body)) = session.keys.hint(bytes) else { return };
        let usual = self.paths.get(&id).and_then(|path| self.usual_threshold(path));
        let Some(path) = self.paths.get_mut(&id) else { return };
        let Some(link) = path.link.as_mut().filter(|link| link.k == k) else { return };
        if header.kind != Kind::Echo as u8 {
            return;
        }
        let Some(sent) = link.probes.answered(header.counter, body.client_time) else { return };
        link.quote = Some((body.gateway_time, sent.at));
        link.bound = body.status & STATUS_BOUND != 0;
        let known = link.path_mtu();
        match sent.size {
            Some(size) => link.mtu.came_back(size, now),
            None => {
                path.loss.record(true);
                path.answered = path.answered.max(Some(sent.at));
            }
        }
        let grew = link.path_mtu() > known && session.active == id && session.lost.is_none();
        if path.missed > 0
            && let Some(link) = &mut path.link
        {
            link.mtu.again(now);
        }
        path.rtt.sample(now.since(sent.at));
        path.patience.answered(sent.at, usual, now);
        let serves = STATUS_BOUND | STATUS_ALIVE;
        let mut missing = false;
        match sent.mark.filter(|_| body.status & serves == serves) {
            Some(mark) => {
                let counted = Counted { at: body.gateway_time, probes: body.probes, data: body.data };
                missing = path.delivery.compare(&mark, counted, now);
            }
            // Data that nobody takes is not lost on the way.
            None => path.delivery.restart(),
        }
        path.hear(now);
        path.echoed = Some(now);
        if grew {
            self.use_active();
        }
        self.doubt_mtu(id, missing);
        self.on_answered(id, sent.at, sent.burst);
        self.read_status(id, &body, sent.at);
    }

    /// The path answers: if data is missing, or has stopped to come, its packets may have become too large.
    fn doubt_mtu(&mut self, id: PathId, missing: bool) {
        let (now, received) = (self.now, self.activity.received);
        let stalled = self.flowing(false)
            && self.activity.inner_received.is_none_or(|at| now.since(at) >= STALL)
            && self.activity.inner_sent.is_none_or(|at| now.since(at) >= STALL);
        let active = self.session.as_ref().is_some_and(|session| session.active == id && session.lost.is_none());
        let Some(link) = self.paths.get_mut(&id).and_then(|path| path.link.as_mut()).filter(|_| active) else { return };
        if missing {
            link.mtu.doubt(now);
        }
        if stalled {
            link.mtu.doubt_stalled(received, now);
        }
    }

    fn read_status(&mut self, id: PathId, body: &Body, sent: crate::time::Instant) {
        let Some(session) = &mut self.session else { return };
        if body.incarnation != session.incarnation.0 {
            self.end_unresponsive(id);
            self.drop_confirm_of_older(Incarnation(body.incarnation));
            self.start_resume(Reason::ControllerRestart, Some(id));
            self.hurry_handshake(id);
            return;
        }
        if let Some(path) = self.paths.get_mut(&id) {
            path.refuses = body.status & STATUS_ALIVE == 0;
        }
        if body.status & STATUS_ALIVE == 0 {
            if session.active == id {
                self.on_refusing(sent);
            }
            return;
        }
        if session.active != id && session.unresponsive.is_some_and(|since| sent >= since) {
            session.alive_elsewhere = Some(sent);
        }
        self.end_unresponsive(id);
        self.hurry_handshake(id);
        let Some(session) = &mut self.session else { return };
        let bound = body.status & STATUS_BOUND != 0;
        let active = session.active == id;
        if bound && let Some(path) = self.paths.get_mut(&id) {
            path.mapping.held(sent);
        }
        let Some(session) = &mut self.session else { return };
        if active {
            session.alive_elsewhere = None;
        }
        if session.lost.is_some() {
            self.seek();
        } else if active && bound {
            session.outage = None;
            self.cancel_idle_resume();
        } else if active && sent >= session.bound_at {
            session.outage = None;
            self.rebind();
        } else if session.outage.is_some() {
            // Nowhere to go until now.
            let first = session.outage.take().unwrap_or(self.now);
            self.lose(Reason::NoDelivery, first);
        } else {
            self.consider_better(id);
        }
    }

    /// The active path says that the worker is not alive. No path helps against that, unless another one said the
    /// opposite in between: then it is a relay on this path that has lost its owner, and this path that is dead.
    fn on_refusing(&mut self, sent: crate::time::Instant) {
        let Some(session) = &mut self.session else { return };
        session.unresponsive_seen = self.now;
        if session.alive_elsewhere.is_some_and(|elsewhere| sent > elsewhere) {
            session.alive_elsewhere = None;
            return self.lose(Reason::GatewayUnresponsive, sent);
        }
        if session.unresponsive.is_none() {
            session.unresponsive = Some(self.now);
            self.condition(Reason::GatewayUnresponsive, true);
        }
    }

    /// The first sign of a living worker after it was missed.
    pub(super) fn end_unresponsive(&mut self, id: PathId) {
        let Some(session) = &mut self.session else { return };
        if session.unresponsive.take().is_none() {
            return;
        }
        self.condition(Reason::GatewayUnresponsive, false);
        let Some(session) = &self.session else { return };
        let data_unanswered = session.silence.since.is_some();
        match &session.request {
            // Whatever was asked meanwhile is asked again now, not when its turn comes.
            Some(_) => self.repeat_request_now(),
            None if data_unanswered && session.active == id => self.start_request(Purpose::Validate, id, None),
            None => {}
        }
    }

    /// The gateway's kernel saw data from a source that is not bound.
    pub(super) fn on_notice(&mut self, id: PathId, bytes: &[u8]) {
        let Some(session) = &mut self.session else { return };
        let Some((header, k, _)) = session.keys.hint(bytes) else { return };
        let fits = header.kind == Kind::Notice as u8
            && session.active == id
            && session.lost.is_none()
            && session.noticed.is_none_or(|highest| header.counter > highest)
            && self.paths.get(&id).and_then(|path| path.link.as_ref()).is_some_and(|link| link.k == k);
        if !fits || !self.sent_lately(k, header.counter) {
            return;
        }
        if let Some(session) = &mut self.session {
            session.noticed = Some(header.counter);
        }
        self.rebind();
    }

    /// Whether the worker used this data counter within [`NOTICE_WINDOW`] on the active transport.
    fn sent_lately(&self, k: TransportIndex, counter: u64) -> bool {
        let Some(sealed) = self.activity.sealed else { return false };
        let current = self.session.as_ref().is_some_and(|session| session.keys.id == sealed.set);
        let oldest = self.counters.front().map_or(sealed.next, |&(_, counter)| counter);
        current && sealed.k == k && counter < sealed.next && counter >= oldest
    }

    /// Remembers how far the data counter was, for [`Self::sent_lately`].
    pub(super) fn note_counter(&mut self) {
        let Some(Sealed { next, .. }) = self.activity.sealed else { return };
        if self.counters.back().is_some_and(|&(_, last)| next < last) {
            self.counters.clear();
        }
        let now = self.now;
        // Kept: the newest sample that is older than the window, and those within it, at most one in 50 ms.
        while self.counters.len() > 1 && self.counters.get(1).is_some_and(|&(at, _)| now.since(at) >= NOTICE_WINDOW) {
            self.counters.pop_front();
        }
        let recent = self.counters.back().is_some_and(|&(at, _)| now.since(at) < NOTICE_WINDOW / 40);
        if !recent {
            self.counters.push_back((now, next));
        }
    }

    /// The active transport's source changed on the way: prove it again under the same locator.
    fn rebind(&mut self) {
        let Some(session) = &self.session else { return };
        let active = session.active;
        let busy = session.request.as_ref().is_some_and(|request| request.purpose != Purpose::Validate);
        if !busy && self.handshake.is_none() {
            self.start_request(Purpose::Rebind, active, Some(Reason::SourceChanged));
        }
    }

    pub(super) fn condition(&mut self, reason: Reason, set: bool) {
        let changed = if set { self.conditions.insert(reason) } else { self.conditions.remove(&reason) };
        if changed {
            self.commands.push_back(Command::Condition { reason, set });
            let mut event = self.event(EventKind::Condition, reason, false);
            event.detail = (!set).then_some(Reason::HealthRecovered);
            self.tell(event);
        }
    }
}
