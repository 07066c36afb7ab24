//! What keeps a session honest while nothing happens: reports, data PINGs, its end.
//!
//! Owns PATH_REPORT, the silence of the data keys, CLOSE and TERMINATE. Must never move the session: what it
//! notices goes to `detect`.

use super::command::{Activity, Command, Event, EventKind};
use super::paths::Path;
use super::session::DataSilence;
use super::timing::{DATA_SILENCE, ENDED_PAUSE_MAX, PING_WAIT, PINGS_MAX, REPORT_EVERY, SUPERSEDED_PAUSE};
use super::{Engine, jump::micros};
use crate::limits::PATHS_MAX;
use crate::message::control::PathQuality;
use crate::message::{Control, Message};
use crate::reason::Reason;
use crate::session::State;
use crate::time::{Duration, Instant};

/// Times CLOSE is sent; the gateway's own timers end a session whose CLOSE was lost.
const CLOSE_TRIES: u32 = 3;
/// Distance of those.
const CLOSE_WAIT: Duration = Duration::from_millis(250);

/// The session is being closed.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) id: u64,
    tries: u32,
    pub(super) next: Instant,
}

impl Engine {
    pub(super) fn on_activity(&mut self, activity: Activity) {
        self.activity = activity;
        self.note_counter();
        if let Some(sealed) = self.activity.sealed {
            let links = self.paths.values_mut().filter_map(|path| path.link.as_mut());
            links.filter(|link| link.k == sealed.k).for_each(|link| link.probes.look(&sealed));
        }
        let Some(session) = &mut self.session else { return };
        let set = session.keys.id;
        let mut newest = None;
        for &(of, k, at) in self.activity.opened.iter().filter(|(of, ..)| *of == set) {
            debug_assert_eq!(of, set, "filtered");
            newest = newest.max(Some(at));
            let owner = |path: &&mut Path| path.link.as_ref().is_some_and(|link| link.k == k);
            if let Some(path) = self.paths.values_mut().find(owner)
                && path.heard.is_none_or(|heard| heard < at)
            {
                path.hear(at);
            }
        }
        let sent = self.activity.inner_sent.filter(|&at| at > session.bound_at);
        let answered = newest.max(Some(session.bound_at));
        match sent {
            Some(at) if Some(at) > answered => {
                let since = session.silence.since.filter(|&since| Some(since) > newest);
                if since.is_none() {
                    session.silence = DataSilence { since: Some(at), ..DataSilence::default() };
                }
            }
            _ => session.silence = DataSilence::default(),
        }
    }

    /// When the silence of the data keys wants a PING, or an end.
    pub(super) fn silence_due(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        if session.lost.is_some() || session.unresponsive.is_some() || self.handshake.is_some() {
            return None;
        }
        let since = session.silence.since?;
        Some(session.silence.next.unwrap_or(since + DATA_SILENCE))
    }

    pub(super) fn drive_silence(&mut self) {
        if self.silence_due().is_none_or(|at| at > self.now) {
            return;
        }
        let transport = self.transport();
        let now = self.now;
        let Some(session) = &mut self.session else { return };
        if session.silence.pings < PINGS_MAX {
            session.silence.pings += 1;
            session.silence.next = Some(now + PING_WAIT);
            if let Some(transport) = transport {
                self.commands.push_back(Command::Ping(transport));
            }
            return;
        }
        let first = session.silence.since.unwrap_or(now);
        self.lose(Reason::NoDelivery, first);
    }

    /// When the next PATH_REPORT leaves.
    pub(super) fn report_due(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        if session.lost.is_some() || session.outage.is_some() || self.handshake.is_some() {
            return None;
        }
        let every = if self.flowing(false) { REPORT_EVERY } else { session.timing.standby_interval };
        Some(session.reported.unwrap_or(session.bound_at) + every)
    }

    pub(super) fn drive_report(&mut self) {
        let now = self.now;
        if self.report_due().is_none_or(|at| at > now) {
            return;
        }
        let Some(session) = &mut self.session else { return };
        let last = session.reported.replace(now).unwrap_or(session.bound_at);
        let id = session.message_id();
        let active = session.active;
        let mut linked: Vec<&Path> = self.paths.values().filter(|path| path.up && path.link.is_some()).collect();
        linked.sort_by_key(|path| (path.id() != active, path.id()));
        let quality = |path: &Path| {
            Some(PathQuality {
                k: path.link.as_ref()?.k,
                loss_permille: path.loss_permille(now),
                srtt_us: micros(path.rtt.srtt()?),
                jitter_us: micros(path.rtt.rttvar()?),
                delivered: path.heard.is_some_and(|heard| heard > last),
            })
        };
        let paths = linked.into_iter().filter_map(quality).take(PATHS_MAX).collect();
        if self.send_control(active, &Message { id, body: Control::PathReport(paths) })
            && let Some(path) = self.paths.get_mut(&active)
        {
            path.owe(now);
        }
    }

    /// The session is over, on the gateway's word.
    pub(super) fn end_session(&mut self, reason: Reason) {
        let ended = State::Terminated.number();
        let event = Event { state: ended, ..self.event(EventKind::Termination, reason, true) };
        let Some(session) = self.session.take() else { return };
        self.tell(event);
        self.commands.push_back(Command::Forget { set: session.keys.id });
        self.commands.push_back(Command::Ended { session: session.id, reason });
        for path in self.paths.values_mut() {
            path.link = None;
        }
        for reason in core::mem::take(&mut self.conditions) {
            self.commands.push_back(Command::Condition { reason, set: false });
        }
        // Two devices with one key must not take the session from each other in a loop; who ended it may
        // want it to stay ended for a while. What simply ran out is begun again at once.
        let pause = match reason {
            Reason::SessionSuperseded => SUPERSEDED_PAUSE.max(self.pause),
            Reason::OperatorTermination | Reason::PolicyTermination | Reason::SecKeyCompromiseSuspected => self.pause,
            _ => Duration::ZERO,
        };
        if !pause.is_zero() {
            self.pause = (self.pause * 2).min(ENDED_PAUSE_MAX);
        }
        self.pause_until = self.pause_until.max(self.now + pause);
        if self.handshake.as_ref().is_some_and(|handshake| handshake.confirm.is_none()) {
            self.handshake = None;
        }
    }

    pub(super) fn on_close(&mut self) {
        if self.closed || self.closing.is_some() {
            return;
        }
        self.abandon_request();
        if let Some(confirm) = self.handshake.take().and_then(|handshake| handshake.confirm) {
            self.commands.push_back(Command::Forget { set: confirm.keys.id });
        }
        let now = self.now;
        match &mut self.session {
            Some(session) => {
                self.closing = Some(Closing { id: session.message_id(), tries: 0, next: now });
            }
            None => self.closed = true,
        }
    }

    pub(super) fn drive_close(&mut self) {
        let now = self.now;
        let Some(closing) = self.closing.as_mut().filter(|closing| closing.next <= now) else { return };
        if closing.tries == CLOSE_TRIES {
            self.finish_close();
            return;
        }
        closing.tries += 1;
        closing.next = now + CLOSE_WAIT;
        let id = closing.id;
        let active = self.session.as_ref().map(|session| session.active);
        let mut ways: Vec<_> = self.paths.values().filter(|path| path.up && path.link.is_some()).collect();
        ways.sort_by_key(|path| (Some(path.id()) != active, path.id()));
        let way = ways.first().map(|path| path.id());
        if let Some(way) = way {
            self.send_control(way, &Message { id, body: Control::Close });
        }
    }

    /// The gateway knows, or does not answer: either way the client is done.
    pub(super) fn finish_close(&mut self) {
        self.closing = None;
        self.end_session(Reason::ClientTermination);
        self.handshake = None;
        self.closed = true;
    }
}
