//! One session's hot entry: the active word and three bindings, 128 bytes.
//!
//! Owns the layout that makes "never two active bindings" a property of the data: one aligned word names
//! the active binding, so a reader sees the old transport or the new one. Must never grow past 128 bytes:
//! one entry is two cache lines, and lines are what a packet costs.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Binding entries of a session: active, draining, and the one being written.
pub const BINDINGS: usize = 3;

/// Value of [`ActiveWord::active`] and [`ActiveWord::draining`] for "none". Entries count from 1, so that
/// a zeroed word is unbound.
pub const ACTIVE_NONE: u8 = 0;

/// Flag in [`SessionEntry::flags`]: the handshake is not confirmed, only CONFIRM passes.
pub const PENDING: u32 = 1;

/// `seq:32 | draining:8 | active:8 | flags:16`, stored and loaded as one aligned u64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct ActiveWord(pub u64);

impl ActiveWord {
    /// A word from its parts.
    #[must_use]
    pub const fn new(seq: u32, draining: u8, active: u8) -> Self {
        Self((seq as u64) << 32 | (draining as u64) << 24 | (active as u64) << 16)
    }

    /// Grows with every store, so that a reader who looked twice knows whether anything happened between.
    #[must_use]
    pub const fn seq(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Entry (1…3) that may still be received from, or [`ACTIVE_NONE`].
    #[must_use]
    pub const fn draining(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Entry (1…3) that is active, or [`ACTIVE_NONE`].
    #[must_use]
    pub const fn active(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// The word that follows this one, with other entries named.
    #[must_use]
    pub const fn successor(self, draining: u8, active: u8) -> Self {
        Self::new(self.seq().wrapping_add(1), draining, active)
    }

    /// An entry that this word names neither active nor draining: the only one that may be written.
    #[must_use]
    pub const fn spare(self) -> u8 {
        let mut entry = 1;
        while entry == self.active() || entry == self.draining() {
            entry += 1;
        }
        entry
    }
}

/// One transport as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct Binding {
    /// Outer address of the client; IPv4 as IPv4-mapped IPv6.
    pub address: [u8; 16],
    /// Outer UDP port of the client.
    pub port: u16,
    /// Which of the gateway's addresses the client uses; on a relay the way to the client, a place in `HOPS`.
    pub gateway: u16,
    /// Transport index *k* of the locator in use; part of the match.
    pub k: u16,
    /// Proven path MTU.
    pub mtu: u16,
    /// Tick (jiffy) up to which a draining binding may be received from; 0 while active.
    pub drain_until: u64,
}

impl Binding {
    /// The client's outer address.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.address).to_canonical(), self.port)
    }
}

impl Binding {
    /// The binding as its four words in memory.
    #[must_use]
    pub const fn to_words(&self) -> [u64; 4] {
        let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = self.address;
        [
            u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
            self.port as u64 | (self.gateway as u64) << 16 | (self.k as u64) << 32 | (self.mtu as u64) << 48,
            self.drain_until,
        ]
    }

    /// The binding of four words loaded one by one.
    #[must_use]
    #[inline(always)]
    pub const fn from_words(words: [u64; 4]) -> Self {
        let [a, b, fields, drain_until] = words;
        let [a0, a1, a2, a3, a4, a5, a6, a7] = a.to_le_bytes();
        let [b0, b1, b2, b3, b4, b5, b6, b7] = b.to_le_bytes();
        Self {
            address: [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7],
            port: fields as u16,
            gateway: (fields >> 16) as u16,
            k: (fields >> 32) as u16,
            mtu: (fields >> 48) as u16,
            drain_until,
        }
    }
}

/// Words of a [`SessionEntry`], and the places of those that are not bindings.
pub const SESSION_WORDS: usize = size_of::<SessionEntry>() / 8;
/// Place of [`SessionEntry::active`].
pub const WORD_ACTIVE: usize = 0;
/// Place of generation (low half) and flags (high half).
pub const WORD_GENERATION: usize = 1;
/// Place of [`SessionEntry::owner`] (low half).
pub const WORD_OWNER: usize = 14;

/// Place of the first word of binding entry 1 to 3.
#[must_use]
pub const fn binding_place(entry: u8) -> Option<usize> {
    match entry {
        1..=3 => Some(2 + (entry as usize - 1) * 4),
        _ => None,
    }
}

/// An address as the maps hold it.
#[must_use]
pub fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The entry of a slot in `SESSIONS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(128))]
pub struct SessionEntry {
    /// The active word ([`ActiveWord`]).
    pub active: u64,
    /// Generation of the slot; locators of another one do not match.
    pub generation: u32,
    /// [`PENDING`] or 0.
    pub flags: u32,
    /// The entries the word names, 1 to 3.
    pub bindings: [Binding; BINDINGS],
    /// On a relay, place in `OWNERS` + 1; 0 = the session is this node's own.
    pub owner: u32,
    /// For later; zero.
    pub reserved: [u8; 12],
}

const _: () = assert!(
    core::mem::offset_of!(SessionEntry, active) == WORD_ACTIVE * 8
        && core::mem::offset_of!(SessionEntry, generation) == WORD_GENERATION * 8
        && core::mem::offset_of!(SessionEntry, bindings) == 16
        && core::mem::offset_of!(SessionEntry, owner) == WORD_OWNER * 8
);
const _: () = assert!(size_of::<Binding>() == 32 && size_of::<SessionEntry>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spare_entry_is_never_one_the_word_names() {
        for draining in 0..=3 {
            for active in 0..=3 {
                let word = ActiveWord::new(7, draining, active);
                assert_eq!((word.seq(), word.draining(), word.active()), (7, draining, active));
                let spare = word.spare();
                assert!((1..=3).contains(&spare) && spare != active && spare != draining);
            }
        }
    }

    #[test]
    fn a_binding_reads_back_from_its_words() {
        let binding = Binding { address: *b"0123456789abcdef", port: 1, gateway: 2, k: 3, mtu: 4, drain_until: 5 };
        assert_eq!(Binding::from_words(binding.to_words()), binding);
    }

    #[test]
    fn a_zeroed_word_is_unbound() {
        assert_eq!(ActiveWord::default().active(), ACTIVE_NONE);
    }
}
