//! Data keys of one epoch and the three epochs a session receives under.
//!
//! Owns numbers: a key hands out its own nonces and keeps its own replay windows, one per transport index,
//! so that neither can exist twice. Must never reset a counter or a window, nor extend a dead key.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use jvpn_common::ids::Epoch;
use jvpn_common::time::{Duration, Instant};

use super::aead::{DataAead, DataSuite};

/// After this long a key neither seals nor opens, whatever happened.
pub const REJECT_AFTER: Duration = Duration::from_secs(180);
/// Packets one key seals before it is dead (AES-GCM, RFC 9001 B.1.1, packets of at most 2 KiB).
pub const REJECT_AFTER_PACKETS: u64 = 1 << 28;
/// Packets after which the client asks for new keys.
pub const REKEY_AFTER_PACKETS: u64 = 1 << 27;
/// Number spaces and windows a key remembers at once. A session has 6 locators at a time; what is older
/// than the 32 youngest is refused, never forgotten, since a forgotten counter would repeat nonces.
const SPACES_MAX: usize = 32;

/// The pair of data keys of one epoch.
#[derive(Debug)]
pub struct DataKey {
    epoch: Epoch,
    seal: DataAead,
    open: DataAead,
    born: Instant,
    sealed: AtomicU64,
    failed: AtomicU64,
    counters: Mutex<Spaces<u64>>,
    windows: Mutex<Spaces<Window>>,
}

impl DataKey {
    /// A key of `epoch`, born at `now`: one secret to seal with, one to open with.
    #[must_use]
    pub fn new(suite: DataSuite, epoch: Epoch, seal: &[u8; 32], open: &[u8; 32], now: Instant) -> Self {
        Self {
            epoch,
            seal: DataAead::new(suite, seal),
            open: DataAead::new(suite, open),
            born: now,
            sealed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            counters: Mutex::default(),
            windows: Mutex::default(),
        }
    }

    /// The epoch these keys belong to.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Packets sealed so far, over all transports.
    #[must_use]
    pub fn sealed(&self) -> u64 {
        self.sealed.load(Relaxed)
    }

    /// Opens that failed so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Whether the key may still be used.
    #[must_use]
    pub fn alive(&self, now: Instant) -> bool {
        now.since(self.born) < REJECT_AFTER && self.sealed() < REJECT_AFTER_PACKETS
    }

    pub(super) fn sealer(&self) -> &DataAead {
        &self.seal
    }

    pub(super) fn opener(&self) -> &DataAead {
        &self.open
    }

    pub(super) fn count_failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// Takes `n` numbers of transport `k`: the first of them, or none when the key or the transport is past.
    #[must_use]
    pub fn take(&self, k: u16, n: u32) -> Option<u64> {
        if self.sealed.fetch_add(u64::from(n), Relaxed) >= REJECT_AFTER_PACKETS {
            return None;
        }
        let mut spaces = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = spaces.of(k)?;
        let first = *counter;
        *counter = first.checked_add(u64::from(n))?;
        Some(first)
    }

    /// Runs `open` if `counter` of transport `k` is new, and remembers it if `open` succeeded.
    pub(super) fn once<T>(&self, k: u16, counter: u64, open: impl FnOnce() -> Option<T>) -> Result<T, Refused> {
        let mut spaces = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = spaces.of(k).ok_or(Refused::Replay)?;
        if !window.is_new(counter) {
            return Err(Refused::Replay);
        }
        let opened = open().ok_or(Refused::Open)?;
        window.insert(counter);
        Ok(opened)
    }
}

/// Why a datagram did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Replay,
    Open,
}

/// One value per transport index, bounded: what falls below the floor is refused for good.
#[derive(Debug, Default)]
struct Spaces<T> {
    floor: u16,
    of: BTreeMap<u16, T>,
}

impl<T: Default> Spaces<T> {
    fn of(&mut self, k: u16) -> Option<&mut T> {
        if k < self.floor {
            return None;
        }
        if !self.of.contains_key(&k) && self.of.len() >= SPACES_MAX {
            let (&lowest, _) = self.of.first_key_value()?;
            if k < lowest {
                return None;
            }
            self.of.pop_first();
            self.floor = lowest.saturating_add(1);
        }
        Some(self.of.entry(k).or_default())
    }
}

/// Words of 64 numbers in a window: 2,048 numbers, more than the reordering of any path people call usable.
const WINDOW_WORDS: u64 = 32;

/// Replay window: which of the youngest numbers were seen. One word is always being cleared ahead.
#[derive(Debug, Default)]
struct Window {
    /// One above the highest number seen; 0 = nothing yet.
    next: u64,
    seen: [u64; WINDOW_WORDS as usize],
}

impl Window {
    fn is_new(&self, counter: u64) -> bool {
        if counter >= self.next {
            return counter < u64::MAX;
        }
        if self.next - counter > (WINDOW_WORDS - 1) * 64 {
            return false;
        }
        self.seen.get((counter / 64 % WINDOW_WORDS) as usize).is_some_and(|word| word & 1 << (counter % 64) == 0)
    }

    fn insert(&mut self, counter: u64) {
        if counter >= self.next {
            let first = self.next.div_ceil(64);
            let last = counter / 64;
            let fresh = (last + 1).saturating_sub(first).min(WINDOW_WORDS);
            for word in last + 1 - fresh..=last {
                if let Some(word) = self.seen.get_mut((word % WINDOW_WORDS) as usize) {
                    *word = 0;
                }
            }
            self.next = counter + 1;
        }
        if let Some(word) = self.seen.get_mut((counter / 64 % WINDOW_WORDS) as usize) {
            *word |= 1 << (counter % 64);
        }
    }
}

/// The epochs a session receives under, and which of them it sends with.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    /// What was current before; wiped ten seconds after the change.
    pub previous: Option<Arc<DataKey>>,
    /// Sent with.
    pub current: Option<Arc<DataKey>>,
    /// Answered for but not yet proven by a packet that opened under it.
    pub next: Option<Arc<DataKey>>,
}

impl KeySet {
    /// The key whose epoch has this wire byte.
    #[must_use]
    pub fn by_wire(&self, epoch: u8) -> Option<&Arc<DataKey>> {
        [&self.current, &self.next, &self.previous].into_iter().flatten().find(|key| key.epoch.wire() == epoch)
    }

    /// Makes `next` current if it is `epoch`; says whether anything changed.
    pub fn promote(&mut self, epoch: Epoch) -> bool {
        if self.next.as_ref().is_none_or(|next| next.epoch != epoch) {
            return false;
        }
        self.previous = self.current.take();
        self.current = self.next.take();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DataKey {
        DataKey::new(DataSuite::Aes256Gcm, Epoch(1), &[1; 32], &[2; 32], Instant(0))
    }

    #[test]
    fn numbers_of_two_threads_are_all_distinct() {
        let key = key();
        let all: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..2).map(|_| scope.spawn(|| (0..10_000).map(|_| key.take(3, 2).unwrap()).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let distinct: std::collections::BTreeSet<u64> = all.iter().copied().collect();
        assert_eq!(distinct.len(), 20_000);
        assert!(distinct.iter().all(|n| n % 2 == 0));
        assert_eq!(key.take(4, 1), Some(0));
    }

    #[test]
    fn a_transport_below_the_floor_is_refused_not_restarted() {
        let key = key();
        for k in 0..=32 {
            assert_eq!(key.take(k, 1), Some(0));
        }
        assert_eq!(key.take(0, 1), None);
        assert_eq!(key.take(1, 1), Some(1));
    }

    #[test]
    fn a_number_passes_once_and_an_old_one_never() {
        let mut window = Window::default();
        let mut accept = |n: u64| {
            let new = window.is_new(n);
            if new {
                window.insert(n);
            }
            new
        };
        assert!(accept(5) && accept(0) && accept(4) && !accept(5) && !accept(0));
        assert!(accept(1_900) && accept(6) && !accept(6));
        assert!(accept(100_000) && !accept(1_901) && accept(99_000) && !accept(99_000));
        assert!(accept(u64::MAX - 1) && !accept(u64::MAX));
    }

    #[test]
    fn a_window_agrees_with_a_set_of_everything_seen() {
        let mut window = Window::default();
        let mut all = std::collections::BTreeSet::new();
        let mut seed = 7u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let highest = all.last().copied().unwrap_or(0u64);
            let n = (highest + 200).saturating_sub((seed >> 33) % 2_000);
            let recent = highest + 1 - n.min(highest) <= 1_900;
            if n > highest || recent {
                assert_eq!(window.is_new(n), !all.contains(&n), "{n} after {highest}");
            }
            if window.is_new(n) {
                window.insert(n);
                all.insert(n);
            }
        }
    }

    #[test]
    fn a_failed_open_leaves_the_number_free() {
        let key = key();
        assert_eq!(key.once(0, 1, || None::<()>), Err(Refused::Open));
        assert_eq!(key.once(0, 1, || Some(1)), Ok(1));
        assert_eq!(key.once(0, 1, || Some(1)), Err(Refused::Replay));
    }

    #[test]
    fn only_the_next_epoch_is_promoted() {
        let epoch = |n| Some(Arc::new(DataKey::new(DataSuite::Aes256Gcm, Epoch(n), &[1; 32], &[2; 32], Instant(0))));
        let mut set = KeySet { previous: epoch(1), current: epoch(2), next: epoch(3) };
        assert!(!set.promote(Epoch(1)) && !set.promote(Epoch(2)));
        assert!(set.promote(Epoch(3)) && !set.promote(Epoch(3)));
        assert_eq!(set.current.as_ref().map(|key| key.epoch()), Some(Epoch(3)));
        assert!(set.by_wire(2).is_some() && set.by_wire(1).is_none());
    }
}
