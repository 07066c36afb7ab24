//! An owner of sessions as its relay knows it: which start of it, until when it is believed, where it is.
//!
//! Owns the value of `OWNERS`. What a relay knows of an owner is a cache under a lease: past `alive_until`
//! no data is forwarded. Must never hold a key.

use super::sequence::SEQUENCE;

/// Owners a relay serves.
pub const OWNERS_MAX: u32 = 16;

/// Where an owner receives in one IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct OwnerEndpoint {
    /// Its address; IPv4 as IPv4-mapped IPv6.
    pub address: [u8; 16],
    /// Its UDP port; 0 = it has no address in this IP version.
    pub port: u16,
    /// The way there: place in `HOPS`.
    pub hop: u16,
    /// Largest IP packet that gets there whole; 0 = not known.
    pub mtu: u16,
    /// For later; zero.
    pub reserved: u16,
}

impl OwnerEndpoint {
    /// The endpoint as its three words in memory.
    #[must_use]
    pub const fn to_words(&self) -> [u64; 3] {
        let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = self.address;
        [
            u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
            self.port as u64 | (self.hop as u64) << 16 | (self.mtu as u64) << 32,
        ]
    }

    /// The endpoint of three words; what is reserved reads as zero.
    #[must_use]
    #[inline(always)]
    pub const fn from_words([a, b, fields]: [u64; 3]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7] = a.to_le_bytes();
        let [b0, b1, b2, b3, b4, b5, b6, b7] = b.to_le_bytes();
        Self {
            address: [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7],
            port: fields as u16,
            hop: (fields >> 16) as u16,
            mtu: (fields >> 32) as u16,
            reserved: 0,
        }
    }
}

/// One owner. All but `alive_until` is read between two equal sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct Owner {
    /// Even and not 0 when the rest belongs together; odd while it is written, 0 = no owner here.
    pub sequence: u64,
    /// Tick up to which its lease runs; 0 = it has none.
    pub alive_until: u64,
    /// Where it is in IPv4.
    pub v4: OwnerEndpoint,
    /// Where it is in IPv6.
    pub v6: OwnerEndpoint,
    /// Which start of it; echoes say it.
    pub incarnation: u64,
    /// Which owner of its sessions it is.
    pub owner_epoch: u64,
}

/// Words of an [`Owner`].
pub const OWNER_WORDS: usize = size_of::<Owner>() / 8;
/// Place of [`Owner::alive_until`], which is stored alone when the lease is renewed.
pub const WORD_OWNER_ALIVE: usize = 1;

impl Owner {
    /// Whether its lease runs at `tick`.
    #[must_use]
    pub const fn alive(&self, tick: u64) -> bool {
        self.alive_until != 0 && tick <= self.alive_until
    }

    /// The owner as its words in memory.
    #[must_use]
    pub const fn to_words(&self) -> [u64; OWNER_WORDS] {
        let ([a, b, c], [d, e, f]) = (self.v4.to_words(), self.v6.to_words());
        [self.sequence, self.alive_until, a, b, c, d, e, f, self.incarnation, self.owner_epoch]
    }

    /// The owner of its words.
    #[must_use]
    #[inline(always)]
    pub const fn from_words(words: &[u64; OWNER_WORDS]) -> Self {
        let [sequence, alive_until, a, b, c, d, e, f, incarnation, owner_epoch] = *words;
        let (v4, v6) = (OwnerEndpoint::from_words([a, b, c]), OwnerEndpoint::from_words([d, e, f]));
        Self { sequence, alive_until, v4, v6, incarnation, owner_epoch }
    }
}

const _: () = assert!(
    core::mem::offset_of!(Owner, sequence) == SEQUENCE * 8
        && core::mem::offset_of!(Owner, alive_until) == WORD_OWNER_ALIVE * 8
        && core::mem::offset_of!(Owner, v4) == 16
        && core::mem::offset_of!(Owner, v6) == 40
);
const _: () = assert!(size_of::<OwnerEndpoint>() == 24 && size_of::<Owner>() == 80);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_back_from_its_words() {
        let v4 = OwnerEndpoint { address: *b"0123456789abcdef", port: 1, hop: 2, mtu: 3, reserved: 0 };
        let v6 = OwnerEndpoint { address: *b"fedcba9876543210", port: 4, hop: 5, mtu: 6, reserved: 0 };
        let owner = Owner { sequence: 2, alive_until: 7, v4, v6, incarnation: 8, owner_epoch: 9 };
        assert_eq!(Owner::from_words(&owner.to_words()), owner);
    }

    #[test]
    fn an_owner_is_alive_up_to_its_tick_and_a_zeroed_one_never() {
        let owner = Owner { alive_until: 100, ..Owner::default() };
        assert!(owner.alive(100) && !owner.alive(101));
        assert!(!Owner::default().alive(0));
    }
}
