//! A path that answers and says that nobody works behind it: the gateway, or only a relay on that path.
//!
//! Owns the difference between the two. Must never call one word of one path a difference.

use super::*;

/// The active path refuses for half a second, the other says `elsewhere`.
fn refused(pair: &mut Pair, elsewhere: u32) {
    pair.give(Input::TrafficStarted);
    for _ in 0..100 {
        pair.give(Input::Activity(Activity { inner_sent: Some(pair.now), ..Activity::default() }));
        pair.wait(5 * MS);
        let (probes, rest): (Vec<_>, Vec<_>) =
            core::mem::take(&mut pair.sent).into_iter().partition(|(_, bytes)| bytes[0] == 6);
        pair.sent = rest;
        for (path, bytes) in probes {
            let mut echo = pair.echo_of(&bytes, if path == A { STATUS_BOUND } else { elsewhere });
            pair.give(Input::Datagram { path, from: endpoint(), bytes: &mut echo });
        }
    }
}

#[test]
fn a_path_that_refuses_while_another_works_is_left_for_it() {
    let mut pair = Pair::connected();
    refused(&mut pair, STATUS_ALIVE);
    let requests = pair.requests();
    let lost = requests.iter().find(|(.., request)| request.purpose == Purpose::Lost);
    let (path, ..) = lost.unwrap_or_else(|| panic!("it stayed: {requests:?}"));
    assert_eq!(*path, B);
}

#[test]
fn a_gateway_that_refuses_everywhere_is_not_run_away_from() {
    let mut pair = Pair::connected();
    refused(&mut pair, 0);
    assert!(pair.requests().iter().all(|(.., request)| request.purpose != Purpose::Lost));
}

#[test]
fn a_gateway_that_was_dead_and_lives_again_is_no_difference() {
    let mut pair = Pair::connected();
    refused(&mut pair, 0);
    // It lives again: the other path happens to hear of it first.
    pair.wait(5 * MS);
    pair.echo(&[B], STATUS_ALIVE);
    pair.give(Input::TrafficStarted);
    pair.wait(5 * MS);
    pair.echo(&[A, B], STATUS_ALIVE | STATUS_BOUND);
    refused(&mut pair, 0);
    assert!(pair.requests().iter().all(|(.., request)| request.purpose != Purpose::Lost));
}

#[test]
fn a_standby_path_that_refuses_says_nothing_about_the_gateway_and_is_no_way_out() {
    let mut pair = Pair::connected();
    for _ in 0..3 {
        pair.wait(6_000 * MS);
        pair.echo(&[B], 0);
    }
    assert!(pair.client.view().conditions.is_empty(), "{:?}", pair.client.view().conditions);
    let state = pair.client.view().paths.iter().find(|path| path.path == B).map(|path| path.state);
    assert_ne!(state, Some(PathState::Alive));
}
