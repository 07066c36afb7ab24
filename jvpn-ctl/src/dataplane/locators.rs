//! `LOCATORS` in the kernel, mapped: opened for the one writer, or to be looked through beside it.
//!
//! Owns opening the map in its size. Must never put a locator anywhere itself: that is [`jvpn_common::locators`].

use super::attach::AttachError;
use super::kernel::{data, mapping};
use super::pins::Pins;
use super::region::Region;
use jvpn_common::abi::{BUCKET_WORDS, map};
use jvpn_common::locators::{Table, Words, Writer};
use std::sync::atomic::Ordering::{Acquire, Release};

/// The mapped words of the table.
#[derive(Debug)]
pub struct Mapped(Region);

#[cfg(test)]
impl Mapped {
    pub(super) const fn heap(words: Region) -> Self {
        Self(words)
    }
}

impl Words for Mapped {
    fn load(&self, at: usize) -> u64 {
        self.0.word(at).map_or(0, |word| word.load(Acquire))
    }

    fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.0.word(at) {
            word.store(value, Release);
        }
    }
}

fn open(pins: &Pins) -> Result<(Mapped, u32), AttachError> {
    let name = map::LOCATORS;
    let info = data(pins, name)?.info().map_err(|error| AttachError::Map { name, error: error.to_string() })?;
    let buckets = info.max_entries();
    Ok((Mapped(Region::over(mapping(pins, name, buckets as usize * BUCKET_WORDS)?)), buckets))
}

/// The pinned table, to be looked through.
///
/// # Errors
/// When there is none.
pub fn table(pins: &Pins) -> Result<Table<Mapped>, AttachError> {
    open(pins).map(|(words, buckets)| Table::over(words, buckets))
}

/// The pinned table, to be written. There is one writer; a second one is somebody who tampers.
///
/// # Errors
/// When there is none.
pub fn writer(pins: &Pins) -> Result<Writer<Mapped>, AttachError> {
    open(pins).map(|(words, buckets)| Writer::over(words, buckets))
}
