//! The simulation: clients, a gateway and the networks between them, in one thread, under one clock.
//!
//! ```text
//!  client 0 ─┬─ path ─ NAT ─┐
//!            └─ path ─ NAT ─┤        ┌── steer ── engine ── commits ── maps, store, record
//!  client 1 ─┬─ …           ├── net ─┤
//!  client 2 ─┴─ …           ┘        └── worker
//! ```
//!
//! Real wire bytes, real cryptography, the real packet path; only inner packets are sealed by something that
//! merely detects the wrong key. Everything that happens comes from the seed: the same seed is the same run,
//! byte for byte. Owns the clock and the order of events. Must never read a real clock.

pub mod check;
pub mod client;
pub mod cover;
pub mod faults;
pub mod gateway;
pub mod maps;
pub mod net;
pub mod quality;
pub mod rng;
mod wires;
pub mod worker;

use check::Checker;
use client::ClientHost;
use core::net::SocketAddr;
use cover::Cover;
use gateway::{GatewayHost, WALL};
use jvpn_common::client::{Input, Phase};
use jvpn_common::sabotage::{self, Sabotage};
use jvpn_common::secret::PrivateKey;
use jvpn_common::session::policy::{BetterSwitching, Policy};
use jvpn_common::time::{Duration, Instant};
use rng::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use wires::Copy;

/// Steps at one instant after which the run spins.
const SPIN_MAX: u32 = 20_000;

/// A bug put in on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bug {
    /// None.
    #[default]
    None,
    /// The slot a session leaves stays bound.
    TwoActive,
    /// After a restart the store alone says which version is next.
    VersionNotPersisted,
    /// Data goes to the draining binding.
    DrainSends,
    /// A bug of an engine.
    Engine(sabotage::Bug),
}

impl Bug {
    fn sabotage(self) -> Sabotage {
        if let Self::Engine(bug) = self { Sabotage::with(bug) } else { Sabotage::default() }
    }
}

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Time with faults.
    pub faulty: Duration,
    /// Time without.
    pub calm: Duration,
    /// Clients.
    pub clients: u8,
}

/// How often the gateway compares its maps with what was committed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// One seed in so many is long enough for keys to die of age.
const LONG_EVERY: u64 = 25;

impl Size {
    /// The size of continuous integration.
    pub const CI: Self = Self { faulty: Duration::from_secs(62), calm: Duration::from_secs(60), clients: 3 };
}

/// What happens at an instant.
#[derive(Debug)]
enum What {
    ToGateway { outer: SocketAddr, gateway: SocketAddr, bytes: Vec<u8> },
    ToClient { outer: SocketAddr, from: SocketAddr, bytes: Vec<u8> },
    Fault,
    Phase { client: usize },
    Inner { client: usize, up: bool, every: Duration, phase: u64 },
    PathBack { client: usize, path: usize },
    Restart { power: bool },
    CommitsWork,
    StorageBack,
    Sleep { client: usize },
    Wake { client: usize },
    ClientStarts { client: usize },
    Flip { client: usize, path: usize, other: SocketAddr, left: u32 },
    Look,
    Calm,
    LastFlows,
}

/// A run.
#[derive(Debug)]
pub struct World {
    now: Instant,
    rng: Rng,
    clients: Vec<ClientHost>,
    gateway: GatewayHost,
    events: BTreeMap<(Instant, u64), What>,
    numbers: u64,
    phases: Vec<u64>,
    checker: Checker,
    cover: Cover,
    seen: VecDeque<Copy>,
    hold_back: u32,
    divert: u32,
    no_rekey_until: Instant,
    next_path: u32,
    calm: bool,
    long: bool,
    end: Instant,
}

/// A seed that failed.
#[derive(Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What was wrong.
    pub what: String,
    /// The end of its trace, when it was kept.
    pub lines: Vec<String>,
}

/// Runs a seed.
///
/// # Errors
/// The first thing that was wrong.
pub fn run(seed: u64, size: Size, bug: Bug, verbose: bool) -> Result<Cover, Failure> {
    let long = seed.is_multiple_of(LONG_EVERY);
    let size = if long { Size { faulty: size.faulty * 4, ..size } } else { size };
    let mut world = World::new(seed, size, bug, verbose);
    if long {
        world.no_rekey_until = world.end.before(size.calm);
    }
    let what = world.play();
    match what {
        None => Ok(Cover { simulated: size.faulty + size.calm, ..world.cover }),
        Some(what) => Err(Failure { seed, what, lines: world.cover.lines.into_iter().collect() }),
    }
}

fn policy(long: bool, rng: &mut Rng) -> Policy {
    let mut policy = Policy::shipped(["field", "fast", "field", "metered"][rng.below(4) as usize]).unwrap_or_default();
    let secs = Duration::from_secs;
    policy.standby_interval = rng.millis(500, 5_000);
    policy.rekey_after = secs(rng.between(10, 60));
    policy.max_recovery_window = secs(rng.between(1, 8));
    policy.transport_loss_ttl = secs(rng.between(8, 40));
    policy.session_ttl = secs(rng.between(60, 600));
    if long {
        (policy.session_ttl, policy.transport_loss_ttl) = (secs(900), secs(600));
    }
    policy.max_switches_per_min = rng.between(3, 60) as u32;
    policy.max_requests_per_min = rng.between(20, 400) as u32;
    // Few, so that a flapping session comes to the end of them within two minutes.
    policy.max_recoveries_degraded = rng.between(1, 2) as u32;
    policy.volatile_max = secs(rng.between(4, 20));
    policy.degraded_stability_window = secs(rng.between(4, 15));
    policy.gateway_dead_after = secs(rng.between(2, 6));
    policy.max_recovery_attempts = rng.between(1, 2) as u32;
    if rng.chance(150) {
        policy.better_switching = BetterSwitching::Frozen;
    }
    policy.versioned()
}

impl World {
    fn new(seed: u64, size: Size, bug: Bug, verbose: bool) -> Self {
        let mut world = Self::built(seed, size, bug, verbose);
        world.begin(size);
        world
    }

    /// Hosts and networks before anything happens.
    fn built(seed: u64, size: Size, bug: Bug, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let now = Instant(1_000_000_000);
        let private = PrivateKey::generate(&mut rng);
        let public = private.public();
        let keys: Vec<PrivateKey> = (0..size.clients).map(|_| PrivateKey::generate(&mut rng)).collect();
        let long = seed.is_multiple_of(LONG_EVERY);
        let peers = keys.iter().map(|key| (key.public(), Arc::new(policy(long, &mut rng)))).collect();
        let sabotage = bug.sabotage();
        let clients: Vec<ClientHost> = keys
            .iter()
            .zip(0..)
            .map(|(key, number)| ClientHost::new(number, key, public, sabotage, &mut rng, now))
            .collect();
        let gateway = GatewayHost::new(private, peers, bug, &mut rng, now);
        Self {
            now,
            phases: vec![0; clients.len()],
            clients,
            gateway,
            events: BTreeMap::new(),
            numbers: 0,
            checker: Checker::default(),
            cover: Cover { verbose, ..Cover::default() },
            seen: VecDeque::new(),
            hold_back: 0,
            divert: 0,
            no_rekey_until: now,
            next_path: 100,
            calm: false,
            long,
            end: now + size.faulty + size.calm,
            rng,
        }
    }

    fn begin(&mut self, size: Size) {
        let now = self.now;
        for client in 0..self.clients.len() {
            let host = &mut self.clients[client];
            let mut out = host.handle(now, Input::WallClock(WALL + now.0), &mut self.cover);
            for path in 0..host.paths.len() {
                self.checker.home(host.paths[path].outer, host.number);
                let input = ClientHost::path_up(&host.paths[path]);
                out.extend(host.handle(now, input, &mut self.cover));
            }
            self.out_of_client(client, out);
            let at = now + self.rng.millis(100, 2_000);
            self.put(at, What::Phase { client });
        }
        let first = now + self.rng.millis(1_000, 4_000);
        self.put(first, What::Fault);
        self.put(now + LOOK_EVERY, What::Look);
        if self.long {
            // One client is away for longer than keys live.
            self.put(now + Duration::from_secs(6), What::Sleep { client: 0 });
            self.put(now + Duration::from_secs(210), What::Wake { client: 0 });
        }
        self.put(now + size.faulty, What::Calm);
        self.put(self.end.before(Duration::from_secs(8)), What::LastFlows);
    }

    fn put(&mut self, at: Instant, what: What) {
        self.numbers += 1;
        self.events.insert((at, self.numbers), what);
    }

    /// Plays to the end, or to the first thing that is wrong.
    fn play(&mut self) -> Option<String> {
        let mut spin = 0;
        loop {
            let next = self.next()?;
            if next > self.end {
                break;
            }
            spin = if next > self.now { 0 } else { spin + 1 };
            self.now = self.now.max(next);
            if spin > SPIN_MAX {
                let who: Vec<u8> = self
                    .clients
                    .iter()
                    .filter(|host| host.wakeup().is_some_and(|at| at <= next))
                    .map(|host| host.number)
                    .collect();
                let gateway = self.gateway.wakeup().is_some_and(|at| at <= next);
                let views: Vec<_> = self.clients.iter().map(|host| host.engine.view()).collect();
                self.checker.wrong(next, || format!("spins: clients {who:?}, gateway {gateway} {views:?}"));
            }
            self.step();
            if self.checker.wrong.is_some() {
                return self.checker.wrong.take();
            }
        }
        self.gateway.collect(&mut self.cover);
        self.clients.iter().for_each(|client| client.collect(&mut self.cover));
        self.gateway
            .maps
            .verdicts()
            .iter()
            .for_each(|(verdict, n)| *self.cover.verdicts.entry(*verdict).or_default() += n);
        self.finish()
    }

    fn next(&self) -> Option<Instant> {
        let clients = self.clients.iter().filter_map(ClientHost::wakeup);
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        clients.chain(self.gateway.wakeup()).chain(event).min()
    }

    fn step(&mut self) {
        let now = self.now;
        if self.gateway.wakeup().is_some_and(|at| at <= now) {
            self.cover.step(now, 1, &[]);
            let out = self.gateway.wake(now, &mut self.checker, &mut self.cover);
            return self.out_of_gateway(out);
        }
        if let Some(client) = self.clients.iter().position(|client| client.wakeup().is_some_and(|at| at <= now)) {
            self.cover.step(now, 2 + client as u64, &[]);
            let out = self.clients[client].handle(now, Input::Wakeup, &mut self.cover);
            return self.out_of_client(client, out);
        }
        if let Some(entry) = self.events.first_entry()
            && entry.key().0 <= now
        {
            let what = entry.remove();
            self.happen(what);
        }
    }

    fn happen(&mut self, what: What) {
        let now = self.now;
        match what {
            What::ToGateway { outer, gateway, bytes } => {
                self.cover.step(now, 10, &bytes);
                let origin = GatewayHost::origin(outer, gateway);
                let out = self.gateway.receive(now, origin, bytes, &mut self.checker, &mut self.cover);
                self.out_of_gateway(out);
            }
            What::ToClient { outer, from, bytes } => self.deliver(outer, from, bytes),
            What::Fault if !self.calm => {
                self.fault();
                let gap = if self.long { 20 } else { 1 };
                let next = now + self.rng.millis(50, 2_500) * gap;
                self.put(next, What::Fault);
            }
            What::Fault => {}
            What::Phase { client } => self.phase(client),
            What::Inner { client, up, every, phase } => self.inner(client, up, every, phase),
            What::PathBack { client, path } => self.path_back(client, path),
            What::Restart { power } => {
                let out = self.gateway.restart(power, now, &mut self.checker, &mut self.cover);
                self.out_of_gateway(out);
            }
            What::CommitsWork => self.gateway.failing = 0,
            What::StorageBack => self.order(jvpn_common::gateway::command::Order::Storage { available: true }),
            What::Sleep { client } => self.clients[client].asleep = Some(now),
            What::Wake { client } => self.wake_client(client),
            What::ClientStarts { client } => self.start_client(client),
            What::Flip { client, path, other, left } => self.flip(client, path, other, left),
            What::Look => {
                self.cover.step(now, 30, &[]);
                let out = self.gateway.look(now, &mut self.checker, &mut self.cover);
                self.out_of_gateway(out);
                self.put(now + LOOK_EVERY, What::Look);
            }
            What::Calm => {
                self.calm = true;
                self.heal();
            }
            What::LastFlows => (0..self.clients.len()).for_each(|client| {
                self.flows(client, true, true, Duration::from_millis(50));
            }),
        }
    }

    /// Traffic of a client begins, changes or ends.
    fn phase(&mut self, client: usize) {
        if self.calm {
            return self.flows(client, false, false, Duration::from_secs(1));
        }
        let (up, down) = (self.rng.chance(450), self.rng.chance(400));
        let every = self.rng.millis(15, 120);
        self.flows(client, up, down, every);
        let next = self.now + self.rng.millis(500, 8_000);
        self.put(next, What::Phase { client });
    }

    fn flows(&mut self, client: usize, up: bool, down: bool, every: Duration) {
        self.phases[client] += 1;
        let phase = self.phases[client];
        self.clients[client].flow = (up, down);
        for (on, up) in [(up, true), (down, false)] {
            if on {
                self.put(self.now, What::Inner { client, up, every, phase });
            }
        }
    }

    fn inner(&mut self, client: usize, up: bool, every: Duration, phase: u64) {
        if self.phases[client] != phase {
            return;
        }
        let now = self.now;
        self.put(now + every, What::Inner { client, up, every, phase });
        self.cover.step(now, 20 + client as u64, &[]);
        if up && self.clients[client].asleep.is_none() {
            let out = self.clients[client].send_inner(now, &mut self.cover);
            self.out_of_client(client, out);
        } else if !up {
            let key = self.clients[client].key;
            let out = self.gateway.send_inner(now, &key, &mut self.checker, &mut self.cover);
            self.out_of_gateway(out);
        }
    }

    /// After the calm every session carries traffic both ways, or is over and another one does.
    fn finish(&mut self) -> Option<String> {
        let recent = self.end.before(Duration::from_secs(4));
        for client in &self.clients {
            let view = client.engine.view();
            let number = client.number;
            if self.checker.ended_lately(&format!("client{number}"), self.end.before(Duration::from_secs(12))) {
                // Its life ran out just now; the next one is on its way.
                continue;
            }
            if view.phase != Phase::Connected {
                return Some(format!("client {number} is {:?} after the calm: {view:?}", view.phase));
            }
            let up = view.session.and_then(|id| self.gateway.received.get(&id)).is_some_and(|&at| at >= recent);
            let down = client.received.is_some_and(|at| at >= recent);
            if !up || !down {
                return Some(format!("client {number} is connected without traffic (up {up}, down {down}): {view:?}"));
            }
        }
        let engine = self.gateway.engine.as_ref()?;
        let unbound = engine.sessions().find(|(_, view)| !view.core.is_bound());
        unbound.map(|(id, view)| format!("{id} is {:?} after the calm", view.core.state()))
    }
}
