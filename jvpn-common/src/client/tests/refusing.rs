//! A path that answers and says that nobody works behind it: the gateway, or only a relay on that path.
//!
//! Owns the difference between the two. Must never call one word of one path a difference.

use super::*;

/// The active path refuses, the other says `elsewhere`; a few times over.
fn rounds(pair: &mut Pair, elsewhere: u32, times: usize) {
    for _ in 0..times {
        pair.give(Input::Activity(Activity { inner_sent: Some(pair.now), ..Activity::default() }));
        pair.wait(120 * MS);
        pair.echo(&[A], STATUS_BOUND);
        pair.echo(&[B], elsewhere);
    }
}

#[test]
fn a_path_that_refuses_while_another_works_is_left_for_it() {
    let mut pair = Pair::connected();
    rounds(&mut pair, STATUS_ALIVE, 8);
    let requests = pair.requests();
    let lost = requests.iter().find(|(.., request)| request.purpose == Purpose::Lost);
    let (path, ..) = lost.unwrap_or_else(|| panic!("it stayed: {requests:?}"));
    assert_eq!(*path, B);
}

#[test]
fn a_gateway_that_refuses_everywhere_is_not_run_away_from() {
    let mut pair = Pair::connected();
    rounds(&mut pair, 0, 8);
    assert!(pair.requests().iter().all(|(.., request)| request.purpose != Purpose::Lost));
}

#[test]
fn a_gateway_that_was_dead_and_lives_again_is_no_difference() {
    let mut pair = Pair::connected();
    rounds(&mut pair, 0, 3);
    // It lives again: the other path happens to hear of it first.
    pair.wait(120 * MS);
    pair.echo(&[B], STATUS_ALIVE);
    pair.wait(120 * MS);
    pair.echo(&[A, B], STATUS_ALIVE | STATUS_BOUND);
    rounds(&mut pair, 0, 1);
    assert!(pair.requests().iter().all(|(.., request)| request.purpose != Purpose::Lost));
}

#[test]
fn a_standby_path_that_refuses_says_nothing_about_the_gateway_and_is_no_way_out() {
    let mut pair = Pair::connected();
    for _ in 0..3 {
        pair.wait(6_000 * MS);
        pair.echo(&[A], STATUS_ALIVE | STATUS_BOUND);
        pair.echo(&[B], 0);
    }
    assert!(pair.client.view().conditions.is_empty(), "{:?}", pair.client.view().conditions);
    let state = pair.client.view().paths.iter().find(|path| path.path == B).map(|path| path.state);
    assert_ne!(state, Some(PathState::Alive));
}
