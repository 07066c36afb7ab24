//! Base frames: for every verdict at least three, in IPv4 and in IPv6.
//!
//! Owns the list. A verdict no frame can produce is named in [`WITHOUT_FRAMES`] with where it is proved.

use crate::maps::{State, TICK, locator, slot};
use crate::packet::{self, CLIENT_V4, CLIENT_V6, GATEWAY_V4, GATEWAY_V6};
use jvpn_common::abi::{Bucket, BucketField, Config, PathCounters};
use jvpn_common::verdict::Verdict;
use std::net::SocketAddr;

/// One base frame in its world.
#[derive(Clone, Debug)]
pub struct Case {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Whether it is IPv6.
    pub v6: bool,
    /// The maps before it.
    pub state: State,
    /// The frame.
    pub frame: Vec<u8>,
}

const A_RELAYS: &str = "a gateway's program forwards nothing";

/// Verdicts no frame in still maps can have, and why.
pub const WITHOUT_FRAMES: [(Verdict, &str); 11] = [
    (Verdict::NoNeighbour, A_RELAYS),
    (Verdict::ForwardedUp, A_RELAYS),
    (Verdict::ForwardedDown, A_RELAYS),
    (Verdict::HopLimit, A_RELAYS),
    (Verdict::TooBig, A_RELAYS),
    (Verdict::NoOtherSide, A_RELAYS),
    (Verdict::NoChecksum, A_RELAYS),
    (Verdict::LeaseEnded, A_RELAYS),
    (Verdict::NoBinding, A_RELAYS),
    (Verdict::Torn, "needs a jump within nanoseconds: suite `active`, and jvpn-common's steer::bind"),
    (Verdict::WriteFailed, "a frame that was read cannot refuse to be written: jvpn-common's steer::tests"),
];

/// Verdicts that one IP version cannot have.
pub const ONE_VERSION: [(Verdict, bool); 2] = [(Verdict::IpOptions, false), (Verdict::ExtensionHeader, true)];

pub(crate) type Change = fn(&mut State);
pub(crate) const AS_IT_IS: Change = |_| {};

/// Both ends in one IP version, and the slots that are of it.
#[derive(Debug)]
pub(crate) struct Ends {
    pub v6: bool,
    pub client: SocketAddr,
    pub gateway: SocketAddr,
    pub bound: u32,
    expired: u32,
}

pub(crate) const ENDS: [Ends; 2] = [
    Ends { v6: false, client: CLIENT_V4, gateway: GATEWAY_V4, bound: slot::V4, expired: slot::EXPIRED_V4 },
    Ends { v6: true, client: CLIENT_V6, gateway: GATEWAY_V6, bound: slot::V6, expired: slot::EXPIRED_V6 },
];

/// Every base frame.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for ends in &ENDS {
        let mut list = List { ends, cases: &mut cases, world: State::world };
        list.of_both_programs();
        list.data();
        list.directions();
        list.dead_worker();
    }
    cases
}

/// The list while it grows.
#[derive(Debug)]
pub(crate) struct List<'a> {
    pub ends: &'a Ends,
    pub cases: &'a mut Vec<Case>,
    /// The maps before a change.
    pub world: fn() -> State,
}

pub(crate) fn from_port(client: SocketAddr, offset: u16) -> SocketAddr {
    SocketAddr::new(client.ip(), client.port() + offset)
}

pub(crate) fn wrong_tag(mut datagram: Vec<u8>) -> Vec<u8> {
    datagram[4] ^= 1;
    datagram
}

impl List<'_> {
    /// What a gateway's program and a relay's have in common.
    pub(crate) fn of_both_programs(&mut self) {
        self.not_ours();
        self.for_user();
        self.answered();
        self.outer_refusals();
        self.header_refusals();
        self.session_refusals();
        self.handshakes();
        self.probes();
    }

    pub(crate) fn push(&mut self, verdict: Verdict, change: Change, frame: Vec<u8>) {
        let mut state = (self.world)();
        change(&mut state);
        self.cases.push(Case { verdict, v6: self.ends.v6, state, frame });
    }

    /// A datagram from the client's port plus `offset`; every third one in a VLAN.
    pub(crate) fn datagram(&mut self, verdict: Verdict, change: Change, offset: u16, payload: &[u8]) {
        let vlan = self.cases.len() % 3 == 2;
        let frame = packet::frame(from_port(self.ends.client, offset), self.ends.gateway, vlan, payload);
        self.push(verdict, change, frame);
    }

    pub(crate) fn plain(&self, payload: &[u8]) -> Vec<u8> {
        packet::frame(self.ends.client, self.ends.gateway, false, payload)
    }

    fn not_ours(&mut self) {
        let data = packet::data(locator(self.ends.bound, 0, false), 0, 1, 60);
        let elsewhere = SocketAddr::new(self.ends.gateway.ip(), packet::PORT + 1);
        self.push(Verdict::Foreign, AS_IT_IS, packet::frame(self.ends.client, elsewhere, false, &data));
        let mut group = self.plain(&data);
        group[0] = 0x33;
        self.push(Verdict::Foreign, AS_IT_IS, group);
        let mut tcp = self.plain(&data);
        tcp[if self.ends.v6 { 14 + 6 } else { 14 + 9 }] = 6;
        self.push(Verdict::Foreign, AS_IT_IS, tcp);
        let mut stacked = packet::frame(self.ends.client, self.ends.gateway, true, &data);
        stacked[16..18].copy_from_slice(&[0x81, 0]);
        self.push(Verdict::Foreign, AS_IT_IS, stacked);
        let later = if self.ends.v6 {
            packet::extended(&self.plain(&data), 44, &[17, 0, 0, 8, 0, 0, 0, 1])
        } else {
            let mut later = self.plain(&data);
            later[14 + 7] = 1;
            later
        };
        self.push(Verdict::Foreign, AS_IT_IS, later);
        self.push(Verdict::Unconfigured, |state| state.config = Config::default(), self.plain(&data));
        self.push(Verdict::Unconfigured, |state| state.config.role = 0, self.plain(&data));
        self.push(Verdict::Unconfigured, |state| state.config.layout ^= 1, self.plain(&data));
    }

    fn for_user(&mut self) {
        let bound = self.ends.bound;
        self.datagram(Verdict::Handshake, AS_IT_IS, 0, &packet::initiation(1_200));
        self.datagram(Verdict::Handshake, limited, 0, &packet::initiation(1_200));
        self.datagram(
            Verdict::Handshake,
            |state| {
                limited(state);
                spend(state, TICK - 250, 0);
            },
            0,
            &packet::initiation(1_200),
        );
        self.datagram(Verdict::Control, AS_IT_IS, 0, &packet::control(locator(bound, 0, false), 0, 1));
        self.datagram(Verdict::Control, AS_IT_IS, 9, &packet::control(locator(bound, 2, true), 2, 7));
        self.datagram(Verdict::Control, AS_IT_IS, 0, &packet::control(locator(slot::PENDING, 0, false), 0, 0));
    }

    fn data(&mut self) {
        let bound = self.ends.bound;
        self.datagram(Verdict::Data, AS_IT_IS, 0, &packet::data(locator(bound, 0, false), 0, u64::MAX, 16));
        self.datagram(Verdict::Data, counted, 0, &packet::data(locator(bound, 0, false), 0, 1, 1_300));
        self.datagram(Verdict::Data, AS_IT_IS, 1, &packet::data(locator(bound, 1, false), 1, 2, 100));
        self.datagram(Verdict::Data, AS_IT_IS, 0, &packet::datagram(4, 2, locator(bound, 0, false), 0, 3, &[7; 77]));
    }

    fn answered(&mut self) {
        let bound = self.ends.bound;
        for (offset, k, padding) in [(0, 0, 0), (1, 1, 1), (5, 0, 7), (0, 2, 1_300), (0, 0, 1_464)] {
            self.datagram(Verdict::Echoed, counted, offset, &packet::probe(locator(bound, k, false), k, 70, padding));
        }
        self.datagram(Verdict::Echoed, counted, 0, &packet::probe(locator(bound, 0, true), 0, 13, 3));
        self.datagram(Verdict::Echoed, AS_IT_IS, 0, &packet::probe(locator(slot::UNBOUND, 0, false), 0, 0, 30));
        self.datagram(Verdict::Noticed, AS_IT_IS, 3, &packet::data(locator(bound, 0, false), 0, 5, 48));
        self.datagram(Verdict::Noticed, AS_IT_IS, 0, &packet::data(locator(bound, 1, false), 1, 6, 49));
        self.datagram(Verdict::Noticed, AS_IT_IS, 0, &packet::data(locator(slot::UNBOUND, 0, false), 0, 7, 1_300));
        self.datagram(
            Verdict::Noticed,
            |state| slot_bucket(state, BucketField::Notice, TICK - 25, 1),
            3,
            &packet::data(locator(bound, 0, false), 0, 8, 64),
        );
    }

    fn outer_refusals(&mut self) {
        let data = packet::data(locator(self.ends.bound, 0, false), 0, 1, 60);
        let udp_at = if self.ends.v6 { 54 } else { 34 };
        for len in [0_u16, 7, 100] {
            let mut frame = self.plain(&data);
            frame[udp_at + 4..udp_at + 6].copy_from_slice(&len.to_be_bytes());
            self.push(Verdict::BadLength, AS_IT_IS, frame);
        }
        let mut cut = self.plain(&data);
        cut.truncate(udp_at + 8 + 50);
        self.push(Verdict::BadLength, AS_IT_IS, cut);
        let payloads = [packet::initiation(1_200), data.clone(), packet::control(5, 0, 0)];
        for payload in &payloads {
            let plain = self.plain(payload);
            if self.ends.v6 {
                let first = packet::extended(&plain, 44, &[17, 0, 0, 1, 0, 0, 0, 1]);
                self.push(Verdict::Fragment, AS_IT_IS, first);
                let options = packet::extended(&plain, 0, &[17, 0, 1, 4, 0, 0, 0, 0]);
                let routing = packet::extended(&plain, 43, &[17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                let both = packet::extended(&options, 60, &[0, 0, 1, 4, 0, 0, 0, 0]);
                for frame in [options, routing, both] {
                    self.push(Verdict::ExtensionHeader, AS_IT_IS, frame);
                }
            } else {
                let mut first = plain.clone();
                first[14 + 6] = 0x20;
                self.push(Verdict::Fragment, AS_IT_IS, first);
                for options in [4, 8, 40] {
                    self.push(Verdict::IpOptions, AS_IT_IS, packet::with_options(&plain, options));
                }
            }
        }
    }

    fn header_refusals(&mut self) {
        let known = locator(self.ends.bound, 0, false);
        let probe = packet::probe(known, 0, 1, 0);
        let shorts =
            [vec![], packet::data(known, 0, 1, 15), packet::control(known, 0, 1)[..39].to_vec(), probe[..71].to_vec()];
        shorts.iter().for_each(|payload| self.datagram(Verdict::Short, AS_IT_IS, 0, payload));
        for kind in [0, 9, 255] {
            self.datagram(Verdict::UnknownType, AS_IT_IS, 0, &packet::datagram(kind, 0, known, 0, 1, &[0; 60]));
        }
        for kind in [2, 3, 7, 8] {
            self.datagram(Verdict::ClientOnly, AS_IT_IS, 0, &packet::datagram(kind, 1, known, 0, 1, &[0; 60]));
        }
        let unknown = known ^ 0x10_0000;
        for payload in
            [packet::data(unknown, 0, 1, 60), packet::control(unknown, 0, 1), packet::probe(unknown, 0, 1, 0)]
        {
            self.datagram(Verdict::UnknownLocator, AS_IT_IS, 0, &payload);
        }
        self.flags_and_tags(known);
    }

    fn flags_and_tags(&mut self, known: u64) {
        let probe = packet::probe(known, 0, 1, 0);
        let stale = locator(slot::STALE, 0, false);
        for payload in [packet::data(stale, 0, 1, 60), packet::control(stale, 0, 1), packet::probe(stale, 0, 1, 0)] {
            self.datagram(Verdict::StaleGeneration, AS_IT_IS, 0, &payload);
        }
        for (kind, flags) in [(4, 4), (5, 2), (6, 0x8000), (6, 2)] {
            self.datagram(Verdict::BadFlags, AS_IT_IS, 0, &packet::datagram(kind, flags, known, 0, 1, &[0; 60]));
        }
        for payload in
            [packet::data(known, 0, 1, 60), packet::control(known, 0, 1), probe, packet::data(known, 1, 1, 60)]
        {
            self.datagram(Verdict::ForgedTag, AS_IT_IS, 0, &wrong_tag(payload));
        }
        // Tagged for another transport index, or with a body changed after tagging.
        self.datagram(Verdict::ForgedTag, AS_IT_IS, 0, &packet::data(known, 1, 1, 60));
        let mut changed = packet::probe(known, 0, 1, 0);
        changed[71] ^= 1;
        self.datagram(Verdict::ForgedTag, AS_IT_IS, 0, &changed);
    }

    fn session_refusals(&mut self) {
        let known = locator(self.ends.bound, 0, false);
        self.datagram(Verdict::NotBound, AS_IT_IS, 3, &packet::data(known, 0, 1, 47));
        self.datagram(Verdict::NotBound, AS_IT_IS, 0, &packet::data(locator(slot::UNBOUND, 0, false), 0, 1, 16));
        self.datagram(
            Verdict::NotBound,
            |state| slot_bucket(state, BucketField::Notice, TICK, 999),
            3,
            &packet::data(known, 0, 1, 900),
        );
        let expired = locator(self.ends.expired, 1, false);
        for len in [16, 60, 1_200] {
            self.datagram(Verdict::DrainExpired, AS_IT_IS, 1, &packet::data(expired, 1, len as u64, len));
        }
        let pending = locator(slot::PENDING, 0, false);
        for payload in
            [packet::data(pending, 0, 1, 60), packet::probe(pending, 0, 1, 0), packet::data(pending, 0, 1, 600)]
        {
            self.datagram(Verdict::PendingSlot, AS_IT_IS, 0, &payload);
        }
    }

    fn directions(&mut self) {
        let known = locator(self.ends.bound, 0, false);
        for (kind, flags) in [(4, 3), (5, 1), (6, 1)] {
            self.datagram(Verdict::BadDirection, AS_IT_IS, 0, &packet::datagram(kind, flags, known, 0, 1, &[0; 60]));
        }
    }

    fn dead_worker(&mut self) {
        let dead = locator(self.ends.bound, 0, true);
        for len in [16, 60, 1_200] {
            self.datagram(Verdict::WorkerDead, AS_IT_IS, 0, &packet::data(dead, 0, 1, len));
        }
    }

    fn handshakes(&mut self) {
        for len in [1, 1_199, 1_201] {
            self.datagram(Verdict::HandshakeSize, AS_IT_IS, 0, &packet::initiation(len));
        }
        let empty: [Change; 3] = [
            |state| {
                limited(state);
                spend(state, TICK, 999);
            },
            |state| {
                limited(state);
                state.config.handshake_burst = 0;
            },
            |state| {
                limited(state);
                state.config.handshake_total_burst = 0;
            },
        ];
        for change in empty {
            self.datagram(Verdict::HandshakeRate, change, 0, &packet::initiation(1_200));
        }
    }

    fn probes(&mut self) {
        let known = locator(self.ends.bound, 0, false);
        for sequence in [64, 60, 0] {
            self.datagram(Verdict::ProbeReplay, counted, 0, &packet::probe(known, 0, sequence, 0));
        }
        for padding in [1_465, 1_700, 2_000] {
            self.datagram(Verdict::ProbeSize, AS_IT_IS, 0, &packet::probe(known, 0, 1, padding));
        }
        for (offset, k, tokens) in [(3, 0, 0), (3, 1, 999), (1, 0, 500)] {
            let change: Change = match tokens {
                0 => |state| slot_bucket(state, BucketField::Echo, TICK, 0),
                999 => |state| slot_bucket(state, BucketField::Echo, TICK, 999),
                _ => |state| slot_bucket(state, BucketField::Echo, TICK - 1, 500),
            };
            let probe = packet::probe(locator(self.ends.bound, k, false), k, 1, 0);
            self.datagram(Verdict::EchoRate, change, offset, &probe);
        }
    }
}

fn limited(state: &mut State) {
    state.config.handshake_rate = 5;
    state.config.handshake_burst = 10;
    state.config.handshake_total_rate = 50;
    state.config.handshake_total_burst = 100;
}

fn spend(state: &mut State, at: u64, tokens: u64) {
    state.buckets.iter_mut().for_each(|bucket| *bucket = Bucket { at, tokens });
}

fn slot_bucket(state: &mut State, which: BucketField, at: u64, tokens: u64) {
    for words in &mut state.traffic {
        words[which as usize] = at;
        words[which as usize + 1] = tokens;
    }
}

/// Records with a past: sequences 60 and 64 of k = 0 were seen, and other counters are not zero.
pub(crate) fn counted(state: &mut State) {
    for (at, path) in (0..).zip(&mut state.paths) {
        *path = PathCounters { k: at % 4, probes: 3, highest: 64, window: 0b1_0001, data: 11 };
    }
    for words in &mut state.traffic {
        words[..6].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
    }
}
