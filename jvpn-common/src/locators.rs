//! The table of locators, as its one writer keeps it.
//!
//! ```text
//! bucket = 4 cells of { locator | slot, generation, k }      home = upper half of the locator × buckets ÷ 2³²
//! home full ─► the next one, at most REACH of them           last cell without a locator: nothing lies behind
//! ```
//!
//! Open addressing with linear probing (Knuth, The Art of Computer Programming 3, 6.4) over buckets of a cache line.
//! Owns where a locator is put and in which order of stores, so that a packet's search ([`crate::steer::find`]) at any
//! moment finds every locator that stays. Must never move one.

use crate::abi::{BUCKET_WORDS, LocatorEntry, REACH, behind, home};
use crate::ids::Locator;
use crate::steer::{Cells, find};
use std::collections::BTreeMap;

/// The words of the table: memory that others read at any moment.
pub trait Words {
    /// Loads a word; 0 where there is none.
    fn load(&self, at: usize) -> u64;
    /// Stores a word after every store before it.
    fn store(&self, at: usize, value: u64);
}

/// One bucket of some words.
struct Bucket<'a, W> {
    words: &'a W,
    first: usize,
}

impl<W: Words> Cells for Bucket<'_, W> {
    fn word(&self, at: usize) -> u64 {
        self.words.load(self.first + at)
    }
}

/// The words of a table, for whoever only reads.
#[derive(Debug)]
pub struct Table<W> {
    words: W,
    buckets: u32,
}

/// A place in a table.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Buckets between its locator's home and it.
    passes: u32,
    /// Place of its first word.
    word: usize,
}

impl<W: Words> Table<W> {
    /// Over the words of so many buckets.
    pub const fn over(words: W, buckets: u32) -> Self {
        Self { words, buckets }
    }

    fn bucket(&self, at: u32) -> Bucket<'_, W> {
        Bucket { words: &self.words, first: at as usize * BUCKET_WORDS }
    }

    /// What a packet with this locator would find.
    #[must_use]
    pub fn find(&self, locator: Locator) -> Option<LocatorEntry> {
        find(locator.0, self.buckets, |at| (at < self.buckets).then(|| self.bucket(at)))
    }

    /// Everything a packet could find, and nothing it could not, whatever the words are. A locator that lies in two cells
    /// comes twice.
    pub fn iter(&self) -> impl Iterator<Item = (u64, LocatorEntry)> {
        let places = (0..self.buckets as usize * BUCKET_WORDS).step_by(2);
        let named = places.map(|at| self.words.load(at)).filter(|locator| *locator != 0);
        named.filter_map(|locator| Some((locator, self.find(Locator(locator))?)))
    }

    /// The same, each once.
    #[must_use]
    pub fn all(&self) -> BTreeMap<u64, LocatorEntry> {
        self.iter().collect()
    }

    /// The cell a packet with this locator would find.
    fn place_of(&self, locator: u64) -> Option<Place> {
        self.find(Locator(locator))?;
        self.places(locator).find(|place| self.words.load(place.word) == locator)
    }

    /// Buckets from a locator's home to one.
    const fn passes(&self, locator: u64, bucket: u32) -> u32 {
        let home = home(locator, self.buckets);
        if bucket >= home { bucket - home } else { bucket + self.buckets - home }
    }

    /// The cells in which a locator may lie, in the order of the search.
    fn places(&self, locator: u64) -> impl Iterator<Item = Place> {
        let buckets = self.buckets;
        let first = home(locator, buckets);
        // A small table is gone round once.
        let reached = (0..REACH.min(buckets)).scan(first, move |at, passes| {
            let bucket = *at;
            *at = behind(bucket, buckets);
            Some((passes, bucket))
        });
        reached.flat_map(|(passes, bucket)| {
            let first = bucket as usize * BUCKET_WORDS;
            (0..BUCKET_WORDS).step_by(2).map(move |at| Place { passes, word: first + at })
        })
    }
}

/// The writer's view.
#[derive(Debug)]
pub struct Writer<W> {
    table: Table<W>,
    /// Of each bucket, how many locators lie behind it that were at home in it or before it. While there are any, its
    /// last cell keeps a locator, even one that stands for nothing.
    passed: Vec<u32>,
}

/// A table that cannot take a locator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is there already.
    Known,
    /// Every cell within reach of its home is taken.
    Full,
}

impl<W: Words> Writer<W> {
    /// Takes over a table as it stands.
    #[must_use]
    pub fn over(words: W, buckets: u32) -> Self {
        let mut writer = Self { table: Table::over(words, buckets), passed: Vec::new() };
        writer.recount();
        writer
    }

    /// What it holds.
    #[must_use]
    pub const fn table(&self) -> &Table<W> {
        &self.table
    }

    /// Looks through all of it anew, after somebody else wrote: what no packet could find is cleared, and what lies
    /// behind what is counted.
    pub fn recount(&mut self) {
        while self.clear_lost() {}
        self.passed = vec![0; self.table.buckets as usize];
        for word in (0..self.table.buckets as usize * BUCKET_WORDS).step_by(2) {
            let (locator, value) = (self.table.words.load(word), self.table.words.load(word + 1));
            if value != 0 {
                self.pass(locator, self.table.passes(locator, (word / BUCKET_WORDS) as u32), 1);
            }
        }
        (0..self.table.buckets).for_each(|bucket| self.clear_last(bucket));
    }

    /// Clears every cell that stands for something and is not where its locator is found; whether there was one.
    fn clear_lost(&self) -> bool {
        let mut any = false;
        for word in (0..self.table.buckets as usize * BUCKET_WORDS).step_by(2) {
            let (locator, value) = (self.table.words.load(word), self.table.words.load(word + 1));
            let found = || self.table.place_of(locator).is_some_and(|place| place.word == word);
            let last = word % BUCKET_WORDS == BUCKET_WORDS - 2;
            let clears = match (locator, value) {
                (0, value) => value != 0,
                (_, 0) => !last,
                _ => !found(),
            };
            if clears {
                self.table.words.store(word + 1, 0);
                self.table.words.store(word, 0);
                any = true;
            }
        }
        any
    }

    /// Changes by `by` what lies behind the buckets from `locator`'s home on.
    fn pass(&mut self, locator: u64, passes: u32, by: i32) {
        let mut bucket = home(locator, self.table.buckets);
        for _ in 0..passes {
            if let Some(count) = self.passed.get_mut(bucket as usize) {
                *count = count.saturating_add_signed(by);
                self.clear_last(bucket);
            }
            bucket = behind(bucket, self.table.buckets);
        }
    }

    /// Empties the last cell of a bucket that nothing lies behind, if it stands for nothing.
    fn clear_last(&self, bucket: u32) {
        let last = bucket as usize * BUCKET_WORDS + BUCKET_WORDS - 2;
        let passed = self.passed.get(bucket as usize).is_some_and(|count| *count > 0);
        let stands = LocatorEntry::from_word(self.table.words.load(last + 1)).generation != 0;
        if !passed && !stands && self.table.words.load(last) != 0 {
            self.table.words.store(last, 0);
        }
    }

    /// Puts a locator in.
    ///
    /// # Errors
    /// When it is there already, or every cell it may lie in is taken.
    pub fn insert(&mut self, locator: Locator, entry: LocatorEntry) -> Result<(), Refused> {
        if locator.0 == 0 || self.table.find(locator).is_some() {
            return Err(Refused::Known);
        }
        let words = &self.table.words;
        let is_free = |place: &Place| LocatorEntry::from_word(words.load(place.word + 1)).generation == 0;
        let place = self.table.places(locator.0).find(is_free).ok_or(Refused::Full)?;
        // What it stands for last: until then the cell stands for nothing.
        words.store(place.word, locator.0);
        words.store(place.word + 1, entry.to_word());
        self.pass(locator.0, place.passes, 1);
        Ok(())
    }

    /// Takes a locator out, wherever it lies; whether it was there.
    pub fn remove(&mut self, locator: Locator) -> bool {
        let words = &self.table.words;
        let holds = |place: &Place| words.load(place.word) == locator.0 && words.load(place.word + 1) != 0;
        // More than one only if somebody else wrote.
        let held: Vec<Place> = self.table.places(locator.0).filter(holds).collect();
        for place in &held {
            self.table.words.store(place.word + 1, 0);
            let bucket = place.word / BUCKET_WORDS;
            if place.word % BUCKET_WORDS == BUCKET_WORDS - 2 {
                self.clear_last(bucket as u32);
            } else {
                self.table.words.store(place.word, 0);
            }
            self.pass(locator.0, place.passes, -1);
        }
        !held.is_empty()
    }
}

#[cfg(test)]
mod tests;
