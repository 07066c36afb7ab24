//! What a session is in: its states, its keys' freshness, and the one transport it is bound to.
//!
//! Owns the small types of the session core. Must never decide: transitions are in `transition`.
//!
//! ```text
//!            BIRTH ──► ATTACHED ◄──► VOLATILE ──► DEGRADED (bound)
//!                          │  ▲          │           │   ▲
//!                          ▼  │          ▼           ▼   │
//!                         RECOVERING ◄───┴───────────┘   │
//!                          │                             │
//!                          └──► DEGRADED (unbound) ──────┘      all ──► TERMINATED
//! ```

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::ids::TransportIndex;
use crate::limits::LABEL_MAX;
use crate::time::Instant;

/// Declares an enum whose variants have a number on the wire and a name in the record.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $number,)* }

        impl $name {
            /// Every value, in order of number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable number.
            #[must_use]
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The value of a number that came over the wire or from a file.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The stable name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl core::str::FromStr for $name {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|value| value.name() == text).ok_or(concat!("no such ", stringify!($name)))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use named;

named! {
    /// The state of a session.
    State {
        /// Message 2 is sent and not confirmed; in memory only.
        Birth = 1 "BIRTH",
        /// Exactly one transport, quality within policy.
        Attached = 2 "ATTACHED",
        /// Exactly one transport; it delivers, but below policy's thresholds.
        Volatile = 3 "VOLATILE",
        /// No transport; a reattach is awaited.
        Recovering = 4 "RECOVERING",
        /// Instability persisted (one transport), or recovery ran past its bounds (none).
        Degraded = 5 "DEGRADED",
        /// Final; nothing but garbage collection follows.
        Terminated = 6 "TERMINATED",
    }
}

named! {
    /// Whether the session's keys may still be used.
    Keys {
        /// They may.
        Live = 1 "LIVE",
        /// They are past their limit or lost in a restart: only RESUME leaves unbound.
        Stale = 2 "STALE",
    }
}

named! {
    /// What the client's configuration calls a transport.
    TransportClass {
        /// Preferred.
        Primary = 1 "primary",
        /// Used when no primary is good.
        Secondary = 2 "secondary",
        /// Used when nothing else is left.
        Backup = 3 "backup",
    }
}

/// A transport's name, given by the peer: bounded, and printable whatever the peer sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Label {
    bytes: [u8; LABEL_MAX],
    len: u8,
}

impl Label {
    /// The label of bytes from the wire; whatever is longer than a label is cut, what is not a plain
    /// character becomes `?`, so that no terminal, log or JSON reader meets a peer's control characters.
    #[must_use]
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        let mut label = Self::default();
        for (to, &from) in label.bytes.iter_mut().zip(text.as_ref()) {
            let plain = from.is_ascii_alphanumeric() || b"-_.:@/+ ".contains(&from);
            *to = if plain { from } else { b'?' };
            label.len += 1;
        }
        label
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl serde::Serialize for Label {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Label {
    /// Only a text that a label can be: another one was written by nobody who had a label.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        let label = Self::new(&text);
        if label.as_str() == text { Ok(label) } else { Err(serde::de::Error::custom("not the label of a transport")) }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// The exact 4-tuple of a transport as the gateway sees it: the client's outer address, and which of the
/// gateway's own addresses (whose port is fixed) it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    remote: SocketAddr,
    gateway: u16,
}

impl Path {
    /// A path in canonical form: IPv4-mapped addresses as IPv4, no flow label, no scope.
    #[must_use]
    pub fn new(remote: SocketAddr, gateway: u16) -> Self {
        Self { remote: SocketAddr::new(remote.ip().to_canonical(), remote.port()), gateway }
    }

    /// The client's outer address.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Index of the gateway's address.
    #[must_use]
    pub const fn gateway(&self) -> u16 {
        self.gateway
    }

    /// The address as 16 bytes, IPv4 mapped.
    pub(crate) fn octets(&self) -> [u8; 16] {
        match self.remote.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        }
    }

    pub(crate) fn from_octets(octets: [u8; 16], port: u16, gateway: u16) -> Self {
        Self::new(SocketAddr::new(Ipv6Addr::from(octets).into(), port), gateway)
    }
}

/// One transport of a session, as the core knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Transport index of its locator.
    pub k: TransportIndex,
    /// Its exact 4-tuple.
    pub path: Path,
    /// What the client calls it.
    pub label: Label,
    /// What the client's configuration thinks of it.
    pub class: TransportClass,
    /// Proven path MTU, bytes.
    pub mtu: u16,
    /// When it was bound; set by the core.
    pub since: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_bounded_and_printable_whatever_the_peer_sends() {
        assert_eq!(Label::new(b"wifi-0").as_str(), "wifi-0");
        assert_eq!(Label::new(b"\x1b[31m\"\\\xff").as_str(), "??31m???");
        assert_eq!(Label::new([b'a'; 40].as_slice()).as_str().len(), LABEL_MAX);
        assert_eq!(Label::new(b"").as_str(), "");
    }

    #[test]
    fn a_mapped_address_is_the_same_path_as_its_ipv4_address() {
        let mapped = Path::new("[::ffff:192.0.2.1]:7".parse().expect("an address"), 1);
        assert_eq!(mapped, Path::new("192.0.2.1:7".parse().expect("an address"), 1));
        assert_eq!(Path::from_octets(mapped.octets(), 7, 1), mapped);
    }

    #[test]
    fn every_state_reads_back_from_its_number_and_its_name() {
        for &state in State::ALL {
            assert_eq!(State::from_number(state.number()), Some(state));
            assert_eq!(state.name().parse(), Ok(state));
        }
        assert_eq!(State::from_number(0), None);
    }
}
