//! When the active path is dead.
//!
//! Owns the suspicion: an answer owed for too long, three probes on the suspect and on the best rival, and
//! the verdict. One late packet moves nothing. Must never jump to a path that did not answer.
//!
//! Where the client's own transfer fills a buffer on the way, answers come ever later and in their order: what was owed comes
//! ahead of the burst, and says as much as an answer to that.
//!
//! ```text
//! owed > threshold ─► burst on suspect and rival ─┬─ suspect answers, now or late ► cleared
//!                                                 ├─ only the rival answers ──────► lost, LOST from the rival
//!                                                 └─ nobody, for 4 × threshold ───► outage: stay, probe all
//! ```

use super::Engine;
use super::command::{Command, EventKind, PathId};
use super::handshake::Goal;
use super::paths::Path;
use super::session::{Lost, Suspicion};
use super::timing::{ALONE_FACTOR, BURST, BURST_GAP, BURST_LOSSY, BURST_WAIT_MIN, LOSSY, PROBE_LOST, SILENCE_RESUME};
use crate::reason::Reason;
use crate::time::{Duration, Instant};

impl Engine {
    /// How long an answer may be owed before a path is suspect.
    fn threshold(&self, path: &Path) -> Option<Duration> {
        Some(self.usual_threshold(path)?.max(path.patience.waits(self.now).unwrap_or_default()))
    }

    /// The same of a path that is known for no pauses.
    pub(super) fn usual_threshold(&self, path: &Path) -> Option<Duration> {
        let timing = &self.session.as_ref()?.timing;
        let known = if path.rtt.measured() { path.rtt.bound(4) } else { PROBE_LOST };
        Some(timing.dead_after.max(known).max(timing.probe_interval * 3 / 2))
    }

    /// When the active path becomes suspect, and since when the answer is owed.
    pub(super) fn suspect_at(&self) -> Option<(Instant, Instant)> {
        let session = self.session.as_ref()?;
        if session.lost.is_some() || session.outage.is_some() || session.suspicion.is_some() {
            return None;
        }
        let path = self.paths.get(&session.active)?;
        let threshold = self.threshold(path)?;
        // Packets that keep arriving say nothing of the way up: there, only a probe's echo counts.
        let probe = path.link.as_ref().and_then(|link| link.probes.oldest(session.cleared_at));
        let owed = path.owing_since(session.cleared_at);
        let since = [owed, probe].into_iter().flatten().min()?;
        Some((since + threshold, since))
    }

    pub(super) fn drive_detection(&mut self) {
        self.drive_unresponsive();
        if let Some((at, since)) = self.suspect_at()
            && at <= self.now
        {
            self.begin_suspicion(since);
        }
        self.drive_suspicion();
        self.drive_outage();
    }

    fn begin_suspicion(&mut self, first: Instant) {
        let rival = self.best_rival(&[]);
        let now = self.now;
        let Some(session) = &mut self.session else { return };
        let lossy = self.paths.get(&session.active).is_some_and(|path| path.loss.permille() >= LOSSY);
        let (tried, burst) = (rival.into_iter().collect(), if lossy { BURST_LOSSY } else { BURST });
        session.suspicion =
            Some(Suspicion { first, rival, tried, burst, sent: 0, last: now, answered: false, came: false });
        self.burst();
    }

    /// One of the three probes on the suspect and its rival.
    fn burst(&mut self) {
        let Some(session) = &mut self.session else { return };
        let active = session.active;
        let Some(suspicion) = &mut session.suspicion else { return };
        suspicion.sent += 1;
        suspicion.last = self.now;
        let rival = suspicion.rival;
        self.send_probe(active, None, true);
        if let Some(rival) = rival {
            self.send_probe(rival, None, true);
        }
    }

    /// The best path to go to, of those that answered lately; `but` were asked already.
    fn best_rival(&self, but: &[PathId]) -> Option<PathId> {
        let session = self.session.as_ref()?;
        let fits = |path: &&Path| {
            path.id() != session.active && path.link.is_some() && path.usable() && !but.contains(&path.id())
        };
        let within = session.timing.standby_interval * 2 + PROBE_LOST;
        let key = |path: &&Path| {
            let carries = path.link.as_ref().is_some_and(|link| link.mtu.carries(session.v6_inside()));
            // Another port of the suspect's own transport is asked last.
            let beside = path.info.beside.is_some();
            (!path.alive(self.now, within), !carries, beside, path.info.class, path.score(self.now), path.id())
        };
        self.paths.values().filter(fits).min_by_key(key).map(Path::id)
    }

    /// When the running suspicion wants attention.
    pub(super) fn suspicion_due(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let suspicion = session.suspicion.as_ref()?;
        if suspicion.sent < suspicion.burst {
            return Some(suspicion.last + BURST_GAP);
        }
        let alone = self.alone_until()?;
        if suspicion.answered {
            return Some(suspicion.last + self.burst_wait(session.active));
        }
        match suspicion.rival {
            Some(rival) => Some((suspicion.last + self.burst_wait(rival)).min(alone.max(suspicion.last + BURST_GAP))),
            None => Some(alone),
        }
    }

    fn alone_until(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let path = self.paths.get(&session.active)?;
        let wait = (self.usual_threshold(path)? * ALONE_FACTOR).max(self.threshold(path)?);
        Some(session.suspicion.as_ref()?.first + wait)
    }

    fn burst_wait(&self, path: PathId) -> Duration {
        let unmeasured = PROBE_LOST / 2;
        self.paths.get(&path).map_or(BURST_WAIT_MIN, |path| {
            if path.rtt.measured() { path.rtt.bound(2).max(BURST_WAIT_MIN) } else { unmeasured }
        })
    }

    fn drive_suspicion(&mut self) {
        let Some(due) = self.suspicion_due() else { return };
        if due > self.now {
            return;
        }
        let alone = self.alone_until();
        let Some(suspicion) = self.session.as_ref().and_then(|session| session.suspicion.as_ref()) else { return };
        let (first, answered, rival) = (suspicion.first, suspicion.answered, suspicion.rival);
        if suspicion.sent < suspicion.burst {
            self.burst();
        } else if suspicion.came {
            self.clear();
        } else if answered {
            let (now, active) = (self.now, self.session.as_ref().map(|session| session.active));
            if let Some(path) = active.and_then(|active| self.paths.get_mut(&active)) {
                path.patience.leave(now);
            }
            self.lose(Reason::NoDelivery, first);
        } else if alone.is_none_or(|at| at <= self.now) {
            self.begin_outage(first);
        } else if rival.is_some() {
            self.next_rival();
        }
    }

    /// The rival did not answer either: ask the next one, or wait longer.
    fn next_rival(&mut self) {
        let tried = match self.session.as_ref().and_then(|session| session.suspicion.as_ref()) {
            Some(suspicion) => suspicion.tried.clone(),
            None => return,
        };
        let rival = self.best_rival(&tried);
        let Some(suspicion) = self.session.as_mut().and_then(|session| session.suspicion.as_mut()) else { return };
        suspicion.rival = rival;
        suspicion.tried.extend(rival);
        if rival.is_some() {
            suspicion.sent = 0;
            self.burst();
        }
    }

    /// A probe came back that was sent at `asked`, perhaps as one of the burst.
    pub(super) fn on_answered(&mut self, id: PathId, asked: Instant, burst: bool) {
        let Some(session) = &mut self.session else { return };
        let active = session.active;
        let Some(suspicion) = &mut session.suspicion else { return };
        match (id == active, burst) {
            (true, true) => self.clear(),
            (true, false) => suspicion.came |= asked >= suspicion.first,
            (false, true) => (suspicion.answered, suspicion.rival) = (true, Some(id)),
            (false, false) => {}
        }
    }

    /// The suspect answered.
    fn clear(&mut self) {
        let now = self.now;
        let Some(session) = &mut self.session else { return };
        session.suspicion = None;
        session.cleared_at = now;
    }

    /// Nobody answers: stay where we are, and probe everything.
    fn begin_outage(&mut self, first: Instant) {
        let Some(session) = &mut self.session else { return };
        session.suspicion = None;
        session.outage = Some(first);
        let from = self.active_label();
        let mut event = self.event(EventKind::PathLost, Reason::NoDelivery, false);
        (event.from, event.detail) = (from, Some(Reason::NoValidCandidate));
        self.tell(event);
    }

    /// Silence everywhere: perhaps the gateway has forgotten our locators.
    fn drive_outage(&mut self) {
        let due = self.outage_resume_at().is_some_and(|at| at <= self.now);
        if due {
            self.start_resume(Reason::NoDelivery, None);
        }
    }

    /// When silence everywhere leads to a resume.
    pub(super) fn outage_resume_at(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let since = session.outage?;
        (self.handshake.is_none() && self.paths.values().any(Path::usable)).then(|| since + SILENCE_RESUME)
    }

    /// The active path answers again and is still bound: a resume that has not been answered is not needed.
    pub(super) fn cancel_idle_resume(&mut self) {
        let idle = self.handshake.as_ref().is_some_and(|handshake| {
            handshake.goal == Goal::Resume && handshake.why == Reason::NoDelivery && handshake.confirm.is_none()
        });
        if idle {
            self.handshake = None;
        }
    }

    /// The gateway's worker has been dead for so long that its session may have moved on.
    fn drive_unresponsive(&mut self) {
        let due = self.unresponsive_until().is_some_and(|at| at <= self.now);
        if due {
            let first = self.session.as_ref().and_then(|session| session.unresponsive).unwrap_or(self.now);
            self.lose(Reason::GatewayUnresponsive, first);
        }
    }

    /// When an unresponsive gateway is given up on.
    pub(super) fn unresponsive_until(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let idle = session.lost.is_none() && self.handshake.is_none();
        session.unresponsive.filter(|_| idle).map(|since| since + session.timing.gateway_dead_after)
    }

    /// Gives the active path up and looks for another, in this turn.
    pub(super) fn lose(&mut self, reason: Reason, first: Instant) {
        let from = self.active_label();
        let now = self.now;
        let Some(session) = &mut self.session else { return };
        if session.lost.is_some() {
            return;
        }
        session.suspicion = None;
        session.outage = None;
        session.lost = Some(Lost { first, since: now, reason, from });
        session.silence = super::session::DataSilence::default();
        if core::mem::take(&mut session.carrying) {
            self.commands.push_back(Command::Hold);
        }
        let mut event = self.event(EventKind::PathLost, reason, false);
        (event.from, event.detect) = (from, now.since(first));
        self.tell(event);
        self.seek();
    }
}
