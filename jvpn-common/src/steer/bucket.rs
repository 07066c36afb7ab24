//! Token buckets in ticks.
//!
//! Owns refill and withdrawal. A zeroed bucket is a full one. Must never need a clock or a lock: two
//! processors racing may let one packet more through.

use crate::abi::Bucket;
use crate::tag::steering_tag;

/// Rate and depth of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Tokens a second.
    pub rate: u32,
    /// Tokens at most.
    pub burst: u32,
}

/// A bucket refills in an hour at most; bounds the product below 2^64.
const IDLE_SECONDS_MAX: u64 = 3_600;

/// The bucket after one withdrawal at `tick`, or `None` when it is empty.
#[must_use]
#[inline(always)]
pub fn take(bucket: &Bucket, limit: Limit, tick: u64, hz: u32) -> Option<Bucket> {
    let hz = if hz == 0 { 1 } else { u64::from(hz) };
    let idle = tick.wrapping_sub(bucket.at);
    // Before the bucket's own time (another processor's tick) nothing refills; long idleness is cut.
    let idle = if tick < bucket.at {
        0
    } else if idle > hz * IDLE_SECONDS_MAX {
        hz * IDLE_SECONDS_MAX
    } else {
        idle
    };
    let full = u64::from(limit.burst) * 1_000;
    let refilled = bucket.tokens.wrapping_add(idle * u64::from(limit.rate) * 1_000 / hz);
    // Never used: full, whatever the tick is.
    let tokens = if bucket.at == 0 || refilled > full { full } else { refilled };
    if tokens < 1_000 {
        return None;
    }
    let at = if tick < bucket.at { bucket.at } else { tick };
    Some(Bucket { at, tokens: tokens - 1_000 })
}

/// Keyed hash of whom a source belongs to: an IPv4 address, or the /64 an IPv6 host may number at will.
#[must_use]
#[inline(always)]
pub const fn of_source(seed: [u64; 2], address: &[u8; 16]) -> u32 {
    let [h0, h1, h2, h3, h4, h5, h6, h7, l0, l1, l2, l3, l4, l5, l6, l7] = *address;
    let high = u64::from_le_bytes([h0, h1, h2, h3, h4, h5, h6, h7]);
    let low = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
    steering_tag(seed, if high == 0 { low } else { high }, 0, 0, 0, 0, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { rate: 30, burst: 20 };

    fn passed(bucket: &mut Bucket, ticks: impl Iterator<Item = u64>) -> usize {
        ticks.filter(|&tick| take(bucket, LIMIT, tick, 250).map(|after| *bucket = after).is_some()).count()
    }

    #[test]
    fn a_fresh_bucket_is_full_and_no_second_lets_more_than_rate_and_burst_through() {
        let mut bucket = Bucket::default();
        assert_eq!(passed(&mut bucket, std::iter::repeat_n(1_000, 500)), 20);
        assert_eq!(passed(&mut bucket, (1_001..1_251).flat_map(|tick| [tick; 10])), 30);
    }

    #[test]
    fn hosts_of_one_ipv6_network_share_a_bucket_and_ipv4_addresses_do_not() {
        let v6 = |last: u8| [0x20, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, last];
        let v4 = |last: u8| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, last];
        assert_eq!(of_source([1, 2], &v6(1)), of_source([1, 2], &v6(2)));
        assert_ne!(of_source([1, 2], &v4(1)), of_source([1, 2], &v4(2)));
        assert_ne!(of_source([1, 2], &v4(1)), of_source([1, 3], &v4(1)));
    }

    #[test]
    fn an_empty_bucket_stays_as_it_was_and_time_running_back_refills_nothing() {
        let empty = Bucket { at: 500, tokens: 999 };
        assert_eq!(take(&empty, LIMIT, 500, 250), None);
        assert_eq!(take(&empty, LIMIT, 1, 250), None);
        assert_eq!(take(&empty, LIMIT, u64::MAX, 250), Some(Bucket { at: u64::MAX, tokens: 19_000 }));
    }
}
