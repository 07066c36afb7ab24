//! One thing for each transport index of a key: replay windows, counters of nonces.
//!
//! Owns which indexes have one. Indexes only grow, so one is given up from below, and what was given up stays refused for the
//! life of the key: its counters could be used a second time otherwise. A short list in order, since an idle session has one
//! index and a tree's node has room for eleven.

/// Transports of one key that have something. Six locators are alive at once; the rest are drained ones.
pub const TRANSPORTS_MAX: usize = 16;

/// Something for each of the newest transports.
#[derive(Debug)]
pub(crate) struct Transports<T> {
    /// By index, lowest first.
    known: Vec<(u16, T)>,
    /// Indexes below this one are refused.
    floor: u32,
}

impl<T> Default for Transports<T> {
    fn default() -> Self {
        Self { known: Vec::new(), floor: 0 }
    }
}

impl<T: Default> Transports<T> {
    fn place(&self, k: u16) -> Result<usize, usize> {
        self.known.binary_search_by_key(&k, |&(known, _)| known)
    }

    /// What a transport has.
    pub(crate) fn find(&self, k: u16) -> Option<&T> {
        self.known.get(self.place(k).ok()?).map(|(_, value)| value)
    }

    /// Whether a transport has something, or may.
    pub(crate) fn admits(&self, k: u16) -> bool {
        let full = self.known.len() >= TRANSPORTS_MAX;
        let below = self.known.first().is_some_and(|&(lowest, _)| k < lowest);
        self.place(k).is_ok() || u32::from(k) >= self.floor && !(full && below)
    }

    /// What a transport has, from now on at least; the lowest makes room for it. None: it is given up.
    pub(crate) fn open(&mut self, k: u16) -> Option<&mut T> {
        if !self.admits(k) {
            return None;
        }
        if self.place(k).is_err() {
            if self.known.len() >= TRANSPORTS_MAX {
                let (lowest, _) = self.known.remove(0);
                self.floor = u32::from(lowest) + 1;
            }
            // Room for four, as a vector takes by itself, is three more than most ever have.
            self.known.reserve_exact(1);
            let at = self.known.partition_point(|&(known, _)| known < k);
            self.known.insert(at, (k, T::default()));
        }
        let at = self.place(k).ok()?;
        self.known.get_mut(at).map(|(_, value)| value)
    }

    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.known.len()
    }

    /// Gives up all transports below `k`, for good.
    pub(crate) fn retire_below(&mut self, k: u16) {
        self.floor = self.floor.max(u32::from(k));
        self.known.retain(|&(known, _)| known >= k);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_have_something_and_what_was_given_up_stays_refused() {
        let mut transports = Transports::<u64>::default();
        for k in (0..40).rev().step_by(2) {
            *transports.open(k).unwrap() = u64::from(k);
            if transports.known.len() == TRANSPORTS_MAX {
                break;
            }
        }
        assert_eq!((transports.find(39), transports.find(9), transports.find(10)), (Some(&39), Some(&9), None));
        assert!(transports.open(8).is_none(), "lower than all of a full list");
        assert_eq!(transports.open(50).copied(), Some(0));
        assert!(!transports.admits(9) && !transports.admits(10) && transports.admits(12));
        assert_eq!(transports.known.first().map(|&(k, _)| k), Some(11));
        transports.retire_below(20);
        assert!(transports.find(19).is_none() && !transports.admits(19) && transports.find(21) == Some(&21));
        assert!(transports.known.is_sorted_by_key(|&(k, _)| k));
    }

    #[test]
    fn one_transport_takes_room_for_one() {
        let mut transports = Transports::<u64>::default();
        transports.open(3);
        assert_eq!(transports.known.capacity(), 1);
    }
}
