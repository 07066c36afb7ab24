//! A NAT that forgets busy mappings: learned, met by a second port, and never a reason to move without one.

use super::super::mapping::Mapping;
use super::*;

const SECOND: PathId = PathId(9);
/// Short enough for two of them, and a third, before keys are renewed: nobody here answers a handshake.
const LIFE: Duration = Duration::from_secs(22);

/// Time passes with every probe on `paths` echoed and everything acknowledged, until a request of another purpose than
/// VALIDATE was seen; gives it.
fn live(pair: &mut Pair, duration: Duration, paths: &[PathId], bound: u32) -> Option<(PathId, Purpose)> {
    let until = pair.now + duration;
    while pair.now < until {
        pair.wait(Duration::from_millis(100));
        pair.echo(paths, STATUS_ALIVE | bound);
        for (path, k, id, request) in pair.requests() {
            pair.say(path, k, &Message { id, body: Control::Ack(ack(&request, 1)) });
            if request.purpose != Purpose::Validate {
                return Some((path, request.purpose));
            }
        }
    }
    None
}

/// The mapping of path A lives for `life`, then its source changes.
fn one_life(pair: &mut Pair, life: Duration) {
    assert_eq!(live(pair, life, &[A, B], STATUS_BOUND), None);
    assert_eq!(live(pair, Duration::from_secs(10), &[A], 0), Some((A, Purpose::Rebind)));
}

fn opened(pair: &mut Pair) -> Vec<PathId> {
    let asked = pair.others.iter().filter_map(|command| match command {
        Command::OpenPort { beside } => Some(*beside),
        _ => None,
    });
    let asked = asked.collect();
    pair.others.clear();
    asked
}

fn closed(pair: &mut Pair) -> Vec<PathId> {
    let closed = pair.others.iter().filter_map(|command| match command {
        Command::ClosePort { path } => Some(*path),
        _ => None,
    });
    closed.collect()
}

fn mapping(pair: &Pair, path: PathId) -> Option<Duration> {
    pair.client.view().paths.iter().find(|seen| seen.path == path).and_then(|seen| seen.mapping)
}

/// Two lives of about [`LIFE`].
fn learned() -> Pair {
    let mut pair = Pair::connected();
    one_life(&mut pair, LIFE);
    assert_eq!((mapping(&pair, A), opened(&mut pair)), (None, vec![]), "one may be chance");
    one_life(&mut pair, LIFE + Duration::from_secs(5));
    pair
}

fn up_beside(pair: &mut Pair, first: PathId) {
    let label = Label::new("wifi");
    let (class, endpoint) = (PathClass::Primary, None);
    let up = PathUp {
        path: SECOND,
        label,
        class,
        metered: false,
        v6: false,
        endpoint,
        beside: Some(first),
        link_mtu: 1_500,
    };
    pair.give(Input::PathUp(up));
}

#[test]
fn two_lives_make_a_lifetime_no_longer_than_the_shorter_one_and_it_is_told_once() {
    let pair = learned();
    let life = mapping(&pair, A).expect("learned");
    assert!(life <= LIFE + Duration::from_secs(5) && life > LIFE - Duration::from_secs(7), "{life:?}");
    let told = |command: &&Command| matches!(command, Command::Event(event) if event.reason == Reason::MappingLifetime);
    assert_eq!(pair.others.iter().filter(told).count(), 1);
    assert_eq!(mapping(&pair, B), None, "learned for each transport");
}

#[test]
fn the_session_moves_to_a_proven_second_port_before_the_end_and_the_first_one_closes() {
    let mut pair = learned();
    let life = mapping(&pair, A).expect("learned");
    pair.others.clear();
    assert_eq!(live(&mut pair, life / 2, &[A, B], STATUS_BOUND), None);
    assert_eq!(opened(&mut pair), [], "not before it is needed");
    assert_eq!(live(&mut pair, life / 6, &[A, B], STATUS_BOUND), None);
    assert_eq!(opened(&mut pair), [A]);
    up_beside(&mut pair, A);
    let moved = live(&mut pair, life / 6, &[A, B, SECOND], STATUS_BOUND);
    assert_eq!(moved, Some((SECOND, Purpose::BetterMapping)));
    assert_eq!(pair.used(), Some(SECOND));
    assert_eq!(live(&mut pair, Duration::from_secs(7), &[A, B, SECOND], STATUS_BOUND), None);
    assert_eq!(closed(&mut pair), [A]);
    let left: Vec<PathId> = pair.client.view().paths.iter().map(|path| path.path).collect();
    assert_eq!(left, [B, SECOND]);
    assert_eq!(mapping(&pair, SECOND), Some(life), "the same NAT");
}

#[test]
fn without_a_second_port_or_one_that_answers_nothing_moves_ahead() {
    for beside in [false, true] {
        let mut pair = learned();
        let life = mapping(&pair, A).expect("learned");
        assert_eq!(live(&mut pair, life * 2 / 3, &[A, B], STATUS_BOUND), None);
        if beside {
            up_beside(&mut pair, A);
        }
        assert_eq!(live(&mut pair, life / 2, &[A, B], STATUS_BOUND), None, "beside {beside}");
        // The end comes as it always came.
        assert_eq!(live(&mut pair, Duration::from_secs(10), &[A], 0), Some((A, Purpose::Rebind)));
    }
}

#[test]
fn changes_without_a_clock_behind_them_are_no_lifetime() {
    let secs = Duration::from_secs;
    for lives in [[secs(20), secs(70)], [secs(2), secs(3)], [secs(30), secs(3)]] {
        let mut pair = Pair::connected();
        lives.into_iter().for_each(|life| one_life(&mut pair, life));
        assert_eq!(mapping(&pair, A), None, "{lives:?}");
    }
}

#[test]
fn lives_longer_than_ten_minutes_and_a_shorter_one_after_many_moves_ahead_are_no_lifetime() {
    let at = |seconds: u64| Instant(seconds * 1_000_000_000);
    let mut mapping = Mapping::default();
    mapping.used(at(10));
    for (held, now) in [(650, 660), (1_300, 1_310)] {
        mapping.held(at(held));
        assert!(!mapping.ended(at(now)), "a REBIND in ten minutes is cheaper than a second port");
    }
    mapping.held(at(1_360));
    assert!(!mapping.ended(at(1_361)));
    mapping.held(at(1_420));
    assert!(mapping.ended(at(1_421)));
    assert_eq!(mapping.life(), Some(Duration::from_secs(50)));
    let mut moves = 0;
    while mapping.life().is_some() {
        mapping.moved_ahead();
        mapping = mapping.beside();
        moves += 1;
    }
    assert_eq!(moves, 16, "then one end is awaited again");
}

#[test]
fn a_network_that_went_and_came_back_has_new_mappings_of_the_same_nat() {
    let mut pair = learned();
    let life = mapping(&pair, A);
    pair.give(Input::PathDown { path: A, reason: Reason::LinkDown });
    pair.up(A, "wifi", PathClass::Primary);
    assert!(life.is_some() && mapping(&pair, A) == life);
}
