//! ACK and REJECT: what the gateway did, or why not.
//!
//! Owns the only place where the session moves. Must never believe an answer that is older than what is
//! known, or one to a request that is not under way.

use super::Engine;
use super::command::{Command, EventKind, PathId, Transport};
use super::delivery::Delivery;
use super::rtt::Loss;
use super::timing::{COMMIT_PAUSE, REQUEST_TRIES};
use crate::ids::{Locator, TransportIndex};
use crate::message::reattach::Purpose;
use crate::message::{Ack, Label, Reject};
use crate::reason::Reason;
use crate::sabotage::Bug;
use crate::session::State;
use crate::time::{Duration, Instant};

/// A path the gateway does not allow is not asked for again before this.
const DENIED_FOR: Duration = Duration::from_secs(30);

impl Engine {
    pub(super) fn on_ack(&mut self, ack: &Ack) {
        let believe_all = self.sabotage.is(Bug::AcceptsOldAck);
        let Some(session) = &mut self.session else { return };
        let fits = |request: &&super::jump::Request| request.nonce == ack.nonce && request.purpose == ack.purpose;
        if session.request.as_ref().filter(fits).is_none() {
            return;
        }
        if !session.acknowledge(ack.version, ack.state, ack.owner_epoch, believe_all) {
            return;
        }
        let Some(request) = session.request.take() else { return };
        if let Some(path) = self.paths.get_mut(&request.path)
            && let Some(link) = &mut path.link
        {
            (link.acked, link.validated, link.told_mtu) = (true, true, request.mtu);
            path.barred = None;
        }
        self.take_locators(&ack.locators, &ack.retired);
        if request.purpose == Purpose::Validate {
            self.on_validated(request.path);
        } else {
            self.bind(request.path, request.purpose, request.what, (request.first, request.started));
        }
    }

    fn on_validated(&mut self, path: PathId) {
        let Some(session) = &self.session else { return };
        if session.active == path {
            self.use_active();
        }
        let Some(session) = &self.session else { return };
        if session.lost.is_none() && session.state == State::Recovering.number() {
            // The gateway gave the transport up while we thought it fine.
            self.lose(Reason::NoDelivery, self.now);
        }
    }

    /// The gateway bound this path.
    fn bind(&mut self, path: PathId, purpose: Purpose, what: Option<Reason>, at: (Instant, Instant)) {
        let (first, started) = at;
        let now = self.now;
        let from = self.active_label();
        let Some(session) = &mut self.session else { return };
        let from = session.lost.and_then(|lost| lost.from).or(from);
        let left = core::mem::replace(&mut session.active, path);
        session.bound_at = now;
        session.cleared_at = now;
        session.lost = None;
        session.outage = None;
        session.suspicion = None;
        session.carrying = false;
        session.noticed = None;
        session.switches += u32::from(purpose != Purpose::Rebind);
        self.counters.clear();
        for (id, other) in &mut self.paths {
            other.streak = 0;
            if let Some(link) = &mut other.link {
                // The gateway said so just now; the echoes of the others follow.
                link.bound = *id == path;
            }
        }
        self.note_mapping(path, purpose);
        if let Some(left) = self.paths.get_mut(&left) {
            left.delivery.leave(now);
        }
        if let Some(path) = self.paths.get_mut(&path) {
            // What the path lost before it was bound says nothing about the session on it.
            path.loss = Loss::default();
            path.delivery = Delivery::default();
        }
        self.use_active();
        let primary = if purpose == Purpose::Lost { Reason::ReattachAccept } else { Reason::TransportSwitchOk };
        let to = self.active_label();
        let mut event = self.event(EventKind::TransportSwitch, primary, true);
        (event.detail, event.from, event.to) = (what, from, to);
        (event.detect, event.prove) = (started.since(first), now.since(started));
        self.tell(event);
        if !self.paths.get(&path).is_some_and(|path| path.up) {
            // Gone while the answer was on its way.
            self.lose(Reason::LinkDown, now);
        }
    }

    /// Tells the worker how to send now.
    pub(super) fn use_active(&mut self) {
        let Some(transport) = self.transport() else { return };
        if let Some(session) = &mut self.session {
            session.carrying = true;
        }
        self.commands.push_back(Command::Use(transport));
    }

    /// The active transport as the worker needs it.
    pub(super) fn transport(&self) -> Option<Transport> {
        let session = self.session.as_ref()?;
        let path = self.paths.get(&session.active)?;
        let link = path.link.as_ref()?;
        Some(Transport {
            path: session.active,
            to: path.endpoint?,
            set: session.keys.id,
            epoch: session.keys.epoch(),
            k: link.k,
            locator: link.locator,
            mtu: link.path_mtu(),
        })
    }

    pub(super) fn active_label(&self) -> Option<Label> {
        let session = self.session.as_ref()?;
        self.paths.get(&session.active).map(|path| path.info.label)
    }

    /// New locators, and those that are no longer valid.
    fn take_locators(&mut self, given: &[(TransportIndex, Locator)], retired: &[TransportIndex]) {
        let Some(session) = &mut self.session else { return };
        let active = self.paths.get(&session.active).and_then(|path| path.link.as_ref()).map(|link| link.k);
        let remove: Vec<TransportIndex> =
            retired.iter().copied().filter(|&k| Some(k) != active && session.keys.retire(k)).collect();
        let add = session.keys.add_locators(given);
        for path in self.paths.values_mut() {
            if path.link.as_ref().is_some_and(|link| remove.contains(&link.k)) {
                path.link = None;
            }
        }
        if !add.is_empty() || !remove.is_empty() {
            let (set, steering) = (session.keys.id, session.keys.steering());
            self.commands.push_back(Command::Locators { set, steering, add, remove });
        }
        self.assign_links();
    }

    pub(super) fn on_reject(&mut self, reject: &Reject) {
        let Some(session) = &mut self.session else { return };
        let Some(request) = session.request.as_ref().filter(|request| request.nonce == reject.nonce) else { return };
        let (purpose, path) = (request.purpose, request.path);
        let (owner, version) = (session.owner_epoch, session.version.max(reject.version));
        session.acknowledge(version, reject.state, owner, false);
        let mut event = self.event(EventKind::ReattachReject, reject.reason, true);
        (event.detail, event.to) = (reject.detail, self.paths.get(&path).map(|path| path.info.label));
        self.tell(event);
        let wait = Duration::from_millis(reject.retry_after_ms.into());
        match reject.reason {
            Reason::VersionFuture
            | Reason::KeysStale
            | Reason::SessionNotFound
            | Reason::SessionExpired
            | Reason::OwnershipConflict => self.start_resume(reject.reason, Some(path)),
            Reason::RateLimited => self.ask_again(wait.max(COMMIT_PAUSE)),
            Reason::DualBindForbidden | Reason::CommitFailed => self.ask_again(wait.max(COMMIT_PAUSE)),
            Reason::FreshnessInvalid | Reason::ReplayDetected => self.ask_again(wait),
            Reason::PathUnvalidated => {
                if let Some(link) = self.paths.get_mut(&path).and_then(|path| path.link.as_mut()) {
                    link.validated = false;
                }
                self.ask_again(wait);
            }
            _ => self.on_denied(purpose, path, wait),
        }
    }

    /// The same request again, under a new nonce, after a while.
    fn ask_again(&mut self, wait: Duration) {
        let now = self.now;
        let Some(session) = &mut self.session else { return };
        session.nonce += 1;
        let nonce = session.nonce;
        let id = session.message_id();
        let Some(request) = &mut session.request else { return };
        request.refused += 1;
        let (refused, purpose) = (request.refused, request.purpose);
        // Refused again and again without a time to wait for: slow down, the gateway is not of our opinion.
        let wait = if refused > REQUEST_TRIES { wait.max(Duration::from_millis(250)) } else { wait };
        let floor = request.renew(id, nonce, now + wait);
        session.nonce_floor = session.nonce_floor.max(floor);
        if refused > 4 * REQUEST_TRIES {
            self.abandon_request();
            if matches!(purpose, Purpose::Lost | Purpose::Rebind) {
                self.start_resume(Reason::FreshnessInvalid, None);
            }
        }
    }

    /// Policy does not allow it: stay, or try the next path.
    fn on_denied(&mut self, purpose: Purpose, path: PathId, wait: Duration) {
        let (now, known) = (self.now, self.paths.len());
        self.abandon_request();
        let quality = matches!(purpose, Purpose::BetterQuality | Purpose::BetterOperator | Purpose::BetterMapping);
        let pause = if quality { wait.max(Duration::from_secs(1)) } else { wait.max(DENIED_FOR) };
        if let Some(path) = self.paths.get_mut(&path) {
            path.barred = Some(now + pause);
            path.streak = 0;
        }
        let lost = self.session.as_ref().is_some_and(|session| session.lost.is_some());
        if lost && known > 1 {
            self.seek();
        } else if lost {
            self.start_resume(Reason::PolicyDeny, None);
        }
    }
}
