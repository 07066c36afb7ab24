//! The client engine: births, keeps, moves and resumes one session over whatever paths there are.
//!
//! Owns what the client decides: which path to use, when one is dead, what to ask the gateway. Must never
//! touch a socket, a clock or a device: inputs go in, commands come out. The gateway's copy of the session
//! is authoritative; this side believes what was acknowledged.
//!
//! ```text
//! runtime ── PathUp, Datagram, Activity, Wakeup ──► Engine ──► Send ──► sockets
//!                                                      ├─────► InstallKeys, Locators, Use, Hold, Ping ──► worker
//!                                                      └─────► Configure, Condition, Event, Ended ──► tunnel device, people
//!
//! handshake  message 1, cookie, message 2          confirm  CONFIRM until it is acknowledged
//! probing    when to probe                         echo     what an echo or notice tells
//! detect     when a path is dead                   better   when another is better
//! delivery   whether data arrives
//! jump       REATTACH, VALIDATE, PROVE             answer   ACK and REJECT
//! mapping    a second port before a NAT forgets the first
//! rekey      new keys inside the session           upkeep   PATH_REPORT, PING, key life, CLOSE
//! ```

mod answer;
mod better;
pub mod command;
mod confirm;
mod control;
mod delivery;
mod detect;
mod echo;
mod handshake;
mod history;
mod jump;
mod keys;
mod mapping;
mod mtu;
mod paths;
mod patience;
mod probes;
mod probing;
pub mod queue;
mod rekey;
mod rtt;
mod session;
mod timing;
mod upkeep;
pub mod view;
mod wakeup;

#[cfg(test)]
mod tests;

pub use command::{
    Activity, Command, Config, DataKeys, Event, EventKind, Input, PathClass, PathId, PathUp, Sealed, SetId, Transport,
};
pub use queue::{HOLD_BYTES_MAX, HOLD_FOR, HoldQueue};
pub use view::{PathState, PathView, Phase, View};

use crate::crypto::Entropy;
use crate::crypto::cookie::MacKeys;
use crate::reason::Reason;
use crate::sabotage::Sabotage;
use crate::time::{Duration, Instant};
use crate::wire::Kind;
use handshake::{Goal, Handshake};
use paths::Path;
use session::Session;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use timing::{ENDED_PAUSE, PATHS_KNOWN_MAX, RESUME_AFTER};
use upkeep::Closing;

/// No inner packet for this long is idle; the next one is [`Input::TrafficStarted`].
pub const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Reasons kept for people.
const REASONS_MAX: usize = 8;

/// One client.
pub struct Engine {
    config: Config,
    entropy: Box<dyn Entropy + Send>,
    now: Instant,
    /// Wall clock in nanoseconds, and when it showed that.
    wall: (u64, Instant),
    /// For messages to the gateway, and to us.
    theirs: MacKeys,
    ours: MacKeys,
    commands: VecDeque<Command>,
    paths: BTreeMap<PathId, Path>,
    handshake: Option<Handshake>,
    /// No handshake before this.
    pause_until: Instant,
    pause: Duration,
    session: Option<Session>,
    next_set: u32,
    next_index: u32,
    activity: Activity,
    /// Data counters of the active transport lately: when, which set and index, next counter.
    counters: VecDeque<(Instant, u64)>,
    conditions: BTreeSet<Reason>,
    reasons: VecDeque<Reason>,
    closing: Option<Closing>,
    closed: bool,
    /// Messages opened, by kind.
    seen: BTreeMap<&'static str, u64>,
    sabotage: Sabotage,
}

impl core::fmt::Debug for Engine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let session = self.session.as_ref().map(|session| session.id);
        f.debug_struct("client::Engine").field("now", &self.now).field("session", &session).finish_non_exhaustive()
    }
}

impl Engine {
    /// A client that knows no path yet.
    #[must_use]
    pub fn new(config: Config, entropy: Box<dyn Entropy + Send>, now: Instant) -> Self {
        Self {
            theirs: MacKeys::new(&config.gateway),
            ours: MacKeys::new(&config.private_key.public()),
            config,
            entropy,
            now,
            wall: (0, Instant(0)),
            commands: VecDeque::new(),
            paths: BTreeMap::new(),
            handshake: None,
            pause_until: now,
            pause: ENDED_PAUSE,
            session: None,
            next_set: 1,
            next_index: 1,
            activity: Activity::default(),
            counters: VecDeque::new(),
            conditions: BTreeSet::new(),
            reasons: VecDeque::new(),
            closing: None,
            closed: false,
            seen: BTreeMap::new(),
            sabotage: Sabotage::default(),
        }
    }

    /// Switches a deliberate bug on.
    pub const fn sabotage(&mut self, sabotage: Sabotage) {
        self.sabotage = sabotage;
    }

    /// Takes one input; then [`Self::poll`] until there is nothing more.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.now = self.now.max(now);
        match input {
            Input::PathUp(info) => self.on_path_up(info),
            Input::PathDown { path, reason } => self.on_path_down(path, reason),
            Input::Datagram { path, from, bytes } => self.on_datagram(path, from, bytes),
            Input::Activity(activity) => self.on_activity(activity),
            Input::TrafficStarted => self.on_traffic_started(),
            Input::Jump { label } => self.on_jump(label),
            Input::Close => self.on_close(),
            Input::Woke { suspended } => self.on_woke(suspended),
            Input::WallClock(nanoseconds) => self.wall = (nanoseconds, self.now),
            Input::Wakeup => {}
        }
        self.turn();
    }

    /// The next command, in the order they must be carried out.
    pub fn poll(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Everything that is due, whatever the input was.
    fn turn(&mut self) {
        self.drive_close();
        if self.closed || self.closing.is_some() {
            return;
        }
        self.expire_probes();
        self.drive_detection();
        self.drive_request();
        self.drive_validation();
        self.drive_mapping();
        self.drive_keys();
        self.drive_silence();
        self.drive_handshake();
        self.drive_confirm();
        self.drive_probes();
        self.drive_report();
    }

    fn on_path_up(&mut self, info: PathUp) {
        let endpoint = info.endpoint.or_else(|| self.first_endpoint(info.v6));
        match self.paths.get_mut(&info.path) {
            Some(path) => {
                let was_up = path.up;
                (path.info, path.up) = (info, true);
                path.endpoint = path.endpoint.or(endpoint);
                if !was_up {
                    path.reset();
                    // Its interface may have come back in another network.
                    path.link.iter_mut().for_each(|link| link.mtu.doubt_all(self.now));
                }
            }
            None => {
                self.make_room_for_path();
                let first = info.beside.and_then(|first| self.paths.get(&first));
                let mapping = first.map(|first| first.mapping.beside()).unwrap_or_default();
                let mut path = Path::new(info, endpoint);
                path.mapping = mapping;
                self.paths.insert(info.path, path);
            }
        }
        self.assign_links();
        self.seek();
        if let Some(handshake) = &mut self.handshake
            && handshake.waiting_for_path
        {
            handshake.next = self.now;
        }
    }

    /// Forgets a path that is down, so that the table stays bounded; up ones are never more than a host has.
    fn make_room_for_path(&mut self) {
        if self.paths.len() < PATHS_KNOWN_MAX {
            return;
        }
        let active = self.session.as_ref().map(|session| session.active);
        let victim = self.paths.values().find(|path| !path.up && Some(path.id()) != active).map(Path::id);
        if let Some(victim) = victim {
            self.paths.remove(&victim);
        }
    }

    fn on_path_down(&mut self, id: PathId, reason: Reason) {
        let Some(path) = self.paths.get_mut(&id) else { return };
        path.up = false;
        path.reset();
        self.abandon_handshake_on(id);
        if self.session.as_ref().is_some_and(|session| session.active == id && session.lost.is_none()) {
            // No probe is needed for what the link itself says: LOST leaves in this very turn.
            self.lose(reason, self.now);
        } else {
            self.leave_request_on(id);
            self.seek();
        }
    }

    fn on_datagram(&mut self, path: PathId, from: core::net::SocketAddr, bytes: &mut [u8]) {
        if self.closed || !self.paths.get(&path).is_some_and(|path| path.up) {
            return;
        }
        match bytes.first().copied().and_then(Kind::from_byte) {
            Some(Kind::Response) => self.on_response(path, from, bytes),
            Some(Kind::CookieReply) => self.on_cookie_reply(path, bytes),
            Some(Kind::Control) => self.on_control(path, bytes),
            Some(Kind::Echo) => self.on_echo(path, bytes),
            Some(Kind::Notice) => self.on_notice(path, bytes),
            Some(Kind::Initiation | Kind::Data | Kind::Probe) | None => {}
        }
    }

    fn on_woke(&mut self, suspended: Duration) {
        if suspended < RESUME_AFTER {
            return;
        }
        for path in self.paths.values_mut() {
            path.reset();
        }
        self.check_key_life();
        if let Some(session) = &mut self.session {
            session.suspicion = None;
            session.cleared_at = self.now;
        }
    }

    /// The first endpoint of an address family.
    fn first_endpoint(&self, v6: bool) -> Option<core::net::SocketAddr> {
        let preferred = self.session.as_ref().and_then(|session| self.paths.get(&session.active)?.endpoint);
        let fits = |endpoint: &core::net::SocketAddr| endpoint.is_ipv6() == v6;
        preferred.filter(fits).or_else(|| self.config.endpoints.iter().copied().find(fits))
    }

    /// The endpoint after the one a path uses, of its family.
    fn rotate_endpoint(&mut self, id: PathId) {
        let Some(path) = self.paths.get_mut(&id).filter(|path| path.info.endpoint.is_none()) else { return };
        let family: Vec<_> =
            self.config.endpoints.iter().copied().filter(|endpoint| endpoint.is_ipv6() == path.info.v6).collect();
        let place = family.iter().position(|endpoint| Some(*endpoint) == path.endpoint);
        let next = place.map_or(0, |place| place + 1) % family.len().max(1);
        path.endpoint = family.get(next).copied();
    }

    /// Begins a new session, unless one is on its way.
    fn start_birth(&mut self, why: Reason) {
        if self.handshake.is_none() && !self.closed {
            self.handshake = Some(Handshake::new(Goal::Birth, why, self.now.max(self.pause_until)));
        }
    }
}
