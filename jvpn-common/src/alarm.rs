//! Alarms: what is due when, one instant a key.
//!
//! Owns the order of deadlines of an engine. Must never read a clock: the caller says what time it is.

use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// At most one instant for each key.
#[derive(Debug)]
pub struct Alarms<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K: Ord + Copy> Default for Alarms<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Alarms<K> {
    /// Sets the alarm of `key`, or takes it away.
    pub fn set(&mut self, key: K, at: Option<Instant>) {
        let old = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.by_time.remove(&(old, key));
        }
        if let Some(at) = at {
            self.by_time.insert((at, key));
        }
    }

    /// The alarm of `key`.
    #[must_use]
    pub fn at(&self, key: K) -> Option<Instant> {
        self.by_key.get(&key).copied()
    }

    /// When the next one is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// Takes out the first one due at `now`; ties go to the lower key.
    pub fn due(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_fire_in_order_once_and_only_when_due() {
        let mut alarms = Alarms::default();
        alarms.set('b', Some(Instant(5)));
        alarms.set('a', Some(Instant(5)));
        alarms.set('c', Some(Instant(1)));
        alarms.set('c', Some(Instant(9)));
        assert_eq!(alarms.next(), Some(Instant(5)));
        assert_eq!(alarms.due(Instant(4)), None);
        assert_eq!(
            (alarms.due(Instant(5)), alarms.due(Instant(5)), alarms.due(Instant(5))),
            (Some('a'), Some('b'), None)
        );
        alarms.set('c', None);
        assert_eq!(alarms.next(), None);
    }
}
