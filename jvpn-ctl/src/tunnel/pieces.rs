//! Tables whose copy costs a pointer for many entries: what a snapshot shares with the one before.
//!
//! Owns two of them, by slot and by any ordered key. A commit changes one session of a hundred thousand and makes a
//! snapshot; whatever else is in the table must not be copied for it.

use jvpn_common::ids::Slot;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

/// Slots in one piece: a change copies one piece, a snapshot a pointer for each. 64 keeps both below 2,000 at 100,000 slots.
const PIECE: usize = 64;
/// Pieces of a table by key.
const SHARDS: usize = 256;

/// Neighbouring slots.
type Piece<T> = [Option<Arc<T>>; PIECE];

/// Something for each slot in use.
#[derive(Debug)]
pub struct BySlot<T> {
    pieces: Vec<Option<Arc<Piece<T>>>>,
}

impl<T> Clone for BySlot<T> {
    fn clone(&self) -> Self {
        Self { pieces: self.pieces.clone() }
    }
}

impl<T> Default for BySlot<T> {
    fn default() -> Self {
        Self { pieces: Vec::new() }
    }
}

const fn place(slot: Slot) -> (usize, usize) {
    let number = slot.0 as usize;
    (number / PIECE, number % PIECE)
}

impl<T> BySlot<T> {
    /// What a slot has.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<&Arc<T>> {
        let (piece, at) = place(slot);
        self.pieces.get(piece)?.as_ref()?.get(at)?.as_ref()
    }

    /// The same, to be changed: snapshots keep what they have.
    pub fn slot_mut(&mut self, slot: Slot) -> Option<&mut Arc<T>> {
        self.get(slot)?;
        let (piece, at) = place(slot);
        Arc::make_mut(self.pieces.get_mut(piece)?.as_mut()?).get_mut(at)?.as_mut()
    }

    /// Gives a slot something.
    pub fn insert(&mut self, slot: Slot, value: Arc<T>) {
        let (piece, at) = place(slot);
        if self.pieces.len() <= piece {
            self.pieces.resize_with(piece + 1, || None);
        }
        if let Some(piece) = self.pieces.get_mut(piece) {
            let piece = piece.get_or_insert_with(|| Arc::new([const { None }; PIECE]));
            if let Some(place) = Arc::make_mut(piece).get_mut(at) {
                *place = Some(value);
            }
        }
    }

    /// Takes it from a slot.
    pub fn remove(&mut self, slot: Slot) -> Option<Arc<T>> {
        self.get(slot)?;
        let (piece, at) = place(slot);
        Arc::make_mut(self.pieces.get_mut(piece)?.as_mut()?).get_mut(at)?.take()
    }

    /// Every slot in use, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Arc<T>)> {
        let entries = self.pieces.iter().map(|piece| piece.iter().flat_map(|piece| piece.iter()));
        let numbered = entries.zip(0_u32..).flat_map(|(entries, piece)| {
            let first = piece * PIECE as u32;
            entries.zip(first..)
        });
        numbered.filter_map(|(entry, number)| Some((Slot(number), entry.as_ref()?)))
    }
}

/// Something for each key.
#[derive(Debug)]
pub struct ByKey<K, V> {
    shards: Vec<Arc<BTreeMap<K, V>>>,
}

impl<K, V> Clone for ByKey<K, V> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone() }
    }
}

impl<K, V> Default for ByKey<K, V> {
    fn default() -> Self {
        Self { shards: Vec::new() }
    }
}

impl<K: Ord + Hash + Clone, V: Clone> ByKey<K, V> {
    fn shard(key: &K) -> usize {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0)
    }

    /// What a key has.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.shards.get(Self::shard(key))?.get(key)
    }

    /// Gives a key something; what it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Arc::default);
        }
        Arc::make_mut(self.shards.get_mut(Self::shard(&key))?).insert(key, value)
    }

    /// Takes it from a key.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let shard = self.shards.get_mut(Self::shard(key)).filter(|shard| shard.contains_key(key))?;
        Arc::make_mut(shard).remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_copies_its_piece_and_no_other() {
        let mut table = BySlot::default();
        for number in [0, 63, 64, 1_000] {
            table.insert(Slot(number), Arc::new(number));
        }
        let before = table.clone();
        *Arc::make_mut(table.slot_mut(Slot(64)).unwrap()) = 7;
        assert_eq!(table.remove(Slot(0)).as_deref(), Some(&0));
        assert_eq!(
            table.iter().map(|(slot, value)| (slot.0, **value)).collect::<Vec<_>>(),
            [(63, 63), (64, 7), (1_000, 1_000)]
        );
        assert_eq!(before.iter().map(|(slot, _)| slot.0).collect::<Vec<_>>(), [0, 63, 64, 1_000]);
        assert_eq!(before.get(Slot(64)).map(|value| **value), Some(64), "a snapshot never changes");
        assert!(Arc::ptr_eq(table.get(Slot(63)).unwrap(), before.get(Slot(63)).unwrap()));
        let shared = |piece: usize| {
            let [ours, theirs] = [&table, &before].map(|table| table.pieces[piece].as_ref().unwrap());
            Arc::ptr_eq(ours, theirs)
        };
        assert!(shared(15) && !shared(0) && !shared(1));
        for unknown in [1, 65, 2_000] {
            assert!(table.get(Slot(unknown)).is_none() && table.slot_mut(Slot(unknown)).is_none());
            assert!(table.remove(Slot(unknown)).is_none());
        }
    }

    #[test]
    fn keys_lie_in_shards_of_their_own_that_snapshots_share() {
        let mut table = ByKey::default();
        assert!((0..1_000_u64).all(|key| table.insert(key, key).is_none()));
        let before = table.clone();
        assert_eq!((table.insert(5, 50), table.remove(&6), table.remove(&2_000)), (Some(5), Some(6), None));
        assert_eq!((table.get(&5), table.get(&6), table.get(&7)), (Some(&50), None, Some(&7)));
        assert!((0..1_000).all(|key| before.get(&key) == Some(&key)), "a snapshot never changes");
        let changed = table.shards.iter().zip(&before.shards).filter(|(ours, theirs)| !Arc::ptr_eq(ours, theirs));
        assert!(changed.count() <= 2);
    }
}
