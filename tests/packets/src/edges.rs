//! Frames at the edge of what is one, each with what both programs make of it.
//!
//! Owns the table. Every row begins as good data from the bound client, so that what is wrong with it is the one thing its
//! name says. Must never hold a verdict that was copied from a run: it is what the layers' own documents ask for.

use crate::maps::{locator, slot};
use crate::packet::{self, CLIENT_V4, CLIENT_V6, GATEWAY_V4, GATEWAY_V6};
use jvpn_common::verdict::Verdict::{
    self, BadLength, Data, ExtensionHeader, Foreign, ForwardedUp, Fragment, HopLimit, IpOptions, NoChecksum,
    NoNeighbour, Noticed, Short,
};
use std::net::{IpAddr, SocketAddr};

/// One row.
#[derive(Clone, Debug)]
pub struct Edge {
    /// What is special.
    pub name: String,
    /// Whether it is IPv6.
    pub v6: bool,
    /// The frame.
    pub frame: Vec<u8>,
    /// What a gateway's program makes of it.
    pub gateway: Verdict,
    /// What a relay's program makes of it.
    pub relay: Verdict,
}

/// The whole table.
#[must_use]
pub fn all() -> Vec<Edge> {
    let mut edges = Vec::new();
    for v6 in [false, true] {
        let mut table = Table { v6, edges: &mut edges };
        table.runts();
        table.link();
        table.lengths();
        table.ends();
        table.last_hops();
        if v6 { table.only_v6() } else { table.only_v4() }
    }
    edges
}

struct Table<'a> {
    v6: bool,
    edges: &'a mut Vec<Edge>,
}

/// Data of a session that is bound in this IP version.
fn data(v6: bool, len: usize) -> Vec<u8> {
    packet::data(locator(if v6 { slot::V6 } else { slot::V4 }, 0, false), 0, 1, len)
}

impl Table<'_> {
    fn ends_of(&self) -> (SocketAddr, SocketAddr) {
        if self.v6 { (CLIENT_V6, GATEWAY_V6) } else { (CLIENT_V4, GATEWAY_V4) }
    }

    fn good(&self) -> Vec<u8> {
        let (client, gateway) = self.ends_of();
        packet::frame(client, gateway, false, &data(self.v6, 60))
    }

    fn from(&self, client: SocketAddr) -> Vec<u8> {
        packet::frame(client, self.ends_of().1, false, &data(self.v6, 60))
    }

    fn udp(&self) -> usize {
        if self.v6 { 54 } else { 34 }
    }

    fn row(&mut self, name: &str, gateway: Verdict, relay: Verdict, frame: Vec<u8>) {
        self.edges.push(Edge { name: name.to_owned(), v6: self.v6, frame, gateway, relay });
    }

    /// The good frame with some bytes replaced.
    fn with(&mut self, name: &str, gateway: Verdict, relay: Verdict, at: usize, bytes: &[u8]) {
        let mut frame = self.good();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        self.row(name, gateway, relay, frame);
    }

    fn runts(&mut self) {
        for len in 14..=60 {
            // As soon as the port can be read the frame is ours, and its lengths are wrong.
            let verdict = if len < self.udp() + 8 { Foreign } else { BadLength };
            let mut frame = self.good();
            frame.truncate(len);
            self.row(&format!("cut to {len} bytes"), verdict, verdict, frame);
        }
        let (client, gateway) = self.ends_of();
        let mut empty = packet::frame(client, gateway, false, &[]);
        empty.resize(empty.len().max(60), 0xee);
        self.row("an empty datagram, padded to 60 bytes", Short, Short, empty);
    }

    fn link(&mut self) {
        let good = self.good();
        let tagged = |tags: &[[u8; 4]]| [&good[..12], &tags.concat(), &good[12..]].concat();
        for (name, tags) in [
            ("802.1ad", &[[0x88, 0xa8, 0, 7]][..]),
            ("QinQ", &[[0x88, 0xa8, 0, 7], [0x81, 0, 0, 8]]),
            ("two 802.1Q tags", &[[0x81, 0, 0, 7], [0x81, 0, 0, 8]]),
            ("0x9100", &[[0x91, 0, 0, 7]]),
        ] {
            self.row(name, Foreign, Foreign, tagged(tags));
        }
        // The way to the owner leaves by another interface in IPv6: a tag does not go there.
        let relay = if self.v6 { NoNeighbour } else { ForwardedUp };
        self.row("a priority tag", Data, relay, tagged(&[[0x81, 0, 0xa0, 0]]));
        self.with("broadcast", Foreign, Foreign, 0, &[0xff; 6]);
        self.with("a multicast station", Foreign, Foreign, 0, &[1, 0, 0x5e, 0, 0, 1]);
        self.with("ARP", Foreign, Foreign, 12, &[8, 6]);
        self.with("a length instead of a type", Foreign, Foreign, 12, &[0, 100]);
        self.with("the other IP version's type", Foreign, Foreign, 12, if self.v6 { &[8, 0] } else { &[0x86, 0xdd] });
        self.with("another IP version", Foreign, Foreign, 14, &[0x75]);
    }

    fn lengths(&mut self) {
        let at = self.udp() + 4;
        self.with("UDP length 0", BadLength, BadLength, at, &[0, 0]);
        self.with("UDP length 7", BadLength, BadLength, at, &[0, 7]);
        self.with("UDP length 8", Short, Short, at, &[0, 8]);
        self.with("UDP length beyond the frame", BadLength, BadLength, at, &[0, 100]);
        self.with("UDP length 65,535", BadLength, BadLength, at, &[0xff, 0xff]);
        // The stack takes it and cuts it; a relay would carry along what nobody looked at.
        self.with("UDP length below the packet's", Data, BadLength, at, &[0, 91]);
        let ip = if self.v6 { 18 } else { 16 };
        self.with("IP length 0", BadLength, BadLength, ip, &[0, 0]);
        self.with("IP length beyond the frame", BadLength, BadLength, ip, &[1, 0]);
        let mut padded = self.good();
        padded.extend([0xab; 33]);
        self.row("33 bytes behind the packet", Data, ForwardedUp, padded);
        let (client, gateway) = self.ends_of();
        let large = packet::frame(client, gateway, false, &data(self.v6, 3_200));
        self.row("3,300 bytes", Data, Verdict::TooBig, large);
    }

    fn ends(&mut self) {
        let (client, gateway) = self.ends_of();
        // Tagged data from an address that is not bound gets a notice, whatever the address: at most ten a second.
        let from = |ip: &str| SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), client.port());
        let (none, group) = if self.v6 { ("::", "ff02::1") } else { ("0.0.0.0", "224.0.0.1") };
        for (name, source) in [
            ("from this host's own address", SocketAddr::new(gateway.ip(), client.port())),
            ("from nowhere", from(none)),
            ("from a group", from(group)),
            ("from port 0", SocketAddr::new(client.ip(), 0)),
        ] {
            let frame = self.from(source);
            self.row(name, Noticed, Noticed, frame);
        }
        let port = self.udp() + 2;
        self.with("to port 0", Foreign, Foreign, port, &[0, 0]);
        self.with("to the port above", Foreign, Foreign, port, &(packet::PORT + 1).to_be_bytes());
    }

    fn last_hops(&mut self) {
        let (left, checksum) = (if self.v6 { 21 } else { 22 }, self.udp() + 6);
        self.with("one hop left", Data, HopLimit, left, &[1]);
        self.with("no hop left", Data, HopLimit, left, &[0]);
        self.with("two hops left", Data, ForwardedUp, left, &[2]);
        // IPv6 without a checksum is dropped by the stack behind the gateway's program.
        let relay = if self.v6 { NoChecksum } else { ForwardedUp };
        self.with("UDP checksum 0", Data, relay, checksum, &[0, 0]);
        self.with("a wrong UDP checksum", Data, ForwardedUp, checksum, &[0x12, 0x34]);
    }

    fn only_v4(&mut self) {
        let good = self.good();
        for options in [4, 24, 40] {
            let frame = packet::with_options(&good, options);
            self.row(&format!("{options} bytes of options"), IpOptions, IpOptions, frame);
        }
        self.with("a header of 16 bytes", Foreign, Foreign, 14, &[0x44]);
        // What stands where the port would be is none of ours.
        self.with("options that are not there", Foreign, Foreign, 14, &[0x4f]);
        let flags = 14 + 6;
        self.with("first fragment", Fragment, Fragment, flags, &[0x20, 0]);
        self.with("fragment in the middle", Foreign, Foreign, flags, &[0x20, 1]);
        self.with("last fragment", Foreign, Foreign, flags, &[0, 90]);
        self.with("may be fragmented", Data, ForwardedUp, flags, &[0, 0]);
        self.with("the reserved flag", Data, ForwardedUp, flags, &[0xc0, 0]);
        self.with("TCP", Foreign, Foreign, 14 + 9, &[6]);
        self.with("IP length below the headers'", BadLength, BadLength, 16, &[0, 27]);
        self.with("IP length below its own header", BadLength, BadLength, 16, &[0, 19]);
        self.with("a wrong header checksum", Data, ForwardedUp, 14 + 10, &[0x12, 0x34]);
        self.with("to a group's address", Data, ForwardedUp, 14 + 16, &[224, 0, 0, 1]);
    }

    fn only_v6(&mut self) {
        let good = self.good();
        let options = |frame: &[u8], kind| packet::extended(frame, kind, &[0, 0, 1, 4, 0, 0, 0, 0]);
        let routing =
            packet::extended(&good, 43, &[0, 2, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let next = |frame: &[u8], next| {
            let mut frame = frame.to_vec();
            frame[20] = next;
            frame
        };
        for (name, verdict, frame) in [
            ("hop-by-hop options", ExtensionHeader, options(&good, 0)),
            ("destination options", ExtensionHeader, options(&good, 60)),
            ("a routing header", ExtensionHeader, routing),
            ("four headers", ExtensionHeader, (0..4).fold(good.clone(), |frame, _| options(&frame, 60))),
            ("five headers", Foreign, (0..5).fold(good.clone(), |frame, _| options(&frame, 60))),
            ("no next header", Foreign, next(&good, 59)),
            ("no next header behind options", Foreign, options(&next(&good, 59), 0)),
            ("ESP", Foreign, next(&good, 50)),
            (
                "AH",
                Foreign,
                packet::extended(&good, 51, &[0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ),
            ("TCP", Foreign, next(&good, 6)),
            ("first fragment", Fragment, packet::extended(&good, 44, &[0, 0, 0, 1, 0, 0, 0, 9])),
            ("the only fragment", Fragment, packet::extended(&good, 44, &[0, 0, 0, 0, 0, 0, 0, 9])),
            ("fragment in the middle", Foreign, packet::extended(&good, 44, &[0, 0, 0, 9, 0, 0, 0, 9])),
            ("last fragment", Foreign, packet::extended(&good, 44, &[0, 0, 0, 8, 0, 0, 0, 9])),
            (
                "first fragment behind options",
                Fragment,
                options(&packet::extended(&good, 44, &[0, 0, 0, 1, 0, 0, 0, 9]), 0),
            ),
        ] {
            self.row(name, verdict, verdict, frame);
        }
        self.with("a flow label and a class", Data, ForwardedUp, 14, &[0x6b, 0x8a, 0xbc, 0xde]);
        self.with("to a group's address", Data, ForwardedUp, 14 + 24, &[0xff, 2]);
    }
}
