//! Message 1, cookie replies and message 2, for BIRTH and RESUME.
//!
//! Owns the attempts under way and their pace. Must never touch the running session: an answered handshake
//! is a key set beside it until its CONFIRM is acknowledged.

use super::Engine;
use super::command::{Command, EventKind, PathId};
use super::confirm::Confirm;
use super::paths::Path;
use super::timing::{ATTEMPTS_MAX, HANDSHAKE_TRY, HANDSHAKE_TRY_MAX, REFUSED_PAUSE};
use crate::crypto::cookie::{COOKIE_USE, MAC_LEN};
use crate::crypto::frame;
use crate::crypto::noise::{Initiator, Split};
use crate::message::handshake::HELLO_LEN;
use crate::message::{Answer, HandshakePurpose, Hello};
use crate::reason::Reason;
use crate::time::{Duration, Instant, nanos};
use crate::wire::Kind;
use core::net::SocketAddr;
use std::collections::VecDeque;

/// Echoes may hurry a handshake, but not more often than this.
const KICK_EVERY: Duration = Duration::from_millis(250);

/// What a handshake is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// A new session.
    Birth,
    /// The same session under new keys.
    Resume,
}

/// A message 1 whose answer is awaited.
#[derive(Debug)]
struct Attempt {
    index: u32,
    noise: Initiator,
    mac1: [u8; MAC_LEN],
    path: PathId,
}

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) goal: Goal,
    pub(super) why: Reason,
    attempts: VecDeque<Attempt>,
    tries: u32,
    sent: Option<Instant>,
    /// When the next message 1 leaves.
    pub(super) next: Instant,
    /// Whether there was no path to send it on.
    pub(super) waiting_for_path: bool,
    /// A path to be used next, out of turn.
    prefer: Option<PathId>,
    pub(super) confirm: Option<Confirm>,
}

impl Handshake {
    /// A handshake whose first message leaves at `next`.
    pub(super) const fn new(goal: Goal, why: Reason, next: Instant) -> Self {
        Self {
            goal,
            why,
            attempts: VecDeque::new(),
            tries: 0,
            sent: None,
            next,
            waiting_for_path: false,
            prefer: None,
            confirm: None,
        }
    }
}

impl Engine {
    /// Asks for the same session under new keys, unless that is under way.
    pub(super) fn start_resume(&mut self, why: Reason, prefer: Option<PathId>) {
        if self.session.is_none() || self.closing.is_some() {
            return;
        }
        self.abandon_request();
        match &mut self.handshake {
            Some(handshake) => handshake.prefer = handshake.prefer.or(prefer),
            None => {
                let mut handshake = Handshake::new(Goal::Resume, why, self.now.max(self.pause_until));
                handshake.prefer = prefer;
                self.handshake = Some(handshake);
            }
        }
    }

    /// A path answered while a handshake waits for its turn: use it now.
    pub(super) fn hurry_handshake(&mut self, path: PathId) {
        let (now, earliest) = (self.now, self.pause_until);
        if let Some(handshake) = &mut self.handshake
            && handshake.confirm.is_none()
            && handshake.sent.is_none_or(|sent| now.since(sent) >= KICK_EVERY)
        {
            handshake.prefer = Some(path);
            handshake.next = now.max(earliest);
        }
    }

    pub(super) fn abandon_handshake_on(&mut self, path: PathId) {
        let Some(handshake) = &mut self.handshake else { return };
        handshake.attempts.retain(|attempt| attempt.path != path);
        if handshake.attempts.is_empty() && handshake.confirm.is_none() {
            handshake.next = handshake.next.min(self.now.max(self.pause_until));
        }
        if handshake.confirm.as_ref().is_some_and(|confirm| confirm.path == path) {
            self.drop_confirm();
        }
    }

    pub(super) fn drive_handshake(&mut self) {
        if self.session.is_none() && self.closing.is_none() {
            self.start_birth(Reason::HandshakeOk);
        }
        let due = self.handshake.as_ref().is_some_and(|handshake| {
            handshake.confirm.is_none() && !handshake.waiting_for_path && handshake.next <= self.now
        });
        let retry = self.handshake.as_ref().is_some_and(|handshake| handshake.waiting_for_path)
            && self.paths.values().any(Path::usable);
        if due || retry {
            self.next_attempt();
        }
    }

    /// Sends the next message 1, on the path whose turn it is.
    fn next_attempt(&mut self) {
        let Some(path) = self.handshake_path() else {
            if let Some(handshake) = &mut self.handshake {
                handshake.waiting_for_path = true;
            }
            return;
        };
        let usable = u32::try_from(self.paths.values().filter(|path| path.usable()).count()).unwrap_or(1).max(1);
        if self.handshake.as_ref().is_some_and(|handshake| handshake.tries >= usable) {
            self.rotate_endpoint(path);
        }
        self.send_initiation(path);
        let wait = self.paths.get(&path).map_or(HANDSHAKE_TRY, |path| HANDSHAKE_TRY.max(path.answer_wait() * 2));
        let mut jitter = [0; 2];
        self.entropy.fill(&mut jitter);
        let Some(handshake) = &mut self.handshake else { return };
        let cycle = (handshake.tries / usable).min(6);
        handshake.tries = handshake.tries.saturating_add(1);
        let wait = (wait * (1 << cycle)).min(HANDSHAKE_TRY_MAX);
        // Up to a quarter later: clients that lost the same gateway do not come back in step.
        let late = nanos(wait) / 4 * u64::from(u16::from_le_bytes(jitter)) / u64::from(u16::MAX);
        handshake.next = self.now + wait + Duration::from_nanos(late);
        handshake.sent = Some(self.now);
        handshake.waiting_for_path = false;
    }

    /// The path whose turn it is: the preferred one, else those heard lately, by class, one after the other.
    fn handshake_path(&mut self) -> Option<PathId> {
        let handshake = self.handshake.as_mut()?;
        if let Some(path) = handshake.prefer.take()
            && self.paths.get(&path).is_some_and(Path::usable)
        {
            return Some(path);
        }
        let mut usable: Vec<&Path> = self.paths.values().filter(|path| path.usable()).collect();
        let recent = |path: &Path| path.heard.is_some_and(|heard| self.now.since(heard) < Duration::from_secs(2));
        usable.sort_by_key(|path| (!recent(path), path.info.class, path.id()));
        let turn = usize::try_from(handshake.tries).unwrap_or(0).checked_rem(usable.len())?;
        usable.get(turn).map(|path| path.id())
    }

    fn send_initiation(&mut self, path: PathId) {
        let purpose = match (&self.handshake, &self.session) {
            (Some(Handshake { goal: Goal::Resume, .. }), Some(session)) => HandshakePurpose::Resume {
                session: session.id,
                version: session.version,
                owner_epoch: session.owner_epoch,
            },
            _ => HandshakePurpose::Birth,
        };
        let Some((mut noise, payload)) = self.hello(purpose, HELLO_LEN) else { return };
        let Ok(message) = noise.message1(&payload) else { return };
        let now = self.now;
        let Some(target) = self.paths.get_mut(&path) else { return };
        let Some(to) = target.endpoint else { return };
        target.cookie.take_if(|(_, at)| now.since(*at) >= COOKIE_USE);
        let cookie = target.cookie.as_ref().map(|(cookie, _)| cookie);
        let index = self.next_index;
        self.next_index = self.next_index.wrapping_add(1);
        let (bytes, mac1) = frame::wrap(Kind::Initiation, index, &message, &self.theirs, cookie);
        self.commands.push_back(Command::Send { path, to, bytes });
        let Some(handshake) = &mut self.handshake else { return };
        if handshake.attempts.len() == ATTEMPTS_MAX {
            handshake.attempts.pop_front();
        }
        handshake.attempts.push_back(Attempt { index, noise, mac1, path });
    }

    /// A fresh initiator and its payload.
    pub(super) fn hello(&mut self, purpose: HandshakePurpose, len: usize) -> Option<(Initiator, Vec<u8>)> {
        let (shown, at) = self.wall;
        let hello = Hello {
            purpose,
            timestamp: shown.saturating_add(nanos(self.now.since(at))),
            suites: self.config.suites.iter().map(|suite| *suite as u8).collect(),
        };
        let (private, gateway, psk) = (&self.config.private_key, &self.config.gateway, &self.config.psk);
        let noise = Initiator::new(private, gateway, psk, &mut *self.entropy).ok()?;
        Some((noise, hello.encode(len)))
    }

    /// A gateway under load wants to see that we receive where we send from.
    pub(super) fn on_cookie_reply(&mut self, path: PathId, bytes: &[u8]) {
        let Some(handshake) = &mut self.handshake else { return };
        let opened = handshake.attempts.iter().enumerate().find_map(|(place, attempt)| {
            let (index, cookie) = self.theirs.open_reply(bytes, &attempt.mac1).ok()?;
            (index == attempt.index && attempt.path == path).then_some((place, cookie))
        });
        let Some((place, cookie)) = opened else { return };
        // Each message 1 buys one cookie and so one more message 1.
        handshake.attempts.remove(place);
        if let Some(path) = self.paths.get_mut(&path) {
            path.cookie = Some((cookie, self.now));
        }
        if handshake.confirm.is_none() {
            self.send_initiation(path);
        }
    }

    pub(super) fn on_response(&mut self, path: PathId, from: SocketAddr, bytes: &[u8]) {
        let Some(handshake) = &mut self.handshake else { return };
        if handshake.confirm.is_some() {
            return;
        }
        let Ok(frame) = frame::unwrap(Kind::Response, bytes, &self.ours) else { return };
        let Some(attempt) =
            handshake.attempts.iter_mut().find(|attempt| attempt.index == frame.index && attempt.path == path)
        else {
            return;
        };
        let Ok((payload, split)) = attempt.noise.read2(frame.noise) else { return };
        match Answer::decode(&payload) {
            Some(Answer::Accepted(accepted)) => self.begin_confirm(*accepted, split, path, from),
            Some(Answer::Refused { reason, retry_after_ms }) => self.on_refused(reason, retry_after_ms, split),
            None => {}
        }
    }

    fn on_refused(&mut self, reason: Reason, retry_after_ms: u32, split: Split) {
        drop(split);
        let wait = if retry_after_ms == 0 { REFUSED_PAUSE } else { Duration::from_millis(retry_after_ms.into()) };
        self.pause_until = self.now + wait;
        self.condition(reason, true);
        let event = self.event(EventKind::HandshakeFailed, reason, true);
        self.tell(event);
        let gone = matches!(reason, Reason::SessionNotFound | Reason::SessionExpired | Reason::UnknownPeer);
        if gone && self.session.is_some() {
            self.end_session(reason);
        }
        let Some(handshake) = &mut self.handshake else { return };
        if gone {
            handshake.goal = Goal::Birth;
        }
        handshake.attempts.clear();
        handshake.next = self.pause_until;
    }
}
