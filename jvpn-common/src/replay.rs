//! Replay windows: a counter is accepted once.
//!
//! Owns a sliding bitmap per transport index, made with the key and wiped with it. Must never be reset,
//! and must never move for a counter that has not been authenticated: check, open, then commit.

use std::collections::BTreeMap;

/// Counters below the highest one that are still told apart. Half of it loses packets that a 10 Gbit/s
/// path reorders by 1 ms; twice of it doubles 264 bytes per transport of a key.
pub const WINDOW: u64 = 2_048;

/// Transports of one key that have a window. Six locators are alive at once; the rest are drained ones.
pub const TRANSPORTS_MAX: usize = 16;

/// One word more than the window, so that moving on clears whole words (RFC 6479).
const WORDS: usize = WINDOW as usize / 64 + 1;

/// Why a counter is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Seen before.
    #[error("counter seen before")]
    Replayed,
    /// Too far below the highest one to tell.
    #[error("counter below the replay window")]
    TooOld,
    /// Of a transport whose window has been given up.
    #[error("counter of a retired transport")]
    Retired,
}

/// Which counters of one number space have been seen.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// Highest counter seen plus one; zero when none was.
    next: u64,
    /// Ring of bits: counter c is bit c mod 64 of word (c / 64) mod `WORDS`.
    bits: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { next: 0, bits: [0; WORDS] }
    }
}

impl ReplayWindow {
    /// Whether `counter` could still be accepted.
    ///
    /// # Errors
    /// [`ReplayError::Replayed`] or [`ReplayError::TooOld`].
    pub fn check(&self, counter: u64) -> Result<(), ReplayError> {
        if counter == u64::MAX {
            // No sealer gets there; refusing it keeps `next` from wrapping to "nothing seen".
            return Err(ReplayError::TooOld);
        }
        if counter >= self.next {
            return Ok(());
        }
        if self.next - counter > WINDOW {
            return Err(ReplayError::TooOld);
        }
        let word = self.bits.get(place(counter)).copied().unwrap_or(u64::MAX);
        if word & bit(counter) != 0 { Err(ReplayError::Replayed) } else { Ok(()) }
    }

    /// Marks `counter` as seen, after it has been authenticated.
    ///
    /// # Errors
    /// As [`Self::check`], when another packet with this counter came first.
    pub fn commit(&mut self, counter: u64) -> Result<(), ReplayError> {
        self.check(counter)?;
        if counter >= self.next {
            // Words strictly after the one holding the highest seen, up to the new one, start empty.
            let newest = counter / 64;
            let first = if self.next == 0 { 0 } else { (self.next - 1) / 64 + 1 };
            // Further back it would only clear the same ones again.
            let first = first.max(newest.saturating_sub(WORDS as u64));
            for word in first..=newest {
                if let Some(bits) = self.bits.get_mut((word % WORDS as u64) as usize) {
                    *bits = 0;
                }
            }
            self.next = counter + 1;
        }
        if let Some(bits) = self.bits.get_mut(place(counter)) {
            *bits |= bit(counter);
        }
        Ok(())
    }

    /// Highest counter seen.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }
}

fn place(counter: u64) -> usize {
    (counter / 64 % WORDS as u64) as usize
}

fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

/// The windows of one key, one for each transport index.
///
/// Indexes only grow, so a window is given up from below: what was given up stays refused for the life of
/// the key, or its counters could be replayed into a fresh window.
#[derive(Debug, Default)]
pub struct ReplayWindows {
    windows: BTreeMap<u16, Box<ReplayWindow>>,
    /// Indexes below this one are refused.
    floor: u32,
}

impl ReplayWindows {
    /// Whether `counter` on transport `k` could still be accepted. Makes no window.
    ///
    /// # Errors
    /// Every [`ReplayError`].
    pub fn check(&self, k: u16, counter: u64) -> Result<(), ReplayError> {
        if let Some(window) = self.windows.get(&k) {
            return window.check(counter);
        }
        let full = self.windows.len() >= TRANSPORTS_MAX;
        let lowest = self.windows.first_key_value().map(|(&lowest, _)| lowest);
        if u32::from(k) < self.floor || (full && lowest.is_some_and(|lowest| k < lowest)) {
            return Err(ReplayError::Retired);
        }
        ReplayWindow::default().check(counter)
    }

    /// Marks `counter` on transport `k` as seen, after it has been authenticated.
    ///
    /// # Errors
    /// As [`Self::check`]; nothing has changed then.
    pub fn commit(&mut self, k: u16, counter: u64) -> Result<(), ReplayError> {
        self.check(k, counter)?;
        if !self.windows.contains_key(&k)
            && self.windows.len() >= TRANSPORTS_MAX
            && let Some((lowest, _)) = self.windows.pop_first()
        {
            self.floor = u32::from(lowest) + 1;
        }
        self.windows.entry(k).or_default().commit(counter)
    }

    /// Gives up the windows of all transports below `k`, for good.
    pub fn retire_below(&mut self, k: u16) {
        self.floor = self.floor.max(u32::from(k));
        self.windows = self.windows.split_off(&k);
    }

    /// Highest counter seen on transport `k`.
    #[must_use]
    pub fn highest(&self, k: u16) -> Option<u64> {
        self.windows.get(&k)?.highest()
    }
}

#[cfg(test)]
mod tests;
