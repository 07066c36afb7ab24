//! From one host to the other: what leaves is carried, lost, repeated, remembered.
//!
//! Owns the hand-over between hosts and network, and the memory of those who replay. Must never decide what is
//! wrong with a path: `net` does.

use super::client::{self, ClientHost};
use super::gateway;
use super::{What, World};
use core::net::SocketAddr;

/// Datagrams remembered, to be replayed.
const SEEN_MAX: usize = 96;

/// A datagram somebody may repeat.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) up: bool,
    pub(super) outer: SocketAddr,
    pub(super) gateway: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

impl World {
    pub(super) fn deliver(&mut self, outer: SocketAddr, from: SocketAddr, bytes: Vec<u8>) {
        let now = self.now;
        self.cover.step(now, 11, &bytes);
        // Whoever owns the address now gets it; the NAT forgot the others.
        let find =
            |host: &ClientHost| host.paths.iter().filter(|path| path.up).find_map(|path| path.leads_to(outer, now));
        let owner = self.clients.iter().enumerate().find_map(|(client, host)| Some((client, find(host)?)));
        let Some((client, id)) = owner else { return };
        if self.clients[client].asleep.is_some() {
            return;
        }
        let out = self.clients[client].receive(now, id, from, bytes, &mut self.cover);
        self.checker.client(&self.clients[client], &self.gateway, now);
        self.out_of_client(client, out);
    }

    pub(super) fn out_of_client(&mut self, client: usize, out: Vec<client::Out>) {
        let now = self.now;
        for (id, gateway, bytes) in out {
            self.checker.datagram(false, &bytes, now, &mut self.cover);
            let host = &mut self.clients[client];
            let up = host.paths.iter_mut().filter(|path| path.up);
            let left = up.filter_map(|path| Some((path.leaves(id, now, &mut self.rng)?, path))).next();
            let Some((mut outer, path)) = left else { continue };
            self.checker.home(outer, host.number);
            if now < self.no_rekey_until && bytes.first() == Some(&5) && bytes.len() > 1_000 {
                continue;
            }
            let mut arrivals = path.carry(true, bytes.len(), now, &mut self.rng);
            if self.hold_back > 0 && bytes.len() == jvpn_common::limits::CONTROL_LEN {
                // Released long after its successors.
                self.hold_back -= 1;
                arrivals = vec![now + self.rng.millis(500, 6_000)];
            }
            if self.divert > 0 && bytes.len() == jvpn_common::limits::CONTROL_LEN {
                // Somebody on the way sends it on from an address that is nobody's.
                self.divert -= 1;
                outer.set_port(7);
            }
            self.remember(Copy { up: true, outer, gateway, bytes: bytes.clone() });
            for at in arrivals {
                self.put(at, What::ToGateway { outer, gateway, bytes: bytes.clone() });
            }
        }
    }

    pub(super) fn out_of_gateway(&mut self, out: Vec<gateway::Out>) {
        let now = self.now;
        for (from, outer, bytes) in out {
            self.checker.datagram(true, &bytes, now, &mut self.cover);
            let path =
                self.clients.iter().flat_map(|client| &client.paths).find(|path| path.leads_to(outer, now).is_some());
            let Some(path) = path else { continue };
            let arrivals = path.carry(false, bytes.len(), now, &mut self.rng);
            self.remember(Copy { up: false, outer, gateway: from, bytes: bytes.clone() });
            for at in arrivals {
                self.put(at, What::ToClient { outer, from, bytes: bytes.clone() });
            }
        }
    }

    fn remember(&mut self, copy: Copy) {
        // Probes and data are most of what there is; what can move a session is worth more.
        let dull = matches!(copy.bytes.first(), Some(4 | 6 | 7));
        if dull && !self.rng.chance(20) {
            return;
        }
        if self.seen.len() == SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(copy);
    }
}
