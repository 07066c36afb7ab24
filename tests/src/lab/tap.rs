//! Owns a look at the frames that arrive on an interface of the lab, and sending one from there. Never changes a frame,
//! never judges one.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use serde_json::Value;
use socket2::Socket;

use super::netns::Netns;
use super::sys;

/// A raw socket on one interface.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
}

impl Tap {
    pub fn on(space: &Netns, interface: &str) -> Result<Tap> {
        let socket = space.enter(|| sys::packet_socket(interface).context("a packet socket"))?;
        Ok(Tap { socket })
    }

    /// The same with so many bytes of queue, for who looks rarely.
    pub fn with_queue(space: &Netns, interface: &str, bytes: usize) -> Result<Tap> {
        let tap = Self::on(space, interface)?;
        sys::force_receive_buffer(&tap.socket, bytes).context("a long queue")?;
        Ok(tap)
    }

    /// Shows each frame that arrived since the last look.
    pub fn each(&mut self, mut see: impl FnMut(&[u8])) {
        let mut buffer = [0; 2_048];
        while let Ok(length) = self.socket.read(&mut buffer) {
            see(&buffer[..length]);
        }
    }

    /// What arrived since the last look; nothing that left.
    pub fn arrived(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 2_048];
        std::iter::from_fn(|| self.socket.read(&mut buffer).ok().map(|length| buffer[..length].to_vec())).collect()
    }

    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.socket.write_all(frame).context("send a frame")
    }
}

/// A UDP datagram in its frame, every checksum computed in full by code that shares none with the product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Destination, then source.
    pub stations: [[u8; 6]; 2],
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// TTL or hop limit.
    pub hops_left: u8,
    /// DSCP and ECN.
    pub class: u8,
    pub payload: Vec<u8>,
    /// Header checksum (of IPv4) and UDP checksum are right.
    pub sums_right: bool,
}

impl Seen {
    /// `None` for anything but a UDP datagram.
    pub fn of(frame: &[u8]) -> Option<Seen> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(TransportSlice::Udp(udp)) = &packet.transport else { return None };
        let (from, to, hops_left, class, sums_right): (IpAddr, IpAddr, _, _, _) = match packet.net.as_ref()? {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                let udp_right = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).ok()? == udp.checksum();
                let right = header.calc_header_checksum() == header.header_checksum && udp_right;
                (
                    ip.header().source_addr().into(),
                    ip.header().destination_addr().into(),
                    header.time_to_live,
                    header.dscp.value() << 2 | header.ecn.value(),
                    right,
                )
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header().to_header();
                let right = udp.to_header().calc_checksum_ipv6(&header, udp.payload()).ok()? == udp.checksum();
                (
                    ip.header().source_addr().into(),
                    ip.header().destination_addr().into(),
                    header.hop_limit,
                    header.traffic_class,
                    right,
                )
            }
            NetSlice::Arp(_) => return None,
        };
        Some(Seen {
            stations: [frame.first_chunk().copied()?, frame.get(6..)?.first_chunk().copied()?],
            from: SocketAddr::new(from, udp.source_port()),
            to: SocketAddr::new(to, udp.destination_port()),
            hops_left,
            class,
            payload: udp.payload().to_vec(),
            sums_right,
        })
    }
}

/// The station of an interface.
pub fn station(space: &Netns, interface: &str) -> Result<[u8; 6]> {
    let text = space.run(&["ip", "-j", "link", "show", "dev", interface], None)?;
    let links: Value = serde_json::from_str(&text).context("what ip says of a link")?;
    let address = links[0]["address"].as_str().context("an address of the link")?.replace(':', "");
    let bytes = hex::decode(address).context("an address of the link")?;
    bytes.try_into().ok().context("six bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet;

    #[test]
    fn a_datagram_is_seen_whole_and_a_wrong_checksum_of_either_kind_is_one() {
        for good in [packet::frame_v4(b"payload"), packet::frame_v6(b"payload")] {
            let seen = Seen::of(&good).unwrap();
            assert!(seen.sums_right && seen.payload == b"payload" && seen.hops_left == 20, "{seen:?}");
            assert_eq!(seen.to.port(), packet::PORT);
            let at = good.len() - 1;
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!Seen::of(&bad).unwrap().sums_right, "payload");
        }
        let mut bad = packet::frame_v4(b"payload");
        bad[24] ^= 1;
        assert!(!Seen::of(&bad).unwrap().sums_right, "header");
        assert_eq!(Seen::of(&[0; 60]), None);
    }
}
