//! NAT mappings that end whatever the traffic, and the second port that is ready before the first one's does.
//!
//! Some carrier-grade NATs forget even busy mappings after a fixed time. Owns how long a mapping lived, learned for each
//! transport from the changes of its outer address, and the move to another port of the same transport ahead of the next
//! one. Must never move a session whose second port is not proven: without one, the change comes as a REBIND, as ever.
//!
//! ```text
//! first datagram ─────────── 5/8 life ─────────── 3/4 life ── … ── life
//!     port 1                 port 2 is opened,    BETTER to port 2,  the NAT would have forgotten
//!                            probed, validated    port 1 drains      port 1 about here
//! ```

use super::Engine;
use super::command::{Command, EventKind, PathId};
use super::paths::Path;
use super::session::Session;
use crate::message::reattach::Purpose;
use crate::reason::Reason;
use crate::session::policy::BetterSwitching;
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// Shorter lives are no lifetime: the client itself moved, or something on the way is broken.
const LIFE_MIN: Duration = Duration::from_secs(8);
/// Longer ones cost one REBIND in ten minutes: cheaper than a second port.
const LIFE_MAX: Duration = Duration::from_secs(600);
/// Lives remembered; the shortest of them counts.
const LIVES: usize = 4;
/// Lives that make a lifetime: one may be chance.
const ENOUGH: usize = 2;
/// Without a datagram for this long a NAT may have made another mapping for the next one (RFC 4787, REQ-5: at least two
/// minutes; what is seen in the field is 30 s).
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Moves ahead of the end after which one end is awaited again: a NAT may have been replaced.
const TRUSTED: u32 = 16;
/// How long the port that was left stays open: what was sent to it is on its way.
const DRAIN: Duration = Duration::from_secs(5);

/// What is known of the mappings of one port.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    /// When the datagram left that made the mapping in use.
    since: Option<Instant>,
    /// When the last datagram left, as far as probes tell.
    used: Option<Instant>,
    /// When the probe was sent whose echo last said that the mapping is the bound one.
    held: Option<Instant>,
    /// How long those before it lived, the last one last.
    lives: VecDeque<Duration>,
    /// Moves ahead of an end since one was last seen.
    ahead: u32,
    /// Whether a second port was asked for.
    asked: bool,
}

impl Mapping {
    /// A port beside another one: another mapping of the same NAT.
    pub(super) fn beside(&self) -> Self {
        Self { lives: self.lives.clone(), ahead: self.ahead, ..Self::default() }
    }

    /// A datagram leaves.
    pub(super) fn used(&mut self, now: Instant) {
        if self.used.is_none_or(|used| now.since(used) > IDLE_MAX) {
            (self.since, self.asked) = (Some(now), false);
        }
        self.used = Some(now);
    }

    /// An echo of a probe sent then said that the gateway is bound to this mapping.
    pub(super) fn held(&mut self, sent: Instant) {
        self.held = self.held.max(Some(sent));
    }

    /// Another mapping took its place, seen first at `now`. Whether its lifetime is known since.
    pub(super) fn ended(&mut self, now: Instant) -> bool {
        let known = self.life().is_some();
        // The last moment it was known to live, so that a lifetime is never too long.
        let lived = self.since.zip(self.held).map(|(since, held)| held.since(since));
        match lived.filter(|lived| (LIFE_MIN..=LIFE_MAX).contains(lived)) {
            Some(lived) => {
                if self.lives.len() == LIVES {
                    self.lives.pop_front();
                }
                self.lives.push_back(lived);
            }
            None => self.lives.clear(),
        }
        *self = Self { since: Some(now), used: Some(now), lives: core::mem::take(&mut self.lives), ..Self::default() };
        !known && self.life().is_some()
    }

    /// The session moved here ahead of the end of the port before.
    pub(super) fn moved_ahead(&mut self) {
        self.ahead += 1;
        if self.ahead >= TRUSTED {
            self.lives.clear();
        }
    }

    /// How long its mappings live at least, once that is known. Lives that differ by more than a factor of two have
    /// other causes than a clock.
    pub(super) fn life(&self) -> Option<Duration> {
        let (least, most) = (self.lives.iter().min()?, self.lives.iter().max()?);
        (self.lives.len() >= ENOUGH && *most <= *least * 2).then_some(*least)
    }

    /// When a second port is opened.
    fn open_at(&self) -> Option<Instant> {
        (!self.asked).then_some(()).and(self.since.zip(self.life()).map(|(since, life)| since + life * 5 / 8))
    }

    /// When the session moves to it.
    fn move_at(&self) -> Option<Instant> {
        self.since.zip(self.life()).map(|(since, life)| since + life * 3 / 4)
    }
}

impl Engine {
    /// The path in use, while nothing is wrong with it and policy lets it be left.
    fn settled(&self) -> Option<&Path> {
        let free = |session: &&Session| session.timing.policy.better_switching == BetterSwitching::Allowed;
        let session = self.undisturbed().filter(free)?;
        self.paths.get(&session.active).filter(|path| path.usable())
    }

    /// The second port beside a path, once it could carry the session.
    fn ready_beside(&self, id: PathId) -> Option<PathId> {
        let session = self.session.as_ref()?;
        let ready = |path: &&Path| {
            path.info.beside == Some(id)
                && path.alive(self.now, session.timing.standby_interval * 2)
                && path.barred.is_none_or(|until| until <= self.now)
                && path.link.as_ref().is_some_and(|link| link.validated && link.mtu.carries(session.v6_inside()))
        };
        self.paths.values().find(ready).map(Path::id)
    }

    /// Whether a path is another port of the transport in use: what differs between the two is chance.
    pub(super) fn shares_transport(&self, id: PathId) -> bool {
        let beside = |path: PathId| self.paths.get(&path).and_then(|path| path.info.beside);
        let active = self.session.as_ref().map(|session| session.active);
        beside(id).is_some() || active.is_some_and(|active| beside(active) == Some(id))
    }

    /// When the next step is due.
    pub(super) fn mapping_due(&self) -> Option<Instant> {
        let path = self.settled()?;
        let ready = self.ready_beside(path.id()).is_some();
        let moves = path.mapping.move_at().filter(|_| ready);
        let closes = self.left_port().map(|(_, at)| at);
        [path.mapping.open_at(), moves, closes].into_iter().flatten().min()
    }

    /// A port that is no longer wanted, and until when it stays: the one the session left, or a second one whose first is
    /// not in use.
    fn left_port(&self) -> Option<(PathId, Instant)> {
        let session = self.session.as_ref()?;
        let active = self.paths.get(&session.active)?;
        let left = active.info.beside.filter(|left| self.paths.contains_key(left));
        let stray =
            |path: &&Path| path.info.beside.is_some_and(|of| of != session.active) && path.id() != session.active;
        left.or_else(|| self.paths.values().find(stray).map(Path::id)).map(|id| (id, session.bound_at + DRAIN))
    }

    pub(super) fn drive_mapping(&mut self) {
        let now = self.now;
        let Some(path) = self.settled() else { return };
        let (id, mapping) = (path.id(), &path.mapping);
        let opens = mapping.open_at().is_some_and(|at| at <= now);
        let moves = mapping.move_at().is_some_and(|at| at <= now);
        if let Some((left, _)) = self.left_port().filter(|(_, at)| *at <= now) {
            self.close_port(left);
        } else if let Some(ready) = self.ready_beside(id).filter(|_| moves) {
            self.start_request(Purpose::BetterMapping, ready, Some(Reason::MappingLifetime));
        } else if opens && let Some(path) = self.paths.get_mut(&id) {
            path.mapping.asked = true;
            self.commands.push_back(Command::OpenPort { beside: id });
        }
    }

    fn close_port(&mut self, id: PathId) {
        self.paths.remove(&id);
        for path in self.paths.values_mut().filter(|path| path.info.beside == Some(id)) {
            path.info.beside = None;
        }
        self.commands.push_back(Command::ClosePort { path: id });
    }

    /// The gateway bound a path: what that says of mappings.
    pub(super) fn note_mapping(&mut self, id: PathId, purpose: Purpose) {
        let now = self.now;
        let Some(path) = self.paths.get_mut(&id) else { return };
        match purpose {
            Purpose::Rebind => {
                if path.mapping.ended(now) {
                    let mut event = self.event(EventKind::Condition, Reason::MappingLifetime, false);
                    event.to = self.active_label();
                    self.tell(event);
                }
            }
            Purpose::BetterMapping => path.mapping.moved_ahead(),
            Purpose::Lost | Purpose::BetterQuality | Purpose::BetterOperator | Purpose::Validate => {}
        }
    }
}
