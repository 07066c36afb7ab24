//! Owns echo requests over ICMP and ICMPv6 between namespaces. Never raw sockets: the kernel fills in identifiers
//! and checksums.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Netns;

const PATIENCE: Duration = Duration::from_millis(500);
const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;

/// Round trip to `target`, tried for up to `limit`.
pub fn ping(space: &Netns, target: IpAddr, size: usize, limit: Duration) -> Result<Duration> {
    space.enter(|| {
        let (domain, protocol, request, reply) = if target.is_ipv4() {
            (Domain::IPV4, Protocol::ICMPV4, REQUEST_V4, REPLY_V4)
        } else {
            (Domain::IPV6, Protocol::ICMPV6, REQUEST_V6, REPLY_V6)
        };
        let mut socket = Socket::new(domain, Type::DGRAM, Some(protocol)).context("ping socket")?;
        let started = Instant::now();
        let mut last = String::from("no answer");
        for sequence in 1u16.. {
            if started.elapsed() >= limit {
                break;
            }
            let mut packet = vec![0x5a; 8 + size];
            packet[..8].copy_from_slice(&[request, 0, 0, 0, 0, 0, 0, 0]);
            packet[6..8].copy_from_slice(&sequence.to_be_bytes());
            let sent = Instant::now();
            if let Err(error) = socket.send_to(&packet, &SocketAddr::new(target, 0).into()) {
                last = error.to_string();
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            while sent.elapsed() < PATIENCE {
                socket.set_read_timeout(Some((PATIENCE - sent.elapsed()).max(Duration::from_millis(1))))?;
                let mut buffer = vec![0u8; 8 + size + 64];
                let Ok(length) = socket.read(&mut buffer) else {
                    continue;
                };
                let answer = &buffer[..length];
                if length == packet.len() && answer[0] == reply && answer[6..] == packet[6..] {
                    return Ok(sent.elapsed());
                }
            }
        }
        bail!("{target} does not answer {} within {limit:?}: {last}", space.name())
    })
}
