//! Cryptography: one handshake, one table of keys, one way to seal, one to open.
//!
//! Owns every use of a primitive in this crate; primitives themselves come from crates. Must never draw
//! randomness (it is injected as [`Entropy`]), read a clock, or hand out a key that is already in use.
//!
//! ```text
//! curve.rs     X25519: ours, or a faster one that a runtime lends
//! noise.rs     message 1, message 2 ──▶ Split {hash, k1, k2}
//! schedule.rs  Split ──▶ EpochKeys {data, control, steering} × {up, down}
//! seal/        key ──▶ SealingKey (owns its counters)   OpeningKey (owns its windows)
//! frame.rs     what stands around a handshake message: type, index, mac1, mac2
//! cookie.rs    mac1, mac2, cookie reply        challenge.rs   the cookie of a reattach
//! trailer.rs   what stands behind a datagram between relay and owner      link.rs  their stream
//! suite.rs     which AEAD seals data, and how much a key may do
//! ```

pub mod challenge;
pub mod cookie;
pub mod curve;
pub mod frame;
pub mod link;
pub mod noise;
pub mod schedule;
pub mod seal;
pub mod suite;
pub mod trailer;

pub use curve::Curve;
pub use schedule::{Directions, EpochKeys};
pub use seal::{Aead, ControlOpener, ControlSealer, OpeningKey, SealingKey};
pub use suite::Suite;

/// What a handshake needs of its runtime. Randomness: the system's in the product, a seeded generator in simulation.
pub trait Entropy {
    /// Fills all of `bytes`. A source that cannot must end the process: there is no weak fallback.
    fn fill(&mut self, bytes: &mut [u8]);

    /// Who multiplies on the curve.
    fn curve(&self) -> &'static dyn Curve {
        &curve::Portable
    }
}

#[cfg(test)]
pub(crate) mod test_entropy;
#[cfg(test)]
pub(crate) mod vectors;
