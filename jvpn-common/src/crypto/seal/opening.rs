//! A key that opens, and what it has seen.
//!
//! Owns the replay windows of one key and the order of judgement: window, AEAD, window. Must never move a
//! window for a datagram that did not open, and never open one counter twice.

#![expect(
    clippy::disallowed_types,
    reason = "workers share a key; the core itself has one thread and never waits here"
)]

use super::{Aead, nonce};
use crate::crypto::suite::Limits;
use crate::limits::{HEADER_LEN, TAG_LEN};
use crate::replay::{ReplayError, ReplayWindows};
use crate::wire::Header;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Why a datagram was not opened. No window has moved then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short to hold a tag.
    #[error("datagram too short to be sealed")]
    Length,
    /// Replayed, too old, or of a retired transport.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Not sealed under this key, or changed under way. Counted.
    #[error("datagram does not open")]
    Forged,
}

/// A key that opens. It owns its replay windows; many threads may use it at once.
pub struct OpeningKey<A> {
    aead: A,
    limits: &'static Limits,
    windows: Mutex<ReplayWindows>,
    opened: AtomicU64,
    failed: AtomicU64,
}

impl<A: Aead> OpeningKey<A> {
    /// A key that has opened nothing.
    pub fn new(aead: A, limits: &'static Limits) -> Self {
        let (opened, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { aead, limits, windows: Mutex::default(), opened, failed }
    }

    /// Opens what came on transport `k` under `header`, in place; gives the length of the text. `sealed` is
    /// what follows the header. The counter is used up only if it opens.
    ///
    /// # Errors
    /// Every [`OpenError`].
    pub fn open(&self, k: u16, header: &[u8; HEADER_LEN], sealed: &mut [u8]) -> Result<usize, OpenError> {
        if sealed.len() < TAG_LEN {
            return Err(OpenError::Length);
        }
        let counter = Header::from_bytes(header).counter;
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).check(k, counter)?;
        let len = self.decrypt(k, counter, header, sealed)?;
        // Again, since another thread may have opened its twin meanwhile: exactly one of them is told Ok.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).commit(k, counter)?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(len)
    }

    /// [`Self::open`] for the only holder of the key: the same checks without a lock.
    ///
    /// # Errors
    /// Every [`OpenError`].
    pub fn open_exclusive(&mut self, k: u16, header: &[u8; HEADER_LEN], sealed: &mut [u8]) -> Result<usize, OpenError> {
        if sealed.len() < TAG_LEN {
            return Err(OpenError::Length);
        }
        let counter = Header::from_bytes(header).counter;
        self.windows.get_mut().unwrap_or_else(PoisonError::into_inner).check(k, counter)?;
        let len = self.decrypt(k, counter, header, sealed)?;
        self.windows.get_mut().unwrap_or_else(PoisonError::into_inner).commit(k, counter)?;
        *self.opened.get_mut() += 1;
        Ok(len)
    }

    fn decrypt(&self, k: u16, counter: u64, header: &[u8], sealed: &mut [u8]) -> Result<usize, OpenError> {
        self.aead.open_in_place(&nonce(k, counter), header, sealed).ok_or_else(|| {
            self.failed.fetch_add(1, Ordering::Relaxed);
            OpenError::Forged
        })
    }

    /// Datagrams opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Datagrams that passed the window and did not open.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether so many opens have failed that a rekey is due.
    pub fn rekey_due(&self) -> bool {
        self.failed() >= self.limits.failures
    }

    /// Highest counter opened on transport `k`.
    pub fn highest(&self, k: u16) -> Option<u64> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).highest(k)
    }
}

impl<A> fmt::Debug for OpeningKey<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpeningKey").field("opened", &self.opened).field("failed", &self.failed).finish_non_exhaustive()
    }
}
