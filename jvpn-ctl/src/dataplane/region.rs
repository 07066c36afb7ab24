//! Words of memory that other threads, other processes or the kernel read and write at the same time.
//!
//! Owns [`Region`], a row of aligned 64-bit atomics on the heap or over a mapped kernel array. Must never
//! hand out anything but atomics: there is no moment at which this memory holds still.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// A row of words.
pub(super) struct Region(Box<dyn AsRef<[AtomicU64]> + Send + Sync>);

/// Words of a region on the heap.
struct Heap(Box<[AtomicU64]>);

impl AsRef<[AtomicU64]> for Heap {
    fn as_ref(&self) -> &[AtomicU64] {
        &self.0
    }
}

impl Region {
    /// `words` zeros on the heap.
    pub(super) fn heap(words: usize) -> Self {
        Self(Box::new(Heap((0..words).map(|_| AtomicU64::new(0)).collect())))
    }

    /// A region over memory that somebody else provides.
    pub(super) fn over(memory: impl AsRef<[AtomicU64]> + Send + Sync + 'static) -> Self {
        Self(Box::new(memory))
    }

    /// The word at `at`.
    pub(super) fn word(&self, at: usize) -> Option<&AtomicU64> {
        (*self.0).as_ref().get(at)
    }

    /// How many words there are.
    pub(super) fn len(&self) -> usize {
        (*self.0).as_ref().len()
    }

    /// The `N` words at `at`, one load each; zeros where there are none.
    pub(super) fn load<const N: usize>(&self, at: usize) -> [u64; N] {
        let mut out = [0; N];
        if let Some(words) = (*self.0).as_ref().get(at..).and_then(|rest| rest.first_chunk::<N>()) {
            out.iter_mut().zip(words).for_each(|(out, word)| *out = word.load(Relaxed));
        }
        out
    }

    /// Stores words from `at` on, one store each; none where there is no place. Each is a release: who sees
    /// a part of a binding sees the word that was stored before it, and knows that it has moved on.
    pub(super) fn store(&self, at: usize, values: &[u64]) {
        let words = (*self.0).as_ref().get(at..).unwrap_or(&[]);
        words.iter().zip(values).for_each(|(word, value)| word.store(*value, Release));
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({} words)", self.len())
    }
}
