//! The Internet checksum (RFC 1071) in full for answers, and replaced in part (RFC 1624) for what is forwarded.
//!
//! Owns sums over little-endian words: the ones' complement sum does not care for byte order as long as it
//! is written back in the order it was read. An answer never continues an incoming checksum: over a veth it
//! may be unfinished, and nothing finishes it after the packet turned round. What is forwarded keeps the
//! sender's: a payload that was damaged on the way must not get a checksum that hides it.

use crate::steer::Frame;

/// Longest payload that is summed: a bound the verifier can follow, and more than any probe is padded to.
pub const SUM_MAX: usize = 1_536;

/// Bytes summed a step.
const STEP: usize = 64;

/// Bytes of the last step.
const LAST: usize = 8;

/// Adds an even number of bytes to a sum.
#[must_use]
#[inline(always)]
pub fn add<const N: usize>(mut sum: u64, bytes: &[u8; N]) -> u64 {
    let mut at = 0;
    while at + 4 <= N {
        sum += u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        at += 4;
    }
    if at + 2 <= N {
        sum += u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    }
    sum
}

/// Folds a sum into the two bytes that go into the header.
#[must_use]
#[inline(always)]
pub const fn finish(sum: u64) -> [u8; 2] {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_le_bytes()
}

/// The sum of a word of 8 bytes.
#[must_use]
#[inline(always)]
pub const fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

/// The sum behind a checksum after `old`, a sum over some of what it covers, was replaced by `new`: RFC 1624,
/// equation 3. A checksum that was wrong stays wrong. `new` must not be 0: its two zeros would be told apart.
#[must_use]
#[inline(always)]
pub const fn replaced(checksum: [u8; 2], old: u64, new: u64) -> u64 {
    !u16::from_le_bytes(checksum) as u64 + u16::from_le_bytes(finish(old)) as u64 + new
}

/// The same for UDP, where zero would mean "none".
#[must_use]
#[inline(always)]
pub const fn finish_udp(sum: u64) -> [u8; 2] {
    match finish(sum) {
        [0, 0] => [0xff, 0xff],
        bytes => bytes,
    }
}

/// Adds `len` bytes of a frame from `at` to a sum; `None` past the frame, past [`SUM_MAX`] or below the 8
/// bytes the last step takes at once.
#[inline(always)]
pub fn add_frame(mut sum: u64, frame: &impl Frame, at: usize, len: usize) -> Option<u64> {
    if !(LAST..=SUM_MAX).contains(&len) {
        return None;
    }
    let mut done = 0;
    while done + STEP <= len && done < SUM_MAX {
        sum = add(sum, &frame.read::<STEP>(at + done)?);
        done += STEP;
    }
    // What is left, by halves: each step is taken at most once.
    if len - done >= 32 {
        sum = add(sum, &frame.read::<32>(at + done)?);
        done += 32;
    }
    if len - done >= 16 {
        sum = add(sum, &frame.read::<16>(at + done)?);
        done += 16;
    }
    if len - done >= LAST {
        sum = add(sum, &frame.read::<LAST>(at + done)?);
    }
    // Up to 7 bytes remain. They are the last of 8 that are read again, the others shifted out: steps for
    // 4, 2 and 1 would be eight times as many ways for the verifier to walk.
    let rest = len % LAST;
    if rest != 0 {
        let last = u64::from_le_bytes(frame.read::<LAST>(at + len - LAST)?);
        sum = add(sum, &(last >> (8 * (LAST - rest))).to_le_bytes());
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer::Bytes;

    /// The definition, word by word in network order.
    fn reference(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    #[test]
    fn a_sum_over_a_frame_is_the_definitions_for_every_length() {
        let mut bytes: Vec<u8> = (0..SUM_MAX + 2).map(|i| (i * 37 % 251) as u8 | 0xc0).collect();
        for len in (8..200).chain(SUM_MAX - 40..=SUM_MAX) {
            let expected = reference(&bytes[2..2 + len]);
            let sum = add_frame(0, &Bytes::new(&mut bytes), 2, len);
            assert_eq!(sum.map(finish), Some(expected), "{len}");
        }
        assert_eq!(add_frame(0, &Bytes::new(&mut bytes), 0, SUM_MAX + 1), None);
        assert_eq!(add_frame(0, &Bytes::new(&mut bytes[..40]), 2, 39), None);
        assert_eq!(add_frame(0, &Bytes::new(&mut bytes), 0, 7), None);
    }

    #[test]
    fn udp_never_says_none() {
        assert_eq!(finish(0xffff), [0, 0]);
        assert_eq!(finish_udp(0xffff), [0xff, 0xff]);
    }
}
