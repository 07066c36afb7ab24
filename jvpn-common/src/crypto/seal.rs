//! Sealing and opening: one key, its own counters, its own windows.
//!
//! Owns the nonce (`k as u32 ‖ counter as u64`, little-endian), who may use it (once), and the order in which
//! an incoming datagram is judged: window, AEAD, window. Must never let a second counter for a key exist:
//! a key is moved into its [`SealingKey`], which is not `Clone` and gives no key back.

use super::suite::{Limits, Suite};
use crate::limits::{HEADER_LEN, TAG_LEN};
use crate::replay::{ReplayError, ReplayWindows, TRANSPORTS_MAX};
use crate::secret::Secret;
use crate::wire::Header;
use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, RwLock};

/// A nonce: transport index and counter.
pub type NonceBytes = [u8; 12];

/// An AEAD under one key. Implementations wipe the key on drop and keep no counter.
pub trait Aead: Send + Sync {
    /// Encrypts `text` in place; gives the tag.
    fn seal_in_place(&self, nonce: &NonceBytes, aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN];

    /// Decrypts `sealed` (text, then tag) in place; gives the length of the text. After a failure the bytes
    /// mean nothing.
    fn open_in_place(&self, nonce: &NonceBytes, aad: &[u8], sealed: &mut [u8]) -> Option<usize>;
}

impl<T: Aead + ?Sized> Aead for Box<T> {
    fn seal_in_place(&self, nonce: &NonceBytes, aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        (**self).seal_in_place(nonce, aad, text)
    }

    fn open_in_place(&self, nonce: &NonceBytes, aad: &[u8], sealed: &mut [u8]) -> Option<usize> {
        (**self).open_in_place(nonce, aad, sealed)
    }
}

/// ChaCha20-Poly1305, used for control always and for data where AES has no instructions.
pub struct ChaCha(ChaCha20Poly1305);

impl ChaCha {
    /// Takes the key over.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the key is used up: its bytes are wiped here"
    )]
    pub fn new(key: Secret<32>) -> Self {
        Self(ChaCha20Poly1305::new(key.expose().into()))
    }
}

impl Aead for ChaCha {
    fn seal_in_place(&self, nonce: &NonceBytes, aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        self.0
            .encrypt_in_place_detached(nonce.into(), aad, text)
            .expect("ChaCha20 seals up to 256 GiB and a datagram has at most 64 KiB")
            .into()
    }

    fn open_in_place(&self, nonce: &NonceBytes, aad: &[u8], sealed: &mut [u8]) -> Option<usize> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>()?;
        self.0
            .decrypt_in_place_detached(nonce.into(), aad, text, (&*tag).into())
            .ok()?;
        Some(text.len())
    }
}

/// Nonce of a packet.
#[must_use]
pub fn nonce(k: u16, counter: u64) -> NonceBytes {
    let [k0, k1] = k.to_le_bytes();
    let [c0, c1, c2, c3, c4, c5, c6, c7] = counter.to_le_bytes();
    [k0, k1, 0, 0, c0, c1, c2, c3, c4, c5, c6, c7]
}

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

/// The next counter of each transport index, and those below which none is given any more.
#[derive(Debug, Default)]
struct Counters {
    next: BTreeMap<u16, AtomicU64>,
    floor: u32,
}

/// A key that seals. It owns its counters; many threads may use it at once.
pub struct SealingKey<A> {
    aead: A,
    limits: Limits,
    counters: RwLock<Counters>,
    sealed: AtomicU64,
}

impl<A: Aead> SealingKey<A> {
    /// A key that has sealed nothing. `aead` must have been made from a key of [`super::EpochKeys`], which
    /// gives each key out once.
    pub fn new(aead: A, limits: Limits) -> Self {
        Self {
            aead,
            limits,
            counters: RwLock::default(),
            sealed: AtomicU64::new(0),
        }
    }

    /// Sets `n` nonces of transport `k` aside for the caller; what it does not use is lost, never reused.
    ///
    /// # Errors
    /// [`SealError`]; nothing has been set aside then.
    pub fn reserve(&self, k: u16, n: u32) -> Result<Reservation<'_, A>, SealError> {
        let n = u64::from(n);
        self.sealed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sealed| {
                sealed
                    .checked_add(n)
                    .filter(|&after| after <= self.limits.reject_after)
            })
            .map_err(|_| SealError::Spent)?;
        let first = self.advance(k, n).inspect_err(|_| {
            self.sealed.fetch_sub(n, Ordering::Relaxed);
        })?;
        Ok(Reservation {
            key: self,
            k,
            next: first,
            end: first + n,
        })
    }

    fn advance(&self, k: u16, n: u64) -> Result<u64, SealError> {
        {
            let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(next) = counters.next.get(&k) {
                return Ok(next.fetch_add(n, Ordering::Relaxed));
            }
        }
        let mut counters = self
            .counters
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = counters.next.get(&k) {
            return Ok(next.fetch_add(n, Ordering::Relaxed));
        }
        let full = counters.next.len() >= TRANSPORTS_MAX;
        let lowest = counters.next.first_key_value().map(|(&lowest, _)| lowest);
        if u32::from(k) < counters.floor || (full && lowest.is_some_and(|lowest| k < lowest)) {
            return Err(SealError::Retired);
        }
        if full && let Some((lowest, _)) = counters.next.pop_first() {
            counters.floor = u32::from(lowest) + 1;
        }
        counters.next.insert(k, AtomicU64::new(n));
        Ok(0)
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
        let sealed = reservation
            .seal_next(header, plain)
            .ok_or(SealError::Spent)?;
        head.copy_from_slice(&sealed.header);
        tag.copy_from_slice(&sealed.tag);
        Ok(datagram)
    }

    /// Packets sealed so far, over all transports.
    pub fn sealed(&self) -> u64 {
        self.sealed.load(Ordering::Relaxed)
    }

    /// Whether so much has been sealed that a rekey is due.
    pub fn rekey_due(&self) -> bool {
        self.sealed() >= self.limits.rekey_after
    }

    /// Next counter of transport `k`; what the other side should have seen all of, below it.
    pub fn next_counter(&self, k: u16) -> u64 {
        let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
        counters
            .next
            .get(&k)
            .map_or(0, |next| next.load(Ordering::Relaxed))
    }
}

impl<A> fmt::Debug for SealingKey<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey")
            .field("sealed", &self.sealed)
            .finish_non_exhaustive()
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
    pub fn seal_next(
        &mut self,
        header: impl FnOnce(u64) -> [u8; HEADER_LEN],
        text: &mut [u8],
    ) -> Option<Sealed> {
        if self.next == self.end {
            return None;
        }
        let counter = self.next;
        self.next += 1;
        let header = header(counter);
        let tag = self
            .key
            .aead
            .seal_in_place(&nonce(self.k, counter), &header, text);
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
    limits: Limits,
    windows: Mutex<ReplayWindows>,
    opened: AtomicU64,
    failed: AtomicU64,
}

impl<A: Aead> OpeningKey<A> {
    /// A key that has opened nothing.
    pub fn new(aead: A, limits: Limits) -> Self {
        let (opened, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            aead,
            limits,
            windows: Mutex::default(),
            opened,
            failed,
        }
    }

    /// Opens what came on transport `k` under `header`, in place; gives the length of the text. `sealed` is
    /// what follows the header. The counter is used up only if it opens.
    ///
    /// # Errors
    /// Every [`OpenError`].
    pub fn open(
        &self,
        k: u16,
        header: &[u8; HEADER_LEN],
        sealed: &mut [u8],
    ) -> Result<usize, OpenError> {
        if sealed.len() < TAG_LEN {
            return Err(OpenError::Length);
        }
        let counter = Header::from_bytes(header).counter;
        self.windows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .check(k, counter)?;
        let len = self.decrypt(k, counter, header, sealed)?;
        // Again, since another thread may have opened its twin meanwhile: exactly one of them is told Ok.
        self.windows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .commit(k, counter)?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(len)
    }

    /// [`Self::open`] for the only holder of the key: the same checks without a lock.
    ///
    /// # Errors
    /// Every [`OpenError`].
    pub fn open_exclusive(
        &mut self,
        k: u16,
        header: &[u8; HEADER_LEN],
        sealed: &mut [u8],
    ) -> Result<usize, OpenError> {
        if sealed.len() < TAG_LEN {
            return Err(OpenError::Length);
        }
        let counter = Header::from_bytes(header).counter;
        self.windows
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .check(k, counter)?;
        let len = self.decrypt(k, counter, header, sealed)?;
        self.windows
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .commit(k, counter)?;
        *self.opened.get_mut() += 1;
        Ok(len)
    }

    fn decrypt(
        &self,
        k: u16,
        counter: u64,
        header: &[u8],
        sealed: &mut [u8],
    ) -> Result<usize, OpenError> {
        self.aead
            .open_in_place(&nonce(k, counter), header, sealed)
            .ok_or_else(|| {
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
        self.windows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .highest(k)
    }
}

impl<A> fmt::Debug for OpeningKey<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpeningKey")
            .field("opened", &self.opened)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ChaCha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChaCha(..)")
    }
}

/// Seals control messages of one direction and epoch.
pub type ControlSealer = SealingKey<ChaCha>;
/// Opens control messages of one direction and epoch.
pub type ControlOpener = OpeningKey<ChaCha>;

/// Sealer of control messages.
#[must_use]
pub fn control_sealer(key: Secret<32>) -> ControlSealer {
    SealingKey::new(ChaCha::new(key), Suite::ChaCha20Poly1305.limits())
}

/// Opener of control messages.
#[must_use]
pub fn control_opener(key: Secret<32>) -> ControlOpener {
    OpeningKey::new(ChaCha::new(key), Suite::ChaCha20Poly1305.limits())
}

#[cfg(test)]
mod tests;
