//! The canonical encoding of a session, as the record and the store keep it.
//!
//! Owns the byte order of every field. Must never hold a secret, and a session has exactly one encoding:
//! what does not come back byte for byte is no session.

use super::Session;
use super::flap::Meter;
use super::input::Report;
use super::invariant;
use super::quality::Quality;
use super::state::{Keys, Label, Path, State, Transport, TransportClass};
use crate::ids::{OwnerEpoch, PolicyVersion, SessionId, TransportIndex, Version};
use crate::time::{Duration, Instant, nanos};

/// First byte of an encoding: which layout follows.
const LAYOUT: u8 = 1;

/// Longest encoding; it stands in every record.
pub const ENCODED_MAX: usize = 768;

/// A value with one form in bytes, little-endian.
trait Field: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(from: &mut &[u8]) -> Option<Self>;
}

/// Numbers, and names of numbers.
macro_rules! number_fields {
    ($($ty:ty),*; $($name:ident),*) => {
        $(impl Field for $ty {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_le_bytes(*bytes))
            }
        })*
        $(impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                Field::take(from).map(Self)
            }
        })*
    };
}

number_fields!(u8, u16, u32, u64; Instant, OwnerEpoch, PolicyVersion, SessionId, TransportIndex, Version);

/// Enums with a stable number.
macro_rules! named_fields {
    ($($name:ident),*) => {
        $(impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(self.number());
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                u8::take(from).and_then(Self::from_number)
            }
        })*
    };
}

named_fields!(Keys, State, TransportClass);

/// Structs that are their fields one after the other.
macro_rules! struct_fields {
    ($($name:ident { $($field:ident),* })*) => {
        $(impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($field.put(out);)*
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                $(let $field = Field::take(from)?;)*
                Some(Self { $($field),* })
            }
        })*
    };
}

struct_fields! {
    Transport { k, path, label, class, mtu, since }
    Report { loss, rtt, jitter, delivered }
    Quality { good_since, bad_since, floor, last }
    Session {
        id, peer, state, keys, version, policy_version, created_at, expires_at, state_since, lost_at, lost_before,
        unbound, transport, reject_after, nonce, nonce_path, requests, switches, spent, recoveries, attempts,
        last_switch, moves, quality, owner_epoch
    }
}

impl<const N: usize> Field for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let (bytes, rest) = from.split_first_chunk()?;
        *from = rest;
        Some(*bytes)
    }
}

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        if bool::take(from)? { T::take(from).map(Some) } else { Some(None) }
    }
}

impl Field for Duration {
    fn put(&self, out: &mut Vec<u8>) {
        nanos(*self).put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        u64::take(from).map(Self::from_nanos)
    }
}

impl Field for Path {
    fn put(&self, out: &mut Vec<u8>) {
        self.octets().put(out);
        self.remote().port().put(out);
        self.gateway().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(Self::from_octets(Field::take(from)?, Field::take(from)?, Field::take(from)?))
    }
}

impl Field for Label {
    fn put(&self, out: &mut Vec<u8>) {
        let text = self.as_str().as_bytes();
        u8::try_from(text.len()).unwrap_or_default().put(out);
        out.extend_from_slice(text);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let len = u8::take(from)?;
        let (text, rest) = from.split_at_checked(usize::from(len))?;
        *from = rest;
        Some(Self::new(text))
    }
}

impl Field for Meter {
    fn put(&self, out: &mut Vec<u8>) {
        let (newest, counts) = self.parts();
        newest.put(out);
        counts.iter().for_each(|count| count.put(out));
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let newest = u64::take(from)?;
        Self::from_parts(newest, || u16::take(from))
    }
}

impl Session {
    /// The one encoding of this session, at most [`ENCODED_MAX`] bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Fields are a few bytes each: growing for them would copy the session seven times over.
        let mut out = Vec::with_capacity(ENCODED_MAX);
        self.encode_into(&mut out);
        out
    }

    /// The same in place of what `out` holds.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(LAYOUT);
        self.put(out);
    }

    /// The session of an encoding; none if it is cut, too long, not the one form, or holds what no
    /// session can be in.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&layout, mut rest) = bytes.split_first()?;
        let session = Self::take(&mut rest).filter(|_| layout == LAYOUT && rest.is_empty())?;
        (invariant::sound(&session).is_ok() && session.encode() == bytes).then_some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::{Story, any_story};
    use proptest::prelude::*;

    #[test]
    fn the_largest_session_fits_a_record() {
        let len = Story::full().session.encode().len();
        assert!(len <= ENCODED_MAX, "{len}");
    }

    #[test]
    fn a_cut_longer_or_foreign_encoding_is_no_session() {
        let bytes = Story::full().session.encode();
        for len in 0..bytes.len() {
            assert_eq!(Session::decode(&bytes[..len]), None, "cut at {len}");
        }
        assert_eq!(Session::decode(&[bytes.as_slice(), &[0]].concat()), None);
        let mut foreign = bytes;
        foreign[0] = LAYOUT + 1;
        assert_eq!(Session::decode(&foreign), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn encode_and_decode_are_inverse(story in any_story(), at: proptest::sample::Index, with: u8) {
            for session in story.run() {
                let mut bytes = session.encode();
                prop_assert_eq!(Session::decode(&bytes), Some(session));
                let at = at.index(bytes.len());
                bytes[at] = with;
                if let Some(other) = Session::decode(&bytes) {
                    prop_assert_eq!(other.encode(), bytes);
                }
            }
        }
    }
}
