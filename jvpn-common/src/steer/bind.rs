//! Reading the binding that another processor may be replacing.
//!
//! Owns the word–entry–word protocol. A writer fills an entry that the word does not name and then stores
//! the word; a reader loads the word, copies the entries it names and loads the word again. Equal words
//! mean that the copies belong together. Different ones mean a jump in between: one retry, and a second
//! jump within nanoseconds is a torn read. Must never compare anything before both words are equal.

use super::address::Address;
use super::tables::Session;
use crate::abi::{ACTIVE_NONE, ActiveWord, Binding};

/// What a word named, copied while the word stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The word.
    pub word: ActiveWord,
    /// The entry it names active; empty if none.
    pub active: Binding,
    /// The entry it names draining; empty if none.
    pub draining: Binding,
}

/// How a source stands to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is the active binding.
    Active,
    /// It is the previous binding and its drain has not ended.
    Draining,
    /// It is the previous binding after its drain.
    Expired,
    /// It is neither.
    Unbound,
}

/// The same by words. A packet's way stays with them: bytes that come from one of two reads would take sixteen times
/// as much of the kernel's small stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    word: ActiveWord,
    active: [u64; 4],
    draining: [u64; 4],
}

/// The bindings of a slot, or `None` when the word changed twice meanwhile.
#[inline(always)]
pub fn read(session: &impl Session) -> Option<Bound> {
    words(session).map(Named::bound)
}

/// One try: word, entries, word.
#[inline(always)]
pub fn read_once(session: &impl Session) -> Option<Bound> {
    words_once(session).map(Named::bound)
}

/// [`read`] by words.
#[inline(always)]
pub(super) fn words(session: &impl Session) -> Option<Named> {
    words_once(session).or_else(|| words_once(session))
}

#[inline(always)]
fn words_once(session: &impl Session) -> Option<Named> {
    let word = ActiveWord(session.word());
    let active = named(session, word.active());
    let draining = named(session, word.draining());
    (session.word() == word.0).then_some(Named { word, active, draining })
}

#[inline(always)]
fn named(session: &impl Session, entry: u8) -> [u64; 4] {
    if entry == ACTIVE_NONE { [0; 4] } else { session.words(entry) }
}

impl Bound {
    /// The active binding, where data may be sent.
    #[must_use]
    pub fn active(&self) -> Option<&Binding> {
        (self.word.active() != ACTIVE_NONE).then_some(&self.active)
    }
}

impl Named {
    #[inline(always)]
    const fn bound(self) -> Bound {
        let (active, draining) = (Binding::from_words(self.active), Binding::from_words(self.draining));
        Bound { word: self.word, active, draining }
    }

    /// The words of the active binding, where data may be sent.
    #[inline(always)]
    pub(super) fn active(&self) -> Option<[u64; 4]> {
        (self.word.active() != ACTIVE_NONE).then_some(self.active)
    }

    /// How `address`, `port` under transport index `k` stands to the session at `tick`.
    #[inline(always)]
    pub(super) fn relation(&self, address: &[u8; 16], port: u16, k: u16, tick: u64) -> Relation {
        let address = Address::of(address);
        if self.word.active() != ACTIVE_NONE && matches(self.active, address, port, k) {
            Relation::Active
        } else if self.word.draining() != ACTIVE_NONE && matches(self.draining, address, port, k) {
            let [.., drain_until] = self.draining;
            if tick <= drain_until { Relation::Draining } else { Relation::Expired }
        } else {
            Relation::Unbound
        }
    }
}

/// Whether a datagram from `address` and `port` under transport index `k` belongs to a binding.
#[inline(always)]
fn matches([a, b, fields, _]: [u64; 4], address: Address, port: u16, k: u16) -> bool {
    let bound = Binding::from_words([0, 0, fields, 0]);
    Address(a, b) == address && bound.port == port && bound.k == k
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A session whose word changes after the given loads.
    struct Moving {
        loads: Cell<u32>,
        changes_before_load: &'static [u32],
    }

    impl Session for Moving {
        fn word(&self) -> u64 {
            let load = self.loads.replace(self.loads.get() + 1);
            let changes = self.changes_before_load.iter().filter(|&&at| at <= load).count();
            ActiveWord::new(u32::try_from(changes).unwrap(), 0, 1).0
        }
        fn entry(&self, entry: u8) -> Binding {
            Binding { port: u16::from(entry), ..Binding::default() }
        }
        fn generation(&self) -> u32 {
            1
        }
        fn flags(&self) -> u32 {
            0
        }
    }

    #[test]
    fn a_word_that_stands_still_is_read_at_once_and_one_jump_costs_a_retry() {
        for (changes, seq, loads) in [(&[][..], 0, 2), (&[1][..], 1, 4)] {
            let session = Moving { loads: Cell::new(0), changes_before_load: changes };
            let bound = read(&session).unwrap();
            assert_eq!((bound.word.seq(), session.loads.get()), (seq, loads));
            assert_eq!(bound.active().map(|binding| binding.port), Some(1));
        }
    }

    #[test]
    fn one_try_reads_what_stands_still_and_nothing_that_moves() {
        let still = Moving { loads: Cell::new(0), changes_before_load: &[] };
        let bound = read_once(&still).unwrap();
        assert_eq!((Some(bound), bound.active().map(|binding| binding.port)), (read(&still), Some(1)));
        let moving = Moving { loads: Cell::new(0), changes_before_load: &[1] };
        assert_eq!((read_once(&moving), moving.loads.get()), (None, 2));
    }

    #[test]
    fn two_jumps_within_one_read_are_torn() {
        let session = Moving { loads: Cell::new(0), changes_before_load: &[1, 3] };
        assert_eq!(read(&session), None);
        assert_eq!(session.loads.get(), 4);
    }

    #[test]
    fn an_empty_word_matches_nothing_not_even_an_empty_source() {
        let bound = Named { word: ActiveWord::default(), active: [0; 4], draining: [0; 4] };
        assert_eq!(bound.relation(&[0; 16], 0, 0, 0), Relation::Unbound);
        assert_eq!((bound.active(), bound.bound().active()), (None, None));
    }

    #[test]
    fn address_port_and_transport_index_must_all_match_and_a_drain_ends() {
        let active = Binding { address: [1; 16], port: 1, k: 1, ..Binding::default() };
        let draining = Binding { address: [2; 16], port: 2, k: 2, drain_until: 10, ..Binding::default() };
        let (active, draining) = (active.to_words(), draining.to_words());
        let bound = Named { word: ActiveWord::new(1, 2, 1), active, draining };
        assert_eq!(bound.relation(&[1; 16], 1, 1, 99), Relation::Active);
        assert_eq!(bound.relation(&[1; 16], 1, 2, 0), Relation::Unbound);
        assert_eq!(bound.relation(&[1; 16], 2, 1, 0), Relation::Unbound);
        assert_eq!(bound.relation(&[2; 16], 1, 1, 0), Relation::Unbound);
        assert_eq!(bound.relation(&[2; 16], 2, 2, 10), Relation::Draining);
        assert_eq!(bound.relation(&[2; 16], 2, 2, 11), Relation::Expired);
    }
}
