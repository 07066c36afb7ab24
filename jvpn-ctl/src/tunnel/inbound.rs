//! From the network to the TUN: walk the batch, ask the role, open in place, check, merge.
//!
//! Owns the way of one received batch, which may mix sessions, epochs, data and control. What is left open in the group at its
//! end is the caller's to write. Must never let one datagram of it decide about the others.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use jvpn_common::crypto::seal::OpenError;
use jvpn_common::limits::{HEADER_LEN, TAG_LEN};
use jvpn_common::time::Instant;
use jvpn_common::wire::Kind;
use jvpn_common::wire::header::{FLAG_DOWN, FLAG_PARTIAL_CHECKSUM, FLAGS_RESERVED, Header};

use super::coalesce::Coalescer;
use super::counters::Counter;
use super::inner::{Inner, clamp_mss};
use super::key::DataKey;
use super::outbound;
use super::ping::Ping;
use super::queue::FromWorker;
use super::role::{Inbound, Origin, Role, SocketId};
use super::session::SessionData;
use super::udp::Received;
use super::worker::Io;

/// Bookkeeping of a run of datagrams of one session, epoch and transport: done once, not per packet.
#[derive(Debug)]
struct Run {
    session: Arc<SessionData>,
    key: Arc<DataKey>,
    k: u16,
    opened: u64,
    packets: u64,
    bytes: u64,
}

/// What an opened datagram turned out to be.
enum Opened {
    Packet { at: usize, inner: Inner, partial: bool },
    Ping(Ping),
    Nothing,
}

/// Handles one received batch that stands in `buffer` from `start` on.
pub(super) fn batch<R: Role>(
    role: &mut R,
    io: &mut Io,
    merge: &mut Coalescer,
    socket: SocketId,
    received: &Received,
    (buffer, start): (&mut [u8], usize),
    now: Instant,
) {
    io.tally.one(Counter::RxBatches);
    let origin = Origin { socket, remote: received.remote, local: received.local };
    let mut run: Option<Run> = None;
    let whole = start + received.len;
    for at in (start..whole).step_by(received.stride) {
        let end = whole.min(at + received.stride);
        let Some(datagram) = buffer.get_mut(at..end) else { break };
        let mut ping = None;
        match role.inbound(&origin, datagram) {
            Inbound::Open { session, k } => match open::<R>(&mut run, io, session, k, datagram, now) {
                Opened::Packet { at: offset, inner, partial } => {
                    merge.push(buffer, at + offset, inner, partial, &mut io.sink());
                }
                Opened::Ping(found) => ping = Some((session.id(), found)),
                Opened::Nothing => {}
            },
            Inbound::Reply(len) => reply(io, &origin, datagram, len),
            Inbound::Control => {
                io.tally.one(Counter::ToController);
                io.tell(FromWorker::Datagram { origin, at: now, bytes: datagram.to_vec() });
            }
            Inbound::Drop => io.tally.one(Counter::DropRole),
        }
        match ping {
            Some((session, Ping::Ask(id))) => {
                if let Some(route) = role.route_of(session) {
                    outbound::send_ping::<R>(&route, io, Ping::Answer(id), now);
                }
            }
            Some((session, Ping::Answer(id))) => {
                // Whoever hears of the pong finds its transport heard from.
                finish(run.take(), io, now);
                io.tally.one(Counter::Pings);
                io.tell(FromWorker::Pong { session, id, at: now });
            }
            None => {}
        }
    }
    finish(run.take(), io, now);
}

/// Opens one datagram in place and judges what was in it.
fn open<R: Role>(
    run: &mut Option<Run>,
    io: &mut Io,
    session: &Arc<SessionData>,
    k: u16,
    datagram: &mut [u8],
    now: Instant,
) -> Opened {
    let Some((head, sealed)) = datagram.split_first_chunk_mut::<HEADER_LEN>() else {
        return dropped(io, Counter::DropFrame);
    };
    let header = Header::from_bytes(head);
    let direction = header.flags & FLAG_DOWN;
    let ours = header.kind == Kind::Data as u8 && header.flags & FLAGS_RESERVED == 0 && direction != R::DIRECTION;
    if !ours || sealed.len() <= TAG_LEN {
        return dropped(io, Counter::DropFrame);
    }
    let same = |run: &Run| Arc::ptr_eq(&run.session, session) && run.k == k && run.key.epoch().wire() == header.epoch;
    if !run.as_ref().is_some_and(same) {
        finish(run.take(), io, now);
        let Some(key) = session.opening(header.epoch).filter(|key| key.alive(now)) else {
            return dropped(io, Counter::DropEpoch);
        };
        *run = Some(Run { session: Arc::clone(session), key, k, opened: 0, packets: 0, bytes: 0 });
    }
    let Some(run) = run else { return Opened::Nothing };
    match run.key.opening().open(k, head, sealed) {
        Ok(len) => {
            run.opened += 1;
            let partial = header.flags & FLAG_PARTIAL_CHECKSUM != 0;
            judge(run, io, sealed.get_mut(..len).unwrap_or_default(), partial)
        }
        Err(OpenError::Replay(_)) => dropped(io, Counter::DropReplay),
        Err(OpenError::Forged) => dropped(io, Counter::DropOpen),
        Err(OpenError::Length) => dropped(io, Counter::DropFrame),
    }
}

/// Judges an opened text.
fn judge(run: &mut Run, io: &mut Io, plain: &mut [u8], partial: bool) -> Opened {
    if plain.first().is_some_and(|first| first >> 4 == 0) {
        return Ping::parse(plain).map_or_else(|| dropped(io, Counter::DropInner), Opened::Ping);
    }
    let Some(inner) = Inner::parse(plain) else { return dropped(io, Counter::DropInner) };
    if !run.session.allows(inner.source) {
        run.session.traffic().spoofed.fetch_add(1, Relaxed);
        return dropped(io, Counter::DropInnerSpoof);
    }
    // A partial checksum of something that has none we know could not be finished by anybody.
    if partial && inner.checksum_offset().is_none() {
        return dropped(io, Counter::DropInner);
    }
    clamp_mss(plain, &inner, io.options.inner_mtu, partial);
    run.packets += 1;
    run.bytes += inner.len as u64;
    Opened::Packet { at: HEADER_LEN, inner, partial }
}

fn dropped(io: &mut Io, reason: Counter) -> Opened {
    io.tally.one(reason);
    Opened::Nothing
}

/// Books a run.
fn finish(run: Option<Run>, io: &mut Io, now: Instant) {
    let Some(run) = run.filter(|run| run.opened > 0) else { return };
    run.session.opened(run.k, run.packets, run.bytes, now);
    io.tally.add(Counter::RxPackets, run.packets);
    io.tally.add(Counter::RxBytes, run.bytes);
    if run.session.proven(run.key.epoch()) {
        io.tell(FromWorker::EpochProven { session: run.session.id(), epoch: run.key.epoch() });
    }
}

/// Sends an answer that stands where its question stood, and is never longer.
fn reply(io: &mut Io, origin: &Origin, datagram: &[u8], len: usize) {
    let Some(answer) = datagram.get(..len) else { return io.tally.one(Counter::DropReplyTooLong) };
    let Some(known) = io.ports.live(origin.socket) else { return io.tally.one(Counter::DropSend) };
    match known.port.send(origin.remote, origin.local, answer) {
        Ok(()) => io.tally.one(Counter::Replies),
        Err(error) => {
            known.judge(&error);
            io.tally.one(Counter::DropSend);
        }
    }
}
