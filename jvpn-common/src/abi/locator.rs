//! What a locator on the wire stands for, and the cells in which the kernel finds it.
//!
//! Owns the layout of `LOCATORS`: buckets of one cache line each. Must never hold more than the way to the session: at
//! random among very many sessions this line is the first that a packet waits for.

use crate::limits::LOCATORS_MAX;

/// slot, transport index and generation of a locator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LocatorEntry {
    /// Index into the arrays.
    pub slot: u32,
    /// Must equal the session entry's; 1 to 65,535.
    pub generation: u32,
    /// Transport index *k* of this locator.
    pub k: u16,
}

impl LocatorEntry {
    /// The entry as the second word of its cell.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.slot as u64 | ((self.generation & 0xffff) as u64) << 32 | (self.k as u64) << 48
    }

    /// The entry of a cell's second word.
    #[must_use]
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { slot: word as u32, generation: (word >> 32) as u32 & 0xffff, k: (word >> 48) as u16 }
    }
}

/// Room for one locator. Without a generation it stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct LocatorCell {
    /// The locator; 0 in a cell that holds none.
    pub locator: u64,
    /// [`LocatorEntry::slot`].
    pub slot: u32,
    /// [`LocatorEntry::generation`]; 0 = nothing.
    pub generation: u16,
    /// [`LocatorEntry::k`].
    pub k: u16,
}

/// Cells of a bucket: one cache line.
pub const CELLS: usize = 4;
/// Words of a bucket.
pub const BUCKET_WORDS: usize = CELLS * 2;

/// One entry of `LOCATORS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(64))]
pub struct LocatorBucket {
    /// Its cells.
    pub cells: [LocatorCell; CELLS],
}

/// Buckets a session adds: 16 cells for its six locators. With every session and every locator there, one locator in
/// sixty lies behind its home, and about one in 10⁸ finds [`REACH`] buckets full and is refused.
pub const BUCKETS_PER_SESSION: u32 = 4;

/// Buckets in which a locator may lie: its home and those behind it.
pub const REACH: u32 = 8;

/// Buckets of maps for so many sessions.
#[must_use]
#[inline(always)]
pub const fn buckets(max_sessions: u32) -> u32 {
    max_sessions.saturating_mul(BUCKETS_PER_SESSION)
}

/// The bucket where a locator is looked for first: its upper half as a fraction of all. It is random already, and only
/// the gateway's own are stored: a hash would add nothing.
#[must_use]
#[inline(always)]
pub const fn home(locator: u64, buckets: u32) -> u32 {
    (((locator >> 32) * buckets as u64) >> 32) as u32
}

/// The bucket behind one.
#[must_use]
#[inline(always)]
pub const fn behind(bucket: u32, buckets: u32) -> u32 {
    let next = bucket + 1;
    if next >= buckets { 0 } else { next }
}

const _: () = assert!(size_of::<LocatorCell>() == 16 && size_of::<LocatorBucket>() == BUCKET_WORDS * 8);
const _: () = assert!(BUCKETS_PER_SESSION as usize * CELLS >= LOCATORS_MAX * 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_from_its_word_and_lies_as_the_cell_says() {
        let entry = LocatorEntry { slot: 0x0102_0304, generation: 0xfffe, k: 0x0506 };
        assert_eq!(LocatorEntry::from_word(entry.to_word()), entry);
        assert_eq!(entry.to_word().to_le_bytes(), [4, 3, 2, 1, 0xfe, 0xff, 6, 5]);
    }

    #[test]
    fn every_home_is_a_bucket_and_every_bucket_is_one() {
        for buckets in [1_u32, 3, 12_288, u32::MAX] {
            assert_eq!(home(0, buckets), 0);
            assert_eq!(home(u64::MAX, buckets), buckets - 1);
            assert_eq!(behind(buckets - 1, buckets), 0);
        }
        let homes: std::collections::BTreeSet<u32> = (0..=255).map(|high: u64| home(high << 56, 100)).collect();
        assert_eq!(homes.len(), 100);
    }
}
