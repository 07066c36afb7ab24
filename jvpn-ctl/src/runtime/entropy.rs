//! Randomness of the system.
//!
//! Owns the one use of it, and names the curve that goes with it. There is no weak fallback: a system without randomness
//! cannot run a VPN.

use super::curve::AwsLc;
use jvpn_common::crypto::{Curve, Entropy};

/// The kernel's random number generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Entropy for System {
    fn fill(&mut self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            tracing::error!(%error, "the system has no randomness");
            std::process::abort();
        }
    }

    fn curve(&self) -> &'static dyn Curve {
        &AwsLc
    }
}
