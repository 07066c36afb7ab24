//! Finding a locator among the cells that the controller may be changing.
//!
//! Owns the order of loads: a cell's locator, then what it stands for. A bucket whose last cell holds no locator has
//! never been passed; behind any other the search goes on. Must never load more buckets than a locator can lie in.

use crate::abi::{BUCKET_WORDS, LocatorEntry, REACH, behind, home};

/// One bucket, of which every load may see another value.
pub trait Cells {
    /// Word `at` of it: locators at even places, behind each what it stands for.
    fn word(&self, at: usize) -> u64;
}

/// What `locator` stands for in a table of so many buckets.
///
/// A cell that is taken away and given to another locator between the two loads tells what that one stands for: the
/// steering tag, under another session's key or with another transport index, then refuses the packet.
#[inline(always)]
pub fn find<C: Cells>(locator: u64, buckets: u32, bucket: impl Fn(u32) -> Option<C>) -> Option<LocatorEntry> {
    let mut at = home(locator, buckets);
    let mut step = 0;
    while step < REACH {
        let cells = bucket(at)?;
        let mut last = 0;
        let mut place = 0;
        while place < BUCKET_WORDS {
            last = cells.word(place);
            if last == locator {
                let entry = LocatorEntry::from_word(cells.word(place + 1));
                return (entry.generation != 0).then_some(entry);
            }
            place += 2;
        }
        if last == 0 {
            return None;
        }
        at = behind(at, buckets);
        step += 1;
    }
    None
}
