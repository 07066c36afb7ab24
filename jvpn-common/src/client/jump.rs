//! REATTACH, VALIDATE and PROVE: one request at a time, repeated until it is answered.
//!
//! Owns the request under way, its nonce and its pace. Must never move anything: the ACK does (`answer`).
//!
//! ```text
//! start ─► REATTACH or VALIDATE ──► CHALLENGE ─► PROVE ──► ACK / REJECT     each repeated, sealed anew
//!             └─ quoting an echo, when the address is known to the gateway: ► ACK at once
//! ```

use super::Engine;
use super::command::{EventKind, PathId};
use super::paths::Path;
use super::timing::{ANSWER_MAX, PROBE_LOST, REQUEST_TRIES, RESUME_AFTER, UNRESPONSIVE_TRY};
use crate::limits::COOKIE_LIFE;
use crate::message::reattach::{Evidence, Purpose};
use crate::message::{Control, Label, Message, Request as Wire};
use crate::reason::Reason;
use crate::time::{Duration, Instant, nanos};

/// A path whose request went unanswered is left alone this long, unless nothing else is left.
const BAR: Duration = Duration::from_secs(5);

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) purpose: Purpose,
    pub(super) path: PathId,
    id: u64,
    pub(super) nonce: u64,
    /// First sign, and decision.
    pub(super) first: Instant,
    pub(super) started: Instant,
    pub(super) tries: u32,
    /// When it is sent again.
    pub(super) next: Instant,
    challenge: Option<([u8; 16], u64, Instant)>,
    /// Whether an echo may be quoted; not after the gateway asked for a challenge.
    pub(super) quote: bool,
    pub(super) what: Option<Reason>,
    pub(super) mtu: u16,
    /// Permille by which it is better, for BETTER.
    improvement: u16,
    /// Refusals in a row that asked for another try.
    pub(super) refused: u32,
}

impl Request {
    /// The same wish under a new nonce, to be sent at `next`; gives the nonce it had.
    pub(super) fn renew(&mut self, id: u64, nonce: u64, next: Instant) -> u64 {
        let old = self.nonce;
        (self.id, self.nonce, self.next, self.tries, self.challenge) = (id, nonce, next, 0, None);
        old
    }
}

impl Engine {
    /// Asks for something; what was asked before and is not answered is abandoned.
    pub(super) fn start_request(&mut self, purpose: Purpose, path: PathId, what: Option<Reason>) {
        self.abandon_request();
        let improvement = self.improvement(path);
        let now = self.now;
        let Some(session) = &mut self.session else { return };
        let first = session.lost.map_or(now, |lost| lost.first);
        session.nonce += 1;
        let (nonce, id) = (session.nonce, session.message_id());
        let mtu = self.paths.get(&path).and_then(|path| path.link.as_ref()).map_or(0, super::paths::Link::path_mtu);
        session.request = Some(Request {
            purpose,
            path,
            id,
            nonce,
            first,
            started: now,
            tries: 0,
            next: now,
            challenge: None,
            quote: true,
            what,
            mtu,
            improvement,
            refused: 0,
        });
        self.send_request();
    }

    /// Forgets the request under way; the next one says so.
    pub(super) fn abandon_request(&mut self) {
        let Some(session) = &mut self.session else { return };
        if let Some(request) = session.request.take() {
            session.nonce_floor = session.nonce_floor.max(request.nonce);
        }
    }

    /// The path of the request went down.
    pub(super) fn leave_request_on(&mut self, path: PathId) {
        let on_it = |session: &super::session::Session| session.request.as_ref().is_some_and(|r| r.path == path);
        if self.session.as_ref().is_some_and(on_it) {
            self.abandon_request();
        }
    }

    pub(super) fn repeat_request_now(&mut self) {
        let now = self.now;
        if let Some(request) = self.session.as_mut().and_then(|session| session.request.as_mut()) {
            (request.next, request.tries, request.started) = (now, 0, now);
        }
    }

    /// While the active path is lost: keeps a LOST under way on the best path there is.
    pub(super) fn seek(&mut self) {
        let Some(session) = &self.session else { return };
        let Some(lost) = session.lost else { return };
        let moving = session.request.as_ref().filter(|request| request.purpose == Purpose::Lost);
        let current = moving.map(|request| request.path);
        let Some(best) = self.best_candidate() else { return };
        let better = match current {
            None => true,
            // A request under way is left only for a path that answers while its own does not.
            Some(current) => current != best && self.answers(best, lost.since) && !self.answers(current, lost.since),
        };
        if better {
            self.start_request(Purpose::Lost, best, Some(lost.reason));
        }
    }

    /// Whether a path answered anything since.
    fn answers(&self, path: PathId, since: Instant) -> bool {
        self.paths.get(&path).and_then(|path| path.heard).is_some_and(|heard| heard >= since)
    }

    /// Where to go when the active path is lost; the lost one only once it was heard again.
    fn best_candidate(&self) -> Option<PathId> {
        let session = self.session.as_ref()?;
        let lost = session.lost?;
        let within = session.timing.standby_interval * 2 + PROBE_LOST;
        let barred = |path: &Path| path.barred.is_some_and(|until| until > self.now);
        let only = self.paths.values().filter(|path| path.usable() && path.link.is_some()).count() == 1;
        let fits = |path: &&Path| {
            let again = path.id() != session.active
                || only
                || lost.reason == Reason::GatewayUnresponsive
                || path.echoed.is_some_and(|echoed| echoed >= lost.since);
            path.usable() && path.link.is_some() && again
        };
        let key = |path: &&Path| {
            let validated = path.link.as_ref().is_some_and(|link| link.validated);
            let carries = path.link.as_ref().is_some_and(|link| link.mtu.carries(session.v6_inside()));
            (
                barred(path),
                !path.alive(self.now, within),
                !carries,
                path.info.beside.is_some(),
                path.info.class,
                !validated,
                path.score(self.now),
                path.id(),
            )
        };
        self.paths.values().filter(fits).min_by_key(key).map(Path::id)
    }

    /// Sends the request, or its proof if there is a cookie for it.
    fn send_request(&mut self) {
        let now = self.now;
        let Some(session) = &mut self.session else { return };
        let (floor, version, frozen) = (session.nonce_floor, session.version, session.frozen(now));
        let validity = session.timing.path_validity;
        let candidates = self.paths.values().filter(|path| path.usable() && path.link.is_some()).count();
        let Some(request) = &mut session.request else { return };
        let Some(path) = self.paths.get_mut(&request.path) else { return };
        let wait = path.answer_wait() * (1 << request.tries.min(4));
        request.tries += 1;
        request.next = now + if frozen { UNRESPONSIVE_TRY } else { wait.min(ANSWER_MAX * 2) };
        let Some(link) = &path.link else { return };
        // An echo is as old as its probe, and the request takes one more way up.
        let fresh = |&(_, sent): &(u64, Instant)| now.since(sent) + path.rtt.bound(4) < validity;
        let quoted = link.quote.filter(fresh).filter(|_| request.quote && link.validated).map_or(0, |(time, _)| time);
        let wire = Wire {
            purpose: request.purpose,
            nonce: request.nonce,
            nonce_floor: floor,
            last_version: version,
            quoted_echo: quoted,
            label: path.info.label,
            class: path.info.class as u8,
            mtu: request.mtu,
            evidence: Evidence {
                what: request.what,
                detect_us: micros(request.started.since(request.first)),
                srtt_us: micros(path.rtt.srtt().unwrap_or_default()),
                jitter_us: micros(path.rtt.rttvar().unwrap_or_default()),
                loss_permille: path.loss_permille(now),
                improvement_permille: request.improvement,
                candidates: u8::try_from(candidates).unwrap_or(u8::MAX),
            },
        };
        let body = match request.challenge.filter(|(.., got)| now.since(*got) < COOKIE_LIFE) {
            Some((cookie, cookie_time, _)) => Control::Prove { request: wire, cookie, cookie_time },
            None if request.purpose == Purpose::Validate => Control::Validate(wire),
            None => Control::Reattach(wire),
        };
        let (id, to) = (request.id, request.path);
        path.owe(now);
        self.send_control(to, &Message { id, body });
    }

    pub(super) fn on_challenge(&mut self, path: PathId, nonce: u64, cookie: [u8; 16], cookie_time: u64) {
        let now = self.now;
        let Some(request) = self.session.as_mut().and_then(|session| session.request.as_mut()) else { return };
        if request.nonce != nonce || request.path != path {
            return;
        }
        // The gateway is there: patience starts over, for the proof.
        request.challenge = Some((cookie, cookie_time, now));
        request.tries = 0;
        self.send_request();
    }

    pub(super) fn drive_request(&mut self) {
        let now = self.now;
        self.drive_lost();
        let Some(session) = &self.session else { return };
        let Some(request) = &session.request else { return };
        if request.next > now {
            return;
        }
        let patient = session.frozen(now) || request.tries < REQUEST_TRIES;
        if patient || now.since(request.started) < RESUME_AFTER {
            self.send_request();
            return;
        }
        let (purpose, path) = (request.purpose, request.path);
        self.abandon_request();
        if let Some(path) = self.paths.get_mut(&path) {
            path.barred = Some(now + BAR);
        }
        match purpose {
            Purpose::Validate => {}
            Purpose::BetterQuality | Purpose::BetterOperator | Purpose::BetterMapping => {
                let mut event = self.event(EventKind::ReattachReject, Reason::TransportSwitchDenied, false);
                event.detail = Some(Reason::NoValidCandidate);
                self.tell(event);
            }
            Purpose::Rebind | Purpose::Lost => self.start_resume(Reason::NoDelivery, None),
        }
    }

    /// A lost session is never without something under way, as long as there is a path.
    fn drive_lost(&mut self) {
        let idle = |session: &super::session::Session| session.lost.is_some() && session.request.is_none();
        if !self.session.as_ref().is_some_and(idle) || self.handshake.is_some() {
            return;
        }
        self.seek();
        if self.session.as_ref().is_some_and(idle) && self.paths.values().any(Path::usable) {
            self.start_resume(Reason::NoDelivery, None);
        }
    }

    /// Proves standby addresses ahead of need, and tells the gateway a path MTU it does not know.
    pub(super) fn drive_validation(&mut self) {
        if self.validation_idle()
            && let Some(id) = self.paths.values().find(|path| self.wants_validation(path)).map(Path::id)
        {
            self.start_request(Purpose::Validate, id, None);
        }
    }

    fn validation_idle(&self) -> bool {
        self.undisturbed().is_some_and(|session| session.unresponsive.is_none())
    }

    /// The session, while its path is not doubted and nothing is asked of the gateway.
    pub(super) fn undisturbed(&self) -> Option<&super::session::Session> {
        let calm = |session: &&super::session::Session| {
            session.request.is_none()
                && session.lost.is_none()
                && session.outage.is_none()
                && session.suspicion.is_none()
        };
        self.session.as_ref().filter(calm).filter(|_| self.handshake.is_none())
    }

    fn wants_validation(&self, path: &Path) -> bool {
        let Some(session) = &self.session else { return false };
        let Some(link) = &path.link else { return false };
        let barred = path.barred.is_some_and(|until| until > self.now);
        let alive = path.alive(self.now, session.timing.standby_interval * 2);
        let new_mtu = link.mtu.settled() && link.path_mtu() != link.told_mtu;
        !barred && alive && link.mtu.settled() && (!link.validated || new_mtu)
    }

    /// When a barred path may be validated again.
    pub(super) fn validation_due(&self) -> Option<Instant> {
        let waiting = |path: &&Path| path.usable() && path.link.as_ref().is_some_and(|link| !link.validated);
        let barred = self.paths.values().filter(waiting).filter_map(|path| path.barred);
        barred.filter(|until| *until > self.now).min().filter(|_| self.validation_idle())
    }

    /// An operator wants the session elsewhere.
    pub(super) fn on_jump(&mut self, label: Label) {
        let Some(session) = &self.session else { return };
        // Two ports of one transport have one label: the one in use, or the first.
        let named = |path: &&Path| path.info.label == label && path.usable();
        let target = self.paths.values().filter(named).min_by_key(|path| path.id() != session.active).map(Path::id);
        let (lost, active) = (session.lost, session.active);
        let linked = target.is_some_and(|id| self.paths.get(&id).is_some_and(|path| path.link.is_some()));
        match target {
            Some(id) if linked && (id != active || lost.is_some()) && self.handshake.is_none() => {
                let purpose = if lost.is_some() { Purpose::Lost } else { Purpose::BetterOperator };
                self.start_request(purpose, id, Some(Reason::OperatorRequest));
            }
            Some(id) if id == active && lost.is_none() => {}
            _ => {
                let mut event = self.event(EventKind::ReattachReject, Reason::TransportSwitchDenied, false);
                (event.detail, event.to) = (Some(Reason::NoValidCandidate), Some(label));
                self.tell(event);
            }
        }
    }
}

pub(super) fn micros(duration: Duration) -> u32 {
    u32::try_from(nanos(duration) / 1_000).unwrap_or(u32::MAX)
}
