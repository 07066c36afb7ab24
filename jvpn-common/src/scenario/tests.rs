//! Scenarios played under policies: what a bound does to a session, told by the real engines.
//!
//! Owns claims about outcomes in virtual time. Must never depend on a real clock.

use super::*;
use crate::reason::Reason;
use crate::session::policy::BetterSwitching;
use crate::session::{Policy, State};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn path(name: &str, delay: u64) -> Path {
    let (name, class) = (Label::new(name), PathClass::Primary);
    Path { name, class, metered: false, delay: ms(delay), jitter: ms(1), loss: 0 }
}

fn scenario(seconds: u64, faults: Vec<Fault>) -> Scenario {
    let paths = vec![path("wifi", 10), path("lte", 30)];
    Scenario { name: "test".into(), duration: secs(seconds), traffic: Some(ms(20)), paths, faults }
}

fn fault(paths: &[usize], kind: Kind, at: u64, lasts: u64) -> Fault {
    Fault { paths: paths.to_vec(), kind, at: secs(at), lasts: secs(lasts), every: None }
}

fn field() -> Policy {
    Policy::field().versioned()
}

fn reasons(outcome: &Outcome) -> Vec<Reason> {
    let transitions = outcome.moments.iter().filter(|moment| moment.what == What::Transition);
    transitions.filter_map(|moment| moment.reason).collect()
}

#[test]
fn a_quiet_network_is_one_transition_and_no_outage() {
    let outcome = run(&scenario(30, Vec::new()), &field(), 1);
    assert_eq!((outcome.verdict, outcome.state, outcome.sessions), (Verdict::Kept, Some(State::Attached), 1));
    assert_eq!(reasons(&outcome).first(), Some(&Reason::HandshakeOk));
    assert!(outcome.outages.is_empty() && !outcome.stuck, "{:?}", outcome.outages);
    let [(sent, came), _] = outcome.packets;
    assert!(sent > 1_300 && came + 5 > sent, "{sent} sent, {came} arrived");
}

#[test]
fn what_packets_met_is_the_network_that_was_described() {
    let mut lossy = scenario(600, Vec::new());
    lossy.paths[0].loss = 30;
    let stays = Policy { better_switching: BetterSwitching::Frozen, ..Policy::field() }.versioned();
    let Outcome { met, packets: [(up, _), (down, _)], .. } = run(&lossy, &stays, 1);
    let (came, sent) = (met.delays.values().sum::<u64>(), up + down);
    let lost: u64 = met.lost_in_a_row.iter().map(|(row, times)| row * times).sum();
    assert!(met.delays.keys().all(|tenths| (100..=110).contains(tenths)), "10 ms and 1 ms of jitter: {met:?}");
    assert!(came + lost <= sent && came + lost + 10 > sent, "{lost} lost and {came} came of {sent}");
    assert!(lost * 37 > sent && lost * 30 < sent, "a 33rd: {lost} of {sent}");
    let (alone, pairs) = (met.lost_in_a_row[&1], met.lost_in_a_row[&2]);
    assert!(alone > pairs * 20 && alone < pairs * 60, "each by itself: {met:?}");
}

#[test]
fn an_idle_day_costs_what_the_documentation_says() {
    let page = include_str!("../../../docs/policy.md");
    let row = |class: &str| {
        let policy = Policy::shipped(class).expect("a class").versioned();
        let day = |count: usize, metered: bool| {
            let mut idle = scenario(3_600, Vec::new());
            idle.traffic = None;
            idle.paths.truncate(count);
            idle.paths.iter_mut().for_each(|path| path.metered = metered);
            let outcome = run(&idle, &policy, 1);
            assert_eq!((outcome.verdict, outcome.switches), (Verdict::Kept, 0));
            let [(_, up), (_, down)] = outcome.control;
            format!("{:.1}", (up + down) as f64 * 24.0 / 1e6)
        };
        format!("| `{class}` | {} | {} | {} |", day(1, false), day(2, false), day(2, true))
    };
    let rows = ["field", "fast", "metered"].map(row).join("\n");
    assert!(page.contains(&rows), "docs/policy.md lacks these rows:\n{rows}");
}

#[test]
fn the_same_seed_is_the_same_outcome_and_another_one_is_not() {
    let mut lossy = scenario(20, vec![fault(&[0], Kind::Loss(Direction::Both, 200), 5, 10)]);
    lossy.paths[0].jitter = ms(15);
    let first = run(&lossy, &field(), 7);
    assert_eq!(first, run(&lossy, &field(), 7));
    assert_ne!(first, run(&lossy, &field(), 8));
}

#[test]
fn a_silent_death_is_a_jump_within_tens_of_milliseconds_and_a_patient_policy_takes_longer() {
    let death = scenario(30, vec![fault(&[0], Kind::Death(Direction::Both), 10, 15)]);
    let outage = |policy: &Policy| {
        let outcome = run(&death, policy, 1);
        assert_eq!((outcome.verdict, outcome.transport), (Verdict::Kept, Some(Label::new("lte"))), "{outcome:?}");
        assert!(reasons(&outcome).contains(&Reason::ReattachAccept));
        outcome.outages.iter().map(|outage| outage.lasts).max().expect("an outage")
    };
    let quick = outage(&field());
    let mut patient = field();
    patient.set("dead_after", "2s").expect("in range");
    let slow = outage(&patient.versioned());
    assert!(quick < ms(400) && slow > ms(1_500), "{quick:?} and {slow:?}");
}

#[test]
fn a_blackout_beyond_the_loss_ttl_ends_the_session_and_names_the_bound_with_its_numbers() {
    let blackout = scenario(60, vec![fault(&[0, 1], Kind::Death(Direction::Both), 10, 30)]);
    let kept = run(&blackout, &field(), 1);
    assert_eq!((kept.verdict, kept.sessions), (Verdict::Kept, 1), "{:?}", kept.moments);
    let mut strict = field();
    strict.set("transport_loss_ttl", "10s").expect("in range");
    strict.set("max_recovery_window", "5s").expect("in range");
    let ended = run(&blackout, &strict.versioned(), 1);
    assert_eq!((ended.verdict, ended.sessions), (Verdict::Ended, 2));
    let end = ended.moments.iter().find(|moment| moment.reason == Some(Reason::TtlTransportLossExpired));
    assert!(end.expect("its end").bounds[0].starts_with("transport_loss_ttl: 10."), "{end:?}");
}

#[test]
fn a_link_that_goes_and_comes_again_and_again_spends_the_budget_of_switches() {
    let mut flapping = scenario(60, vec![fault(&[0], Kind::Link, 5, 1), fault(&[1], Kind::Link, 6, 1)]);
    flapping.faults.iter_mut().for_each(|fault| fault.every = Some(secs(2)));
    let outcome = run(&flapping, &field(), 1);
    assert!(outcome.switches_per_min > 10 && outcome.verdict != Verdict::Ended, "{outcome:?}");
    let mut few = field();
    few.set("max_switches_per_min", "3").expect("in range");
    let outcome = run(&flapping, &few.versioned(), 1);
    assert_eq!(outcome.verdict, Verdict::Degraded);
    assert!(reasons(&outcome).contains(&Reason::EnterDegradedMode));
}

#[test]
fn a_better_path_is_taken_and_under_emergency_it_is_not() {
    // The other path is slow for ten seconds, and far better than the first one from then on.
    let mut slow = scenario(60, vec![fault(&[1], Kind::Delay(ms(100)), 0, 10)]);
    (slow.paths[0].delay, slow.paths[1].delay) = (ms(50), ms(5));
    let free = run(&slow, &field(), 1);
    assert_eq!((free.transport, free.outages.len()), (Some(Label::new("lte")), 0), "{:?}", free.moments);
    assert!(reasons(&free).contains(&Reason::TransportSwitchOk));
    let frozen = Policy { better_switching: BetterSwitching::Frozen, ..Policy::field() }.versioned();
    let held = run(&slow, &frozen, 1);
    assert_eq!((held.transport, held.switches), (Some(Label::new("wifi")), 0));
}

#[test]
fn a_fault_begins_as_often_as_it_says_and_never_beyond_the_end() {
    let mut again = fault(&[0], Kind::Rebind, 3, 0);
    again.every = Some(secs(4));
    let scenario = scenario(12, vec![again, fault(&[0], Kind::Rebind, 12, 0)]);
    assert_eq!(scenario.beginnings(), 3);
    let outcome = run(&scenario, &field(), 1);
    assert_eq!(outcome.moments.iter().filter(|moment| moment.what == What::Network).count(), 3);
    assert!(outcome.moments.iter().any(|moment| moment.details.contains(&Reason::SourceChanged)));
}
