//! Probes of one transport: which are under way, and what their echoes told.
//!
//! Owns the sequence (a number space of its own per transport) and the offset that keeps client times of two
//! networks from being compared. Must never believe an echo twice.

use super::command::Sealed;
use super::delivery::Mark;
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// Probes under way. At 20 ms apart this is more than a second, after which they are lost anyway.
const OUTSTANDING_MAX: usize = 96;

/// A probe under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) sequence: u64,
    pub(super) at: Instant,
    /// Size of the outer packet it tests; none for a small one.
    pub(super) size: Option<u16>,
    /// One of the three that confirm a suspicion.
    pub(super) burst: bool,
    /// How much data had been sealed for its transport, if that is the one in use.
    pub(super) mark: Option<Mark>,
}

/// Probes of one transport.
#[derive(Debug)]
pub(super) struct Probes {
    next: u64,
    offset: u64,
    under_way: VecDeque<Sent>,
}

impl Probes {
    /// Probes whose client times are shifted by `offset`.
    pub(super) const fn new(offset: u64) -> Self {
        Self { next: 1, offset, under_way: VecDeque::new() }
    }

    /// One more; gives its sequence and client time.
    pub(super) fn send(&mut self, now: Instant, size: Option<u16>, burst: bool, mark: Option<Mark>) -> (u64, u64) {
        let sequence = self.next;
        self.next += 1;
        if self.under_way.len() == OUTSTANDING_MAX {
            self.under_way.pop_front();
        }
        self.under_way.push_back(Sent { sequence, at: now, size, burst, mark });
        (sequence, self.client_time(now))
    }

    /// The worker was looked at: the end of the moment in which the last ones were sent.
    pub(super) fn look(&mut self, sealed: &Sealed) {
        let mut marks = self.under_way.iter_mut().rev().filter_map(|sent| sent.mark.as_mut());
        while marks.next().is_some_and(|mark| mark.look(sealed)) {}
    }

    fn client_time(&self, at: Instant) -> u64 {
        at.0.wrapping_add(self.offset)
    }

    /// The probe an echo answers, once.
    pub(super) fn answered(&mut self, sequence: u64, client_time: u64) -> Option<Sent> {
        let place = self.under_way.iter().position(|sent| sent.sequence == sequence)?;
        let sent = *self.under_way.get(place)?;
        (self.client_time(sent.at) == client_time).then(|| self.under_way.remove(place)).flatten()
    }

    /// Gives up those older than `after`; how many of them were small ones.
    pub(super) fn expire(&mut self, now: Instant, after: Duration) -> u32 {
        let mut lost = 0;
        while let Some(sent) = self.under_way.pop_front_if(|sent| now >= sent.at + after) {
            lost += u32::from(sent.size.is_none());
        }
        lost
    }

    /// When the first of those under way is given up.
    pub(super) fn expiry(&self, after: Duration) -> Option<Instant> {
        self.under_way.front().map(|sent| sent.at + after)
    }

    /// When the oldest small one under way was sent, of those sent after `since`.
    pub(super) fn oldest(&self, since: Instant) -> Option<Instant> {
        self.under_way.iter().find(|sent| sent.size.is_none() && sent.at > since).map(|sent| sent.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(5_000_000_000);

    #[test]
    fn an_echo_is_believed_once_and_only_with_its_own_time() {
        let mut probes = Probes::new(77);
        let (sequence, time) = probes.send(NOW, None, false, None);
        assert!(probes.answered(sequence, time + 1).is_none());
        assert!(probes.answered(sequence + 1, time).is_none());
        assert!(probes.answered(sequence, time).is_some());
        assert!(probes.answered(sequence, time).is_none());
    }

    #[test]
    fn lost_padded_probes_are_not_loss_of_the_path() {
        let mut probes = Probes::new(0);
        probes.send(NOW, Some(1_400), false, None);
        probes.send(NOW, None, false, None);
        assert_eq!(probes.expire(NOW + Duration::from_millis(999), Duration::from_secs(1)), 0);
        assert_eq!(probes.expire(NOW + Duration::from_secs(1), Duration::from_secs(1)), 1);
    }
}
