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

/// Packets held back, oldest first.
#[derive(Debug, Default)]
pub struct HoldQueue {
    packets: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    dropped: u64,
}

impl HoldQueue {
    /// Keeps a packet; what is too old or too much is dropped, oldest first.
    pub fn push(&mut self, now: Instant, packet: Vec<u8>) {
        self.expire(now);
        if packet.len() > HOLD_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.bytes += packet.len();
        self.packets.push_back((now, packet));
        while self.bytes > HOLD_BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// The oldest packet still worth sending.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.expire(now);
        let (_, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
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
        if let Some((_, packet)) = self.packets.pop_front() {
            self.bytes -= packet.len();
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000_000_000);

    #[test]
    fn the_oldest_go_first_when_it_is_full_and_each_is_counted() {
        let mut queue = HoldQueue::default();
        for number in 0..70_u8 {
            queue.push(START, vec![number; 1_024]);
        }
        assert_eq!(queue.dropped(), 6);
        assert_eq!(queue.pop(START).map(|packet| packet[0]), Some(6));
    }

    #[test]
    fn a_packet_older_than_a_tenth_of_a_second_is_dropped() {
        let mut queue = HoldQueue::default();
        queue.push(START, vec![1]);
        queue.push(START + Duration::from_millis(60), vec![2]);
        assert_eq!(queue.pop(START + Duration::from_millis(101)), Some(vec![2]));
        assert_eq!((queue.dropped(), queue.is_empty()), (1, true));
    }

    #[test]
    fn a_packet_larger_than_the_queue_drops_only_itself() {
        let mut queue = HoldQueue::default();
        queue.push(START, vec![1]);
        queue.push(START, vec![2; HOLD_BYTES_MAX + 1]);
        assert_eq!((queue.dropped(), queue.pop(START)), (1, Some(vec![1])));
    }
}
