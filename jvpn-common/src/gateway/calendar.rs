//! What is due of whom: alarms of sessions and of slots.
//!
//! Owns the order in which alarms of one instant fire. A slot's name is short and a session's is long, and an idle session has
//! twice as many alarms of the one as of the other: they lie apart, so that none takes the room of the longest. Must never
//! fire anything itself.

use crate::alarm::Alarms;
use crate::ids::{SessionId, Slot};
use crate::time::Instant;

/// What an alarm is for. The order decides ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A timer of a session's core.
    Session(SessionId),
    /// Something of a slot.
    Slot(SlotAlarm, Slot),
    /// Security events that were counted and not recorded yet.
    Suspicions(SessionId),
}

/// What is due of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SlotAlarm {
    /// An unconfirmed handshake.
    Pending,
    /// Previous keys.
    Wipe,
    /// Nothing opened from it for too long.
    Silent,
    /// A message of our own that waits for its acknowledgement.
    Unacknowledged,
    /// Keys that their client should have renewed by now.
    Aged,
}

impl SlotAlarm {
    pub(super) const ALL: [Self; 5] = [Self::Pending, Self::Wipe, Self::Silent, Self::Unacknowledged, Self::Aged];
}

/// All alarms.
#[derive(Debug, Default)]
pub(super) struct Calendar {
    sessions: Alarms<SessionId>,
    slots: Alarms<(SlotAlarm, Slot)>,
    suspicions: Alarms<SessionId>,
}

impl Calendar {
    /// Sets an alarm, or takes it away.
    pub(super) fn set(&mut self, due: Due, at: Option<Instant>) {
        match due {
            Due::Session(id) => self.sessions.set(id, at),
            Due::Slot(what, slot) => self.slots.set((what, slot), at),
            Due::Suspicions(id) => self.suspicions.set(id, at),
        }
    }

    /// The alarm of a slot.
    pub(super) fn of_slot(&self, what: SlotAlarm, slot: Slot) -> Option<Instant> {
        self.slots.at((what, slot))
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.sessions.next(), self.slots.next(), self.suspicions.next()].into_iter().flatten().min()
    }

    /// Takes out the first one due at `now`.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        let first = self.next().filter(|&at| at <= now)?;
        let session = self.sessions.due(first).map(Due::Session);
        let slot = || self.slots.due(first).map(|(what, slot)| Due::Slot(what, slot));
        session.or_else(slot).or_else(|| self.suspicions.due(first).map(Due::Suspicions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_of_all_kinds_fire_by_time_and_then_in_one_order() {
        let [low, high] = [1, 2].map(|n| SessionId([n; 16]));
        let mut calendar = Calendar::default();
        let mut wanted: Vec<(u64, Due)> = [low, high].map(|id| (5, Due::Session(id))).to_vec();
        wanted.extend(SlotAlarm::ALL.map(|what| (5, Due::Slot(what, Slot(7)))));
        wanted.push((5, Due::Suspicions(low)));
        // Later than all of them, and then one of each kind is the earliest.
        wanted.extend([
            (6, Due::Suspicions(high)),
            (7, Due::Slot(SlotAlarm::Pending, Slot(1))),
            (8, Due::Session(low)),
        ]);
        // Set backwards: the order they fire in is not the order they were set in. The last one moves twice.
        for &(at, due) in wanted.iter().rev().filter(|(at, _)| *at != 8) {
            calendar.set(due, Some(Instant(at)));
        }
        assert_eq!((calendar.next(), calendar.due(Instant(4))), (Some(Instant(5)), None));
        assert_eq!(calendar.of_slot(SlotAlarm::Pending, Slot(1)), Some(Instant(7)));
        for &(at, due) in &wanted {
            if at == 8 {
                calendar.set(due, Some(Instant(at)));
            }
            assert_eq!(calendar.due(Instant(9)), Some(due), "at {at}");
        }
        assert_eq!((calendar.next(), calendar.due(Instant(u64::MAX))), (None, None));
    }

    #[test]
    fn an_alarm_of_a_slot_is_half_of_one_of_a_session() {
        assert_eq!((size_of::<(SlotAlarm, Slot)>(), size_of::<SessionId>(), size_of::<Due>()), (8, 16, 20));
    }
}
