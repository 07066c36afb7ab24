//! Replay windows: a counter is accepted once.
//!
//! Owns a sliding bitmap per transport index, made with the key and wiped with it. Must never be reset,
//! and must never move for a counter that has not been authenticated: check, open, then commit.

pub use crate::transports::TRANSPORTS_MAX;
use crate::transports::Transports;

/// Counters below the highest one that are still told apart. Half of it loses packets that a 10 Gbit/s
/// path reorders by 1 ms; twice of it doubles 256 bytes per transport of a key that carries data.
pub const WINDOW: u64 = 2_048;

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
///
/// Ring of bits: counter c is bit c mod 64 of word (c / 64) mod `WORDS`.
#[derive(Clone, Debug, Default)]
pub struct ReplayWindow {
    /// Highest counter seen plus one; zero when none was.
    next: u64,
    /// Word 0.
    first: u64,
    /// The other words, once one of them has a bit: a control key sees few messages, and an idle session has no other.
    rest: Option<Box<[u64; WORDS - 1]>>,
}

impl ReplayWindow {
    fn word(&self, at: usize) -> u64 {
        match (at.checked_sub(1), &self.rest) {
            (None, _) => self.first,
            (Some(_), None) => 0,
            (Some(at), Some(rest)) => rest.get(at).copied().unwrap_or(u64::MAX),
        }
    }

    fn word_mut(&mut self, at: usize) -> Option<&mut u64> {
        match at.checked_sub(1) {
            None => Some(&mut self.first),
            Some(at) => self.rest.get_or_insert_default().get_mut(at),
        }
    }

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
        if self.word(place(counter)) & bit(counter) != 0 { Err(ReplayError::Replayed) } else { Ok(()) }
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
            for at in (first..=newest).map(|word| (word % WORDS as u64) as usize) {
                if self.word(at) != 0
                    && let Some(bits) = self.word_mut(at)
                {
                    *bits = 0;
                }
            }
            self.next = counter + 1;
        }
        if let Some(bits) = self.word_mut(place(counter)) {
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
#[derive(Debug, Default)]
pub struct ReplayWindows(Transports<ReplayWindow>);

impl ReplayWindows {
    /// Whether `counter` on transport `k` could still be accepted. Makes no window.
    ///
    /// # Errors
    /// Every [`ReplayError`].
    pub fn check(&self, k: u16, counter: u64) -> Result<(), ReplayError> {
        match self.0.find(k) {
            Some(window) => window.check(counter),
            None if self.0.admits(k) => ReplayWindow::default().check(counter),
            None => Err(ReplayError::Retired),
        }
    }

    /// Marks `counter` on transport `k` as seen, after it has been authenticated.
    ///
    /// # Errors
    /// As [`Self::check`]; nothing has changed then.
    pub fn commit(&mut self, k: u16, counter: u64) -> Result<(), ReplayError> {
        self.check(k, counter)?;
        self.0.open(k).ok_or(ReplayError::Retired)?.commit(counter)
    }

    /// Gives up the windows of all transports below `k`, for good.
    pub fn retire_below(&mut self, k: u16) {
        self.0.retire_below(k);
    }

    /// Highest counter seen on transport `k`.
    #[must_use]
    pub fn highest(&self, k: u16) -> Option<u64> {
        self.0.find(k)?.highest()
    }
}

#[cfg(test)]
mod tests;
