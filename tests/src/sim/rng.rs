//! Randomness of a seed: the product's own, which `policy test` uses as well.
//!
//! Owns nothing. Must never be seeded from anything but a number.

pub use jvpn_common::scenario::rng::Rng;
