//! Steering keys of a slot: they keep junk away and protect nothing else.
//!
//! Owns the value of `KEYS`, a map of its own so that the one everybody is told to dump shows no key.

/// SipHash keys of both directions, each as two little-endian words.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct SteeringKeys {
    /// Client to gateway.
    pub up: [u64; 2],
    /// Gateway to client.
    pub down: [u64; 2],
}

impl SteeringKeys {
    /// The keys as their four words in memory.
    #[must_use]
    pub const fn to_words(&self) -> [u64; 4] {
        [self.up[0], self.up[1], self.down[0], self.down[1]]
    }

    /// The keys of four words.
    #[must_use]
    pub const fn from_words([u0, u1, d0, d1]: [u64; 4]) -> Self {
        Self { up: [u0, u1], down: [d0, d1] }
    }
}

impl core::fmt::Debug for SteeringKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SteeringKeys(..)")
    }
}

const _: () = assert!(size_of::<SteeringKeys>() == 32);
