//! What goes wrong.
//!
//! Owns the kinds of faults, how long each lasts and how it is undone. Every kind is possible in every seed.

use super::client::ClientHost;
use super::{What, World};
use jvpn_common::client::Input;
use jvpn_common::gateway::Mode;
use jvpn_common::gateway::command::Order;
use jvpn_common::reason::Reason;
use jvpn_common::time::Duration;

/// Names of the kinds, as the cover counts them.
pub const KINDS: [&str; 37] = [
    "silence up",
    "silence down",
    "silence both",
    "loss",
    "delay",
    "nat rebind",
    "duplicate",
    "reorder",
    "replay to gateway",
    "replay to client",
    "sent on from elsewhere",
    "hold back",
    "forge",
    "path down",
    "new network",
    "gateway killed",
    "gateway power cut",
    "gateway stopped",
    "gateway frozen",
    "commits fail",
    "client jump",
    "gateway jump",
    "operator terminates",
    "storage full",
    "client sleeps",
    "all paths silent",
    "client killed",
    "client closes",
    "no large control",
    "keys worn",
    "maps tampered",
    "address flips",
    "inner spoof",
    // What one gateway without a bug never meets is thrown in by a switch that no product build has.
    "switch: newer owner",
    "switch: invariant broken",
    "nat lifetime",
    "policy reload",
];

impl World {
    /// Something goes wrong now.
    pub(super) fn fault(&mut self) {
        let kind = self.rng.below(KINDS.len() as u64) as usize;
        let client = self.rng.below(self.clients.len() as u64) as usize;
        let path = self.rng.below(self.clients[client].paths.len() as u64) as usize;
        // A long seed is about keys that die of age: nothing may renew them.
        if self.long && matches!(kind, 15..=18 | 22 | 24..=27 | 29 | 33 | 34) {
            return;
        }
        // The rare ones cost seconds: let them stay rare.
        if matches!(kind, 15..=18 | 22 | 24 | 26 | 27 | 33 | 34) && self.rng.chance(600) {
            return;
        }
        let name = KINDS[kind];
        self.cover.fault(name);
        let now = self.now;
        self.cover.note(now, || format!("fault {name} client {client} path {path}"));
        match kind {
            0..=7 | 35 => self.path_fault(kind, client, path),
            8..=12 => self.packet_fault(kind),
            13 | 14 => self.link_fault(kind == 14, client, path),
            15..=19 => self.gateway_fault(kind),
            29..=34 => self.inside_fault(kind, client, path),
            36 => self.reload_policy(client),
            _ => self.other_fault(kind, client, path),
        }
    }

    fn path_fault(&mut self, kind: usize, client: usize, path: usize) {
        let long = self.rng.chance(300);
        let lasts = if long { self.rng.millis(2_000, 12_000) } else { self.rng.millis(20, 2_000) };
        let until = self.now + lasts;
        let (loss, delay, odd) = (self.rng.between(50, 600), self.rng.millis(20, 600), self.rng.between(50, 400));
        let host = &mut self.clients[client];
        let path_number = path as u8;
        let net = &mut host.paths[path];
        match kind {
            0 => net.to_gateway.silent_until = until,
            1 => net.to_client.silent_until = until,
            2 => (net.to_gateway.silent_until, net.to_client.silent_until) = (until, until),
            3 => {
                for way in [&mut net.to_gateway, &mut net.to_client] {
                    // One in four loses data and control and returns every probe.
                    let large_only = loss.is_multiple_of(4);
                    (way.loss, way.large_only, way.lossy_until) = (loss, large_only, until + Duration::from_secs(3));
                }
            }
            4 => net.spike = (delay, until),
            5 => {
                net.rebind(&mut self.rng);
                self.checker.home(net.outer, host.number);
            }
            35 => {
                let life = self.rng.millis(9_000, 16_000);
                (net.life, net.mapped) = (Some(life), self.now);
            }
            6 | 7 => {
                for way in [&mut net.to_gateway, &mut net.to_client] {
                    (way.twice, way.reorder, way.odd_until) = if kind == 6 { (odd, 0, until) } else { (0, odd, until) };
                }
            }
            _ => net.renumber(host.number, path_number, &mut self.rng),
        }
    }

    /// Somebody on the way repeats, copies, holds back or changes datagrams.
    fn packet_fault(&mut self, kind: usize) {
        if kind == 11 {
            self.hold_back = 3;
            return;
        }
        if kind == 10 {
            self.divert = 6;
            return;
        }
        for _ in 0..self.rng.between(1, 6) {
            let Some(copy) = self.rng.pick(&self.seen).cloned() else { return };
            let at = self.now + self.rng.millis(0, 50);
            let mut copy = copy;
            if kind == 12 {
                let place = self.rng.below(copy.bytes.len() as u64) as usize;
                copy.bytes[place] ^= 1 << self.rng.below(8);
            }
            match (kind, copy.up) {
                (9, _) | (_, false) => {
                    let outer = copy.outer;
                    self.put(at, What::ToClient { outer, from: copy.gateway, bytes: copy.bytes });
                }
                _ => self.put(at, What::ToGateway { outer: copy.outer, gateway: copy.gateway, bytes: copy.bytes }),
            }
        }
    }

    fn link_fault(&mut self, new_network: bool, client: usize, path: usize) {
        let now = self.now;
        let back = now + self.rng.millis(10, 6_000);
        let next_id = self.next_path;
        let host = &mut self.clients[client];
        let net = &mut host.paths[path];
        if !net.up || host.asleep.is_some() {
            return;
        }
        net.up = false;
        net.up_at = Some(back);
        let id = net.id;
        let beside: Vec<_> = net.ports.drain(..).map(|port| port.id).collect();
        if new_network {
            self.next_path += 1;
            net.id = jvpn_common::client::PathId(next_id);
            net.renumber(host.number, path as u8, &mut self.rng);
            self.checker.home(net.outer, host.number);
        }
        let mut out = Vec::new();
        for path in [id].into_iter().chain(beside) {
            let input = Input::PathDown { path, reason: Reason::LinkDown };
            out.extend(host.handle(now, input, &mut self.cover));
        }
        self.put(back, What::PathBack { client, path });
        self.out_of_client(client, out);
    }

    fn gateway_fault(&mut self, kind: usize) {
        let now = self.now;
        if self.gateway.engine.is_none() || self.gateway.frozen.is_some() {
            return;
        }
        match kind {
            18 => {
                self.gateway.maps.now = now;
                self.gateway.maps.alive_for(jvpn_common::limits::ALIVE_FOR);
                self.gateway.frozen = Some(now + self.rng.millis(200, 8_000));
            }
            19 => {
                self.gateway.failing = self.rng.between(100, 900);
                let until = now + self.rng.millis(200, 3_000);
                self.put(until, What::CommitsWork);
            }
            _ => {
                if kind == 17 {
                    let out = self.gateway.order(now, Order::GoingAway, &mut self.checker, &mut self.cover);
                    self.out_of_gateway(out);
                }
                let power = kind == 16;
                self.gateway.crash(power, now, &mut self.cover);
                self.checker.crashed();
                let back = now + self.rng.millis(100, 4_000);
                self.put(back, What::Restart { power });
            }
        }
    }

    /// Other bounds for a client that is connected, at once or after its next transition.
    fn reload_policy(&mut self, client: usize) {
        let (now, policy) = (self.now, super::policy(self.long, &mut self.rng));
        let mode = if self.rng.chance(500) { Mode::Strict } else { Mode::Grace };
        let out = self.gateway.reload(client, policy, mode, now, &mut self.checker, &mut self.cover);
        self.out_of_gateway(out);
    }

    fn other_fault(&mut self, kind: usize, client: usize, path: usize) {
        let now = self.now;
        let label = self.clients[client].paths[path].label;
        let session = self.clients[client].engine.view().session;
        match (kind, session) {
            (20, _) => {
                let out = self.clients[client].handle(now, Input::Jump { label }, &mut self.cover);
                self.out_of_client(client, out);
            }
            (21, Some(session)) => self.order(Order::Jump { session, label }),
            (22, Some(session)) => {
                let reason = self.ending();
                self.order(Order::Terminate { session, reason });
            }
            (23, _) => {
                self.order(Order::Storage { available: false });
                let until = now + self.rng.millis(500, 4_000);
                self.put(until, What::StorageBack);
            }
            (24, _) => {
                let most = if self.long { 220_000 } else { 20_000 };
                let until = now + self.rng.millis(1_000, most);
                self.clients[client].asleep = Some(now);
                self.put(until, What::Wake { client });
            }
            (26, _) => self.start_client(client),
            (27, _) => {
                let out = self.clients[client].handle(now, Input::Close, &mut self.cover);
                self.out_of_client(client, out);
                let again = now + self.rng.millis(300, 3_000);
                self.put(again, What::ClientStarts { client });
            }
            (28, _) => {
                let until = now + self.rng.millis(1_000, 30_000);
                self.no_rekey_until = self.no_rekey_until.max(until);
            }
            (25, _) => {
                let lasts = self.rng.millis(100, 9_000);
                if self.rng.chance(300) {
                    // And when they are back, the gateway cannot write.
                    self.gateway.failing = 800;
                    self.put(now + lasts + Duration::from_millis(1_500), What::CommitsWork);
                }
                for net in &mut self.clients[client].paths {
                    let until = now + lasts;
                    (net.to_gateway.silent_until, net.to_client.silent_until) = (until, until);
                }
            }
            _ => {}
        }
    }

    /// Something wrong inside the gateway's host, or with what only it can see.
    fn inside_fault(&mut self, kind: usize, client: usize, path: usize) {
        let now = self.now;
        if kind == 31 {
            return self.flip_soon(client, path);
        }
        let Some(session) = self.clients[client].engine.view().session else { return };
        let (gateway, checker, cover) = (&mut self.gateway, &mut self.checker, &mut self.cover);
        let out = match kind {
            29 => gateway.wear(session, self.rng.chance(200), now, checker, cover),
            30 => {
                gateway.tamper(session, &mut self.rng);
                Vec::new()
            }
            32 => gateway.spoof(session, now, checker, cover),
            _ => gateway.switch(session, kind == 33, now, checker, cover),
        };
        self.out_of_gateway(out);
    }

    /// Two addresses take turns for one local network: a relay, or a NAT that splits the flow.
    fn flip_soon(&mut self, client: usize, path: usize) {
        let host = &mut self.clients[client];
        let mut other = host.paths[path].clone();
        other.rebind(&mut self.rng);
        self.checker.home(other.outer, host.number);
        let left = self.rng.between(4, 12) as u32;
        self.put(self.now, What::Flip { client, path, other: other.outer, left });
    }

    pub(super) fn flip(&mut self, client: usize, path: usize, other: core::net::SocketAddr, left: u32) {
        let net = &mut self.clients[client].paths[path];
        if self.calm || left == 0 || net.outer.ip() != other.ip() {
            return;
        }
        let other = core::mem::replace(&mut net.outer, other);
        let next = self.now + self.rng.millis(300, 2_500);
        self.put(next, What::Flip { client, path, other, left: left - 1 });
    }

    /// A client's process starts (again), with whatever paths there are.
    pub(super) fn start_client(&mut self, client: usize) {
        let now = self.now;
        let host = &mut self.clients[client];
        host.restart(&mut self.rng, now, &mut self.cover);
        let mut out = host.handle(now, Input::WallClock(super::gateway::WALL + now.0), &mut self.cover);
        for path in 0..host.paths.len() {
            if host.paths[path].up {
                let input = ClientHost::path_up(&host.paths[path]);
                out.extend(host.handle(now, input, &mut self.cover));
            }
        }
        self.out_of_client(client, out);
    }

    fn ending(&mut self) -> Reason {
        let all = [Reason::OperatorTermination, Reason::PolicyTermination, Reason::SecKeyCompromiseSuspected];
        all[self.rng.below(3) as usize]
    }

    pub(super) fn order(&mut self, order: Order) {
        let now = self.now;
        let out = self.gateway.order(now, order, &mut self.checker, &mut self.cover);
        self.out_of_gateway(out);
    }

    /// Everything that is wrong ends.
    pub(super) fn heal(&mut self) {
        self.gateway.failing = 0;
        if self.gateway.frozen.is_some() {
            self.gateway.frozen = Some(self.now);
            let out = self.gateway.wake(self.now, &mut self.checker, &mut self.cover);
            self.out_of_gateway(out);
        }
        self.hold_back = 0;
        self.divert = 0;
        self.no_rekey_until = self.now;
        self.order(Order::Storage { available: true });
        for client in 0..self.clients.len() {
            self.clients[client].paths.iter_mut().for_each(super::net::NetPath::heal);
            if self.clients[client].asleep.is_some() {
                self.wake_client(client);
            }
            for path in 0..self.clients[client].paths.len() {
                self.path_back(client, path);
            }
        }
    }

    pub(super) fn path_back(&mut self, client: usize, path: usize) {
        let now = self.now;
        let host = &mut self.clients[client];
        if host.paths[path].up || host.asleep.is_some() {
            return;
        }
        host.paths[path].up = true;
        host.paths[path].up_at = None;
        let input = ClientHost::path_up(&host.paths[path]);
        let out = host.handle(now, input, &mut self.cover);
        self.out_of_client(client, out);
    }

    pub(super) fn wake_client(&mut self, client: usize) {
        let now = self.now;
        let host = &mut self.clients[client];
        let Some(since) = host.asleep.take() else { return };
        let due: Vec<usize> =
            (0..host.paths.len()).filter(|&path| host.paths[path].up_at.is_some_and(|at| at <= now)).collect();
        let out = host.handle(now, Input::Woke { suspended: now.since(since) }, &mut self.cover);
        self.out_of_client(client, out);
        due.into_iter().for_each(|path| self.path_back(client, path));
    }
}
