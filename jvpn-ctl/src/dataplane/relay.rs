//! What a relay's controller writes beside sessions: owners, their leases, ways out.
//!
//! Owns writing `OWNERS` and `HOPS` so that a reader sees a whole entry or none, and noticing what somebody else wrote
//! there. One thread writes. Must never set a lease beyond what the owner gave.

use super::region::Region;
use super::shared::Shared;
use jvpn_common::abi::{
    HOP_WORDS, HOPS_MAX, Hop, OWNER_WORDS, OWNERS_MAX, Owner, WORD_OWNER, WORD_OWNER_ALIVE, sequence,
};
use jvpn_common::ids::Slot;
use jvpn_common::time::Duration;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{MutexGuard, PoisonError};

/// An entry of `N` words, whole or not at all.
fn read<const N: usize>(region: &Region, index: u32) -> Option<[u64; N]> {
    let start = (index as usize).checked_mul(N)?;
    // Acquire: the second look at the sequence may not overtake the words.
    sequence::read(|at| region.word(start + at).map_or(0, |word| word.load(Acquire)))
}

/// Entries as they were last written, sequence and all; one that never was is zeros.
#[derive(Debug)]
pub(super) struct Ways {
    owners: Vec<[u64; OWNER_WORDS]>,
    hops: Vec<[u64; HOP_WORDS]>,
}

impl Default for Ways {
    fn default() -> Self {
        Self { owners: vec![[0; OWNER_WORDS]; OWNERS_MAX as usize], hops: vec![[0; HOP_WORDS]; HOPS_MAX as usize] }
    }
}

/// Stores an entry and remembers it; `words` brings everything but the sequence.
fn write<const N: usize>(region: &Region, written: &mut [[u64; N]], index: usize, mut words: [u64; N]) {
    let (start, Some(written)) = (index.saturating_mul(N), written.get_mut(index)) else { return };
    let Some(place) = region.word(start + sequence::SEQUENCE) else { return };
    let (odd, even) = sequence::next(place.load(Acquire));
    place.store(odd, Release);
    // Each a release store: none of them is seen before the odd sequence.
    region.store(start + sequence::SEQUENCE + 1, words.get(sequence::SEQUENCE + 1..).unwrap_or(&[]));
    place.store(even, Release);
    words[sequence::SEQUENCE] = even;
    *written = words;
}

/// Writes every entry again that is not as it was written; whether one was in use, and whether one was not.
fn mend<const N: usize>(region: &Region, written: &mut [[u64; N]]) -> [bool; 2] {
    let mut found = [false; 2];
    for index in 0..written.len() {
        let Some(words) = written.get(index).copied() else { break };
        if region.load(index.saturating_mul(N)) != words {
            let unused = words.iter().skip(sequence::SEQUENCE + 1).all(|word| *word == 0);
            write(region, written, index, words);
            found[usize::from(unused)] = true;
        }
    }
    found
}

impl Shared {
    /// An owner, if there is a whole one at this place.
    #[must_use]
    pub fn owner(&self, index: u32) -> Option<Owner> {
        read(&self.regions.owners, index).map(|words| Owner::from_words(&words))
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an owner, its lease included; the sequence is kept here.
    pub fn set_owner(&self, index: u32, owner: &Owner) {
        write(&self.regions.owners, &mut self.ways().owners, index as usize, owner.to_words());
    }

    /// Says that an owner's lease runs for this much longer; zero ends it.
    pub fn set_owner_alive(&self, index: u32, within: Duration) {
        let mut ways = self.ways();
        let Some(written) = ways.owners.get_mut(index as usize).and_then(|words| words.get_mut(WORD_OWNER_ALIVE))
        else {
            return;
        };
        *written = if within.is_zero() { 0 } else { self.ticks().after(within) };
        if let Some(word) = self.regions.owners.word(index as usize * OWNER_WORDS + WORD_OWNER_ALIVE) {
            word.store(*written, Release);
        }
    }

    /// A way out, if there is a whole one of this id.
    #[must_use]
    pub fn hop(&self, id: u16) -> Option<Hop> {
        read(&self.regions.hops, u32::from(id)).map(|words| Hop::from_words(&words))
    }

    /// Stores a way out; the sequence is kept here.
    pub fn set_hop(&self, id: u16, hop: &Hop) {
        write(&self.regions.hops, &mut self.ways().hops, usize::from(id), hop.to_words());
    }

    /// Forgets all owners and ways out, those of an earlier process too.
    pub fn clear_ways(&self) {
        *self.ways() = Ways::default();
        self.mend_ways();
    }

    /// Puts back every owner and every way out that is not as it was written here; what that was.
    pub fn mend_ways(&self) -> Vec<&'static str> {
        let mut ways = self.ways();
        let Ways { owners, hops } = &mut *ways;
        let [owner, unused_owner] = mend(&self.regions.owners, owners);
        let [hop, unused_hop] = mend(&self.regions.hops, hops);
        let found = [
            ("an entry of OWNERS", owner),
            ("an unused entry of OWNERS", unused_owner),
            ("an entry of HOPS", hop),
            ("an unused entry of HOPS", unused_hop),
        ];
        found.into_iter().filter_map(|(what, found)| found.then_some(what)).collect()
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

    /// The words of an entry as they stand, whole or not.
    fn words<const N: usize>(region: &Region, index: usize) -> [u64; N] {
        region.load(index * N)
    }

    #[test]
    fn every_word_of_owners_and_hops_that_somebody_changed_is_put_back_and_nothing_else() {
        let plane = Memory::with_ticks(4, Ticks::manual(100));
        let shared = plane.shared();
        let hop = Hop { source: [5; 16], ifindex: 3, mtu: 1_500, flags: HOP_RESOLVED, ..Hop::default() };
        shared.set_owner(2, &owner(7));
        shared.set_owner_alive(2, Duration::from_millis(500));
        shared.set_hop(9, &hop);
        assert_eq!(shared.mend_ways(), [""; 0]);
        let kept = shared.owner(2).unwrap();
        for (index, word) in [(2, 0), (2, WORD_OWNER_ALIVE), (2, 2), (2, 9), (5, 0), (5, WORD_OWNER_ALIVE)] {
            shared.regions.owners.word(index * OWNER_WORDS + word).unwrap().store(77, Release);
            let what = if index == 2 { "an entry of OWNERS" } else { "an unused entry of OWNERS" };
            assert_eq!(shared.mend_ways(), [what], "{index} {word}");
            assert_eq!(shared.mend_ways(), [""; 0], "{index} {word}");
            assert_eq!(shared.owner(2).map(|owner| Owner { sequence: 2, ..owner }), Some(kept), "{index} {word}");
            assert_eq!(words::<OWNER_WORDS>(&shared.regions.owners, 5)[1..], [0; OWNER_WORDS - 1]);
        }
        for word in 0..HOP_WORDS {
            shared.regions.hops.word(9 * HOP_WORDS + word).unwrap().store(77, Release);
            assert_eq!(shared.mend_ways(), ["an entry of HOPS"], "{word}");
            assert_eq!(shared.hop(9).map(|hop| Hop { sequence: 0, ..hop }), Some(hop), "{word}");
        }
        shared.regions.hops.word(8 * HOP_WORDS + 1).unwrap().store(77, Release);
        assert_eq!(shared.mend_ways(), ["an unused entry of HOPS"]);
        // A lease is renewed in what will be put back, too.
        shared.set_owner_alive(2, Duration::ZERO);
        shared.regions.owners.word(2 * OWNER_WORDS + WORD_OWNER_ALIVE).unwrap().store(u64::MAX, Release);
        assert_eq!((shared.mend_ways().len(), shared.owner(2).map(|owner| owner.alive_until)), (1, Some(0)));
    }

    #[test]
    fn what_an_earlier_process_left_is_cleared_and_no_reader_takes_it_for_whole() {
        let plane = Memory::with_ticks(4, Ticks::manual(100));
        let shared = plane.shared();
        shared.set_owner(2, &owner(7));
        shared.set_hop(9, &Hop { ifindex: 3, ..Hop::default() });
        shared.regions.hops.store(40 * HOP_WORDS, &[5; HOP_WORDS]);
        shared.clear_ways();
        assert_eq!(shared.owner(2).map(|owner| Owner { sequence: 0, ..owner }), Some(Owner::default()));
        for id in [9, 40] {
            assert_eq!(shared.hop(id).map(|hop| Hop { sequence: 0, ..hop }), Some(Hop::default()), "{id}");
        }
        assert_eq!((shared.hop(8), shared.mend_ways().len()), (None, 0));
    }
}
