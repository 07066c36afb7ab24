//! The gateway's protocol engine: datagrams, outcomes and orders in, commands out.
//!
//! Owns the switchboard; each subject has a file of its own. Must never do anything itself, and never let
//! the state of a session differ from what a commit was confirmed for.
//!
//! ```text
//!              admission ── door: mac1, cookies, load
//!              handshake ── jobs for other threads
//! datagram ──► birth     ── message 1 → pending slot → message 2 → CONFIRM
//!              confirm   ── CONFIRM binds the session to its slot
//!              control   ── opens what is sealed and hands it on
//!              outbox    ── what the gateway says by itself, until it is acknowledged
//!              reattach  ── REATTACH, VALIDATE, PROVE → challenge or commit
//!              rekey     ── a handshake inside the session
//!              security  ── what somebody should look at     reconcile ── what the maps must say
//! time     ──► timers    ── whatever is due
//!              commit    ── one change of a session: maps, store, record, datagrams, all or nothing
//!              plan      ── which map writes a change is     ended ── why sessions ended
//!              table     ── who is where        attachment ── what lives with a key set
//!              reload    ── peers and policies that change while sessions live
//! ```

mod admission;
mod attachment;
mod birth;
mod calendar;
pub mod command;
mod commit;
pub mod config;
mod confirm;
mod control;
mod ended;
pub mod handshake;
#[cfg(any(test, feature = "sabotage"))]
mod inject;
mod outbox;
mod plan;
mod reattach;
mod reconcile;
mod rekey;
pub mod reload;
mod restore;
mod security;
mod table;
mod timers;
mod view;

#[cfg(test)]
mod tests;

use crate::crypto::Entropy;
use crate::crypto::challenge::ChallengeSecret;
use crate::ids::OpId;
use crate::message::{Control, Message};
use crate::sabotage::Sabotage;
use crate::session::Path;
use crate::time::Instant;
use crate::wire::Kind;
use admission::Admission;
use birth::Computing;
use calendar::Calendar;
use command::{Command, Datagram, Hop, Input, Order, Origin};
pub use command::{Commit, DataKeys, StoreOp, Stored, WorkerOp};
use commit::Change;
pub use config::{Config, Peer};
use ended::Ended;
pub use reload::Mode;
pub use restore::Restored;
use std::collections::{BTreeMap, VecDeque};
use table::Table;
pub use view::{Drop, SessionView, View};

/// Addresses a gateway and its relays may have; more are answered from but never bound to.
const GATEWAYS_MAX: usize = 64;

/// The engine.
pub struct Engine {
    config: Config,
    entropy: Box<dyn Entropy + Send>,
    now: Instant,
    wall: u64,
    admission: Admission,
    challenge: ChallengeSecret,
    table: Table,
    gateways: Vec<(Hop, core::net::SocketAddr)>,
    computing: BTreeMap<OpId, Computing>,
    committing: BTreeMap<OpId, Change>,
    commands: VecDeque<Command>,
    next_op: u64,
    alarms: Calendar,
    storage: bool,
    drops: BTreeMap<Drop, u64>,
    /// Rows of the transition table taken, by index.
    rows: BTreeMap<usize, u64>,
    /// Messages opened, by kind.
    seen: BTreeMap<&'static str, u64>,
    ended: Ended,
    sabotage: Sabotage,
}

impl core::fmt::Debug for Engine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("gateway::Engine")
            .field("now", &self.now)
            .field("sessions", &self.table.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine without sessions.
    #[must_use]
    pub fn new(config: Config, mut entropy: Box<dyn Entropy + Send>, now: Instant) -> Self {
        let public = config.private_key.public();
        Self {
            admission: Admission::new(&public, config.load_threshold, &mut *entropy, now),
            challenge: ChallengeSecret::new(&mut *entropy),
            config,
            entropy,
            now,
            wall: 0,
            table: Table::default(),
            gateways: Vec::new(),
            computing: BTreeMap::new(),
            committing: BTreeMap::new(),
            commands: VecDeque::new(),
            next_op: 1,
            alarms: Calendar::default(),
            storage: true,
            drops: BTreeMap::new(),
            rows: BTreeMap::new(),
            ended: Ended::default(),
            sabotage: Sabotage::default(),
            seen: BTreeMap::new(),
        }
    }

    /// Switches a deliberate bug on.
    pub const fn sabotage(&mut self, sabotage: Sabotage) {
        self.sabotage = sabotage;
    }

    /// Takes one input at boot time `now`; `wall` is the wall clock in nanoseconds since 1970, a hint only.
    pub fn handle(&mut self, now: Instant, wall: u64, input: Input<'_>) {
        self.now = self.now.max(now);
        self.wall = wall;
        // A timer due before an input fires before it, whatever order they were delivered in.
        self.fire_due();
        match input {
            Input::Datagram { origin, bytes } => self.on_datagram(origin, bytes),
            Input::Computed { op, result } => self.on_computed(op, result),
            Input::Committed { op, done } => self.on_committed(op, done),
            Input::Activity { slot, opened, unanswered, epoch } => self.on_activity(slot, opened, unanswered, epoch),
            Input::Worn { slot, epoch, spent } => self.on_worn(slot, epoch, spent),
            Input::Suspicious { session, reason, causes, what } => self.suspicious(session, (reason, what), causes),
            Input::Order(order) => self.on_order(order),
            Input::Wakeup => {}
        }
    }

    /// The next command, in order.
    pub fn poll(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`Input::Wakeup`] is wanted.
    #[must_use]
    pub fn wakeup(&self) -> Option<Instant> {
        self.alarms.next()
    }

    fn on_datagram(&mut self, origin: Origin, bytes: &mut [u8]) {
        match bytes.first().copied().and_then(Kind::from_byte) {
            Some(Kind::Initiation) => self.on_initiation(origin, bytes),
            Some(Kind::Control) => self.on_control(origin, bytes),
            Some(Kind::Response | Kind::CookieReply | Kind::Data | Kind::Probe | Kind::Echo | Kind::Notice) | None => {
                self.drop(Drop::Kind);
            }
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Terminate { session, reason } => self.terminate(session, reason),
            Order::Jump { session, label } => self.push(session, Control::JumpRequest { label }),
            Order::GoingAway => self.going_away(),
            Order::Storage { available } => self.storage = available,
        }
    }

    fn see(&mut self, message: &Message) {
        *self.seen.entry(message.body.name()).or_default() += 1;
    }

    fn op(&mut self) -> OpId {
        let op = OpId(self.next_op);
        self.next_op += 1;
        op
    }

    fn drop(&mut self, why: Drop) {
        *self.drops.entry(why).or_default() += 1;
    }

    /// Sends an answer to a question of `asked` bytes.
    fn answer(&mut self, origin: Origin, asked: usize, bytes: Vec<u8>) {
        if let Some(datagram) = self.fitting(Some(Datagram { origin, bytes }), asked) {
            self.commands.push_back(Command::Send(datagram));
        }
    }

    /// Lets an answer through unless it is larger than its question of `asked` bytes. Every answer, sent at
    /// once or by a commit, passes here.
    fn fitting(&mut self, answer: Option<Datagram>, asked: usize) -> Option<Datagram> {
        let answer = answer?;
        if answer.bytes.len() > asked {
            self.drop(Drop::AnswerTooLarge);
            return None;
        }
        Some(answer)
    }

    /// The 4-tuple of an origin as the core and the maps know it.
    fn path(&mut self, origin: Origin) -> Option<Path> {
        let here = (origin.hop, origin.gateway);
        let index = match self.gateways.iter().position(|known| *known == here) {
            Some(index) => index,
            None if self.gateways.len() < GATEWAYS_MAX => {
                self.gateways.push(here);
                self.gateways.len() - 1
            }
            None => return None,
        };
        Some(Path::new(origin.client, u16::try_from(index).ok()?))
    }

    /// The way to a path.
    fn origin(&self, path: Path) -> Option<Origin> {
        let (hop, gateway) = *self.gateways.get(usize::from(path.gateway()))?;
        Some(Origin { hop, client: path.remote(), gateway })
    }

    /// The addresses clients were heard at, in the order bindings number them: the gateway's own and its relays'.
    #[must_use]
    pub fn gateways(&self) -> &[(Hop, core::net::SocketAddr)] {
        &self.gateways
    }

    /// The address of an index in a binding.
    #[must_use]
    pub fn gateway_address(&self, index: u16) -> Option<core::net::SocketAddr> {
        self.gateways.get(usize::from(index)).map(|(_, address)| *address)
    }
}
