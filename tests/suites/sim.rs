//! The seeded simulation: thousands of runs, everything seen, deliberate bugs found.
//!
//! Owns the size of the run and what it must have seen: every row, reason, fault and message, whose kinds that
//! begin with `switch:` stand for what one sound gateway cannot meet. `JVPN_SEED=n` replays one seed and
//! prints the end of its trace; `JVPN_SEEDS=n` runs so many, `JVPN_SEEDS_FROM=n` from that one on; `JVPN_TEST_SIZE=long` runs
//! ten times as many.

use jvpn_common::reason::Reason;
use jvpn_common::sabotage;
use jvpn_common::session::policy::BetterSwitching;
use jvpn_common::session::transition::TABLE;
use jvpn_tests::rows::row_name;
use jvpn_tests::rows::{self, Place};
use jvpn_tests::sim::quality::{self, Told, Way};
use jvpn_tests::sim::{self, Bug, Size, cover::Cover, faults::KINDS};
use jvpn_tests::size;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[path = "sim/healthy.rs"]
mod healthy;

/// Seeds of continuous integration.
const SEEDS: u64 = 2_000;
/// Seeds of the long size.
const SEEDS_LONG: u64 = 20_000;
/// Inputs every seed must have had.
const INPUTS_MIN: u64 = 2_000;
/// Seeds after which a long run says how far it is.
const PROGRESS: u64 = 1_000;
/// Seeds within which a deliberate bug must be found.
const BUG_SEEDS: u64 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Each run has both processors to itself.
static TURN: Mutex<()> = Mutex::new(());

/// Runs seeds on two threads until one fails; gives what was seen, or the failing seed.
fn run_seeds(first: u64, seeds: u64, bug: Bug) -> Result<Cover, (u64, String)> {
    let began = Instant::now();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Cover::default());
    let wrong: Mutex<Option<(u64, String)>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let begun = next.fetch_add(1, Ordering::Relaxed);
                    if begun >= seeds {
                        break;
                    }
                    if seeds > SEEDS && begun > 0 && begun % PROGRESS == 0 {
                        let left = began.elapsed().as_secs() * (seeds - begun) / begun;
                        // Past the capture of the test's own output: somebody waits.
                        let _ = writeln!(std::io::stderr(), "sim: {begun} of {seeds} seeds, about {left} s left");
                    }
                    match sim::run(first + begun, Size::CI, bug, false) {
                        Ok(cover) => sum.lock().expect("no panic").add(&cover),
                        Err(failure) => {
                            failed.store(true, Ordering::Relaxed);
                            *wrong.lock().expect("no panic") = Some((failure.seed, failure.what));
                        }
                    }
                }
            });
        }
    });
    match wrong.into_inner().expect("no panic") {
        Some(failure) => Err(failure),
        None => Ok(sum.into_inner().expect("no panic")),
    }
}

/// Replays a failing seed with its trace.
fn explain(seed: u64, bug: Bug) -> String {
    match sim::run(seed, Size::CI, bug, true) {
        Ok(_) => format!("seed {seed} does not fail when replayed: the run depends on something else"),
        Err(failure) => {
            format!("{}\nseed {seed}: {}\nreplay: JVPN_SEED={seed}", failure.lines.join("\n"), failure.what)
        }
    }
}

/// Reason codes that a run cannot show in a record, each with where it is shown instead.
const ELSEWHERE: [(Reason, &str); 22] = [
    (Reason::HandshakeFail, "a birth that fails is in memory only; rows 1 and 2 show it"),
    (Reason::AuthFail, "what does not open is not answered"),
    (Reason::ReplayDetected, "a replay is not answered; SEC_REPLAY_ATTEMPT shows it"),
    (Reason::VersionFuture, "a store from a backup: gateway/tests/resume.rs"),
    (Reason::SessionExpired, "the session core's own refusals: session/tests/refusals.rs"),
    (Reason::PolicyDeny, "a class that policy forbids: gateway/tests/birth.rs"),
    (Reason::RateLimited, "a client that keeps no pace: gateway/tests/reattach.rs"),
    (Reason::DualBindForbidden, "a second owner, which needs a second gateway"),
    (Reason::UnknownPeer, "a foreign key: gateway/tests/birth.rs"),
    (Reason::CapacityReached, "more sessions than slots: gateway/tests/birth.rs"),
    (Reason::NoCommonSuite, "a client of another build: gateway/tests/birth.rs"),
    (Reason::PolicyDenied, "the session core's own refusals: session/tests/refusals.rs"),
    (Reason::Mtu, "paths are left for silence, never for their size"),
    (Reason::SecSessionFixationAttempt, "a peer that asks for another's session: gateway/tests/resume.rs"),
    (Reason::SecOwnershipAnomaly, "a second owner: tests/suites/crash/owners.rs"),
    (Reason::SecAbuseControlPlane, "a client that keeps no pace: gateway/tests/reattach.rs"),
    (Reason::SecDuplicateIdentity, "two devices with one key: gateway/tests/birth.rs"),
    (Reason::SecStoreRollback, "a store from a backup: gateway/tests/resume.rs"),
    (Reason::AuditInvariantOkSingleActive, "said by an audit of the record, which comes later"),
    (Reason::AuditInvariantOkNoReset, "said by an audit of the record, which comes later"),
    (Reason::AuditPolicyLimitTriggered, "said by an audit of the record, which comes later"),
    (Reason::AuditRecoveryTimeline, "said by an audit of the record, which comes later"),
];

/// Messages a gateway or client must have opened, and datagrams that must have been on the wire.
const MESSAGES: [&str; 25] = [
    "1 initiation",
    "2 response",
    "3 cookie reply",
    "4 data",
    "5 control",
    "6 probe",
    "7 echo",
    "8 notice",
    "CONFIRM",
    "REATTACH",
    "CHALLENGE",
    "PROVE",
    "ACK",
    "REJECT",
    "VALIDATE",
    "REKEY",
    "REKEY_WANTED",
    "PATH_REPORT",
    "POLICY_UPDATE",
    "JUMP_REQUEST",
    "GOING_AWAY",
    "CLOSE",
    "TERMINATE",
    "DONE",
    "client PING",
];

/// What a run must have seen and has not.
fn unseen(cover: &Cover) -> Vec<String> {
    let rows = (0..TABLE.len()).filter(|row| !cover.rows.contains_key(row)).map(|row| format!("row {}", row_name(row)));
    let elsewhere = |code: &Reason| ELSEWHERE.iter().any(|(known, _)| known == code);
    let missing = |code: &&Reason| !elsewhere(code) && !cover.reasons.contains_key(code.name());
    let reasons = Reason::ALL.iter().filter(missing).map(ToString::to_string);
    let faults = KINDS.iter().filter(|kind| !cover.faults.contains_key(*kind)).map(|kind| format!("fault {kind}"));
    let messages =
        MESSAGES.iter().filter(|kind| !cover.messages.contains_key(*kind)).map(|kind| format!("message {kind}"));
    rows.chain(reasons).chain(faults).chain(messages).collect()
}

#[test]
fn no_seed_breaks_an_invariant_and_every_session_comes_back() {
    if let Some(seed) = number("JVPN_SEED") {
        return match sim::run(seed, Size::CI, Bug::None, true) {
            Ok(cover) => println!(
                "{}\n{}inputs {} trace {:016x}",
                Vec::from(cover.lines.clone()).join("\n"),
                cover.table(),
                cover.inputs,
                cover.trace
            ),
            Err(_) => panic!("{}", explain(seed, Bug::None)),
        };
    }
    let seeds = number("JVPN_SEEDS").unwrap_or_else(|| size::of(SEEDS, SEEDS_LONG));
    let first = number("JVPN_SEEDS_FROM").unwrap_or(1);
    let began = Instant::now();
    match run_seeds(first, seeds, Bug::None) {
        Ok(cover) => {
            println!(
                "{} seeds from {first} in {:?}, {} inputs\n{}",
                seeds,
                began.elapsed(),
                cover.inputs,
                cover.table()
            );
            println!("{} records of transitions, {} of them replayed", cover.transitions, cover.replayed);
            let least = cover.least.unwrap_or(0);
            assert!(least >= INPUTS_MIN, "a seed had only {least} inputs");
            assert_eq!(cover.transitions, cover.replayed, "every record is replayed");
            rows::note(Place::Simulation, &cover.recorded).expect("a file for what was recorded");
            let unseen = unseen(&cover);
            assert!(seeds < SEEDS || unseen.is_empty(), "never seen: {unseen:?}");
            println!("not seen: {unseen:?}");
        }
        Err((seed, _)) => panic!("{}", explain(seed, Bug::None)),
    }
}

#[test]
fn the_same_seed_is_the_same_run_byte_for_byte() {
    for seed in [3, 25, 77] {
        let trace = || {
            sim::run(seed, Size::CI, Bug::None, false)
                .map(|cover| (cover.trace, cover.inputs))
                .map_err(|failure| failure.what)
        };
        assert_eq!(trace(), trace(), "seed {seed}");
        assert!(trace().is_ok_and(|(_, inputs)| inputs >= 2_000), "seed {seed} is too small");
    }
}

/// A bug must be noticed within [`BUG_SEEDS`], and by the check that is about it.
fn found(bug: Bug, by: &[&str]) {
    let _one_at_a_time = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match run_seeds(1, BUG_SEEDS, bug) {
        Ok(_) => panic!("{bug:?} was not found within {BUG_SEEDS} seeds"),
        Err((seed, what)) => {
            println!("{bug:?}: seed {seed}: {what}");
            assert!(by.iter().any(|by| what.contains(by)), "{bug:?} was noticed by another check: {what}");
        }
    }
}

/// Runs of a client whose policy lets it move to a better path.
fn told(way: Way) -> Vec<(u64, Told)> {
    let run = |seed| (seed, quality::run(seed, way).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}")));
    let free = |told: &Told| told.policy.better_switching != BetterSwitching::Frozen;
    (1..=12).map(run).filter(|(_, told)| free(told)).take(6).collect()
}

#[test]
fn a_path_that_passes_every_probe_and_loses_data_is_volatile_and_left() {
    let runs = told(Way { loses: 140, reorders: 0, jitter: Duration::from_millis(2) });
    assert_eq!(runs.len(), 6);
    let mut volatile = 0;
    for (seed, told) in runs {
        let said = told.seen.iter().filter_map(|path| path.data_loss_permille).max();
        assert!(said.is_some_and(|lost| (80..=250).contains(&lost)), "seed {seed}: {said:?}");
        assert!(told.seen.iter().all(|path| path.loss_permille == 0), "seed {seed}: no probe is lost");
        assert!(told.moved, "seed {seed}: it stayed, {:?}", told.seen.last());
        let named = ["VOLATILITY_SIGNAL", "LOSS"].map(|reason| told.reasons.contains(&reason));
        assert_eq!(named[0], named[1], "seed {seed}: {:?}", told.reasons);
        volatile += usize::from(named[0]);
    }
    assert!(volatile >= 4, "{volatile} of 6; a move before the second report leaves nothing to be reported");
}

#[test]
fn a_path_that_delays_and_reorders_loses_nothing() {
    let runs = told(Way { loses: 0, reorders: 300, jitter: Duration::from_millis(30) });
    assert_eq!(runs.len(), 6);
    for (seed, told) in runs {
        let said: Vec<u16> = told.seen.iter().filter_map(|path| path.data_loss_permille).collect();
        assert!(said.len() > 50 && said.iter().all(|&lost| lost == 0), "seed {seed}: {said:?}");
        assert!(!told.reasons.contains(&"LOSS"), "seed {seed}: {:?}", told.reasons);
    }
}

#[test]
fn a_skipped_challenge_is_found() {
    found(Bug::Engine(sabotage::Bug::SkipsChallenge), &["where no client is"]);
}

#[test]
fn an_accepted_lower_nonce_is_found() {
    found(Bug::Engine(sabotage::Bug::AcceptsLowerNonce), &["invariant 11: "]);
}

#[test]
fn two_active_bindings_are_found() {
    found(Bug::TwoActive, &["invariant 3"]);
}

#[test]
fn a_version_that_is_not_persisted_is_found() {
    found(Bug::VersionNotPersisted, &["invariant 7/10", "believes v"]);
}

#[test]
fn data_sent_to_a_draining_binding_is_found() {
    found(Bug::DrainSends, &["data of"]);
}

#[test]
fn a_step_that_forgets_its_identity_is_found() {
    found(Bug::Engine(sabotage::Bug::ForgetsIdentity), &["invariant 1: "]);
}

#[test]
fn a_counter_reused_after_a_rekey_is_found() {
    found(Bug::Engine(sabotage::Bug::RekeyReusesCounter), &["sealed twice"]);
}
