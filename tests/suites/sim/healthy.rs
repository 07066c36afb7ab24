//! Paths that are well and do not look it: how often detection leaves one of them for nothing.
//!
//! Owns the networks and the bound that is said of each. The engines, their timers and the packet path are the product's,
//! the clock is virtual; every path that is given up for lost is counted as a mistake.

use jvpn_common::client::PathClass;
use jvpn_common::message::Label;
use jvpn_common::scenario::{Direction, Fault, Kind, Path, Scenario, Verdict, run};
use jvpn_common::session::Policy;
use jvpn_common::time::Duration;
use jvpn_tests::size;

/// Hours of each network. Eight without a mistake bound their rate by 0.4 an hour, with two by 0.8.
const HOURS: u64 = 8;
const HOURS_LONG: u64 = 1_000;
/// Hours of one session.
const AT_ONCE: u64 = 4;

const MS: Duration = Duration::from_millis(1);

fn network(name: &str, loss: u16, faults: Vec<Fault>) -> Scenario {
    let path = |name: &str, delay: u32| Path {
        name: Label::new(name),
        class: PathClass::Primary,
        metered: false,
        delay: MS * delay,
        jitter: MS,
        loss,
    };
    Scenario {
        name: name.into(),
        duration: Duration::from_secs(AT_ONCE * 3_600),
        traffic: Some(MS * 50),
        paths: vec![path("wifi", 10), path("lte", 25)],
        faults,
    }
}

/// Something of the first path, every so many seconds.
fn again(kind: Kind, at: Duration, lasts: Duration, every: u64) -> Fault {
    Fault { paths: vec![0], kind, at, lasts, every: Some(Duration::from_secs(every)) }
}

/// A transfer of the client's own that fills a buffer of a second in eight, and is over: each half second the wait grows. It
/// ends at once, and between two steps a packet may slip through: both are harder than a real buffer.
fn full_buffer() -> Vec<Fault> {
    let waits = (1..=16).map(|step| MS * (10 + 62 * step));
    let step = |(number, wait): (u32, Duration)| {
        again(Kind::Delay(wait), Duration::from_secs(20) + MS * 500 * number, MS * 499, 30)
    };
    (0..).zip(waits).map(step).collect()
}

/// 95 % of the time no more than so many are to be expected where `seen` were (Poisson; Wilson and Hilferty's
/// approximation, within a hundredth of the exact bound).
fn upper_bound(seen: u32) -> f64 {
    let n = f64::from(seen) + 1.0;
    n * (1.0 - 1.0 / (9.0 * n) + 1.645 / (3.0 * n.sqrt())).powi(3)
}

/// Plays so many hours; how often a path was given up for lost.
fn given_up(scenario: &Scenario, hours: u64) -> u32 {
    let policy = Policy::field().versioned();
    let play = |seed: u64| {
        let outcome = run(scenario, &policy, seed);
        assert!(!outcome.stuck && outcome.verdict != Verdict::NeverConnected, "{} {seed}: {outcome:?}", scenario.name);
        outcome.given_up
    };
    (1..=hours / AT_ONCE).map(play).sum()
}

#[test]
fn a_healthy_path_that_loses_waits_or_pauses_is_left_less_than_once_an_hour() {
    let networks = [
        network("2 % lost", 20, Vec::new()),
        network("a buffer of a second", 0, full_buffer()),
        network("pauses of 300 ms", 0, vec![again(Kind::Pause, Duration::from_secs(15), MS * 300, 20)]),
    ];
    let hours = size::of(HOURS, HOURS_LONG);
    for scenario in networks {
        let seen = given_up(&scenario, hours);
        let rate = upper_bound(seen) / hours as f64;
        println!("{}: given up {seen} times in {hours} h, at most {rate:.2} an hour (95 %)", scenario.name);
        assert!(rate <= 1.0, "{}: given up {seen} times in {hours} h", scenario.name);
    }
}

#[test]
fn a_path_that_dies_is_left_in_these_networks_too() {
    let death = Fault {
        paths: vec![0],
        kind: Kind::Death(Direction::Both),
        at: Duration::from_secs(1_000),
        lasts: Duration::from_secs(60),
        every: None,
    };
    let pauses = again(Kind::Pause, Duration::from_secs(15), MS * 300, 20);
    for mut scenario in [network("2 % lost", 20, vec![death.clone()]), network("pauses", 0, vec![pauses, death])] {
        scenario.duration = Duration::from_secs(1_050);
        let outcome = run(&scenario, &Policy::field().versioned(), 1);
        let longest = outcome
            .outages
            .iter()
            .filter(|outage| outage.at > Duration::from_secs(999))
            .map(|outage| outage.lasts)
            .max();
        assert!(longest.is_some_and(|longest| longest < MS * 1_500), "{}: {longest:?}", scenario.name);
    }
}
