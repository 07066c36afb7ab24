//! Paths that are well and do not look it: how often detection leaves one of them for nothing.
//!
//! Owns the bound that is asked of each network; `bench healthy` plays the same ones for longer and publishes what it saw.

use jvpn_common::scenario::{Direction, Fault, Kind};
use jvpn_common::time::Duration;
use jvpn_tests::bench::healthy::networks::{self, AT_ONCE, MS, again, network, play, upper_bound};
use jvpn_tests::size;

/// Hours of each network. Sixteen without a mistake bound their rate by 0.2 an hour, with eight, two in each session, by 0.9.
const HOURS: u64 = 16;
const HOURS_LONG: u64 = 1_000;

#[test]
fn a_healthy_path_that_loses_waits_or_pauses_is_left_less_than_once_an_hour() {
    let hours = size::of(HOURS, HOURS_LONG);
    for scenario in [networks::loss(), networks::buffer(), networks::pauses()] {
        let seen = (1..=hours / AT_ONCE).map(|seed| play(&scenario, seed).expect("played").given_up).sum();
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
    let pauses = again(0, Kind::Pause, Duration::from_secs(15), MS * 300, 20);
    for mut scenario in [network("2 % lost", 20, vec![death.clone()]), network("pauses", 0, vec![pauses, death])] {
        scenario.duration = Duration::from_secs(1_050);
        let outcome = play(&scenario, 1).expect("played");
        let longest = outcome
            .outages
            .iter()
            .filter(|outage| outage.at > Duration::from_secs(999))
            .map(|outage| outage.lasts)
            .max();
        assert!(longest.is_some_and(|longest| longest < MS * 1_500), "{}: {longest:?}", scenario.name);
    }
}
