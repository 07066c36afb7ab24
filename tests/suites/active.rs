//! The active word under stress: a writer that jumps without pause, readers that must never see a mixture.
//!
//! Owns the race and its two sabotaged twins, which must be caught: without them a clean run would prove
//! nothing. A run counts only when it saw enough changes and enough retries.

// A test that unwraps fails at the right line, helpers included.
#![allow(clippy::unwrap_used)]

use jvpn_common::abi::{ActiveWord, Binding, ROLE_GATEWAY, SESSION_WORDS, WORD_ACTIVE, binding_place, mapped};
use jvpn_common::ids::{Generation, Incarnation, Locator, OwnerEpoch, SessionId, Slot, TransportIndex};
use jvpn_common::mapop::MapOp;
use jvpn_common::steer::{Session, Tables, bind};
use jvpn_common::time::{Duration, Instant};
use jvpn_common::verdict::Verdict;
use jvpn_ctl::dataplane::kernel::Kernel;
use jvpn_ctl::dataplane::{DataPlane, Settings, WorkerTables};
use jvpn_tests::bench::program::{GIVEN_UP, Measured, RACE, RACE_BLIND, RETIRED, RETRIED, SEEN, Shape, TORN, Writes};
use jvpn_tests::packet::{self, KEYS};
use jvpn_tests::packet_kernel::Laboratory;
use jvpn_tests::size;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration as HostDuration, Instant as Clock};

/// What a reader must have lived through.
const CHANGES_MIN: u64 = 1_000_000;
const RETRIES_MIN: u64 = 100_000;
/// After this the machine was not able to make the race happen, which is a failure too.
const PATIENCE: HostDuration = HostDuration::from_secs(120);
/// All of it so many times at the long size.
const LONG: u32 = 10;

fn lived_through(seen: &Seen) -> bool {
    let times = u64::from(size::of(1, LONG));
    seen.changes >= times * CHANGES_MIN && seen.retries >= times * RETRIES_MIN
}

/// The races need both processors for themselves.
static ALONE: Mutex<()> = Mutex::new(());

fn stay_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).expect("two processors: the race needs them");
}

/// One slot as the product lays it out and touches it.
struct Words([AtomicU64; SESSION_WORDS]);

impl Session for Words {
    fn word(&self) -> u64 {
        self.0[WORD_ACTIVE].load(Ordering::Acquire)
    }
    fn entry(&self, entry: u8) -> Binding {
        match binding_place(entry) {
            Some(at) => Binding::from_words(std::array::from_fn(|i| self.0[at + i].load(Ordering::Acquire))),
            None => Binding::default(),
        }
    }
    fn generation(&self) -> u32 {
        1
    }
    fn flags(&self) -> u32 {
        0
    }
}

/// A binding every part of which tells its number.
fn numbered(seq: u32) -> Binding {
    let [a, b, ..] = seq.to_le_bytes();
    let short = u16::from_le_bytes([a, b]);
    Binding {
        address: [seq.to_le_bytes(); 4].concat().try_into().expect("16 bytes"),
        port: short,
        gateway: short,
        k: short,
        mtu: short,
        drain_until: u64::from(seq),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Sabotage {
    None,
    NoSecondLook,
    ActiveAsSpare,
}

#[derive(Debug, Default)]
struct Seen {
    changes: u64,
    retries: u64,
    dropped: u64,
    torn: u64,
}

fn race(sabotage: Sabotage) -> Seen {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let slot = Words(std::array::from_fn(|_| AtomicU64::new(0)));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            stay_on(0);
            let mut word = ActiveWord::default();
            while !done.load(Ordering::Relaxed) {
                let seq = word.seq().wrapping_add(1);
                let entry = match sabotage {
                    Sabotage::ActiveAsSpare if word.active() != 0 => word.active(),
                    _ => word.spare(),
                };
                let at = binding_place(entry).expect("1 to 3");
                for (i, value) in numbered(seq).to_words().into_iter().enumerate() {
                    slot.0[at + i].store(value, Ordering::Release);
                }
                word = word.successor(0, entry);
                slot.0[WORD_ACTIVE].store(word.0, Ordering::Release);
            }
        });
        stay_on(1);
        let seen = read_on(&slot, sabotage);
        done.store(true, Ordering::Relaxed);
        seen
    })
}

fn read_on(slot: &Words, sabotage: Sabotage) -> Seen {
    let mut seen = Seen::default();
    let mut last = 0;
    let start = Clock::now();
    loop {
        let bound = if sabotage == Sabotage::NoSecondLook {
            let word = ActiveWord(slot.word());
            Some((word, slot.entry(word.active())))
        } else {
            // What `bind::read` does, with the retry counted.
            let first = bind::read_once(slot);
            seen.retries += u64::from(first.is_none());
            first.or_else(|| bind::read_once(slot)).map(|bound| (bound.word, bound.active))
        };
        match bound {
            None => seen.dropped += 1,
            Some((word, binding)) if word.active() != 0 => {
                seen.changes += u64::from(word.seq() != last);
                last = word.seq();
                seen.torn += u64::from(binding != numbered(word.seq()));
            }
            Some(_) => {}
        }
        let enough = match sabotage {
            Sabotage::None => lived_through(&seen),
            _ => seen.torn > 0,
        };
        if enough || (seen.changes.is_multiple_of(1_024) && start.elapsed() > PATIENCE * size::of(1, LONG)) {
            return seen;
        }
    }
}

#[test]
fn no_reader_sees_a_mixture_in_a_million_jumps() {
    let seen = race(Sabotage::None);
    println!("{seen:?}");
    assert!(lived_through(&seen), "no race happened: {seen:?}");
    assert_eq!(seen.torn, 0, "{seen:?}");
}

#[test]
fn without_the_second_look_a_mixture_is_seen() {
    let seen = race(Sabotage::NoSecondLook);
    assert!(seen.torn > 0, "the sabotage was not caught: {seen:?}");
}

#[test]
fn with_the_active_entry_as_the_spare_one_a_mixture_is_seen() {
    let seen = race(Sabotage::ActiveAsSpare);
    assert!(seen.torn > 0, "the sabotage was not caught: {seen:?}");
}

/// A session that jumps between two clients for as long as `meanwhile` takes. How often it jumped.
fn jumping<T: Send>(plane: &mut Kernel, meanwhile: impl FnOnce() -> T + Send) -> (T, u64) {
    let clients = [FIRST, SECOND].map(client);
    jumping_to(plane, |seq| clients[seq as usize % 2], meanwhile)
}

/// The same to wherever the number of the word says.
fn jumping_to<T: Send>(
    plane: &mut Kernel,
    binding: impl Fn(u32) -> Binding,
    meanwhile: impl FnOnce() -> T + Send,
) -> (T, u64) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let result = scope.spawn(|| {
            stay_on(1);
            let result = meanwhile();
            done.store(true, Ordering::Relaxed);
            result
        });
        stay_on(0);
        let mut jumps = 0_u64;
        let mut word = plane.word(SLOT);
        while !done.load(Ordering::Relaxed) {
            let entry = word.spare();
            word = word.successor(0, entry);
            let binding = binding(word.seq());
            plane.apply(&MapOp::Binding { slot: SLOT, entry, binding }).expect("a spare entry");
            plane.apply(&MapOp::Activate { slot: SLOT, word }).expect("a word");
            jumps += 1;
        }
        (result.join().expect("the reader finished"), jumps)
    })
}

const SLOT: Slot = Slot(2);
const LOCATOR: u64 = 0xabcd_0000;
const FIRST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1_111);
const SECOND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 2_222);

fn client(address: SocketAddr) -> Binding {
    Binding { address: mapped(address.ip()), port: address.port(), ..Binding::default() }
}

fn plane(laboratory: &Laboratory) -> Kernel {
    let mut plane = Kernel::open(laboratory.pins()).expect("the maps open");
    plane.configure(&Settings {
        role: ROLE_GATEWAY,
        port: packet::PORT,
        incarnation: Incarnation(1),
        owner_epoch: OwnerEpoch(1),
        workers: 1,
        bucket_seed: [1, 2],
        handshake_rate: 0,
        handshake_total_rate: 0,
    });
    plane.shared().set_alive(0, Duration::from_secs(3_600));
    plane.apply(&installation()).expect("an empty slot");
    plane
}

fn installation() -> MapOp {
    MapOp::Install {
        slot: SLOT,
        generation: Generation(1),
        keys: KEYS,
        locators: vec![(TransportIndex(0), Locator(LOCATOR))],
        pending: false,
        session: SessionId([1; 16]),
    }
}

#[test]
fn the_kernel_program_never_accepts_one_clients_address_with_the_others_port() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let laboratory = Laboratory::new(0, 0);
    let mut plane = plane(&laboratory);
    let data = packet::data(LOCATOR, 0, 1, 40);
    // Short of 72 bytes no notice is written, so the frame stays the same in every repetition.
    let frame = |address: SocketAddr, port: SocketAddr| {
        packet::frame(SocketAddr::new(address.ip(), port.port()), packet::GATEWAY_V4, false, &data)
    };
    let mixtures = [frame(FIRST, SECOND), frame(SECOND, FIRST)];
    let turns = size::of(60, 600);
    let ((), jumps) = jumping(&mut plane, || {
        for frame in mixtures.iter().cycle().take(turns) {
            let _ = laboratory.time(frame, 50_000);
        }
    });
    let mixed = plane.verdicts().expect("VERDICTS");
    let ((), more) = jumping(&mut plane, || {
        let _ = laboratory.time(&frame(FIRST, FIRST), 500_000);
    });
    let verdicts = plane.verdicts().expect("VERDICTS");
    let whole = verdicts.kernel(Verdict::Data);
    let torn = verdicts.kernel(Verdict::Torn);
    println!(
        "{jumps} + {more} jumps, {turns} × 50,000 + 500,000 packets, {torn} torn, {whole} accepted from a whole client"
    );
    assert_eq!(mixed.kernel(Verdict::Data), 0, "a mixture was accepted");
    assert_eq!(mixed.kernel(Verdict::NotBound) + mixed.kernel(Verdict::Torn), turns as u64 * 50_000);
    assert!(jumps > 100_000 && whole > 1_000 && verdicts.kernel(Verdict::NotBound) > mixed.kernel(Verdict::NotBound));
}

/// What the kernel's reader counts in its own slot.
#[derive(Debug)]
struct Counted {
    seen: u64,
    retried: u64,
    given_up: u64,
    torn: u64,
    retired: u64,
}

impl Counted {
    fn of(measured: &mut Measured) -> Self {
        let words = measured.counted().unwrap();
        let [seen, retried, given_up, torn, retired] = [SEEN, RETRIED, GIVEN_UP, TORN, RETIRED].map(|at| words[at]);
        Self { seen, retried, given_up, torn, retired }
    }
}

/// Runs a reading program beside a session that jumps as fast as it can, until `enough` or patience ends.
fn kernel_race(
    program: &'static str,
    patience: HostDuration,
    enough: impl Fn(&Counted) -> bool + Sync,
) -> (Counted, u64) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let shape = Shape { slots: 8, rows: 1, writes: Writes::Nothing, drop: true };
    let mut measured = Measured::load(shape, ROLE_GATEWAY, &[0; 64]).unwrap();
    let mut plane = Kernel::open(measured.pins()).unwrap();
    plane.apply(&installation()).unwrap();
    // The reader compares with what the word's number says, and finds the first binding before the first jump.
    jumping_to(&mut plane, numbered, || {
        let start = Clock::now();
        loop {
            let _ = measured.run(program, 20_000, false).unwrap();
            let counted = Counted::of(&mut measured);
            if enough(&counted) || start.elapsed() > patience {
                return counted;
            }
        }
    })
}

/// At the long size until 10⁹ reads or a minute, whichever is first; always until enough retries.
#[test]
fn the_kernel_program_reads_no_mixture_and_no_binding_that_was_replaced() {
    let (least, reads) = size::of((HostDuration::ZERO, 0), (HostDuration::from_secs(60), 1_000_000_000));
    let start = Clock::now();
    let long_enough = |counted: &Counted| counted.seen >= reads || start.elapsed() >= least;
    let (counted, jumps) =
        kernel_race(RACE, PATIENCE, |counted| counted.retried >= RETRIES_MIN && long_enough(counted));
    println!("{counted:?}, {jumps} jumps");
    assert!(counted.retried >= RETRIES_MIN, "no race happened: {counted:?}, {jumps} jumps");
    assert_eq!((counted.torn, counted.retired), (0, 0), "{counted:?}");
    assert!(counted.seen > counted.given_up * 100, "what changed twice is given up, and that is rare: {counted:?}");
}

#[test]
fn a_kernel_program_without_the_second_look_reads_mixtures() {
    let (counted, jumps) = kernel_race(RACE_BLIND, PATIENCE, |counted| counted.torn > 0);
    println!("{counted:?}, {jumps} jumps");
    assert!(counted.torn > 0, "the sabotage was not caught: {counted:?}, {jumps} jumps");
    assert!(counted.torn < counted.seen, "most reads meet no jump: {counted:?}");
}

/// Frames in pages of their own, in batches as a driver brings them, through the product's program.
#[test]
fn live_frames_from_a_mixture_or_a_retired_binding_never_pass_while_the_session_jumps() {
    const RETIRED_CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)), 7_777);
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let laboratory = Laboratory::new(0, 0);
    let mut plane = plane(&laboratory);
    let word = plane.word(SLOT);
    let retired = [
        MapOp::Binding { slot: SLOT, entry: word.spare(), binding: client(RETIRED_CLIENT) },
        MapOp::Activate { slot: SLOT, word: word.successor(0, word.spare()) },
    ];
    plane.apply_all(&retired).expect("a spare entry");
    let data = packet::data(LOCATOR, 0, 1, 40);
    let frame = |address: SocketAddr, port: SocketAddr| {
        packet::frame(SocketAddr::new(address.ip(), port.port()), packet::GATEWAY_V4, false, &data)
    };
    let _ = laboratory.run(&frame(RETIRED_CLIENT, RETIRED_CLIENT));
    let before = plane.verdicts().expect("VERDICTS");
    assert_eq!(before.kernel(Verdict::Data), 1, "it was bound");
    let refused = [frame(FIRST, SECOND), frame(SECOND, FIRST), frame(RETIRED_CLIENT, RETIRED_CLIENT)];
    let turns = size::of(60, 600);
    // The first jump away from the retired binding is made before the first frame comes.
    let (batches, jumps) = jumping_after_one(&mut plane, || {
        let batch = |frame: &Vec<u8>| laboratory.live(frame, 50_000);
        refused.iter().cycle().take(turns).for_each(batch);
        turns as u64
    });
    let refusals = plane.verdicts().expect("VERDICTS");
    assert_eq!(refusals.kernel(Verdict::Data), 1, "a mixture or a retired binding was accepted");
    let (bound, torn) = (refusals.kernel(Verdict::NotBound), refusals.kernel(Verdict::Torn));
    assert_eq!(bound + torn, batches * 50_000);
    let ((), more) = jumping(&mut plane, || laboratory.live(&frame(FIRST, FIRST), 200_000));
    let after = plane.verdicts().expect("VERDICTS");
    let whole = after.kernel(Verdict::Data) - 1;
    println!("{jumps} + {more} jumps, {} live frames refused, {torn} torn, {whole} accepted", bound + torn);
    assert!(jumps > 100_000 && whole > 1_000, "no race happened");
}

/// As [`jumping`], but `meanwhile` begins after the first jump.
fn jumping_after_one<T: Send>(plane: &mut Kernel, meanwhile: impl FnOnce() -> T + Send) -> (T, u64) {
    let word = plane.word(SLOT);
    let first = [
        MapOp::Binding { slot: SLOT, entry: word.spare(), binding: client(FIRST) },
        MapOp::Activate { slot: SLOT, word: word.successor(0, word.spare()) },
    ];
    plane.apply_all(&first).expect("a spare entry");
    jumping(plane, meanwhile)
}

#[test]
fn a_worker_reads_the_same_word_as_the_kernel() {
    fn clock() -> Instant {
        Instant(1)
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let laboratory = Laboratory::new(0, 0);
    let mut plane = plane(&laboratory);
    let tables = WorkerTables::new(plane.shared().clone(), clock, true, 0);
    let (seen, jumps) = jumping(&mut plane, || {
        let mut seen = [0_u64; 3];
        for _ in 0..2_000_000 {
            let turn = tables.turn(Duration::ZERO);
            let batch = tables.batch(&turn);
            let session = batch.session(SLOT.0).expect("a slot");
            match bind::read(&session).and_then(|bound| bound.active().copied()) {
                None => seen[2] += 1,
                Some(binding) if binding == client(FIRST) => seen[0] += 1,
                Some(binding) => {
                    assert_eq!(binding, client(SECOND), "a mixture");
                    seen[1] += 1;
                }
            }
        }
        seen
    });
    println!("{jumps} jumps, first {}, second {}, unread {}", seen[0], seen[1], seen[2]);
    assert!(jumps > 100_000 && seen[0] > 1_000 && seen[1] > 1_000, "{jumps} jumps, {seen:?}");
}
