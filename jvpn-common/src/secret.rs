//! Keys as types: bytes that are wiped when dropped, never printed, and never copied by accident.
//!
//! Owns [`Secret`] and the three keys people handle as text: private, public, preshared. Must never print
//! a secret, not even shortened, and must never let a weak public key become a [`PublicKey`].

use crate::crypto::Entropy;
use crate::crypto::curve::{self, Curve, Ready};
use base64::{Engine, engine::general_purpose::STANDARD};
use core::fmt;
use core::str::FromStr;
use std::sync::{Arc, OnceLock};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// `N` secret bytes at one place on the heap (so that a move leaves no copy), wiped on drop.
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// A secret of all zeros, to be filled in place.
    #[must_use]
    pub fn zeroed() -> Self {
        Self(Box::new([0; N]))
    }

    /// Takes the bytes over; the caller's copy is wiped.
    #[must_use]
    pub fn take(bytes: &mut [u8; N]) -> Self {
        let mut secret = Self::zeroed();
        secret.0.copy_from_slice(bytes);
        bytes.zeroize();
        secret
    }

    /// Fresh random bytes.
    #[must_use]
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut secret = Self::zeroed();
        entropy.fill(secret.0.as_mut_slice());
        secret
    }

    /// A second copy, said out loud. Never of a key that seals: two sealers under one key are nonce reuse.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// The bytes, for the primitive that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// The bytes, to be filled by the primitive that makes them.
    #[must_use]
    pub fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }

    /// Whether two secrets are the same, in constant time.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why bytes or text are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64 text.
    #[error("a key is 44 characters of base64, as `wg genkey` prints it; this is not base64")]
    NotBase64,
    /// Base64, of another length.
    #[error("a key is 32 bytes (44 characters of base64); this one has {0} bytes")]
    Length(usize),
    /// All zeros where a key must be random.
    #[error("a key of all zeros is no key")]
    Zero,
    /// Not the canonical encoding of a point: a second name for another key.
    #[error("this public key is not a canonical X25519 key: its number is 2^255 - 19 or more")]
    NonCanonical,
    /// A point of low order: everybody knows every shared secret made with it.
    #[error("this public key is a point of low order: a secret shared with it is known to everybody")]
    LowOrder,
}

fn decode(text: &str) -> Result<Secret<32>, KeyError> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| KeyError::NotBase64)?);
    let mut secret = Secret::zeroed();
    if bytes.len() != 32 {
        return Err(KeyError::Length(bytes.len()));
    }
    secret.0.copy_from_slice(&bytes);
    Ok(secret)
}

/// A peer's identity: a canonical X25519 public key that is not of low order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// The prime of the field, 2^255 - 19, little-endian.
const FIELD_PRIME: [u8; 32] = {
    let mut prime = [0xff; 32];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    prime
};

/// Canonical u-coordinates of order 1, 2, 4 and 8 on the curve and its twist: 0, 1, p - 1 and the two of order 8.
const LOW_ORDER: [[u8; 32]; 5] = {
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = FIELD_PRIME;
    minus_one[0] = 0xec;
    [
        [0; 32],
        one,
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
            0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
            0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
        ],
        minus_one,
    ]
};

impl PublicKey {
    /// The key of these bytes, unless they are a second name or a trap.
    ///
    /// # Errors
    /// [`KeyError::NonCanonical`] and [`KeyError::LowOrder`].
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        if bytes.iter().rev().cmp(FIELD_PRIME.iter().rev()).is_ge() {
            return Err(KeyError::NonCanonical);
        }
        if LOW_ORDER.contains(&bytes) {
            return Err(KeyError::LowOrder);
        }
        Ok(Self(bytes))
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(*decode(text)?.expose())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = STANDARD.encode(self.0);
        write!(f, "PublicKey({}…)", text.get(..8).unwrap_or_default())
    }
}

impl serde::Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An X25519 private key, clamped, and what was made of it for handshakes.
pub struct PrivateKey {
    bytes: Secret<32>,
    ready: OnceLock<Arc<dyn Ready>>,
}

impl PrivateKey {
    /// The key of these bytes, clamped as X25519 wants it.
    ///
    /// # Errors
    /// [`KeyError::Zero`] for a buffer nobody filled.
    pub fn from_secret(mut bytes: Secret<32>) -> Result<Self, KeyError> {
        if bytes.same(&Secret::zeroed()) {
            return Err(KeyError::Zero);
        }
        let [first, .., last] = bytes.expose_mut();
        *first &= 248;
        *last = (*last & 127) | 64;
        Ok(Self::of(bytes))
    }

    const fn of(bytes: Secret<32>) -> Self {
        Self { bytes, ready: OnceLock::new() }
    }

    /// A fresh key.
    #[must_use]
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        // Zeros from a random generator would be caught by clamping to 2^254: still a key, never a panic.
        let mut bytes = Secret::<32>::generate(entropy);
        let [first, .., last] = bytes.expose_mut();
        *first &= 248;
        *last = (*last & 127) | 64;
        Self::of(bytes)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        // A clamped scalar is a multiple of 8 below the order of the base point: never of low order.
        PublicKey(curve::public(&self.bytes))
    }

    /// The secret shared with the owner of `public`.
    ///
    /// # Errors
    /// [`KeyError::LowOrder`] when the secret would be all zeros, whatever the list of points says.
    pub fn agree(&self, public: &PublicKey) -> Result<Secret<32>, KeyError> {
        curve::agree(&self.bytes, public)
    }

    /// It, made ready by whoever is asked first.
    pub(crate) fn ready(&self, curve: &dyn Curve) -> Arc<dyn Ready> {
        Arc::clone(self.ready.get_or_init(|| curve.ready(&self.bytes)))
    }

    /// The base64 text, for the one file it is kept in; wiped on drop.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.bytes.expose()))
    }

    /// A second copy, said out loud (each handshake thread holds one).
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::of(self.bytes.duplicate())
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        self.bytes.same(&other.bytes)
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.bytes.expose()
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_secret(decode(text)?)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// The optional second secret of two peers; all zeros when there is none, as Noise wants it.
pub struct PresharedKey(Option<Secret<32>>);

impl PresharedKey {
    /// No preshared key.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// A fresh key.
    #[must_use]
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        Self(Some(Secret::generate(entropy)))
    }

    /// Of 32 bytes read from a file.
    #[must_use]
    pub const fn from_secret(bytes: Secret<32>) -> Self {
        Self(Some(bytes))
    }

    /// The base64 text, for the one file it is kept in; wiped on drop.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.expose()))
    }

    /// A second copy, said out loud.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.as_ref().map(Secret::duplicate))
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.0.as_ref().map_or(&[0; 32], Secret::expose)
    }
}

impl FromStr for PresharedKey {
    type Err = KeyError;

    /// Reads a configured key; zeros mean "none" and are therefore refused as a configured one.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = decode(text)?;
        if bytes.same(&Secret::zeroed()) { Err(KeyError::Zero) } else { Ok(Self(Some(bytes))) }
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

#[cfg(test)]
mod tests;
