//! From the TUN to the network: route, split, seal.
//!
//! Owns the way of one super-packet. Must never seal a packet the peer would refuse, nor one that the path
//! is known not to carry: its sender is told instead.

use jvpn_common::crypto::seal::Reservation;
use jvpn_common::ids::Epoch;
use jvpn_common::limits::{HEADER_LEN, OVERHEAD_V4, OVERHEAD_V6, TAG_LEN};
use jvpn_common::tag::steering_tag;
use jvpn_common::time::{Duration, Instant};
use jvpn_common::wire::Kind;
use jvpn_common::wire::header::{FLAG_PARTIAL_CHECKSUM, Header};

use super::aead::DataAead;
use super::batch::Target;
use super::coalesce::Sink;
use super::counters::Counter;
use super::icmp::{TOO_BIG_MAX, too_big};
use super::inner::{Inner, clamp_mss};
use super::ping::{PING_LEN, Ping};
use super::queue::FromWorker;
use super::role::{Role, Route};
use super::split::Split;
use super::vnet::{NEEDS_CSUM, VNET_LEN, Vnet};
use super::worker::{Io, TunSink};

/// After this long without inner traffic the controller is told at once of the next packet.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Handles one super-packet that stands in `packet`.
pub(super) fn super_packet<R: Role>(role: &mut R, io: &mut Io, vnet: &[u8; VNET_LEN], packet: &mut [u8], now: Instant) {
    io.tally.one(Counter::TunReads);
    let vnet = Vnet::from_bytes(vnet);
    let Some(inner) = Inner::parse(packet) else { return io.tally.one(Counter::DropInner) };
    if inner.is_of_the_link() {
        return io.tally.one(Counter::OfTheLink);
    }
    let Some(route) = role.outbound(&inner) else { return io.tally.one(Counter::DropNoRoute) };
    let mtu = inner_mtu(&route, io.options.inner_mtu);
    clamp_mss(packet, &inner, mtu, vnet.flags & NEEDS_CSUM != 0);
    let Some(split) = Split::new(&vnet, packet, inner, io.options.carry_checksum) else {
        return io.tally.one(Counter::DropVnet);
    };
    if split.largest() > usize::from(mtu) {
        return tell_too_big(io, packet, &inner, mtu, now);
    }
    seal_all::<R>(&route, io, split, now);
}

/// The largest inner packet a route carries.
fn inner_mtu(route: &Route<'_>, configured: u16) -> u16 {
    let overhead = if route.remote.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 };
    configured.min(route.path_mtu.saturating_sub(overhead))
}

fn seal_all<R: Role>(route: &Route<'_>, io: &mut Io, mut split: Split<'_>, now: Instant) {
    let count = u64::from(split.count());
    let Some(key) = route.session.sealing().filter(|key| key.alive(now)) else {
        return io.tally.add(Counter::DropNoKey, count);
    };
    let Ok(mut numbers) = key.sealing().reserve(route.k, u32::from(split.count())) else {
        return io.tally.add(Counter::DropNoKey, count);
    };
    let target = target(route);
    let (mut packets, mut bytes) = (0, 0);
    while let Some(len) = split.next_len() {
        let Some(room) = io.batch.room(target, len, &mut io.ports, &mut io.tally) else { break };
        let (head, rest) = room.split_at_mut(HEADER_LEN);
        let Some(piece) = split.next_into(rest) else { break };
        let flags = R::DIRECTION | if piece.partial { FLAG_PARTIAL_CHECKSUM } else { 0 };
        if seal(route, &mut numbers, key.epoch(), flags, head, rest).is_none() {
            break;
        }
        io.batch.commit(HEADER_LEN + piece.len + TAG_LEN);
        packets += 1;
        bytes += piece.len as u64;
    }
    io.tally.add(Counter::TxPackets, packets);
    io.tally.add(Counter::TxBytes, bytes);
    io.tally.add(Counter::DropVnet, count - packets);
    let before = route.session.sealed(packets, bytes, now);
    if now.since(before) >= IDLE_AFTER {
        io.tell(FromWorker::Busy { session: route.session.id(), at: now });
    }
}

/// Seals the text at the start of `rest` and puts tag and header around it.
fn seal(
    route: &Route<'_>,
    numbers: &mut Reservation<'_, DataAead>,
    epoch: Epoch,
    flags: u16,
    head: &mut [u8],
    rest: &mut [u8],
) -> Option<()> {
    let (kind, epoch) = (Kind::Data as u8, epoch.wire());
    let header = |counter| {
        let tag = steering_tag(route.steering, counter, kind, epoch, flags, route.k, None);
        Header { kind, epoch, flags, tag, locator: route.locator.0, counter }.to_bytes()
    };
    let (text, room) = rest.split_last_chunk_mut::<TAG_LEN>()?;
    let sealed = numbers.seal_next(header, text)?;
    head.copy_from_slice(&sealed.header);
    *room = sealed.tag;
    Some(())
}

fn target(route: &Route<'_>) -> Target {
    Target { socket: route.socket, remote: route.remote, local: route.local }
}

/// Sends a ping or its answer on a session's active transport, at once.
pub(super) fn send_ping<R: Role>(route: &Route<'_>, io: &mut Io, ping: Ping, now: Instant) {
    let sealed = route.session.sealing().filter(|key| key.alive(now)).and_then(|key| {
        let mut number = key.sealing().reserve(route.k, 1).ok()?;
        let room = io.batch.room(target(route), PING_LEN, &mut io.ports, &mut io.tally)?;
        let (head, rest) = room.split_at_mut_checked(HEADER_LEN)?;
        rest.get_mut(..PING_LEN)?.copy_from_slice(&ping.to_bytes());
        seal(route, &mut number, key.epoch(), R::DIRECTION, head, rest)
    });
    if sealed.is_none() {
        return io.tally.one(Counter::DropNoKey);
    }
    io.batch.commit(HEADER_LEN + PING_LEN + TAG_LEN);
    io.batch.send(&mut io.ports, &mut io.tally);
    io.tally.one(Counter::Pings);
}

/// Tells the sender inside what the path carries.
fn tell_too_big(io: &mut Io, packet: &[u8], inner: &Inner, mtu: u16, now: Instant) {
    io.tally.one(Counter::DropTooBig);
    if !io.icmp_bucket.take(now) {
        return;
    }
    let mut message = [0; TOO_BIG_MAX];
    let Some(len) = too_big(packet, inner, mtu, &io.options.addresses, &mut message) else { return };
    let mut sink = TunSink { tun: &io.tun, tally: &mut io.tally };
    let head = Vnet::default().to_bytes();
    let message = message.get(..len).unwrap_or(&[]);
    match sink.write(&[std::io::IoSlice::new(&head), std::io::IoSlice::new(message)]) {
        Ok(()) => io.tally.one(Counter::IcmpSent),
        Err(_) => io.tally.one(Counter::DropTunWrite),
    }
}
