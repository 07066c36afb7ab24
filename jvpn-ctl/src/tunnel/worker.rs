//! The loop of one worker: one thread, some sockets, one TUN queue.
//!
//! Owns the order of things in a turn and the bounds of each. Must never sleep while work is known, nor let
//! one direction starve the other.

use std::io;
use std::io::IoSlice;
use std::sync::Arc;

use jvpn_common::client::HoldQueue;
use jvpn_common::time::{Duration, Instant};

use super::batch::Batch;
use super::coalesce::{Coalescer, Sink};
use super::counters::{Counter, Counters, Tally};
use super::icmp::{Bucket, TunnelAddresses};
use super::inbound;
use super::inner::INNER_MAX;
use super::outbound;
use super::pace::Pace;
use super::ping::Ping;
use super::ports::Ports;
use super::queue::{FromWorker, Inbox, ToController, ToWorker, WorkerHandle, to_worker};
use super::role::Role;
use super::tun::Tun;
use super::vnet::VNET_LEN;
use crate::runtime::clock::boot;

/// Bytes received from one socket, or read from the TUN, before the other has its turn: below a millisecond of work.
const TURN_BYTES: usize = 256 << 10;
/// The same in reads: small packets that make up one send, or one write.
const TURN_READS: usize = 64;
/// The same in datagrams: four of the longest trains the kernel hands over.
const TURN_PACKETS: usize = 256;
/// Datagrams of as many bytes that the kernel handed over together wait for no others.
const GATHERED: usize = INNER_MAX / 2;
/// Room for a group that waits to be written and for what may join it.
const ROOM: usize = 2 * (INNER_MAX + VNET_LEN);
/// Longest sleep: a third of what a worker's lease may lapse after.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// Halves the idle latency where nobody else needs the processor; more would cost others' time.
const SPIN: Duration = Duration::from_micros(50);
/// One for the worker, one for interrupts and the kernel's receive path, two for everybody else.
const SPIN_PROCESSORS: usize = 4;

/// What a worker is told once.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Inner MTU, as the TUN has it.
    pub inner_mtu: u16,
    /// From where ICMP errors come.
    pub addresses: TunnelAddresses,
    /// How long to look for more work before sleeping; not at all where processors are few.
    pub spin: Duration,
    /// Leave inner checksums that the kernel left partial to the peer's kernel.
    pub carry_checksum: bool,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            inner_mtu: 1_412,
            addresses: TunnelAddresses::default(),
            spin: spin_for(std::thread::available_parallelism().map_or(1, usize::from)),
            carry_checksum: true,
        }
    }
}

/// How long a worker on a machine of so many processors looks for more work before it sleeps. With processors to
/// spare 50 µs save a wake-up. On two, the worker spins where the kernel's half of the same packet wants to run:
/// measured there, idle round trips of 80 µs instead of 43, and a tenth less throughput.
fn spin_for(processors: usize) -> Duration {
    if processors >= SPIN_PROCESSORS { SPIN } else { Duration::ZERO }
}

/// Everything of a worker but its role and its receive buffers.
#[derive(Debug)]
pub(super) struct Io {
    pub tun: Tun,
    pub ports: Ports,
    pub batch: Batch,
    pub tally: Tally,
    pub options: WorkerOptions,
    pub icmp_bucket: Bucket,
    controller: ToController,
}

impl Io {
    /// Tells the controller, or counts that it does not listen.
    pub(super) fn tell(&mut self, message: FromWorker) {
        if !self.controller.0.send(message) {
            self.tally.one(Counter::DropQueueFull);
        }
    }

    /// The TUN as a place to write groups to.
    pub(super) fn sink(&mut self) -> TunSink<'_> {
        TunSink { tun: &self.tun, tally: &mut self.tally }
    }
}

/// The TUN as a place to write groups to.
#[derive(Debug)]
pub(super) struct TunSink<'a> {
    pub tun: &'a Tun,
    pub tally: &'a mut Tally,
}

impl Sink for TunSink<'_> {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.tally.one(Counter::TunWrites);
        self.tun.write(parts)
    }

    fn fell_back(&mut self) {
        self.tally.one(Counter::GsoWriteFallback);
    }

    fn dropped(&mut self) {
        self.tally.one(Counter::DropTunWrite);
    }
}

/// One worker.
#[derive(Debug)]
pub struct Worker<R> {
    role: R,
    io: Io,
    inbox: Inbox<ToWorker>,
    counters: Arc<Counters>,
    merge: Coalescer,
    buffer: Vec<u8>,
    vnet: [u8; VNET_LEN],
    held: HoldQueue,
    turn: u32,
    /// The turn before found work.
    busy: bool,
    /// When the last turn began that took in all that had come.
    emptied: Instant,
    pace: Pace,
    /// The inbox's descriptor was ready: it is read even if nobody says that it was rung.
    called: bool,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Worked,
    Idle,
    Stop,
}

impl<R: Role> Worker<R> {
    /// A worker over one TUN queue; sockets are added through the handle.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new(
        role: R,
        tun: Tun,
        controller: ToController,
        options: WorkerOptions,
    ) -> io::Result<(Self, WorkerHandle)> {
        let (sender, inbox) = to_worker()?;
        let io = Io {
            tun,
            ports: Ports::default(),
            batch: Batch::default(),
            tally: Tally::default(),
            options,
            icmp_bucket: Bucket::default(),
            controller,
        };
        let worker = Self {
            role,
            io,
            inbox,
            counters: Arc::default(),
            merge: Coalescer::default(),
            buffer: vec![0; ROOM],
            vnet: [0; VNET_LEN],
            held: HoldQueue::default(),
            turn: 0,
            busy: false,
            emptied: boot(),
            pace: Pace::default(),
            called: false,
        };
        Ok((worker, WorkerHandle(sender)))
    }

    /// The worker's published counters.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When the TUN is gone, or the kernel cannot poll.
    pub fn run(mut self) -> io::Result<()> {
        let mut idle_since = None;
        loop {
            let now = boot();
            match self.turn(now)? {
                Turn::Stop => return Ok(()),
                Turn::Worked => idle_since = None,
                Turn::Idle if self.rests(now) => self.pace.rest(|| self.io.controller.is_behind()),
                Turn::Idle if now.since(*idle_since.get_or_insert(now)) < self.io.options.spin => {
                    std::hint::spin_loop();
                }
                Turn::Idle => self.sleep()?,
            }
        }
    }

    /// Whether what comes may gather for a moment, since all of it is for the controller.
    fn rests(&mut self, now: Instant) -> bool {
        let counted = |counter| self.io.tally.value(counter);
        let packets = counted(Counter::RxPackets) + counted(Counter::TxPackets);
        let control = counted(Counter::ToController);
        self.pace.rests(now, [control, packets])
    }

    /// Does at `now` what there is to do, without waiting for more.
    pub(super) fn turn(&mut self, now: Instant) -> io::Result<Turn> {
        self.turn = self.turn.wrapping_add(1);
        self.io.tally.one(Counter::Turns);
        self.role.begin(now, now.since(self.emptied));
        if std::mem::take(&mut self.called) || self.inbox.rung() {
            let more = self.commands(now);
            self.io.tally.publish(&self.counters);
            if !more {
                return Ok(Turn::Stop);
            }
        }
        self.busy = self.receive(now) | self.send(now)?;
        self.reap();
        if !self.busy {
            return Ok(Turn::Idle);
        }
        self.io.tally.publish(&self.counters);
        Ok(Turn::Worked)
    }

    /// Carries out commands; false: stop.
    fn commands(&mut self, now: Instant) -> bool {
        self.inbox.answer();
        while let Some(command) = self.inbox.next() {
            match command {
                ToWorker::AddSocket(id, port) => self.io.ports.add(id, port),
                ToWorker::RemoveSocket(id) => self.io.ports.remove(id),
                ToWorker::Ping(session, id) => {
                    if let Some(route) = self.role.route_of(session) {
                        outbound::send_ping::<R>(&route, &mut self.io, Ping::Ask(id), now);
                    }
                }
                ToWorker::Stop => return false,
            }
        }
        true
    }

    /// Receives from every socket that is due; says whether anything was there.
    fn receive(&mut self, now: Instant) -> bool {
        let (turn, busy) = (self.turn, self.busy);
        let (mut worked, mut emptied) = (false, true);
        for place in 0..self.io.ports.len() {
            if self.io.ports.is_due(place, turn, busy) {
                let (received, all) = self.receive_from(place, now);
                worked |= received > 0;
                emptied &= all;
            } else {
                emptied &= !self.io.ports.is_live(place);
            }
        }
        if emptied {
            self.emptied = now;
        }
        worked
    }

    /// Receives from one socket; how many batches, and whether that was all. Packets of one flow become one write for as long
    /// as more of them wait.
    fn receive_from(&mut self, place: usize, now: Instant) -> (usize, bool) {
        let Self { role, io, merge, buffer, busy, .. } = self;
        let (mut round, mut packets, mut at, mut bytes) = (0, 0, 0, 0);
        let all = loop {
            let free = buffer.get_mut(at..).unwrap_or_default();
            match io.ports.receive(place, round == 0, free) {
                Ok(Some((id, received))) => {
                    inbound::batch(role, io, merge, id, &received, (buffer, at), now);
                    round += 1;
                    packets += received.len.div_ceil(received.stride);
                    at += received.len;
                    bytes += received.len;
                    // Nothing may stand behind what woke the worker, and what the kernel gathered is large enough.
                    let alone = (round == 1 && !*busy) || received.len > GATHERED;
                    if alone || buffer.len() - at < INNER_MAX {
                        merge.flush(buffer, &mut io.sink());
                    }
                }
                Ok(None) => break true,
                Err(_) => {
                    // Errors of earlier datagrams (ICMP); each is reported once.
                    io.tally.one(Counter::SocketErrors);
                    break false;
                }
            }
            if merge.is_empty() {
                at = 0;
            }
            if round == TURN_READS || packets >= TURN_PACKETS || bytes > TURN_BYTES {
                break false;
            }
        };
        merge.flush(buffer, &mut io.sink());
        (round, all)
    }

    /// Reads the TUN and sends what it held; says whether anything was there.
    fn send(&mut self, now: Instant) -> io::Result<bool> {
        if self.role.holds() {
            return self.hold(now);
        }
        let mut worked = self.release(now);
        let mut bytes = 0;
        for _ in 0..TURN_READS {
            let Some(len) = self.io.tun.read(&mut self.vnet, &mut self.buffer)? else { break };
            worked = true;
            let Some(packet) = self.buffer.get_mut(..len) else { break };
            outbound::super_packet(&mut self.role, &mut self.io, &self.vnet, packet, now);
            bytes += len;
            if bytes > TURN_BYTES {
                break;
            }
        }
        self.io.batch.send(&mut self.io.ports, &mut self.io.tally);
        Ok(worked)
    }

    /// Keeps what the TUN has for the transport to come; says whether anything was there.
    fn hold(&mut self, now: Instant) -> io::Result<bool> {
        let dropped = self.held.dropped();
        let mut worked = false;
        for _ in 0..TURN_READS {
            let Some(len) = self.io.tun.read(&mut self.vnet, &mut self.buffer)? else { break };
            worked = true;
            self.held.push(now, &[&self.vnet, self.buffer.get(..len).unwrap_or(&[])]);
        }
        self.io.tally.add(Counter::DropHeld, self.held.dropped() - dropped);
        Ok(worked)
    }

    /// Sends what was kept and is still worth it, oldest first; says whether anything was there.
    fn release(&mut self, now: Instant) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let dropped = self.held.dropped();
        while let Some(len) = self.held.pop(now, &mut self.buffer) {
            let Some((vnet, rest)) = self.buffer.split_first_chunk_mut::<VNET_LEN>() else { break };
            let Some(packet) = rest.get_mut(..len.saturating_sub(VNET_LEN)) else { break };
            outbound::super_packet(&mut self.role, &mut self.io, vnet, packet, now);
        }
        self.io.tally.add(Counter::DropHeld, self.held.dropped() - dropped);
        true
    }

    /// Tells the controller of sockets that carry nothing any more.
    fn reap(&mut self) {
        let Io { ports, controller, tally, .. } = &mut self.io;
        let tell = |socket, port: &Arc<_>| controller.0.send(FromWorker::SocketLost { socket, port: Arc::clone(port) });
        tally.add(Counter::SocketsLost, ports.reap(tell));
    }

    /// Sleeps until a descriptor is ready, or the lease wants refreshing.
    pub(super) fn sleep(&mut self) -> io::Result<()> {
        self.io.tally.publish(&self.counters);
        self.called = self.io.ports.wait(&self.io.tun, &self.inbox, SLEEP_MAX)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jvpn_common::time::nanos;

    use super::*;

    #[test]
    fn a_small_machine_does_not_spin() {
        assert_eq!([1, 2, 3, 4, 64].map(spin_for).map(nanos), [0, 0, 0, 50_000, 50_000]);
    }
}
