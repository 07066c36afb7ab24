//! The table against a map, under every collision, and against a reader at any moment.

use super::*;
use crate::abi::CELLS;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Words that remember every store.
#[derive(Clone, Debug, Default)]
struct Recorded {
    words: Rc<RefCell<Vec<u64>>>,
    stores: Rc<RefCell<Vec<(usize, u64)>>>,
}

impl Recorded {
    fn of(buckets: u32) -> Self {
        let words = vec![0; buckets as usize * BUCKET_WORDS];
        Self { words: Rc::new(RefCell::new(words)), stores: Rc::default() }
    }
}

impl Words for Recorded {
    fn load(&self, at: usize) -> u64 {
        self.words.borrow()[at]
    }

    fn store(&self, at: usize, value: u64) {
        self.words.borrow_mut()[at] = value;
        self.stores.borrow_mut().push((at, value));
    }
}

fn entry(slot: u32) -> LocatorEntry {
    LocatorEntry { slot, generation: slot % 0xffff + 1, k: slot as u16 }
}

/// A locator at home in the given 64th of the table.
fn locator(part: u64, number: u64) -> Locator {
    Locator(part << 58 | number)
}

/// What must hold whatever happened: nothing that a packet could find lies behind a bucket that ends the search.
fn sound(writer: &Writer<Recorded>) {
    let stores = writer.table.words.stores.borrow().len();
    let again = Writer::over(writer.table.words.clone(), writer.table.buckets);
    assert_eq!((&writer.passed, stores), (&again.passed, writer.table.words.stores.borrow().len()));
    for (bucket, passed) in writer.passed.iter().enumerate() {
        let last = writer.table.words.load(bucket * BUCKET_WORDS + BUCKET_WORDS - 2);
        assert!(*passed == 0 || last != 0, "bucket {bucket} is passed by {passed} and ends the search");
        let used = LocatorEntry::from_word(writer.table.words.load(bucket * BUCKET_WORDS + BUCKET_WORDS - 1));
        assert!(*passed > 0 || last == 0 || used.generation != 0, "bucket {bucket} keeps a locator for nobody");
    }
}

proptest! {
    #[test]
    fn the_table_is_a_map_under_any_collision_and_leaves_nothing_behind(
        buckets in 1_u32..12,
        steps in prop::collection::vec((0_u64..6, 1_u64..24, prop::bool::ANY), 1..400),
    ) {
        let mut writer = Writer::over(Recorded::of(buckets), buckets);
        let mut model = BTreeMap::new();
        for (at, (part, number, put)) in steps.into_iter().enumerate() {
            let (locator, new) = (locator(part, number), entry(at as u32));
            if put {
                match writer.insert(locator, new) {
                    Ok(()) => assert_eq!(model.insert(locator.0, new), None),
                    Err(Refused::Known) => assert!(model.contains_key(&locator.0)),
                    Err(Refused::Full) => {
                        let reached = writer.table.places(locator.0);
                        let free = reached.filter(|place| writer.table.words.load(place.word + 1) == 0).count();
                        assert_eq!((free, model.contains_key(&locator.0)), (0, false));
                    }
                }
            } else {
                assert_eq!(writer.remove(locator), model.remove(&locator.0).is_some());
            }
            assert_eq!(&writer.table.all(), &model);
            sound(&writer);
        }
        for locator in model.keys() {
            assert!(writer.remove(Locator(*locator)));
        }
        assert!(writer.table.words.words.borrow().iter().all(|word| *word == 0), "an empty table is all zeros");
    }
}

#[test]
fn a_table_of_its_size_takes_every_random_locator_of_a_full_table() {
    let sessions = 5_000;
    let buckets = crate::abi::buckets(sessions);
    let mut writer = Writer::over(Recorded::of(buckets), buckets);
    let mut random = 1_u64;
    let mut furthest = 0;
    for at in 0..sessions * crate::limits::LOCATORS_MAX as u32 {
        // SplitMix64.
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let locator = Locator(z ^ (z >> 31));
        writer.insert(locator, entry(at)).unwrap();
        let place = writer.table.places(locator.0).find(|place| writer.table.words.load(place.word) == locator.0);
        furthest = furthest.max(place.unwrap().passes);
    }
    assert!(furthest < REACH - 2, "one lies {furthest} buckets from home");
    sound(&writer);
}

#[test]
fn a_locator_of_zero_is_nobody_s_and_one_beyond_reach_is_refused() {
    let mut writer = Writer::over(Recorded::of(20), 20);
    assert_eq!(writer.insert(Locator(0), entry(1)), Err(Refused::Known));
    assert_eq!(writer.table.find(Locator(0)), None);
    let room = u64::from(REACH) * CELLS as u64;
    for number in 1..=room {
        writer.insert(locator(3, number), entry(number as u32)).unwrap();
    }
    let before = writer.table.words.words.borrow().clone();
    assert_eq!(writer.insert(locator(3, room + 1), entry(99)), Err(Refused::Full));
    assert_eq!((writer.table.find(locator(3, room + 1)), writer.table.find(Locator(0))), (None, None));
    assert_eq!(*writer.table.words.words.borrow(), before);
    assert_eq!(writer.table.find(locator(3, room)), Some(entry(room as u32)));
}

#[test]
fn what_somebody_else_wrote_is_taken_out_and_what_lay_behind_it_is_found_again() {
    let mut writer = Writer::over(Recorded::of(8), 8);
    for number in 1..=6 {
        writer.insert(locator(0, number), entry(number as u32)).unwrap();
    }
    // The end of the search, written over the last cell of a bucket that two have passed; and one locator twice.
    let words = writer.table.words.clone();
    words.store(BUCKET_WORDS - 2, 0);
    assert_eq!(writer.table.all().len(), 3);
    words.store(BUCKET_WORDS + 4, locator(0, 1).0);
    words.store(BUCKET_WORDS + 5, entry(40).to_word());
    writer.recount();
    for number in 1..=6 {
        writer.remove(locator(0, number));
        writer.insert(locator(0, number), entry(number as u32)).unwrap();
    }
    writer.recount();
    let all: BTreeMap<_, _> = (1..=6).map(|number| (locator(0, number).0, entry(number as u32))).collect();
    assert_eq!(writer.table.all(), all);
    sound(&writer);
}

/// A table that stands still until a given load, and is the next store further from there on.
struct Moving<'a> {
    states: &'a [Vec<u64>],
    schedule: &'a [usize],
    loads: &'a Cell<usize>,
    first: usize,
}

impl Cells for Moving<'_> {
    fn word(&self, at: usize) -> u64 {
        let load = self.loads.replace(self.loads.get() + 1);
        let state = self.schedule.get(load).or(self.schedule.last()).unwrap();
        self.states[*state][self.first + at]
    }
}

/// Every schedule of so many loads among the states, none of which goes back.
fn schedules(loads: usize, states: usize, of: &mut Vec<usize>, each: &mut impl FnMut(&[usize])) {
    if of.len() == loads {
        return each(of);
    }
    for state in of.last().copied().unwrap_or(0)..states {
        of.push(state);
        schedules(loads, states, of, each);
        of.pop();
    }
}

#[test]
fn a_reader_at_any_moment_finds_what_stays_and_never_a_mixture() {
    // Home full, two behind it; then the last of the home goes, another takes its cell, and one behind goes.
    let (stays, goes, comes, behind_it) = (locator(0, 5), locator(0, 4), locator(0, 7), locator(0, 6));
    let mut writer = Writer::over(Recorded::of(4), 4);
    for number in 1..=6 {
        writer.insert(locator(0, number), entry(number as u32)).unwrap();
    }
    let words = writer.table.words.clone();
    let mut states = vec![words.words.borrow().clone()];
    words.stores.borrow_mut().clear();
    assert!(writer.remove(goes));
    writer.insert(comes, entry(7)).unwrap();
    assert!(writer.remove(behind_it));
    assert!(writer.remove(comes));
    for (at, value) in words.stores.borrow().iter() {
        let mut next = states.last().unwrap().clone();
        next[*at] = *value;
        states.push(next);
    }
    let mut tried = 0_u64;
    for (wanted, allowed) in [
        (stays, &[Some(5)][..]),
        (goes, &[None, Some(4), Some(7)]),
        (comes, &[None, Some(7)]),
        (behind_it, &[None, Some(6)]),
        (locator(0, 9), &[None]),
    ] {
        schedules(7, states.len(), &mut Vec::new(), &mut |schedule| {
            tried += 1;
            let loads = Cell::new(0);
            let bucket =
                |at: u32| Some(Moving { states: &states, schedule, loads: &loads, first: at as usize * BUCKET_WORDS });
            let found = find(wanted.0, 4, bucket);
            let slot = found.map(|entry| entry.slot);
            assert!(allowed.contains(&slot), "{wanted:?} found {slot:?} by {schedule:?}");
            assert!(found.is_none_or(|found| found == entry(found.slot)));
        });
    }
    assert!(tried > 5_000, "{tried}");
}
