//! A key that seals, and the nonces it gives out.
//!
//! Owns the counters of one key, one for each transport index. Must never give a nonce twice or a key back:
//! a key is moved in, [`SealingKey`] is not `Clone`, and a reservation seals by itself.

#![expect(
    clippy::disallowed_types,
    reason = "workers share a key; the core itself has one thread and never waits here"
)]

use super::{Aead, nonce};
use crate::crypto::suite::Limits;
use crate::limits::{HEADER_LEN, TAG_LEN};
use crate::transports::Transports;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// Nonces nobody sets aside more of at once; a key that has fewer left may refuse a batch.
const BATCH_MAX: u64 = 1_024;

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key has sealed all it may; only a new one helps.
    #[error("the key has sealed all it may")]
    Spent,
    /// The transport index was given up under this key.
    #[error("the transport has been retired under this key")]
    Retired,
}

/// A key that seals. It owns its counters; many threads may use it at once.
pub struct SealingKey<A> {
    aead: A,
    limits: &'static Limits,
    /// The next counter of each transport index.
    counters: RwLock<Transports<AtomicU64>>,
    sealed: AtomicU64,
}

impl<A: Aead> SealingKey<A> {
    /// A key that has sealed nothing. `aead` must have been made from a key of [`crate::crypto::EpochKeys`], which
    /// gives each key out once.
    pub fn new(aead: A, limits: &'static Limits) -> Self {
        Self { aead, limits, counters: RwLock::default(), sealed: AtomicU64::new(0) }
    }

    /// Sets `n` nonces of transport `k` aside for the caller; what it does not use is lost, never reused.
    ///
    /// # Errors
    /// [`SealError`]; nothing has been set aside then.
    pub fn reserve(&self, k: u16, n: u32) -> Result<Reservation<'_, A>, SealError> {
        let n = u64::from(n);
        self.sealed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sealed| {
                sealed.checked_add(n).filter(|&after| after <= self.limits.reject_after)
            })
            .map_err(|_| SealError::Spent)?;
        let first = self.advance(k, n).inspect_err(|_| {
            self.sealed.fetch_sub(n, Ordering::Relaxed);
        })?;
        Ok(Reservation { key: self, k, next: first, end: first + n })
    }

    fn advance(&self, k: u16, n: u64) -> Result<u64, SealError> {
        {
            let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(next) = counters.find(k) {
                return Ok(next.fetch_add(n, Ordering::Relaxed));
            }
        }
        let mut counters = self.counters.write().unwrap_or_else(PoisonError::into_inner);
        let next = counters.open(k).ok_or(SealError::Retired)?;
        Ok(next.fetch_add(n, Ordering::Relaxed))
    }

    /// Seals one message: header (made for its counter), text, tag. For control, where one at a time is all
    /// there is.
    ///
    /// # Errors
    /// [`SealError`]; nothing has been sealed then.
    pub fn seal(
        &self,
        k: u16,
        header: impl FnOnce(u64) -> [u8; HEADER_LEN],
        text: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let mut reservation = self.reserve(k, 1)?;
        let mut datagram = vec![0; HEADER_LEN + text.len() + TAG_LEN];
        let (head, body) = datagram.split_at_mut(HEADER_LEN);
        let (plain, tag) = body.split_at_mut(text.len());
        plain.copy_from_slice(text);
        let sealed = reservation.seal_next(header, plain).ok_or(SealError::Spent)?;
        head.copy_from_slice(&sealed.header);
        tag.copy_from_slice(&sealed.tag);
        Ok(datagram)
    }

    #[cfg(test)]
    pub(super) fn aead(&self) -> &A {
        &self.aead
    }

    /// Packets sealed so far, over all transports.
    pub fn sealed(&self) -> u64 {
        self.sealed.load(Ordering::Relaxed)
    }

    /// Whether so much has been sealed that a rekey is due.
    pub fn rekey_due(&self) -> bool {
        self.sealed() >= self.limits.rekey_after
    }

    /// Whether it has so little left that a batch may find nothing: from now on it counts as dead.
    pub fn spent(&self) -> bool {
        self.sealed().saturating_add(BATCH_MAX) > self.limits.reject_after
    }

    /// Next counter of transport `k`; what the other side should have seen all of, below it.
    pub fn next_counter(&self, k: u16) -> u64 {
        let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
        counters.find(k).map_or(0, |next| next.load(Ordering::Relaxed))
    }
}

impl<A> fmt::Debug for SealingKey<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("sealed", &self.sealed).finish_non_exhaustive()
    }
}

/// Nonces that nobody else has; each is used by [`Self::seal_next`] at most once.
pub struct Reservation<'key, A> {
    key: &'key SealingKey<A>,
    k: u16,
    next: u64,
    end: u64,
}

/// Header and tag of a sealed text.
#[derive(Clone, Copy, Debug)]
pub struct Sealed {
    /// As it went into the AEAD.
    pub header: [u8; HEADER_LEN],
    /// To be put behind the text.
    pub tag: [u8; TAG_LEN],
}

impl<A: Aead> Reservation<'_, A> {
    /// Seals `text` in place under the next nonce of the reservation; `header` makes the 24 bytes for its
    /// counter. `None` when all are used.
    pub fn seal_next(&mut self, header: impl FnOnce(u64) -> [u8; HEADER_LEN], text: &mut [u8]) -> Option<Sealed> {
        if self.next == self.end {
            return None;
        }
        let counter = self.next;
        self.next += 1;
        let header = header(counter);
        let tag = self.key.aead.seal_in_place(&nonce(self.k, counter), &header, text);
        Some(Sealed { header, tag })
    }

    /// How many nonces are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.end - self.next
    }
}

impl<A> fmt::Debug for Reservation<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation(k {}, {}..{})", self.k, self.next, self.end)
    }
}
