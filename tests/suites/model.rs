//! Every way in which one reader and one writer of a session's slot can interleave.
//!
//! Owns the model of the seq-read protocol: the product's own `steer::bind::read` over words that a writer changes
//! between any two loads, as the controller writes them. On x86-64 loads and stores of one processor are seen in order,
//! so these are all there are; what weaker ordering allows, loom tries in the second half. The sabotaged twins must
//! be caught: without them a clean run would prove nothing.

// A test that unwraps fails at the right line, helpers included.
#![allow(clippy::unwrap_used)]

use jvpn_common::abi::{ActiveWord, Binding};
use jvpn_common::steer::Session;
use jvpn_common::steer::bind::{self, Bound};
use jvpn_tests::size;
use std::cell::{Cell, RefCell};

/// Words of an entry that the model stores and loads in one step.
type Group = &'static [usize];
/// Each word on its own, as it is in truth.
const SINGLE: &[Group] = &[&[0], &[1], &[2], &[3]];
/// The deadline and the rest: fewer steps, so that two entries can be looked at.
const COARSE: &[Group] = &[&[0, 1, 2], &[3]];

/// One store of the writer: where, what.
#[derive(Clone, Copy, Debug)]
enum Store {
    Word(ActiveWord),
    /// Some of the four words of an entry at once.
    Part(u8, Group, [u64; 4]),
}

/// A slot: the active word and three entries of four words.
#[derive(Clone, Debug, Default, PartialEq)]
struct Slot {
    word: ActiveWord,
    entries: [[u64; 4]; 3],
}

impl Slot {
    fn apply(&mut self, store: Store) {
        match store {
            Store::Word(word) => self.word = word,
            Store::Part(entry, group, words) => {
                group.iter().for_each(|&at| self.entries[usize::from(entry) - 1][at] = words[at]);
            }
        }
    }
}

/// A binding every word of which tells its number, but for the deadline.
fn numbered(seq: u32) -> Binding {
    let [a, b, c, d] = seq.to_be_bytes();
    let short = u16::from_be_bytes([c, d]);
    let address = [a, b, c, d].repeat(4).try_into().unwrap();
    Binding { address, port: short, gateway: short, k: short, mtu: short, drain_until: 0 }
}

/// Deadline of the binding with a number, once it drains.
fn deadline(seq: u32) -> u64 {
    1_000 + u64::from(seq)
}

/// What is wrong with the writer or the reader.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sabotage {
    None,
    NoSecondLook,
    ActiveAsSpare,
    WordFirst,
}

/// The stores of `jumps` jumps, and the slot before them.
fn stores(jumps: u32, drains: bool, groups: &[Group], sabotage: Sabotage) -> (Slot, Vec<Store>) {
    let mut slot = Slot::default();
    let mut word = ActiveWord::new(1, 0, 1);
    slot.entries[0] = numbered(1).to_words();
    slot.word = word;
    let mut list = Vec::new();
    for seq in 2..2 + jumps {
        let entry = if sabotage == Sabotage::ActiveAsSpare { word.active() } else { word.spare() };
        let next = word.successor(if drains { word.active() } else { 0 }, entry);
        let words = numbered(seq).to_words();
        if sabotage == Sabotage::WordFirst {
            list.push(Store::Word(next));
        }
        list.extend(groups.iter().map(|group| Store::Part(entry, group, words)));
        if drains {
            list.push(Store::Part(word.active(), &[3], [deadline(word.seq()); 4]));
        }
        if sabotage != Sabotage::WordFirst {
            list.push(Store::Word(next));
        }
        word = next;
    }
    (slot, list)
}

/// The slot as one schedule shows it: before load number n the writer does `schedule[n]` stores.
struct Run<'a> {
    slot: RefCell<Slot>,
    stores: &'a [Store],
    groups: &'a [Group],
    done: Cell<usize>,
    loads: Cell<usize>,
    schedule: &'a RefCell<Vec<usize>>,
    /// Words there were while the reader looked, oldest first.
    words: RefCell<Vec<ActiveWord>>,
}

impl Run<'_> {
    /// Lets the writer go on as far as the schedule says before this load.
    fn load(&self) {
        let at = self.loads.replace(self.loads.get() + 1);
        let mut schedule = self.schedule.borrow_mut();
        if at == schedule.len() {
            schedule.push(0);
        }
        for _ in 0..schedule[at] {
            let store = self.stores[self.done.replace(self.done.get() + 1)];
            self.slot.borrow_mut().apply(store);
            if let (Store::Word(word), true) = (store, at > 0) {
                self.words.borrow_mut().push(word);
            }
        }
        if at == 0 {
            self.words.borrow_mut().push(self.slot.borrow().word);
        }
    }
}

impl Session for Run<'_> {
    fn word(&self) -> u64 {
        self.load();
        self.slot.borrow().word.0
    }
    fn entry(&self, entry: u8) -> Binding {
        let mut words = [0; 4];
        for group in self.groups {
            self.load();
            let slot = self.slot.borrow();
            group.iter().for_each(|&at| words[at] = slot.entries[usize::from(entry) - 1][at]);
        }
        Binding::from_words(words)
    }
    fn generation(&self) -> u32 {
        1
    }
    fn flags(&self) -> u32 {
        0
    }
}

/// What all schedules together showed.
#[derive(Debug, Default)]
struct Seen {
    schedules: u64,
    whole: u64,
    retried: u64,
    torn: u64,
    mixtures: u64,
}

/// Whether what was read is what some word of this moment named.
fn is_whole(bound: &Bound, drains: bool) -> bool {
    let seq = bound.word.seq();
    let at = |binding: &Binding| Binding { drain_until: 0, ..*binding };
    // The deadline is stored while its binding is still active, where nobody looks at it.
    let active = at(&bound.active) == numbered(seq) && [0, deadline(seq)].contains(&bound.active.drain_until);
    let before = Binding { drain_until: deadline(seq.wrapping_sub(1)), ..numbered(seq.wrapping_sub(1)) };
    let draining = if drains && seq > 1 { bound.draining == before } else { bound.draining == Binding::default() };
    active && draining
}

/// Runs the reader under every schedule.
fn explore(jumps: u32, drains: bool, groups: &[Group], sabotage: Sabotage) -> Seen {
    let (start, stores) = stores(jumps, drains, groups, sabotage);
    let schedule = RefCell::new(Vec::new());
    let mut seen = Seen::default();
    loop {
        let run = Run {
            slot: RefCell::new(start.clone()),
            stores: &stores,
            groups,
            done: Cell::new(0),
            loads: Cell::new(0),
            schedule: &schedule,
            words: RefCell::default(),
        };
        let bound = if sabotage == Sabotage::NoSecondLook {
            let word = ActiveWord(run.word());
            let named = |entry| if entry == 0 { Binding::default() } else { run.entry(entry) };
            Some(Bound { word, active: named(word.active()), draining: named(word.draining()) })
        } else {
            bind::read(&run)
        };
        seen.schedules += 1;
        let words = run.words.borrow();
        match bound {
            None => {
                seen.torn += 1;
                assert!(words.len() > 2, "given up although the word changed once at most: {:?}", schedule.borrow());
            }
            Some(bound) if is_whole(&bound, drains) && words.contains(&bound.word) => seen.whole += 1,
            Some(_) => seen.mixtures += 1,
        }
        seen.retried += u64::from(words.len() > 1 && bound.is_some_and(|bound| bound.word != words[0]));
        if !next(&mut schedule.borrow_mut(), run.loads.get(), stores.len()) {
            return seen;
        }
    }
}

/// The schedule after this one, in order: the last load that may wait for one store more does, those behind it begin
/// anew. Whether there was one.
fn next(schedule: &mut Vec<usize>, loads: usize, stores: usize) -> bool {
    schedule.truncate(loads);
    while let Some(last) = schedule.pop() {
        if schedule.iter().sum::<usize>() + last < stores {
            schedule.push(last + 1);
            return true;
        }
    }
    false
}

#[test]
fn no_interleaving_of_jumps_shows_a_mixture() {
    let single = explore(size::of(2, 3), false, SINGLE, Sabotage::None);
    let draining = explore(3, true, COARSE, Sabotage::None);
    for (what, seen) in [("every word on its own", single), ("with draining bindings", draining)] {
        println!("{what}: {seen:?}");
        assert_eq!(seen.mixtures, 0, "{what}: {seen:?}");
        assert!(seen.schedules > 100_000 && seen.retried > 1_000 && seen.torn > 1_000, "{what}: {seen:?}");
    }
}

#[test]
fn each_sabotage_of_reader_or_writer_shows_a_mixture_in_some_interleaving() {
    for sabotage in [Sabotage::NoSecondLook, Sabotage::ActiveAsSpare, Sabotage::WordFirst] {
        for (drains, groups) in [(false, SINGLE), (true, COARSE)] {
            let seen = explore(2, drains, groups, sabotage);
            println!("{sabotage:?}, draining {drains}: {seen:?}");
            // Without a second look two jumps are needed before the entry that was active is written again; with
            // draining bindings three.
            let enough = seen.mixtures > 0 || (sabotage == Sabotage::NoSecondLook && drains);
            assert!(enough, "{sabotage:?} was not caught: {seen:?}");
        }
    }
    let seen = explore(3, true, COARSE, Sabotage::NoSecondLook);
    assert!(seen.mixtures > 0, "no second look was not caught: {seen:?}");
}

#[test]
fn every_schedule_is_tried_once() {
    // One load before each of two stores or after: the compositions of at most two stores over three loads.
    let mut schedule = Vec::new();
    let mut all = Vec::new();
    loop {
        schedule.resize(3, 0);
        all.push(schedule.clone());
        if !next(&mut schedule, 3, 2) {
            break;
        }
    }
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), count), (10, 10), "C(5, 2) of them, each once: {all:?}");
}

/// What the order of the C++ memory model allows, on any processor: the same function over loom's atomics.
mod ordering {
    use super::{Binding, numbered};
    use jvpn_common::abi::ActiveWord;
    use jvpn_common::steer::Session;
    use jvpn_common::steer::bind;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, Ordering};
    use std::sync::Arc as Counted;
    use std::sync::atomic::{AtomicU64 as Count, Ordering::Relaxed};

    /// Two words of an entry stand for four: what tears, tears between two.
    struct Words {
        word: AtomicU64,
        entries: [[AtomicU64; 2]; 3],
    }

    impl Session for Words {
        fn word(&self) -> u64 {
            self.word.load(Ordering::Acquire)
        }
        fn entry(&self, entry: u8) -> Binding {
            let [a, b] = self.entries[usize::from(entry) - 1].each_ref().map(|word| word.load(Ordering::Acquire));
            Binding::from_words([a, a, b, 0])
        }
        fn generation(&self) -> u32 {
            1
        }
        fn flags(&self) -> u32 {
            0
        }
    }

    /// Jumps twice beside one reader in every order loom finds; mixtures seen. `entries` is how a part of a binding is
    /// stored.
    fn explore(entries: Ordering) -> (u64, u64) {
        let (runs, mixtures) = (Counted::new(Count::new(0)), Counted::new(Count::new(0)));
        let (ran, mixed) = (runs.clone(), mixtures.clone());
        let mut builder = loom::model::Builder::new();
        builder.max_branches = 10_000;
        builder.check(move || {
            let parts = |seq: u32| {
                let [a, _, b, _] = numbered(seq).to_words();
                [a, b]
            };
            let slot = Arc::new(Words {
                word: AtomicU64::new(ActiveWord::new(1, 0, 1).0),
                entries: [parts(1), [0; 2], [0; 2]].map(|entry| entry.map(AtomicU64::new)),
            });
            let writer = slot.clone();
            let writing = loom::thread::spawn(move || {
                let mut word = ActiveWord::new(1, 0, 1);
                for seq in 2..4 {
                    let entry = word.spare();
                    let place = &writer.entries[usize::from(entry) - 1];
                    place.iter().zip(parts(seq)).for_each(|(place, value)| place.store(value, entries));
                    word = word.successor(0, entry);
                    writer.word.store(word.0, Ordering::Release);
                }
            });
            if let Some(bound) = bind::read_once(&*slot) {
                let [a, b] = parts(bound.word.seq());
                let whole = bound.active == Binding::from_words([a, a, b, 0]);
                mixed.fetch_add(u64::from(!whole), Relaxed);
            }
            ran.fetch_add(1, Relaxed);
            writing.join().unwrap();
        });
        (runs.load(Relaxed), mixtures.load(Relaxed))
    }

    #[test]
    fn release_stores_of_the_entry_are_what_the_protocol_needs_on_any_processor() {
        let (runs, mixtures) = explore(Ordering::Release);
        println!("loom: {runs} executions, {mixtures} mixtures");
        assert!(runs > 100, "loom found only {runs} executions");
        assert_eq!(mixtures, 0);
        let (runs, mixtures) = explore(Relaxed);
        println!("loom, entries stored relaxed: {runs} executions, {mixtures} mixtures");
        assert!(mixtures > 0, "the sabotage was not caught in {runs} executions");
    }
}
