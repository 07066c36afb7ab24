//! Tests of the replay windows against an oracle that remembers everything.

use super::{ReplayError, ReplayWindow, ReplayWindows, TRANSPORTS_MAX, WINDOW};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Remembers every counter it has seen.
#[derive(Default)]
struct Oracle(BTreeSet<u64>);

impl Oracle {
    fn judge(&self, counter: u64) -> Result<(), ReplayError> {
        let below = self.0.last().is_some_and(|&highest| counter <= highest && highest - counter >= WINDOW);
        match (below, self.0.contains(&counter)) {
            (true, _) => Err(ReplayError::TooOld),
            (false, true) => Err(ReplayError::Replayed),
            (false, false) => Ok(()),
        }
    }
}

/// Counters near each other, with jumps of a word, a window, a ring and far beyond.
fn walk() -> impl Strategy<Value = Vec<u64>> {
    let step = prop_oneof![
        8 => -80_i64..80,
        2 => -3_000_i64..3_000,
        1 => prop_oneof![Just(64_i64), Just(2_048), Just(-2_047), Just(-2_048), Just(2_112), Just(1 << 40)],
    ];
    proptest::collection::vec(step, 1..600).prop_map(|steps| {
        steps
            .into_iter()
            .scan(0_u64, |at, step| {
                *at = at.saturating_add_signed(step);
                Some(*at)
            })
            .collect()
    })
}

#[test]
fn counters_in_steps_of_any_length_are_all_accepted_for_several_rounds_of_the_ring() {
    for step in 1..=130 {
        let mut window = ReplayWindow::default();
        for counter in (0..5 * WINDOW).step_by(step) {
            assert_eq!(window.commit(counter), Ok(()), "{counter} in steps of {step}");
        }
    }
}

proptest! {
    #[test]
    fn a_window_judges_like_one_that_forgets_nothing(counters in walk()) {
        let (mut window, mut oracle) = (ReplayWindow::default(), Oracle::default());
        for counter in counters {
            let wanted = oracle.judge(counter);
            prop_assert_eq!(window.check(counter), wanted);
            prop_assert_eq!(window.commit(counter), wanted);
            if wanted.is_ok() {
                oracle.0.insert(counter);
            }
            prop_assert_eq!(window.highest(), oracle.0.last().copied());
        }
    }

    #[test]
    fn no_counter_of_any_transport_is_accepted_twice(
        packets in proptest::collection::vec((0_u16..40, 0_u64..5_000), 1..800),
    ) {
        let mut windows = ReplayWindows::default();
        let mut accepted = BTreeSet::new();
        for (k, counter) in packets {
            if windows.commit(k, counter).is_ok() {
                prop_assert!(accepted.insert((k, counter)));
            }
            prop_assert!(windows.0.len() <= TRANSPORTS_MAX);
        }
    }
}

#[test]
fn a_check_alone_uses_nothing_up() {
    let mut windows = ReplayWindows::default();
    assert_eq!(windows.check(3, 7), Ok(()));
    assert_eq!(windows.check(3, 7), Ok(()));
    assert!(windows.0.len() == 0);
    assert_eq!(windows.commit(3, 7), Ok(()));
    assert_eq!(windows.check(3, 7), Err(ReplayError::Replayed));
    assert_eq!(windows.commit(3, 7), Err(ReplayError::Replayed));
}

#[test]
fn transports_have_windows_of_their_own() {
    let mut windows = ReplayWindows::default();
    assert_eq!(windows.commit(0, 1 << 20), Ok(()));
    assert_eq!(windows.commit(1, 0), Ok(()));
    assert_eq!(windows.commit(0, 0), Err(ReplayError::TooOld));
    assert_eq!((windows.highest(0), windows.highest(1), windows.highest(2)), (Some(1 << 20), Some(0), None));
}

#[test]
fn the_window_is_exactly_as_wide_as_promised() {
    let mut window = ReplayWindow::default();
    window.commit(WINDOW).unwrap();
    assert_eq!(window.check(1), Ok(()));
    assert_eq!(window.check(0), Err(ReplayError::TooOld));
}

#[test]
fn the_last_counter_of_all_is_refused_and_the_one_before_is_not() {
    let mut window = ReplayWindow::default();
    assert_eq!(window.commit(u64::MAX), Err(ReplayError::TooOld));
    assert_eq!(window.highest(), None);
    assert_eq!(window.commit(u64::MAX - 1), Ok(()));
    assert_eq!(window.commit(u64::MAX - 1), Err(ReplayError::Replayed));
}

#[test]
fn one_transport_too_many_retires_the_lowest_for_good() {
    let mut windows = ReplayWindows::default();
    for k in 0..TRANSPORTS_MAX as u16 {
        assert_eq!(windows.commit(k, 0), Ok(()));
    }
    assert_eq!(windows.check(100, 0), Ok(()));
    assert_eq!(windows.check(0, 1), Ok(()), "a check retires nothing");
    assert_eq!(windows.commit(100, 0), Ok(()));
    assert_eq!(windows.check(0, 1), Err(ReplayError::Retired));
    assert_eq!(windows.commit(0, 1), Err(ReplayError::Retired));
    assert_eq!(windows.check(1, 1), Ok(()));
    assert_eq!(windows.0.len(), TRANSPORTS_MAX);
}

#[test]
fn a_transport_below_all_others_is_refused_only_once_there_is_no_room() {
    let mut windows = ReplayWindows::default();
    for k in 10..10 + TRANSPORTS_MAX as u16 {
        assert_eq!(windows.check(3, 0), Ok(()), "{k}: there is room");
        assert_eq!(windows.commit(k, 0), Ok(()));
    }
    assert_eq!(windows.check(3, 0), Err(ReplayError::Retired));
}

#[test]
fn what_was_retired_explicitly_stays_refused() {
    let mut windows = ReplayWindows::default();
    windows.commit(1, 0).unwrap();
    windows.commit(4, 0).unwrap();
    windows.retire_below(4);
    assert_eq!(windows.commit(1, 5), Err(ReplayError::Retired));
    assert_eq!(windows.commit(3, 0), Err(ReplayError::Retired));
    assert_eq!(windows.commit(4, 0), Err(ReplayError::Replayed));
    windows.retire_below(2);
    assert_eq!(windows.commit(3, 0), Err(ReplayError::Retired), "the floor never sinks");
    assert_eq!(windows.commit(4, 1), Ok(()));
}

#[test]
fn a_window_of_a_few_messages_has_no_ring_and_judges_as_one_that_has() {
    let mut window = ReplayWindow::default();
    assert!((0..64).all(|counter| window.commit(counter).is_ok() && window.rest.is_none()));
    assert_eq!((window.commit(64), window.rest.is_some()), (Ok(()), true));
    assert!((0..=64).all(|counter| window.commit(counter) == Err(ReplayError::Replayed)));
}
