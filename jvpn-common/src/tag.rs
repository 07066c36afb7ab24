//! The steering tag: SipHash-1-3 over what the header says and what it does not (the transport index).
//!
//! Owns one function, the same for kernel and worker. Must never loop, branch on data or touch memory by
//! index: the verifier reads it too. The tag keeps junk away before an AEAD is tried; it authenticates
//! nothing that changes state, hence 1-3 and not 2-4 (about 12 ns more a packet).
//!
//! ```text
//! message = [ body, 48 bytes, types 6–8 only ] ‖ counter ‖ type ‖ epoch ‖ flags ‖ k      little-endian
//! ```

/// The four words of SipHash's state.
struct Sip(u64, u64, u64, u64);

impl Sip {
    #[inline(always)]
    const fn new(key: [u64; 2]) -> Self {
        let [k0, k1] = key;
        Self(
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        )
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let Self(mut v0, mut v1, mut v2, mut v3) = self;
        v0 = v0.wrapping_add(v1);
        v1 = v1.rotate_left(13) ^ v0;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v3);
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.wrapping_add(v3);
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.wrapping_add(v1);
        v1 = v1.rotate_left(17) ^ v2;
        v2 = v2.rotate_left(32);
        Self(v0, v1, v2, v3)
    }

    /// One word of message: one round.
    #[inline(always)]
    const fn word(self, word: u64) -> Self {
        let Self(v0, v1, v2, v3) = self;
        let Self(v0, v1, v2, v3) = Self(v0, v1, v2, v3 ^ word).round();
        Self(v0 ^ word, v1, v2, v3)
    }

    /// Three rounds to finish.
    #[inline(always)]
    const fn finish(self) -> u64 {
        let Self(v0, v1, v2, v3) = self;
        let Self(v0, v1, v2, v3) = Self(v0, v1, v2 ^ 0xff, v3).round().round().round();
        v0 ^ v1 ^ v2 ^ v3
    }
}

/// Steering tag of a datagram: of the header's fields, the transport index of its locator and, for types
/// 6 to 8, the six words of its fixed body. `k` is not in the header: it keeps equal counters on two
/// transports from having equal tags, which would link them.
#[inline(always)]
#[must_use]
pub const fn steering_tag(
    key: [u64; 2],
    counter: u64,
    kind: u8,
    epoch: u8,
    flags: u16,
    k: u16,
    body: Option<&[u64; 6]>,
) -> u32 {
    let fields = kind as u64 | (epoch as u64) << 8 | (flags as u64) << 16 | (k as u64) << 32;
    let sip = Sip::new(key);
    // SipHash puts the length of the message, in bytes, on top of its last word.
    let (sip, length) = match body {
        Some(&[a, b, c, d, e, f]) => (sip.word(a).word(b).word(c).word(d).word(e).word(f), 62),
        None => (sip, 14),
    };
    sip.word(counter).word(fields | length << 56).finish() as u32
}

#[cfg(test)]
mod tests {
    use super::steering_tag;
    use core::hash::Hasher;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    fn oracle(key: [u64; 2], counter: u64, kind: u8, epoch: u8, flags: u16, k: u16, body: Option<&[u64; 6]>) -> u32 {
        let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
        for word in body.into_iter().flatten() {
            hasher.write(&word.to_le_bytes());
        }
        hasher.write(&counter.to_le_bytes());
        hasher.write(&[kind, epoch]);
        hasher.write(&flags.to_le_bytes());
        hasher.write(&k.to_le_bytes());
        hasher.finish() as u32
    }

    proptest! {
        #[test]
        fn the_tag_is_siphash_1_3_of_the_crate_that_only_does_siphash(
            key: [u64; 2], counter: u64, kind: u8, epoch: u8, flags: u16, k: u16, body: Option<[u64; 6]>,
        ) {
            let ours = steering_tag(key, counter, kind, epoch, flags, k, body.as_ref());
            prop_assert_eq!(ours, oracle(key, counter, kind, epoch, flags, k, body.as_ref()));
        }
    }

    #[cfg(feature = "engine")]
    #[test]
    fn the_tag_is_the_one_of_the_second_implementation() {
        for case in crate::crypto::vectors::cases(include_str!("../../tests/vectors/steering.json")) {
            let key = u128::from_le_bytes(case.array("key"));
            let body = case.bytes("body").try_into().ok().map(|bytes| crate::wire::probe::words(&bytes));
            let (counter, kind, epoch) = (case.number("counter"), case.number("kind"), case.number("epoch"));
            let key = [key as u64, (key >> 64) as u64];
            let ours = steering_tag(key, counter, kind, epoch, case.number("flags"), case.number("k"), body.as_ref());
            assert_eq!(ours, case.number::<u32>("tag"));
        }
    }

    #[test]
    fn every_field_alone_changes_the_tag() {
        let key = [1, 2];
        let tags = [
            steering_tag(key, 7, 4, 1, 0, 0, None),
            steering_tag(key, 8, 4, 1, 0, 0, None),
            steering_tag(key, 7, 5, 1, 0, 0, None),
            steering_tag(key, 7, 4, 2, 0, 0, None),
            steering_tag(key, 7, 4, 1, 1, 0, None),
            steering_tag(key, 7, 4, 1, 0, 1, None),
            steering_tag(key, 7, 4, 1, 0, 0, Some(&[0; 6])),
            steering_tag(key, 7, 4, 1, 0, 0, Some(&[0, 0, 0, 0, 0, 1])),
            steering_tag([2, 1], 7, 4, 1, 0, 0, None),
        ];
        let distinct: std::collections::BTreeSet<u32> = tags.into_iter().collect();
        assert_eq!(distinct.len(), tags.len());
    }

    #[test]
    fn equal_counters_on_two_transports_have_different_tags() {
        let tags: std::collections::BTreeSet<u32> = (0..6).map(|k| steering_tag([3, 4], 0, 4, 0, 0, k, None)).collect();
        assert_eq!(tags.len(), 6);
    }
}
