//! The trailer a datagram carries between a relay and its owner: whose it is, and that the other side says so.
//!
//! Owns the 32 bytes and their replay window. The key lives as long as one stream between the two; who holds the
//! stream vouches for the client's 4-tuple. Must never be mistaken for the client's own authentication: a relay
//! can claim any address, and gains an answer to that address by it (see the threat model).
//!
//! ```text
//! client address(16, IPv4-mapped)  port(2)  the relay's address, by number(2)  counter(4)  MAC(8)
//! MAC = first 8 bytes of MAC16(key, "jvp/1 trailer" ‖ datagram ‖ the 24 bytes before)       little-endian
//! ```

use super::Entropy;
use super::cookie::mac;
use crate::abi::mapped;
use crate::limits::TRAILER_LEN;
use crate::replay::ReplayWindow;
use crate::secret::Secret;
use core::net::{Ipv6Addr, SocketAddr};
use subtle::ConstantTimeEq;

const LABEL: &[u8] = b"jvp/1 trailer";
const MAC_LEN: usize = 8;
const SAID_LEN: usize = TRAILER_LEN - MAC_LEN;

/// What a trailer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The client's outer address.
    pub client: SocketAddr,
    /// Number of the relay's own address that it uses.
    pub local: u16,
}

/// Why a datagram from the other side was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrailerError {
    /// Shorter than a trailer.
    #[error("shorter than a trailer")]
    Short,
    /// Not made under this stream's key for exactly this datagram.
    #[error("trailer is not this stream's")]
    Forged,
    /// Its counter was seen before or is too old to tell.
    #[error("trailer seen before")]
    Replayed,
}

fn of(key: &Secret<32>, datagram: &[u8], said: &[u8]) -> [u8; MAC_LEN] {
    let [a, b, c, d, e, f, g, h, ..] = mac(key.expose(), &[LABEL, datagram, said]);
    [a, b, c, d, e, f, g, h]
}

/// Fresh keys for both directions of a stream, drawn by the owner: relay to owner, owner to relay.
#[must_use]
pub fn keys(entropy: &mut dyn Entropy) -> (Secret<32>, Secret<32>) {
    (Secret::generate(entropy), Secret::generate(entropy))
}

/// Puts trailers on. The counter is its own and is never used twice under its key.
#[derive(Debug)]
pub struct TrailerSealer {
    key: Secret<32>,
    next: u32,
}

impl TrailerSealer {
    /// A sealer from counter zero.
    #[must_use]
    pub const fn new(key: Secret<32>) -> Self {
        Self { key, next: 0 }
    }

    /// Appends a trailer; `None` once the counter is used up: the stream must be made anew.
    pub fn seal(&mut self, datagram: &mut Vec<u8>, trailer: &Trailer) -> Option<()> {
        let counter = self.next;
        self.next = counter.checked_add(1)?;
        let mut said = Vec::with_capacity(SAID_LEN);
        said.extend_from_slice(&mapped(trailer.client.ip()));
        said.extend_from_slice(&trailer.client.port().to_le_bytes());
        said.extend_from_slice(&trailer.local.to_le_bytes());
        said.extend_from_slice(&counter.to_le_bytes());
        let mac = of(&self.key, datagram, &said);
        datagram.extend_from_slice(&said);
        datagram.extend_from_slice(&mac);
        Some(())
    }
}

/// Takes trailers off.
#[derive(Debug)]
pub struct TrailerOpener {
    key: Secret<32>,
    window: ReplayWindow,
}

impl TrailerOpener {
    /// An opener that has seen nothing.
    #[must_use]
    pub fn new(key: Secret<32>) -> Self {
        Self { key, window: ReplayWindow::default() }
    }

    /// The trailer of a datagram, and the length of what stands before it.
    ///
    /// # Errors
    /// [`TrailerError`]; nothing has changed then.
    pub fn open(&mut self, datagram: &[u8]) -> Result<(Trailer, usize), TrailerError> {
        let len = datagram.len().checked_sub(TRAILER_LEN).ok_or(TrailerError::Short)?;
        let (inner, trailer) = datagram.split_at_checked(len).ok_or(TrailerError::Short)?;
        let (said, claimed) = trailer.split_last_chunk::<MAC_LEN>().ok_or(TrailerError::Short)?;
        if !bool::from(of(&self.key, inner, said).ct_eq(claimed)) {
            return Err(TrailerError::Forged);
        }
        let mut reader = crate::message::codec::Reader::new(said);
        let address: [u8; 16] = reader.array().ok_or(TrailerError::Short)?;
        let port = reader.u16().ok_or(TrailerError::Short)?;
        let local = reader.u16().ok_or(TrailerError::Short)?;
        let counter = u64::from(reader.u32().ok_or(TrailerError::Short)?);
        self.window.check(counter).map_err(|_| TrailerError::Replayed)?;
        self.window.commit(counter).map_err(|_| TrailerError::Replayed)?;
        let client = SocketAddr::new(Ipv6Addr::from(address).to_canonical(), port);
        Ok((Trailer { client, local }, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::test_entropy::Fixed;

    fn pair() -> (TrailerSealer, TrailerOpener) {
        let (key, _) = keys(&mut Fixed::new(7));
        (TrailerSealer::new(key.duplicate()), TrailerOpener::new(key))
    }

    const SAID: Trailer = Trailer {
        client: SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 9)), 4_000),
        local: 3,
    };

    #[test]
    fn a_trailer_comes_off_as_it_was_put_on_and_only_once() {
        let (mut sealer, mut opener) = pair();
        let mut datagram = vec![5, 6, 7];
        sealer.seal(&mut datagram, &SAID).unwrap();
        assert_eq!(datagram.len(), 3 + TRAILER_LEN);
        assert_eq!(opener.open(&datagram), Ok((SAID, 3)));
        assert_eq!(opener.open(&datagram), Err(TrailerError::Replayed));
    }

    #[test]
    fn no_byte_of_datagram_or_trailer_can_be_changed() {
        let (mut sealer, mut opener) = pair();
        let mut datagram = vec![5; 40];
        sealer.seal(&mut datagram, &SAID).unwrap();
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            assert_eq!(opener.open(&changed), Err(TrailerError::Forged), "{at}");
        }
        assert_eq!(opener.open(&datagram[..TRAILER_LEN - 1]), Err(TrailerError::Short));
        assert_eq!(opener.open(&datagram), Ok((SAID, 40)), "refusals changed nothing");
    }

    #[test]
    fn a_counter_is_never_used_twice() {
        let (mut sealer, _) = pair();
        sealer.next = u32::MAX;
        assert_eq!(sealer.seal(&mut vec![1], &SAID), None);
        assert_eq!(sealer.next, u32::MAX);
    }
}
