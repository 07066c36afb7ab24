//! What the worker does with inner packets while no transport can carry them.
//!
//! Owns the bounds: 64 KiB and 100 ms, oldest dropped first, every drop counted. Must never hold packets in
//! any case but [`super::Command::Hold`]: a planned jump keeps the old transport until the new one is
//! acknowledged, so there is nothing to hold.

use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// Bytes held back. Twice of it and a stalled download bursts into a path nobody has measured yet; half
/// loses a 1 Gbit/s flow's first half millisecond.
pub const HOLD_BYTES_MAX: usize = 64 * 1024;

/// How long a packet is worth sending. Later its sender has sent it again; a jump takes less.
pub const HOLD_FOR: Duration = Duration::from_millis(100);

/// Packets held back, oldest first, end to end in one buffer: a packet costs no memory of its own.
#[derive(Debug, Default)]
pub struct HoldQueue {
    bytes: VecDeque<u8>,
    packets: VecDeque<(Instant, usize)>,
    dropped: u64,
}

impl HoldQueue {
    /// Keeps a packet, given in parts; what is too old or too much is dropped, oldest first.
    pub fn push(&mut self, now: Instant, parts: &[&[u8]]) {
        self.expire(now);
        let len = parts.iter().map(|part| part.len()).sum();
        if len > HOLD_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        while self.bytes.len() + len > HOLD_BYTES_MAX {
            self.drop_oldest();
        }
        parts.iter().for_each(|part| self.bytes.extend(*part));
        self.packets.push_back((now, len));
    }

    /// Takes out the oldest packet still worth sending, to the start of `out`; its length. What does not fit
    /// `out` is cut off.
    pub fn pop(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        self.expire(now);
        let (_, len) = self.packets.pop_front()?;
        out.iter_mut().zip(self.bytes.drain(..len)).for_each(|(to, byte)| *to = byte);
        Some(len.min(out.len()))
    }

    /// Packets dropped since the beginning.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn expire(&mut self, now: Instant) {
        while self.packets.front().is_some_and(|(at, _)| now.since(*at) > HOLD_FOR) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, len)) = self.packets.pop_front() {
            self.bytes.drain(..len);
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000_000_000);

    fn pop(queue: &mut HoldQueue, now: Instant) -> Option<Vec<u8>> {
        let mut out = vec![0xee; HOLD_BYTES_MAX];
        let len = queue.pop(now, &mut out)?;
        out.truncate(len);
        Some(out)
    }

    #[test]
    fn the_oldest_go_first_when_it_is_full_and_each_is_counted() {
        let mut queue = HoldQueue::default();
        for number in 0..70_u8 {
            queue.push(START, &[&[number; 1_000], &[number; 24]]);
        }
        assert_eq!(queue.dropped(), 6);
        for number in 6..70_u8 {
            assert_eq!(pop(&mut queue, START), Some(vec![number; 1_024]));
        }
        assert_eq!((pop(&mut queue, START), queue.dropped(), queue.bytes.len()), (None, 6, 0));
    }

    #[test]
    fn a_packet_older_than_a_tenth_of_a_second_is_dropped() {
        let mut queue = HoldQueue::default();
        queue.push(START, &[&[1]]);
        queue.push(START + Duration::from_millis(60), &[&[2]]);
        assert_eq!(pop(&mut queue, START + Duration::from_millis(101)), Some(vec![2]));
        assert_eq!((queue.dropped(), queue.is_empty()), (1, true));
    }

    #[test]
    fn a_packet_larger_than_the_queue_drops_only_itself() {
        let mut queue = HoldQueue::default();
        queue.push(START, &[&[1]]);
        queue.push(START, &[&[2; HOLD_BYTES_MAX + 1]]);
        assert_eq!((queue.dropped(), pop(&mut queue, START)), (1, Some(vec![1])));
    }

    #[test]
    fn one_packet_that_fills_the_queue_takes_the_place_of_all() {
        let mut queue = HoldQueue::default();
        queue.push(START, &[&[1]]);
        queue.push(START, &[&[2; HOLD_BYTES_MAX]]);
        assert_eq!((queue.dropped(), pop(&mut queue, START)), (1, Some(vec![2; HOLD_BYTES_MAX])));
    }

    #[test]
    fn a_short_buffer_gets_the_beginning_and_the_next_packet_stays_whole() {
        let mut queue = HoldQueue::default();
        queue.push(START, &[&[1, 2, 3]]);
        queue.push(START, &[&[4]]);
        let mut out = [0; 2];
        assert_eq!((queue.pop(START, &mut out), out), (Some(2), [1, 2]));
        assert_eq!(pop(&mut queue, START), Some(vec![4]));
    }
}
