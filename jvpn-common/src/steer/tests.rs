//! What no frame over still maps can show: answers that cannot be written, bindings that will not stand still.

use super::*;
use crate::abi::{
    Binding, Bucket, BucketField, HOP_RESOLVED, Hop, Owner, OwnerEndpoint, PathCounters, ROLE_RELAY, SteeringKeys,
};
use std::cell::{Cell, RefCell};

const SOURCE: Source = Source { address: [1; 16], port: 9 };
const LOCATOR: u64 = 0x100;
const KEYS: SteeringKeys = SteeringKeys { up: [1, 2], down: [3, 4] };

/// One session in slot 0, bound to [`SOURCE`], whose word moves on every load when it is restless.
#[derive(Default)]
struct World {
    config: Config,
    restless: bool,
    no_way: bool,
    path: RefCell<PathCounters>,
    counted: RefCell<Vec<Verdict>>,
}

#[derive(Default)]
struct Restless(bool, Cell<u32>);

impl Session for Restless {
    fn word(&self) -> u64 {
        let seq = if self.0 { self.1.get() } else { 1 };
        self.1.set(seq + 1);
        crate::abi::ActiveWord::new(seq, 0, 1).0
    }
    fn entry(&self, _: u8) -> Binding {
        Binding { address: SOURCE.address, port: SOURCE.port, ..Binding::default() }
    }
    fn generation(&self) -> u32 {
        1
    }
    fn flags(&self) -> u32 {
        0
    }
    fn owner(&self) -> u32 {
        1
    }
}

impl Tables for World {
    type Session = Restless;

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }
    fn locator(&self, locator: u64) -> Option<LocatorEntry> {
        (locator == LOCATOR).then_some(LocatorEntry { slot: 0, generation: 1, k: 0 })
    }
    fn session(&self, _: u32) -> Option<Restless> {
        Some(Restless(self.restless, Cell::new(1)))
    }
    fn keys(&self, _: u32) -> Option<&SteeringKeys> {
        Some(&KEYS)
    }
    fn path(&self, _: u32, _: u32) -> PathCounters {
        *self.path.borrow()
    }
    fn set_path(&self, _: u32, _: u32, path: &PathCounters) {
        *self.path.borrow_mut() = *path;
    }
    fn add(&self, _: u32, _: TrafficField, _: u64) {}
    fn slot_bucket(&self, _: u32, _: BucketField) -> Bucket {
        Bucket::default()
    }
    fn set_slot_bucket(&self, _: u32, _: BucketField, _: &Bucket) {}
    fn bucket(&self, _: u32) -> Bucket {
        Bucket::default()
    }
    fn set_bucket(&self, _: u32, _: &Bucket) {}
    fn owner(&self, _: u32) -> Option<Owner> {
        let v6 = OwnerEndpoint { address: [9; 16], port: 7, ..OwnerEndpoint::default() };
        Some(Owner { alive_until: 10, v6, ..Owner::default() })
    }
    fn hop(&self, _: u16) -> Option<Hop> {
        let hop = Hop { source: [8; 16], ifindex: 3, flags: HOP_RESOLVED, ..Hop::default() };
        (!self.no_way).then_some(hop)
    }
    fn lane(&self) -> u32 {
        0
    }
    fn ticks(&self) -> u64 {
        5
    }
    fn now(&self) -> u64 {
        6
    }
    fn counts_arrivals(&self) -> bool {
        false
    }
    fn count(&self, verdict: Verdict) {
        self.counted.borrow_mut().push(verdict);
    }
}

fn world() -> World {
    let mut config = Config { hz: 250, workers: 1, ..Config::default() };
    config.alive_until[0] = 10;
    World { config, ..World::default() }
}

fn tagged(kind: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut header = Header { kind, epoch: 0, flags: 0, tag: 0, locator: LOCATOR, counter: 1 };
    let body = (kind == Kind::Probe as u8).then_some([0; 6]);
    header.tag = steering_tag(KEYS.up, 1, kind, 0, 0, 0, body.as_ref());
    bytes[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    bytes
}

/// A packet that can be read and nothing else.
struct ReadOnly<'a>(Bytes<'a>);

impl Frame for ReadOnly<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.read(at)
    }
    fn write<const N: usize>(&mut self, _: usize, _: &[u8; N]) -> Option<()> {
        None
    }
    fn shorten(&mut self, len: usize) -> Option<()> {
        self.0.shorten(len)
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_dropped_and_counted_once() {
    for (kind, port) in [(Kind::Probe, SOURCE.port), (Kind::Data, 1)] {
        let world = world();
        let mut bytes = tagged(kind as u8, 100);
        let source = Source { port, ..SOURCE };
        let judgement = datagram(&mut ReadOnly(Bytes::new(&mut bytes)), &source, &world);
        assert_eq!(judgement.verdict, Verdict::WriteFailed);
        assert_eq!(*world.counted.borrow(), [Verdict::WriteFailed]);
    }
}

#[test]
fn a_binding_that_moves_during_both_reads_is_torn_and_nobody_is_answered() {
    for kind in [Kind::Probe, Kind::Data] {
        let world = World { restless: true, ..world() };
        let mut bytes = tagged(kind as u8, 100);
        let before = bytes.clone();
        assert_eq!(datagram(&mut Bytes::new(&mut bytes), &SOURCE, &world).verdict, Verdict::Torn);
        assert_eq!(bytes, before);
    }
}

#[test]
fn a_worker_learns_slot_and_transport_and_does_not_count_what_the_kernel_counted() {
    let world = world();
    let judgement = datagram(&mut Bytes::new(&mut tagged(4, 60)), &SOURCE, &world);
    assert_eq!(judgement.verdict, Verdict::Data);
    assert_eq!((judgement.entry.slot, judgement.entry.generation, judgement.header.counter), (0, 1, 1));
    assert_eq!(*world.path.borrow(), PathCounters::default());
}

#[test]
fn a_notice_is_cut_to_its_length_and_an_echo_keeps_its_questions() {
    let world = world();
    for (kind, port, len) in [(Kind::Probe, SOURCE.port, 333), (Kind::Data, 1, 72)] {
        let mut bytes = tagged(kind as u8, 333);
        let mut view = Bytes::new(&mut bytes);
        datagram(&mut view, &Source { port, ..SOURCE }, &world);
        assert_eq!(view.len(), len);
    }
}

/// A relay's world, and data from the bound client in a frame.
fn relayed() -> (World, Vec<u8>) {
    let mut world = world();
    (world.config.role, world.config.layout, world.config.port) = (ROLE_RELAY, LAYOUT_HASH, 51_821);
    let payload = tagged(Kind::Data as u8, 100);
    let mut frame = vec![0; 62];
    frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
    frame[18..22].copy_from_slice(&[0, 108, 17, 64]);
    frame[22..38].copy_from_slice(&SOURCE.address);
    frame[54..58].copy_from_slice(&[0, 9, 0xca, 0x6d]);
    frame[58..62].copy_from_slice(&[0, 108, 1, 2]);
    frame.extend(payload);
    (world, frame)
}

struct NoRoute;

impl Route for NoRoute {
    fn ingress(&self) -> u32 {
        3
    }
    fn resolve(&self, _: &Hop, _: Address, _: u16) -> Option<Exit> {
        None
    }
}

#[test]
fn a_frame_that_cannot_be_rewritten_is_dropped_and_counted_once() {
    let (world, frame) = relayed();
    let mut bytes = frame.clone();
    let relayed = relay(&mut ReadOnly(Bytes::new(&mut bytes)), &world, &NoRoute);
    assert_eq!((relayed.judgement.verdict, relayed.ifindex), (Verdict::WriteFailed, 0));
    assert_eq!(*world.counted.borrow(), [Verdict::WriteFailed]);
    let relayed = relay(&mut Bytes::new(&mut bytes), &world, &NoRoute);
    assert_eq!((relayed.judgement.verdict, relayed.ifindex), (Verdict::ForwardedUp, 3));
    assert_eq!(bytes[62..], frame[62..]);
}

#[test]
fn a_binding_that_moves_during_both_reads_is_torn_in_a_relay_too() {
    let (world, frame) = relayed();
    let world = World { restless: true, ..world };
    let mut bytes = frame.clone();
    assert_eq!(relay(&mut Bytes::new(&mut bytes), &world, &NoRoute).judgement.verdict, Verdict::Torn);
    assert_eq!(bytes, frame);
}

#[test]
fn without_a_way_out_a_frame_is_passed_on_and_the_relays_process_sends_nothing() {
    let (world, frame) = relayed();
    let world = World { no_way: true, ..world };
    let mut bytes = frame.clone();
    assert_eq!(relay(&mut Bytes::new(&mut bytes), &world, &NoRoute).judgement.verdict, Verdict::NoNeighbour);
    assert_eq!(bytes, frame);
    let passed = relay_datagram(&mut Bytes::new(&mut bytes[62..]), &SOURCE, &world);
    assert_eq!((passed.judgement.verdict, passed.forward), (Verdict::NoNeighbour, None));
    let world = World { no_way: false, ..world };
    let passed = relay_datagram(&mut Bytes::new(&mut bytes[62..]), &SOURCE, &world);
    assert_eq!(passed.forward, Some(Way { hop: 0, to: Source { address: [9; 16], port: 7 } }));
}
