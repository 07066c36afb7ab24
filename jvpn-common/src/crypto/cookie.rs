//! mac1, mac2 and the cookie reply, as WireGuard does them: no Diffie-Hellman for strangers.
//!
//! Owns the last 32 bytes of handshake messages and the 64 bytes of a cookie reply. Must never be mistaken
//! for authentication: mac1 says "knows the receiver's public key", mac2 says "receives at its source".
//!
//! ```text
//! message:   type  version  reserved(2)  sender(4)  …  mac1(16)  mac2(16)
//! mac1     = MAC(HASH("jvp/1 mac1" ‖ receiver's public key), message up to mac1)
//! mac2     = MAC(cookie, message up to mac2)           zeros when the sender has no cookie
//! cookie   = MAC(secret of the gateway, source)        the secret changes every 120 s
//!
//! reply:     3  version  reserved(2)  receiver(4)  nonce(24)  sealed cookie(16 + 16)
//! sealed   = XChaCha20-Poly1305(HASH("jvp/1 cookie" ‖ gateway's public key), nonce, cookie, AAD = mac1)
//! ```

use super::Entropy;
use super::challenge::address_bytes;
use crate::secret::{PublicKey, Secret};
use crate::time::Duration;
use crate::wire::Kind;
use blake2::digest::Mac;
use blake2::digest::consts::U16;
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::{AeadInPlace, KeyInit as _, XChaCha20Poly1305};
use core::fmt;
use core::net::SocketAddr;
use subtle::ConstantTimeEq;

/// Bytes of a MAC and of a cookie.
pub const MAC_LEN: usize = 16;
/// Bytes both MACs take at the end of a handshake message.
pub const MACS_LEN: usize = 2 * MAC_LEN;
/// Bytes of a cookie reply.
pub const REPLY_LEN: usize = 8 + 24 + 32;
/// How often the gateway changes its cookie secret; a cookie lives once to twice as long.
pub const ROTATE_EVERY: Duration = Duration::from_secs(120);
/// How long a client uses a cookie it was given.
pub const COOKIE_USE: Duration = Duration::from_secs(120);
/// Version byte of the handshake messages.
pub const VERSION: u8 = 1;

const LABEL_MAC1: &[u8] = b"jvp/1 mac1";
const LABEL_COOKIE: &[u8] = b"jvp/1 cookie";

/// BLAKE2s with a key and 16 bytes of output.
pub(super) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; MAC_LEN] {
    let mut mac = <Blake2sMac<U16> as Mac>::new_from_slice(key)
        .expect("BLAKE2s takes keys of up to 32 bytes; ours have 16 or 32");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn hash(label: &[u8], key: &PublicKey) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    hash.update(label);
    hash.update(key.as_bytes());
    hash.finalize().into()
}

/// What a receiver's public key gives: the keys of mac1 and of its cookie replies. Not secret.
#[derive(Clone, Debug)]
pub struct MacKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

/// Proof of a source address, given by the gateway to whoever receives there.
#[derive(Clone, Copy)]
pub struct Cookie([u8; MAC_LEN]);

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// Why a cookie reply was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieError {
    /// Not a cookie reply of this version.
    #[error("not a cookie reply")]
    Format,
    /// Does not open: not from the gateway, or not an answer to our last message.
    #[error("cookie reply does not open")]
    Refused,
}

impl MacKeys {
    /// The keys for messages to the owner of `receiver`.
    #[must_use]
    pub fn new(receiver: &PublicKey) -> Self {
        Self { mac1: hash(LABEL_MAC1, receiver), cookie: hash(LABEL_COOKIE, receiver) }
    }

    /// Fills the last 32 bytes of a message; mac2 is zeros without a cookie. Gives mac1, with which the
    /// cookie reply will be opened, or `None` for a message too short to hold them.
    pub fn fill(&self, message: &mut [u8], cookie: Option<&Cookie>) -> Option<[u8; MAC_LEN]> {
        let (rest, mac2_place) = message.split_last_chunk_mut::<MAC_LEN>()?;
        let (text, mac1_place) = rest.split_last_chunk_mut::<MAC_LEN>()?;
        let mac1 = mac(&self.mac1, &[text]);
        *mac1_place = mac1;
        *mac2_place = cookie.map_or([0; MAC_LEN], |cookie| mac(&cookie.0, &[rest]));
        Some(mac1)
    }

    /// Whether the message was made for this receiver.
    #[must_use]
    pub fn verify_mac1(&self, message: &[u8]) -> bool {
        parts(message).is_some_and(|(text, mac1, _)| mac(&self.mac1, &[text]).ct_eq(mac1).into())
    }

    /// Opens a cookie reply to the message that carried `mac1`: the index it names, and the cookie.
    ///
    /// # Errors
    /// [`CookieError`]; the sender then goes on as if nothing had come.
    pub fn open_reply(&self, reply: &[u8], mac1: &[u8; MAC_LEN]) -> Result<(u32, Cookie), CookieError> {
        let reply: &[u8; REPLY_LEN] = reply.try_into().map_err(|_| CookieError::Format)?;
        let (head, rest) = reply.split_first_chunk::<8>().ok_or(CookieError::Format)?;
        let (nonce, sealed) = rest.split_first_chunk::<24>().ok_or(CookieError::Format)?;
        let (text, tag) = sealed.split_last_chunk::<16>().ok_or(CookieError::Format)?;
        let [kind, version, 0, 0, r0, r1, r2, r3] = *head else {
            return Err(CookieError::Format);
        };
        if kind != Kind::CookieReply as u8 || version != VERSION {
            return Err(CookieError::Format);
        }
        let mut cookie: [u8; MAC_LEN] = text.try_into().map_err(|_| CookieError::Format)?;
        XChaCha20Poly1305::new((&self.cookie).into())
            .decrypt_in_place_detached(nonce.into(), mac1, &mut cookie, tag.into())
            .map_err(|_| CookieError::Refused)?;
        Ok((u32::from_le_bytes([r0, r1, r2, r3]), Cookie(cookie)))
    }
}

/// Text, mac1 and mac2 of a handshake message.
fn parts(message: &[u8]) -> Option<(&[u8], &[u8; MAC_LEN], &[u8; MAC_LEN])> {
    let (rest, mac2) = message.split_last_chunk::<MAC_LEN>()?;
    let (text, mac1) = rest.split_last_chunk::<MAC_LEN>()?;
    Some((text, mac1, mac2))
}

/// The gateway's side: the secret cookies are made of, and the one before.
#[derive(Debug)]
pub struct CookieSecret {
    current: Secret<32>,
    previous: Option<Secret<32>>,
}

impl CookieSecret {
    /// A fresh secret.
    #[must_use]
    pub fn new(entropy: &mut dyn Entropy) -> Self {
        Self { current: Secret::generate(entropy), previous: None }
    }

    /// Makes a new secret; cookies of the one before are still taken, older ones no more. The caller does
    /// this every [`ROTATE_EVERY`].
    pub fn rotate(&mut self, entropy: &mut dyn Entropy) {
        let old = core::mem::replace(&mut self.current, Secret::generate(entropy));
        self.previous = Some(old);
    }

    fn cookie(secret: &Secret<32>, source: SocketAddr) -> Cookie {
        Cookie(mac(secret.expose(), &[&address_bytes(source)]))
    }

    /// Whether whoever sent this message receives at `source`.
    #[must_use]
    pub fn verify_mac2(&self, message: &[u8], source: SocketAddr) -> bool {
        let Some((rest, mac2)) = message.split_last_chunk::<MAC_LEN>() else {
            return false;
        };
        [Some(&self.current), self.previous.as_ref()].into_iter().flatten().any(|secret| {
            let cookie = Self::cookie(secret, source);
            mac(&cookie.0, &[rest]).ct_eq(mac2).into()
        })
    }

    /// The reply to a message whose mac1 has been verified; `ours` are the gateway's own keys, `receiver` is
    /// the sender index of the message. `None` for a message too short to have a mac1.
    #[must_use]
    pub fn reply(
        &self,
        ours: &MacKeys,
        message: &[u8],
        receiver: u32,
        source: SocketAddr,
        entropy: &mut dyn Entropy,
    ) -> Option<[u8; REPLY_LEN]> {
        let (_, mac1, _) = parts(message)?;
        let mut nonce = [0; 24];
        entropy.fill(&mut nonce);
        let mut cookie = Self::cookie(&self.current, source).0;
        let tag = XChaCha20Poly1305::new((&ours.cookie).into())
            .encrypt_in_place_detached((&nonce).into(), mac1, &mut cookie)
            .ok()?;
        let mut reply = [0; REPLY_LEN];
        let head = [&[Kind::CookieReply as u8, VERSION, 0, 0][..], &receiver.to_le_bytes()].concat();
        for (place, byte) in reply.iter_mut().zip([&head[..], &nonce, &cookie, &tag].concat()) {
            *place = byte;
        }
        Some(reply)
    }
}

#[cfg(test)]
mod tests;
