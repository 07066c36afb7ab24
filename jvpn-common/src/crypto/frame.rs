//! What stands around the Noise message of a handshake datagram.
//!
//! Owns the first eight and the last 32 bytes of types 1 and 2. Must never look inside, and never give a
//! message out before its mac1 has verified: nothing else may cost a Diffie-Hellman.
//!
//! ```text
//!  0      1         2           4        8                                   -32     -16
//! ┌──────┬─────────┬───────────┬────────┬───────────────────────────────────┬───────┬───────┐
//! │ type │ version │ reserved  │ index  │ Noise message                     │ mac1  │ mac2  │
//! └──────┴─────────┴───────────┴────────┴───────────────────────────────────┴───────┴───────┘
//! index: in type 1 the client's own number for this attempt; types 2 and 3 repeat it
//! ```

use super::cookie::{Cookie, MAC_LEN, MACS_LEN, MacKeys, VERSION};
use super::noise::{OVERHEAD_1, OVERHEAD_2};
use crate::limits::HANDSHAKE_LEN;
use crate::wire::Kind;

/// Bytes before the Noise message.
pub const FRAME_LEN: usize = 8;

/// A handshake datagram whose mac1 has verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The client's number for this attempt.
    pub index: u32,
    /// The Noise message.
    pub noise: &'a [u8],
}

/// Why a datagram is no handshake message for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another type or version, reserved bits, or a length this type never has.
    #[error("not a handshake message of this version")]
    Format,
    /// Made by somebody who does not know our public key, or changed under way.
    #[error("handshake message whose mac1 does not verify")]
    Mac1,
}

/// The datagram (type 1 or 2) around `noise`, for the owner of `keys`; and its mac1, which opens a cookie
/// reply to it.
#[must_use]
pub fn wrap(kind: Kind, index: u32, noise: &[u8], keys: &MacKeys, cookie: Option<&Cookie>) -> (Vec<u8>, [u8; MAC_LEN]) {
    let mut datagram = Vec::with_capacity(FRAME_LEN + noise.len() + MACS_LEN);
    datagram.extend_from_slice(&[kind as u8, VERSION, 0, 0]);
    datagram.extend_from_slice(&index.to_le_bytes());
    datagram.extend_from_slice(noise);
    datagram.resize(datagram.len() + MACS_LEN, 0);
    let mac1 = keys.fill(&mut datagram, cookie).expect("room for both MACs was made in the line above");
    (datagram, mac1)
}

/// The handshake message in a datagram of type `kind`, if its form is right and its mac1 verifies under
/// `keys`, the receiver's own.
///
/// # Errors
/// [`FrameError`].
pub fn unwrap<'a>(kind: Kind, datagram: &'a [u8], keys: &MacKeys) -> Result<Frame<'a>, FrameError> {
    let length_fits = match kind {
        Kind::Initiation => datagram.len() == HANDSHAKE_LEN,
        Kind::Response => (FRAME_LEN + OVERHEAD_2 + MACS_LEN..=HANDSHAKE_LEN).contains(&datagram.len()),
        _ => false,
    };
    let (head, rest) = datagram.split_first_chunk::<FRAME_LEN>().ok_or(FrameError::Format)?;
    let (noise, _) = rest.split_last_chunk::<MACS_LEN>().ok_or(FrameError::Format)?;
    let [byte, VERSION, 0, 0, i0, i1, i2, i3] = *head else {
        return Err(FrameError::Format);
    };
    if !length_fits || byte != kind as u8 {
        return Err(FrameError::Format);
    }
    if !keys.verify_mac1(datagram) {
        return Err(FrameError::Mac1);
    }
    Ok(Frame { index: u32::from_le_bytes([i0, i1, i2, i3]), noise })
}

const _: () = assert!(FRAME_LEN + OVERHEAD_1 + MACS_LEN <= HANDSHAKE_LEN);

#[cfg(test)]
mod tests {
    use super::{Frame, FrameError, Kind, MacKeys, unwrap, wrap};
    use crate::crypto::test_entropy::Fixed;
    use crate::secret::PrivateKey;

    fn keys(seed: u8) -> MacKeys {
        MacKeys::new(&PrivateKey::generate(&mut Fixed::new(seed)).public())
    }

    #[test]
    fn a_frame_reads_back_what_it_wrapped() {
        for (kind, len) in [(Kind::Initiation, 1_160), (Kind::Response, 48), (Kind::Response, 1_160)] {
            let noise = vec![7; len];
            let (datagram, _) = wrap(kind, 0x0102_0304, &noise, &keys(1), None);
            assert_eq!(unwrap(kind, &datagram, &keys(1)), Ok(Frame { index: 0x0102_0304, noise: &noise }));
        }
    }

    #[test]
    fn a_frame_for_another_receiver_is_refused() {
        let (datagram, _) = wrap(Kind::Initiation, 1, &[7; 1_160], &keys(1), None);
        assert_eq!(unwrap(Kind::Initiation, &datagram, &keys(2)), Err(FrameError::Mac1));
    }

    #[test]
    fn a_frame_of_a_length_its_type_never_has_is_refused() {
        for (kind, len) in [
            (Kind::Initiation, 1_159),
            (Kind::Initiation, 1_161),
            (Kind::Response, 47),
            (Kind::Response, 1_161),
            (Kind::Data, 1_160),
        ] {
            let (datagram, _) = wrap(kind, 1, &vec![7; len], &keys(1), None);
            assert_eq!(unwrap(kind, &datagram, &keys(1)), Err(FrameError::Format), "{kind:?} {len}");
        }
        assert_eq!(unwrap(Kind::Response, &[], &keys(1)), Err(FrameError::Format));
    }

    #[test]
    fn another_type_version_or_reserved_bit_is_refused_even_with_a_right_mac1() {
        for at in 0..4 {
            let (mut datagram, _) = wrap(Kind::Initiation, 1, &[7; 1_160], &keys(1), None);
            datagram[at] ^= 2;
            keys(1).fill(&mut datagram, None);
            assert_eq!(unwrap(Kind::Initiation, &datagram, &keys(1)), Err(FrameError::Format), "byte {at}");
        }
    }

    #[test]
    fn every_flipped_byte_is_refused_but_those_of_mac2() {
        let (datagram, _) = wrap(Kind::Initiation, 1, &[7; 1_160], &keys(1), None);
        for at in 0..datagram.len() {
            let mut bad = datagram.clone();
            bad[at] ^= 1;
            assert_eq!(unwrap(Kind::Initiation, &bad, &keys(1)).is_err(), at < datagram.len() - 16, "byte {at}");
        }
    }
}
