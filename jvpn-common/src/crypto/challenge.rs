//! The challenge cookie of a reattach: "whoever sends this receives at this very 4-tuple, now".
//!
//! Owns a secret of the process and the encoding of what a cookie is bound to. Must never keep a challenge:
//! the gateway stores nothing until the proof comes back.
//!
//! ```text
//! cookie = MAC(secret, "jvp/1 challenge" ‖ session ‖ client ‖ gateway ‖ nonce ‖ purpose ‖ incarnation ‖ time)
//! address = family (4 or 6) ‖ 16 bytes (IPv4 in the first four) ‖ port       little-endian, fixed width
//! ```

use super::Entropy;
use super::cookie::{MAC_LEN, mac};
use crate::ids::{Incarnation, SessionId};
use crate::limits::COOKIE_LIFE;
use crate::secret::Secret;
use crate::time::Instant;
use core::net::{IpAddr, SocketAddr};
use subtle::ConstantTimeEq;

const LABEL: &[u8] = b"jvp/1 challenge";

/// Everything a challenge cookie is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Whose.
    pub session: SessionId,
    /// Where the request came from.
    pub client: SocketAddr,
    /// Where it arrived.
    pub gateway: SocketAddr,
    /// Nonce of the request.
    pub nonce: u64,
    /// Class of the reattach, or VALIDATE.
    pub purpose: u8,
    /// Which start of the gateway.
    pub incarnation: Incarnation,
    /// When the cookie was made, by the gateway's boot clock.
    pub time: Instant,
}

/// Why a proof was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// Older than it may be, or from the future.
    #[error("challenge cookie expired")]
    Expired,
    /// Not made by this process for exactly this.
    #[error("challenge cookie is not ours")]
    Wrong,
}

/// The secret challenge cookies are made of; one for each start of the gateway, never stored.
#[derive(Debug)]
pub struct ChallengeSecret(Secret<32>);

impl ChallengeSecret {
    /// A fresh secret.
    #[must_use]
    pub fn new(entropy: &mut dyn Entropy) -> Self {
        Self(Secret::generate(entropy))
    }

    /// The cookie of this challenge.
    #[must_use]
    pub fn cookie(&self, challenge: &Challenge) -> [u8; MAC_LEN] {
        mac(
            self.0.expose(),
            &[
                LABEL,
                &challenge.session.0,
                &address_bytes(challenge.client),
                &address_bytes(challenge.gateway),
                &challenge.nonce.to_le_bytes(),
                &[challenge.purpose],
                &challenge.incarnation.0.to_le_bytes(),
                &challenge.time.0.to_le_bytes(),
            ],
        )
    }

    /// Judges a proof: right for exactly this challenge, and not older than [`COOKIE_LIFE`] at `now`.
    ///
    /// # Errors
    /// [`ChallengeError`].
    pub fn verify(&self, challenge: &Challenge, cookie: &[u8; MAC_LEN], now: Instant) -> Result<(), ChallengeError> {
        if !bool::from(self.cookie(challenge).ct_eq(cookie)) {
            return Err(ChallengeError::Wrong);
        }
        if challenge.time > now || now.since(challenge.time) > COOKIE_LIFE {
            return Err(ChallengeError::Expired);
        }
        Ok(())
    }
}

/// An address in 19 bytes; an IPv4 address is the same whether a socket calls it mapped or not.
pub(super) fn address_bytes(address: SocketAddr) -> [u8; 19] {
    let mut bytes = [0; 19];
    let [family, ip @ .., p0, p1] = &mut bytes;
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => {
            *family = 4;
            for (place, byte) in ip.iter_mut().zip(v4.octets()) {
                *place = byte;
            }
        }
        IpAddr::V6(v6) => {
            *family = 6;
            *ip = v6.octets();
        }
    }
    [*p0, *p1] = address.port().to_le_bytes();
    bytes
}

#[cfg(test)]
mod tests;
