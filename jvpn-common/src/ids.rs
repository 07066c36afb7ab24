//! The names of things: session, slot, generation, locator, transport index, version, operation.
//!
//! Owns the identifier types and how they print. Must never hold anything secret.

use core::fmt;

/// Declares a number that is a name: ordered, copyable, never added to another kind of number by accident.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[cfg_attr(feature = "engine", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "engine", serde(transparent))]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// Place of a session in the kernel's arrays. Reused, but only with a new [`Generation`].
    Slot(u32)
);
number!(
    /// Which use of a slot, 1 to 65,535 and then 1 again; zero means "none", so that a zeroed map is empty.
    Generation(u32)
);
impl Generation {
    /// The next one: sixteen bits are what a locator's cell has room for. Locators of a generation are taken out before
    /// its slot is given out again, so that only one that somebody put back could ever meet its number a second time.
    #[must_use]
    pub const fn successor(self) -> Self {
        Self(self.0 % 0xffff + 1)
    }
}
number!(
    /// Transport index *k*: number of a locator under one key set, growing by one, never used twice.
    TransportIndex(u16)
);
number!(
    /// Number of a session's transition, from 1; grows by exactly one per transition and never goes back.
    Version(u64)
);
number!(
    /// Number of a key set of a session; the wire carries it modulo 256.
    Epoch(u32)
);
number!(
    /// Which start of the gateway process this is; an echo with another value means "resume".
    Incarnation(u64)
);
number!(
    /// Which owner of a session this is; a client refuses a lower one than it has seen.
    OwnerEpoch(u64)
);

impl OwnerEpoch {
    /// The owner after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

number!(
    /// Name of one command of an engine; exactly one outcome comes back for it.
    OpId(u64)
);
number!(
    /// Number of a relay in its owner's configuration.
    RelayId(u16)
);
number!(
    /// Which text of the policy was in force.
    PolicyVersion(u32)
);

impl Epoch {
    /// The byte of the epoch that travels in the header.
    #[must_use]
    pub const fn wire(self) -> u8 {
        self.0.to_le_bytes()[0]
    }
}

impl Version {
    /// The version of the next transition.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// 128 random bits that name a session from birth to termination.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SessionId(pub [u8; 16]);

impl Ord for SessionId {
    /// The order of the bytes, as one number: a move looks its session up some twenty times, and bytes are compared by a call.
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        u128::from_be_bytes(self.0).cmp(&u128::from_be_bytes(other.0))
    }
}

impl PartialOrd for SessionId {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// 64 bits in clear in every datagram of a session, chosen by the gateway. Zero names nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Locator(pub u64);

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locator({self})")
    }
}

#[cfg(feature = "engine")]
mod text {
    //! Identifiers as JSON strings: they exceed 2^53 and people search for them as text.

    use super::{Locator, SessionId};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    impl Serialize for SessionId {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }

    impl<'de> Deserialize<'de> for SessionId {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(D::Error::custom)
        }
    }

    impl core::str::FromStr for SessionId {
        type Err = &'static str;

        fn from_str(text: &str) -> Result<Self, Self::Err> {
            if text.len() != 32 || !text.is_ascii() {
                return Err("a session id is 32 hexadecimal digits");
            }
            let value = u128::from_str_radix(text, 16).map_err(|_| "a session id is 32 hexadecimal digits")?;
            Ok(Self(value.to_be_bytes()))
        }
    }

    impl Serialize for Locator {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_epoch_is_the_low_byte() {
        assert_eq!(Epoch(0x1_02).wire(), 2);
    }

    #[test]
    fn sessions_are_in_the_order_of_their_bytes() {
        let ids = [[0; 16], [1; 16], *b"0123456789abcdef", *b"0123456789abcdeg", [0xff; 16]];
        for (a, b) in ids.iter().flat_map(|a| ids.iter().map(move |b| (a, b))) {
            assert_eq!(SessionId(*a).cmp(&SessionId(*b)), a.cmp(b));
        }
    }

    #[cfg(feature = "engine")]
    #[test]
    fn a_session_id_reads_back_what_it_prints_and_refuses_the_rest() {
        let id = SessionId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
        assert!("12".parse::<SessionId>().is_err());
        assert!("g".repeat(32).parse::<SessionId>().is_err());
    }
}
