//! Base frames of a relay: for every verdict at least three, in IPv4 and in IPv6.
//!
//! Owns the relay's world (two owners, ways out of every kind) and the list. What both programs have in common comes from
//! [`cases`](crate::cases).

use crate::cases::{AS_IT_IS, Case, Change, ENDS, Ends, List, counted, from_port, wrong_tag};
use crate::host::INGRESS;
use crate::maps::{INCARNATION, State, TICK, locator, slot};
use crate::packet::{self, CLIENT_V4, GATEWAY_V4, GATEWAY_V6, PORT};
use jvpn_common::abi::{HOP_RESOLVED, Hop, Owner, OwnerEndpoint, ROLE_RELAY, mapped};
use jvpn_common::verdict::Verdict;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Where the first owner is in IPv4.
pub const OWNER_V4: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 7), 51_900));
/// Where the first owner is in IPv6.
pub const OWNER_V6: SocketAddr =
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 7), 51_900, 0, 0));
/// The relay's address towards owners in IPv4.
pub const RELAY_V4: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 9), PORT));
/// The relay's address towards owners in IPv6.
pub const RELAY_V6: SocketAddr =
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 0xfe, 0, 0, 0, 0, 9), PORT, 0, 0));
/// Another interface than the one frames come in by.
pub const ELSEWHERE: u32 = 77;

/// Ids of the ways out.
pub mod hop {
    /// To the owner in IPv4, by the interface frames come in by.
    pub const OWNER_V4: u16 = 1;
    /// To the owner in IPv6, by another interface.
    pub const OWNER_V6: u16 = 2;
    /// To the client in IPv4, by another interface.
    pub const CLIENT_V4: u16 = 3;
    /// To the client in IPv6, by the interface frames come in by.
    pub const CLIENT_V6: u16 = 4;
    /// Never written.
    pub const EMPTY: u16 = 15;
}

/// Verdicts no frame in still maps can have here, and why.
pub const WITHOUT_FRAMES: [(Verdict, &str); 4] = [
    (Verdict::Data, "a relay has no worker that opens data"),
    (Verdict::WorkerDead, "the owner's lease says so instead"),
    (Verdict::Torn, "needs a jump within nanoseconds: suite `active`, and jvpn-common's steer::bind"),
    (Verdict::WriteFailed, "a frame that was read cannot refuse to be written: jvpn-common's steer::tests"),
];

/// Verdicts that one IP version cannot have.
pub const ONE_VERSION: [(Verdict, bool); 3] =
    [(Verdict::IpOptions, false), (Verdict::ExtensionHeader, true), (Verdict::NoChecksum, true)];

fn way(source: IpAddr, ifindex: u32, station: u8) -> Hop {
    Hop {
        sequence: 2,
        source: mapped(source),
        ifindex,
        mtu: 1_500,
        flags: HOP_RESOLVED,
        destination_mac: [2, 0xff, 0, 0x80, 1, station],
        source_mac: [2, 0x7f, 3, 0, 0xfe, station],
        reserved: 0,
    }
}

fn end(at: SocketAddr, hop: u16) -> OwnerEndpoint {
    OwnerEndpoint { address: mapped(at.ip()), port: at.port(), hop, mtu: 1_600, reserved: 0 }
}

/// The maps of the relay before each frame.
#[must_use]
pub fn world() -> State {
    let mut state = State::world();
    state.config.role = ROLE_RELAY;
    // An echo that told of the relay's own life would be found out.
    state.config.incarnation = INCARNATION ^ 0xffff;
    state.config.alive_until = [0; 16];
    let owner = Owner {
        sequence: 8,
        alive_until: TICK,
        v4: end(OWNER_V4, hop::OWNER_V4),
        v6: end(OWNER_V6, hop::OWNER_V6),
        incarnation: INCARNATION,
        owner_epoch: 3,
    };
    let other = Owner { v4: end(second(OWNER_V4), 1), v6: end(second(OWNER_V6), 2), incarnation: 5, ..owner };
    state.owners.extend([(0, owner), (15, other)]);
    state.hops.extend([
        (hop::OWNER_V4, way(RELAY_V4.ip(), INGRESS, 1)),
        (hop::OWNER_V6, way(RELAY_V6.ip(), ELSEWHERE, 2)),
        (hop::CLIENT_V4, way(GATEWAY_V4.ip(), ELSEWHERE, 3)),
        (hop::CLIENT_V6, way(GATEWAY_V6.ip(), INGRESS, 4)),
    ]);
    for (at, entry) in state.sessions.iter_mut().enumerate().skip(1) {
        entry.owner = 1;
        let v6 = at == slot::V6 as usize || at == slot::EXPIRED_V6 as usize;
        entry.bindings.iter_mut().for_each(|b| b.gateway = if v6 { hop::CLIENT_V6 } else { hop::CLIENT_V4 });
    }
    state
}

/// The second owner, beside the first.
fn second(first: SocketAddr) -> SocketAddr {
    SocketAddr::new(first.ip(), first.port() + 1)
}

/// Every base frame of a relay.
#[must_use]
pub fn all() -> Vec<Case> {
    [common(), own()].concat()
}

/// Those a gateway's program judges by the same functions.
#[must_use]
pub fn common() -> Vec<Case> {
    let mut cases = Vec::new();
    ENDS.iter().for_each(|ends| List { ends, cases: &mut cases, world }.of_both_programs());
    cases
}

/// Those only a relay's program has.
#[must_use]
pub fn own() -> Vec<Case> {
    let mut cases = Vec::new();
    for ends in &ENDS {
        let list = List { ends, cases: &mut cases, world };
        let mut list = Relay { owner: if ends.v6 { OWNER_V6 } else { OWNER_V4 }, ends, list };
        list.forwarded();
        list.for_user();
        list.no_neighbour();
        list.hop_limit();
        list.too_big();
        list.no_other_side();
        list.no_checksum();
        list.lease();
        list.no_binding();
        list.directions();
        list.odd_lengths();
    }
    cases
}

struct Relay<'a> {
    owner: SocketAddr,
    ends: &'a Ends,
    list: List<'a>,
}

/// Every way out is the one frames come in by.
fn one_interface(state: &mut State) {
    state.hops.values_mut().for_each(|hop| hop.ifindex = INGRESS);
}

fn each_hop(state: &mut State, change: impl Fn(&mut Hop)) {
    state.hops.values_mut().for_each(change);
}

fn each_owner(state: &mut State, change: impl Fn(&mut Owner)) {
    state.owners.values_mut().for_each(change);
}

/// The way to the owners takes less than the interfaces do.
fn narrow(state: &mut State) {
    each_owner(state, |owner| (owner.v4.mtu, owner.v6.mtu) = (1_420, 1_420));
}

impl Relay<'_> {
    /// From the client's port plus `offset`.
    fn up(&self, offset: u16, vlan: bool, payload: &[u8]) -> Vec<u8> {
        packet::frame(from_port(self.ends.client, offset), self.ends.gateway, vlan, payload)
    }

    /// From the owner.
    fn down(&self, vlan: bool, payload: &[u8]) -> Vec<u8> {
        let relay = if self.ends.v6 { RELAY_V6 } else { RELAY_V4 };
        packet::frame(self.owner, relay, vlan, payload)
    }

    fn known(&self) -> u64 {
        locator(self.ends.bound, 0, false)
    }

    fn up_data(&self, len: usize) -> Vec<u8> {
        self.up(0, false, &packet::data(self.known(), 0, 1, len))
    }

    fn down_data(&self, len: usize) -> Vec<u8> {
        self.down(false, &packet::down(4, 0, self.known(), 0, 1, &vec![7; len]))
    }

    /// The same refusal upwards, and downwards short and long.
    fn both_ways(&mut self, verdict: Verdict, change: Change) {
        for frame in [self.up_data(60), self.down_data(16), self.down_data(1_200)] {
            self.list.push(verdict, change, frame);
        }
    }

    fn hop_limit_at(&self) -> usize {
        if self.ends.v6 { 14 + 7 } else { 14 + 8 }
    }

    fn forwarded(&mut self) {
        let known = self.known();
        let small = packet::data(known, 0, u64::MAX, 16);
        let drains = packet::data(locator(self.ends.bound, 1, true), 1, 9, 77);
        let large = packet::data(known, 0, 2, if self.ends.v6 { 1_420 - 72 } else { 1_420 - 52 });
        for (change, frame) in [
            (AS_IT_IS, self.up(0, false, &small)),
            (counted as Change, self.up(1, false, &drains)),
            (one_interface, self.up(0, true, &small)),
            (narrow, self.up(0, false, &large)),
            (AS_IT_IS, self.up(0, false, &packet::datagram(4, 2, known, 0, 3, &[0; 99]))),
            (|state| each_owner(state, |owner| (owner.v4.mtu, owner.v6.mtu) = (0, 0)), self.up_data(1_400)),
        ] {
            self.list.push(Verdict::ForwardedUp, change, frame);
        }
        for (change, frame) in [
            (AS_IT_IS, self.down_data(16)),
            (counted as Change, self.down(false, &packet::down(4, 2, known, 0, 7, &[1; 301]))),
            (one_interface, self.down(true, &packet::down(4, 0, locator(self.ends.bound, 2, true), 2, 8, &[9; 40]))),
            (AS_IT_IS, self.down_data(if self.ends.v6 { 1_500 - 72 } else { 1_500 - 52 })),
            (|state| each_hop(state, |hop| hop.mtu = 0), self.down_data(1_460)),
        ] {
            self.list.push(Verdict::ForwardedDown, change, frame);
        }
        let mut last = self.up_data(20);
        let at = self.hop_limit_at();
        last[at] = 2;
        // The header's own checksum is wrong now, and must stay wrong by as much.
        self.list.push(Verdict::ForwardedUp, AS_IT_IS, last);
        if !self.ends.v6 {
            let mut none = self.up_data(20);
            none[40..42].copy_from_slice(&[0, 0]);
            self.list.push(Verdict::ForwardedUp, AS_IT_IS, none);
        }
    }

    fn for_user(&mut self) {
        let known = self.known();
        for kind in [2, 3] {
            let answer: Vec<u8> = std::iter::once(kind).chain([5; 131]).collect();
            let frame = self.down(kind == 3, &answer);
            self.list.push(Verdict::Handshake, AS_IT_IS, frame);
            let mut other = self.down(false, &answer);
            let at = if self.ends.v6 { 54 } else { 34 };
            other[at..at + 2].copy_from_slice(&(self.owner.port() + 1).to_be_bytes());
            self.list.push(Verdict::Handshake, AS_IT_IS, other.clone());
            other[at..at + 2].copy_from_slice(&(self.owner.port() + 2).to_be_bytes());
            self.list.push(Verdict::ClientOnly, AS_IT_IS, other);
        }
        for at in [known, locator(slot::PENDING, 0, false), locator(slot::UNBOUND, 0, true)] {
            let frame = self.down(false, &packet::down(5, 0, at, 0, 3, &[4; 208]));
            self.list.push(Verdict::Control, AS_IT_IS, frame);
        }
    }

    fn no_neighbour(&mut self) {
        let changes: [Change; 3] = [
            |state| state.hops.clear(),
            |state| each_hop(state, |hop| hop.sequence = 7),
            |state| each_hop(state, |hop| hop.flags = 0),
        ];
        changes.into_iter().for_each(|change| self.both_ways(Verdict::NoNeighbour, change));
        let elsewhere: Change = |state| each_hop(state, |hop| hop.ifindex = ELSEWHERE);
        let tagged = self.up(0, true, &packet::data(self.known(), 0, 1, 60));
        self.list.push(Verdict::NoNeighbour, elsewhere, tagged);
    }

    fn hop_limit(&mut self) {
        for (frame, left) in [(self.up_data(60), 1), (self.up_data(60), 0), (self.down_data(60), 1)] {
            let mut frame = frame;
            let at = self.hop_limit_at();
            frame[at] = left;
            self.list.push(Verdict::HopLimit, AS_IT_IS, frame);
        }
    }

    fn too_big(&mut self) {
        let one_more = if self.ends.v6 { 1_421 - 72 } else { 1_421 - 52 };
        let frame = self.up_data(one_more);
        self.list.push(Verdict::TooBig, narrow, frame);
        let small: Change = |state| each_hop(state, |hop| hop.mtu = 127);
        let frame = self.up_data(60);
        let exactly = if self.ends.v6 { 128 - 72 } else { 128 - 52 };
        let (down, at_most) = (self.down_data(exactly), self.down_data(exactly - 1));
        self.list.push(Verdict::TooBig, |state| each_hop(state, |hop| hop.mtu = 100), frame);
        self.list.push(Verdict::TooBig, small, down);
        self.list.push(Verdict::ForwardedDown, small, at_most);
        let probe = |len: usize| packet::probe(self.known(), 0, 9, len);
        let room = 1_420 - if self.ends.v6 { 48 } else { 28 } - 72;
        let (fits, more) = (self.up(0, false, &probe(room)), self.up(0, false, &probe(room + 1)));
        self.list.push(Verdict::Echoed, narrow, fits);
        self.list.push(Verdict::ProbeSize, narrow, more);
    }

    fn no_other_side(&mut self) {
        let changes: [Change; 4] = [
            |state| state.sessions.iter_mut().for_each(|entry| entry.owner = 0),
            |state| state.sessions.iter_mut().for_each(|entry| entry.owner = 2),
            |state| state.sessions.iter_mut().for_each(|entry| entry.owner = 17),
            |state| each_owner(state, |owner| owner.sequence = 9),
        ];
        for change in changes {
            self.both_ways(Verdict::NoOtherSide, change);
            let probe = self.up(0, false, &packet::probe(self.known(), 0, 1, 0));
            self.list.push(Verdict::NoOtherSide, change, probe);
        }
        let frame = self.up_data(60);
        self.list.push(Verdict::NoOtherSide, |s| each_owner(s, |owner| (owner.v4.port, owner.v6.port) = (0, 0)), frame);
        // An owner of the other IP version behind this one's, and a way out of the other version.
        let other: Change = |state| {
            let [one, two] = [slot::V4, slot::V6].map(|at| at as usize);
            let bindings = state.sessions[one].bindings;
            state.sessions[one].bindings = state.sessions[two].bindings;
            state.sessions[two].bindings = bindings;
        };
        let frame = self.down_data(60);
        self.list.push(Verdict::NoOtherSide, other, frame);
        let ways: Change = |state| {
            let [one, two] = [hop::OWNER_V4, hop::OWNER_V6].map(|id| state.hops[&id]);
            state.hops.extend([(hop::OWNER_V4, two), (hop::OWNER_V6, one)]);
        };
        let frame = self.up_data(60);
        self.list.push(Verdict::NoOtherSide, ways, frame);
        if self.ends.v6 {
            // An IPv6 packet that says to come from an IPv4 address may not pass for that client's.
            let client = SocketAddr::V6(SocketAddrV6::new(mapped(CLIENT_V4.ip()).into(), CLIENT_V4.port(), 0, 0));
            let data = packet::data(locator(slot::V4, 0, false), 0, 1, 60);
            self.list.push(Verdict::NoOtherSide, AS_IT_IS, packet::frame(client, GATEWAY_V6, false, &data));
        }
    }

    fn no_checksum(&mut self) {
        if !self.ends.v6 {
            return;
        }
        for mut frame in [self.up_data(16), self.up_data(900), self.down_data(60)] {
            frame[60..62].copy_from_slice(&[0, 0]);
            self.list.push(Verdict::NoChecksum, AS_IT_IS, frame);
        }
    }

    fn lease(&mut self) {
        self.both_ways(Verdict::LeaseEnded, |state| each_owner(state, |owner| owner.alive_until = TICK - 1));
        self.both_ways(Verdict::LeaseEnded, |state| each_owner(state, |owner| owner.alive_until = 0));
        let probe = self.up(0, false, &packet::probe(self.known(), 0, 1, 5));
        self.list.push(Verdict::Echoed, |state| each_owner(state, |owner| owner.alive_until = TICK - 1), probe);
    }

    fn no_binding(&mut self) {
        for len in [16, 60, 1_000] {
            let to = locator(slot::UNBOUND, 0, false);
            let frame = self.down(false, &packet::down(4, 0, to, 0, 1, &vec![3; len]));
            self.list.push(Verdict::NoBinding, AS_IT_IS, frame);
        }
        // What only drains is received from, never sent to.
        let drains: Change = |state| state.sessions.iter_mut().for_each(|entry| entry.active &= !0x00ff_0000);
        let frame = self.down_data(60);
        self.list.push(Verdict::NoBinding, drains, frame);
    }

    fn directions(&mut self) {
        let known = self.known();
        let data = packet::down(4, 0, known, 0, 1, &[2; 60]);
        let relay = if self.ends.v6 { RELAY_V6 } else { RELAY_V4 };
        let probe = packet::datagram(6, 1, known, 0, 1, &[0; 48]);
        for frame in [
            self.up(0, false, &data),
            packet::frame(second(self.owner), relay, false, &data),
            self.up(0, false, &packet::down(5, 0, known, 0, 1, &[2; 60])),
            self.down(false, &probe),
        ] {
            self.list.push(Verdict::BadDirection, AS_IT_IS, frame);
        }
        for payload in [wrong_tag(data), packet::datagram(4, 1, known, 0, 1, &[2; 60])] {
            let frame = self.down(false, &payload);
            self.list.push(Verdict::ForgedTag, AS_IT_IS, frame);
        }
        let pending = packet::down(4, 0, locator(slot::PENDING, 0, false), 0, 1, &[2; 60]);
        let frame = self.down(false, &pending);
        self.list.push(Verdict::PendingSlot, AS_IT_IS, frame);
    }

    /// Bytes inside the IP packet that are not the datagram's.
    fn odd_lengths(&mut self) {
        let mut frame = self.up_data(60);
        frame.extend([0x5a; 4]);
        let at = if self.ends.v6 { 14 + 4 } else { 14 + 2 };
        let len = u16::from_be_bytes([frame[at], frame[at + 1]]) + 4;
        // Ethernet padding is no part of it and stays.
        self.list.push(Verdict::ForwardedUp, AS_IT_IS, frame.clone());
        frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
        self.list.push(Verdict::BadLength, AS_IT_IS, frame);
    }
}

/// The case in maps that forward its frame to where it was, so that it can be run again and again; and as many hops as there
/// can be.
#[must_use]
pub fn into_itself(case: &Case) -> Case {
    let mut case = case.clone();
    let ip = 14;
    let (udp, addresses, half) = if case.v6 { (54, 22, 16) } else { (34, 26, 4) };
    case.frame[if case.v6 { ip + 7 } else { ip + 8 }] = 255;
    // Ports alike, so that the answer's are the question's.
    case.frame[udp..udp + 2].copy_from_slice(&PORT.to_be_bytes());
    let address = |at: usize| {
        let bytes = &case.frame[at..at + half];
        match <[u8; 4]>::try_from(bytes) {
            Ok(v4) => mapped(v4.into()),
            Err(_) => bytes.try_into().expect("16 bytes"),
        }
    };
    let (from, to) = (address(addresses), address(addresses + half));
    for hop in case.state.hops.values_mut() {
        (hop.source, hop.mtu) = (from, 0);
    }
    let down = case.verdict == Verdict::ForwardedDown;
    for owner in case.state.owners.values_mut() {
        let end = if case.v6 { &mut owner.v6 } else { &mut owner.v4 };
        (end.address, end.port) = (if down { from } else { to }, PORT);
    }
    for binding in case.state.sessions.iter_mut().flat_map(|session| &mut session.bindings) {
        (binding.address, binding.port) = (if down { to } else { from }, PORT);
    }
    case
}
