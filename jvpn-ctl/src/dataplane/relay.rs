//! What a relay's controller writes beside sessions: owners, their leases, ways out.
//!
//! Owns writing `OWNERS` and `HOPS` so that a reader sees a whole entry or none. One thread writes. Must never
//! set a lease beyond what the owner gave.

use super::region::Region;
use super::shared::Shared;
use jvpn_common::abi::{
    HOP_WORDS, HOPS_MAX, Hop, OWNER_WORDS, OWNERS_MAX, Owner, WORD_OWNER, WORD_OWNER_ALIVE, sequence,
};
use jvpn_common::ids::Slot;
use jvpn_common::time::Duration;
use std::sync::atomic::Ordering::{Acquire, Release};

/// An entry of `N` words, whole or not at all.
fn read<const N: usize>(region: &Region, index: u32) -> Option<[u64; N]> {
    let start = (index as usize).checked_mul(N)?;
    // Acquire: the second look at the sequence may not overtake the words.
    sequence::read(|at| region.word(start + at).map_or(0, |word| word.load(Acquire)))
}

/// Stores one; `words` brings everything but the sequence.
fn write<const N: usize>(region: &Region, index: u32, words: &[u64; N]) {
    let start = index as usize * N;
    let Some(place) = region.word(start + sequence::SEQUENCE) else { return };
    let (odd, even) = sequence::next(place.load(Acquire));
    place.store(odd, Release);
    // Each a release store: none of them is seen before the odd sequence.
    region.store(start + sequence::SEQUENCE + 1, words.get(sequence::SEQUENCE + 1..).unwrap_or(&[]));
    place.store(even, Release);
}

impl Shared {
    /// An owner, if there is a whole one at this place.
    #[must_use]
    pub fn owner(&self, index: u32) -> Option<Owner> {
        read(&self.regions.owners, index).map(|words| Owner::from_words(&words))
    }

    /// Stores an owner, its lease included; the sequence is kept here.
    pub fn set_owner(&self, index: u32, owner: &Owner) {
        if index < OWNERS_MAX {
            write::<OWNER_WORDS>(&self.regions.owners, index, &owner.to_words());
        }
    }

    /// Says that an owner's lease runs for this much longer; zero ends it.
    pub fn set_owner_alive(&self, index: u32, within: Duration) {
        let word = (index as usize).checked_mul(OWNER_WORDS).and_then(|start| start.checked_add(WORD_OWNER_ALIVE));
        if let Some(word) = word.and_then(|at| self.regions.owners.word(at)) {
            word.store(if within.is_zero() { 0 } else { self.ticks().after(within) }, Release);
        }
    }

    /// A way out, if there is a whole one of this id.
    #[must_use]
    pub fn hop(&self, id: u16) -> Option<Hop> {
        read(&self.regions.hops, u32::from(id)).map(|words| Hop::from_words(&words))
    }

    /// Stores a way out; the sequence is kept here.
    pub fn set_hop(&self, id: u16, hop: &Hop) {
        if u32::from(id) < HOPS_MAX {
            write::<HOP_WORDS>(&self.regions.hops, u32::from(id), &hop.to_words());
        }
    }

    /// Whose session a slot holds: place in `OWNERS` + 1, 0 = this node's own.
    #[must_use]
    pub fn session_owner(&self, slot: Slot) -> u32 {
        self.session_word(slot, WORD_OWNER).map_or(0, |word| word.load(Acquire) as u32)
    }

    /// Says whose session a slot holds. A new session and a freed slot are this node's own until it is said.
    pub fn set_session_owner(&self, slot: Slot, owner: u32) {
        if let Some(word) = self.session_word(slot, WORD_OWNER) {
            word.store(u64::from(owner), Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::DataPlane;
    use crate::dataplane::memory::Memory;
    use crate::dataplane::ticks::Ticks;
    use jvpn_common::abi::{HOP_RESOLVED, OwnerEndpoint};

    fn owner(number: u8) -> Owner {
        let end = |n| OwnerEndpoint { address: [n; 16], port: u16::from(n), hop: 1, mtu: 1_400, reserved: 0 };
        Owner { alive_until: 9, v4: end(number), v6: end(number + 1), incarnation: 3, owner_epoch: 4, sequence: 0 }
    }

    #[test]
    fn owners_and_hops_read_back_and_only_where_they_were_written() {
        let plane = Memory::with_ticks(4, Ticks::manual(100));
        let shared = plane.shared();
        assert_eq!((shared.owner(0), shared.hop(0)), (None, None));
        shared.set_owner(15, &owner(7));
        shared.set_owner(OWNERS_MAX, &owner(1));
        let hop = Hop { source: [5; 16], ifindex: 3, mtu: 1_500, flags: HOP_RESOLVED, ..Hop::default() };
        shared.set_hop(1_023, &hop);
        shared.set_hop(1_024, &hop);
        assert_eq!(shared.owner(15), Some(Owner { sequence: 2, ..owner(7) }));
        assert_eq!(shared.hop(1_023), Some(Hop { sequence: 2, ..hop }));
        shared.set_hop(1_023, &Hop::default());
        assert_eq!(shared.hop(1_023), Some(Hop { sequence: 4, ..Hop::default() }));
        assert_eq!(
            (shared.owner(14), shared.owner(16), shared.hop(1_022), shared.hop(1_024)),
            (None, None, None, None)
        );
    }

    #[test]
    fn a_lease_is_renewed_and_ended_without_touching_the_rest() {
        let plane = Memory::with_ticks(4, Ticks::manual(100));
        let shared = plane.shared();
        shared.set_owner(2, &owner(7));
        shared.set_owner_alive(2, Duration::from_millis(500));
        assert_eq!(shared.owner(2), Some(Owner { sequence: 2, alive_until: 225, ..owner(7) }));
        shared.set_owner_alive(2, Duration::ZERO);
        assert_eq!(shared.owner(2), Some(Owner { sequence: 2, alive_until: 0, ..owner(7) }));
        shared.set_owner_alive(u32::MAX, Duration::from_secs(1));
    }
}
