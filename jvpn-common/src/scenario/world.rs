//! The driver: one client, one gateway, the paths between them, one clock that jumps to whatever is next.
//!
//! Owns the order of events and what a runtime would do with commands. Inner packets are counted, not sealed: where they
//! go is what the engines decided. Must never give an engine anything that a runtime would not.

use super::hosts::{self, START, WALL};
use super::maps::Maps;
use super::network::{GATEWAY, Line, told};
use super::outcome::{Outcome, Seen, What};
use super::rng::Rng;
use super::{Kind, Scenario};
use crate::abi::mapped;
use crate::client::{self, Activity, EventKind, IDLE_AFTER, SetId, Transport};
use crate::gateway::command::{Command, Datagram, Hop, Input, Origin};
use crate::gateway::{self, Commit};
use crate::ids::{SessionId, Slot, TransportIndex};
use crate::limits::ALIVE_FOR;
use crate::reason::Reason;
use crate::secret::PublicKey;
use crate::session::{Policy, Session};
use crate::steer::{self, Bytes, Source};
use crate::time::{Duration, Instant, nanos};
use crate::verdict::Class;
use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// When inner packets begin: the handshake is over on any path one would use.
const TRAFFIC_AFTER: Duration = Duration::from_secs(2);
/// Steps at one instant after which something spins.
const SPIN_MAX: u32 = 20_000;
/// What happens at an instant.
#[derive(Debug)]
enum Next {
    ToGateway {
        line: usize,
        outer: SocketAddr,
        bytes: Vec<u8>,
    },
    ToClient {
        line: usize,
        bytes: Vec<u8>,
    },
    /// An inner packet arrives at the gateway; a ping is answered and not counted.
    Up {
        outer: SocketAddr,
        transport: Transport,
        ping: bool,
    },
    /// An inner packet arrives at the client.
    Down {
        line: usize,
        k: TransportIndex,
        ping: bool,
    },
    /// Both sides have an inner packet to send.
    Traffic,
    Begin(usize),
    End(usize),
}

/// A run.
#[derive(Debug)]
pub(super) struct World<'a> {
    scenario: &'a Scenario,
    policy: Arc<Policy>,
    now: Instant,
    rng: Rng,
    lines: Vec<Line>,
    client: client::Engine,
    key: PublicKey,
    gateway: gateway::Engine,
    maps: Maps,
    queue: BTreeMap<(Instant, u64), Next>,
    numbers: u64,
    using: Option<Transport>,
    /// Key set of the last one.
    set: Option<SetId>,
    activity: Activity,
    /// Since when inner packets have gone down without anything coming up.
    unanswered: Option<Instant>,
    opened: Option<Instant>,
    seen: Seen,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, policy: &Policy, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let policy = Arc::new(policy.clone());
        let (client, gateway, key) = hosts::engines(&policy, &mut rng);
        let mut maps = Maps::new(hosts::SLOTS, GATEWAY.port(), START);
        maps.config.incarnation = hosts::INCARNATION;
        Self {
            scenario,
            policy,
            now: START,
            lines: (0..).zip(&scenario.paths).map(|(number, path)| Line::new(number, path)).collect(),
            client,
            key,
            gateway,
            maps,
            queue: BTreeMap::new(),
            numbers: 0,
            using: None,
            set: None,
            activity: Activity::default(),
            unanswered: None,
            opened: None,
            seen: Seen::new(START, scenario.traffic),
            rng,
        }
    }

    /// Plays to the end.
    pub(super) fn play(mut self) -> Outcome {
        let end = START + self.scenario.duration;
        self.begin();
        let mut spin = 0;
        while let Some(next) = self.next().filter(|next| *next <= end) {
            spin = if next > self.now { 0 } else { spin + 1 };
            if spin > SPIN_MAX {
                break;
            }
            self.now = self.now.max(next);
            self.maps.now = self.now;
            self.maps.alive_for(ALIVE_FOR);
            self.step();
        }
        let core = self.core().cloned();
        self.seen.finish(end, core.as_ref(), spin > SPIN_MAX)
    }

    fn begin(&mut self) {
        self.tell_client(client::Input::WallClock(WALL));
        for line in self.lines.clone() {
            self.tell_client(line.announced());
        }
        let scenario = self.scenario;
        for (number, fault) in scenario.faults.iter().enumerate() {
            for at in fault.beginnings(scenario.duration) {
                self.put(START + at, Next::Begin(number));
            }
        }
        if self.scenario.traffic.is_some() {
            self.put(START + TRAFFIC_AFTER, Next::Traffic);
        }
    }

    fn put(&mut self, at: Instant, next: Next) {
        self.numbers += 1;
        self.queue.insert((at, self.numbers), next);
    }

    fn next(&self) -> Option<Instant> {
        let event = self.queue.first_key_value().map(|((at, _), _)| *at);
        [self.gateway.wakeup(), self.client.wakeup(), event].into_iter().flatten().min()
    }

    fn step(&mut self) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= self.now);
        if due(self.gateway.wakeup()) {
            self.tell_gateway(Input::Wakeup);
        } else if due(self.client.wakeup()) {
            self.tell_client(client::Input::Wakeup);
        } else if let Some((_, next)) = self.queue.pop_first() {
            self.happen(next);
        }
    }

    fn happen(&mut self, next: Next) {
        match next {
            Next::ToGateway { line, outer, bytes } => self.arrive(line, outer, bytes),
            Next::ToClient { line, mut bytes } => {
                let path = self.lines.get(line).filter(|line| line.exists()).map(|line| line.id);
                if let Some(path) = path {
                    self.tell_client(client::Input::Datagram { path, from: GATEWAY, bytes: &mut bytes });
                }
            }
            Next::Up { outer, transport, ping } => self.up_came(outer, transport, ping),
            Next::Down { line, k, ping } => self.down_came(line, k, ping),
            Next::Traffic => self.traffic(),
            Next::Begin(number) => self.fault(number, true),
            Next::End(number) => self.fault(number, false),
        }
    }

    fn tell_client(&mut self, input: client::Input<'_>) {
        self.client.handle(self.now, client::Input::Activity(self.activity.clone()));
        self.client.handle(self.now, input);
        while let Some(command) = self.client.poll() {
            match command {
                client::Command::Send { path, bytes, .. } => {
                    let Some(line) = self.lines.iter().position(|line| line.id == path) else { continue };
                    let Some((at, outer)) = self.carry_control(line, true, &bytes) else { continue };
                    self.put(at, Next::ToGateway { line, outer, bytes });
                }
                client::Command::Use(transport) => {
                    (self.using, self.set) = (Some(transport), Some(transport.set));
                }
                client::Command::Ping(transport) => self.send_up(transport, true),
                client::Command::Hold | client::Command::Ended { .. } => self.using = None,
                client::Command::Forget { set } => self.using = self.using.filter(|using| using.set != set),
                client::Command::Event(event) if event.kind == EventKind::PathLost => {
                    let path = event.from.map_or("its path", |label| self.scenario.name_of(label.as_str()));
                    let text = format!("the client gives {path} up");
                    self.seen.say(self.now, What::Client, event.detail.or(Some(event.reason)), text);
                }
                client::Command::Locators { .. }
                | client::Command::InstallKeys(_)
                | client::Command::WipeKeys { .. }
                | client::Command::Configure { .. }
                | client::Command::Condition { .. }
                // A described NAT keeps its mappings for ever: the path is left as it is.
                | client::Command::OpenPort { .. }
                | client::Command::ClosePort { .. }
                | client::Command::Event(_) => {}
            }
        }
    }

    fn tell_gateway(&mut self, input: Input<'_>) {
        let wall = WALL + nanos(self.now.since(START));
        self.gateway.handle(self.now, wall, input);
        while let Some(command) = self.gateway.poll() {
            match command {
                Command::Send(datagram) => self.send_down(datagram),
                Command::Compute { op, job } => {
                    let result = job.run(&mut self.rng);
                    self.gateway.handle(self.now, wall, Input::Computed { op, result });
                }
                Command::Commit { op, commit } => {
                    let Commit { maps, records, send, .. } = *commit;
                    maps.iter().for_each(|op| self.maps.apply(op));
                    records.iter().for_each(|record| self.seen.record(record, None, &self.policy));
                    send.into_iter().for_each(|datagram| self.send_down(datagram));
                    self.gateway.handle(self.now, wall, Input::Committed { op, done: true });
                }
                Command::Record(record) => {
                    let core = self.core().cloned();
                    self.seen.record(&record, core.as_ref(), &self.policy);
                }
            }
        }
    }

    /// The session of the client.
    fn core(&self) -> Option<&Session> {
        self.attached().map(|(_, _, core)| core)
    }

    fn attached(&self) -> Option<(SessionId, Option<Slot>, &Session)> {
        let own = |view: &gateway::SessionView<'_>| *view.peer == self.key;
        self.gateway.sessions().find(|(_, view)| own(view)).map(|(id, view)| (id, view.slot, view.core))
    }

    fn carry(&mut self, line: usize, up: bool) -> Option<(Instant, SocketAddr)> {
        let line = self.lines.get(line)?;
        line.carry(up, self.now, &mut self.rng).map(|at| (at, line.outer))
    }

    fn carry_control(&mut self, line: usize, up: bool, bytes: &[u8]) -> Option<(Instant, SocketAddr)> {
        self.seen.control(up, bytes.len());
        self.carry(line, up)
    }

    fn carry_inner(&mut self, line: usize, up: bool, ping: bool) -> Option<(Instant, SocketAddr)> {
        let carried = self.carry(line, up);
        if !ping {
            self.seen.met(up, carried.map(|(at, _)| at.since(self.now)));
        }
        carried
    }

    fn line_of(&self, outer: SocketAddr) -> Option<usize> {
        self.lines.iter().position(|line| line.outer == outer)
    }

    fn send_down(&mut self, datagram: Datagram) {
        let Some(line) = self.line_of(datagram.origin.client) else { return };
        if let Some((at, _)) = self.carry_control(line, false, &datagram.bytes) {
            self.put(at, Next::ToClient { line, bytes: datagram.bytes });
        }
    }

    /// A datagram meets the packet path, as in the kernel.
    fn arrive(&mut self, line: usize, outer: SocketAddr, mut bytes: Vec<u8>) {
        let source = Source { address: mapped(outer.ip()), port: outer.port() };
        let mut frame = Bytes::new(&mut bytes);
        let class = steer::datagram(&mut frame, &source, &self.maps).verdict.class();
        let len = frame.packet().len();
        match class {
            Class::Answer => {
                bytes.truncate(len);
                // A NAT that forgot has no way back for it.
                let there = self.lines.get(line).is_some_and(|line| line.outer == outer);
                if let Some((at, _)) = self.carry_control(line, false, &bytes).filter(|_| there) {
                    self.put(at, Next::ToClient { line, bytes });
                }
            }
            Class::User => {
                let origin = Origin { hop: Hop::Local, client: outer, gateway: GATEWAY };
                self.tell_gateway(Input::Datagram { origin, bytes: &mut bytes });
            }
            Class::Pass | Class::Forward | Class::Drop => {}
        }
    }

    fn traffic(&mut self) {
        let Some(every) = self.scenario.traffic else { return };
        self.put(self.now + every, Next::Traffic);
        let idle = self.activity.inner_sent.is_none_or(|at| self.now.since(at) >= IDLE_AFTER);
        self.seen.sent(true);
        self.seen.sent(false);
        if let Some(transport) = self.using {
            self.activity.inner_sent = Some(self.now);
            self.send_up(transport, false);
            if idle {
                self.tell_client(client::Input::TrafficStarted);
            }
        }
        let to = self.core().and_then(|core| core.transport().map(|transport| (transport.path.remote(), transport.k)));
        if let Some((outer, k)) = to {
            self.send_inner_down(outer, k, false);
        }
        self.unanswered = self.unanswered.or(to.map(|_| self.now));
        self.heard();
    }

    fn send_up(&mut self, transport: Transport, ping: bool) {
        let Some(line) = self.lines.iter().position(|line| line.id == transport.path) else { return };
        if let Some((at, outer)) = self.carry_inner(line, true, ping) {
            self.put(at, Next::Up { outer, transport, ping });
        }
    }

    /// An inner packet meets the binding, as in the kernel.
    fn up_came(&mut self, outer: SocketAddr, transport: Transport, ping: bool) {
        if !self.maps.admits(outer) {
            return;
        }
        (self.opened, self.unanswered) = (Some(self.now), None);
        self.heard();
        if !ping {
            return self.seen.came(true, self.now);
        }
        self.send_inner_down(outer, transport.k, true);
    }

    fn send_inner_down(&mut self, outer: SocketAddr, k: TransportIndex, ping: bool) {
        let Some(line) = self.line_of(outer) else { return };
        if let Some((at, _)) = self.carry_inner(line, false, ping) {
            self.put(at, Next::Down { line, k, ping });
        }
    }

    /// What the worker tells the engine.
    fn heard(&mut self) {
        let Some((_, Some(slot), _)) = self.attached() else { return };
        let epoch = self.using.map(|using| using.epoch).unwrap_or_default();
        let (opened, unanswered) = (self.opened, self.unanswered);
        self.tell_gateway(Input::Activity { slot, opened, unanswered, epoch });
    }

    fn down_came(&mut self, line: usize, k: TransportIndex, ping: bool) {
        let there = self.lines.get(line).is_some_and(Line::exists);
        let Some(set) = self.set.filter(|_| there) else { return };
        self.activity.opened.retain(|&(known, index, _)| (known, index) != (set, k));
        self.activity.opened.push((set, k, self.now));
        if self.activity.opened.len() > 16 {
            self.activity.opened.remove(0);
        }
        if !ping {
            self.activity.inner_received = Some(self.now);
            self.seen.came(false, self.now);
        }
    }

    fn fault(&mut self, number: usize, begins: bool) {
        let Some(fault) = self.scenario.faults.get(number) else { return };
        self.seen.say(self.now, What::Network, None, told(&self.scenario.names(fault), fault.kind, begins));
        for &path in &fault.paths {
            let Some(line) = self.lines.get_mut(path) else { continue };
            let had = line.exists();
            if begins {
                line.begin(fault.kind, self.now + fault.lasts);
            } else {
                line.end(fault.kind);
            }
            let (has, id, announced) = (line.exists(), line.id, line.announced());
            match (had, has) {
                (true, false) => self.tell_client(client::Input::PathDown { path: id, reason: Reason::LinkDown }),
                (false, true) => self.tell_client(announced),
                _ => {}
            }
        }
        if begins && fault.kind != Kind::Rebind {
            self.put(self.now + fault.lasts, Next::End(number));
        }
    }
}
