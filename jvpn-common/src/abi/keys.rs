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

impl core::fmt::Debug for SteeringKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SteeringKeys(..)")
    }
}

const _: () = assert!(size_of::<SteeringKeys>() == 32);
