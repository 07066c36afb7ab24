//! The seeded simulation: thousands of runs, everything seen, deliberate bugs found.
//!
//! Owns the size of the run and what it must have seen. `JVPN_SEED=n` replays one seed and prints the end of
//! its trace; `JVPN_SEEDS=n` runs so many.

use jvpn_common::reason::Reason;
use jvpn_common::sabotage;
use jvpn_common::session::transition::TABLE;
use jvpn_tests::sim::{self, Bug, Size, cover::Cover, faults::KINDS};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Seeds of continuous integration.
const SEEDS: u64 = 2_000;
/// Seeds within which a deliberate bug must be found.
const BUG_SEEDS: u64 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Each run has both processors to itself.
static TURN: Mutex<()> = Mutex::new(());

/// Runs seeds on two threads until one fails; gives what was seen, or the failing seed.
fn run_seeds(seeds: u64, bug: Bug) -> Result<Cover, (u64, String)> {
    let (next, failed) = (AtomicU64::new(1), AtomicBool::new(false));
    let sum = Mutex::new(Cover::default());
    let wrong: Mutex<Option<(u64, String)>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        break;
                    }
                    match sim::run(seed, Size::CI, bug, false) {
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

/// Rows of the transition table that one gateway cannot reach, each with its reason.
const UNREACHABLE_ROWS: [(usize, &str); 3] = [
    (2, "a birth is abandoned when the process stops, and then nobody is left to count it"),
    (30, "a newer owner needs a second gateway"),
    (32, "a broken invariant ends the run instead"),
];

/// Reason codes a run must have seen in the record.
const REASONS: [Reason; 34] = [
    Reason::HandshakeOk,
    Reason::QualityFloorViolation,
    Reason::VolatilitySignal,
    Reason::HealthRecovered,
    Reason::EnterDegradedMode,
    Reason::ExitDegradedMode,
    Reason::TransportSwitchOk,
    Reason::RecoveryStart,
    Reason::RecoveryRetry,
    Reason::RecoveryBoundsExceeded,
    Reason::ReattachAccept,
    Reason::ControllerRestart,
    Reason::TtlTransportLossExpired,
    Reason::TtlSessionExpired,
    Reason::ClientTermination,
    Reason::OperatorTermination,
    Reason::PolicyTermination,
    Reason::SessionSuperseded,
    Reason::SecKeyCompromiseSuspected,
    Reason::KeyExpired,
    Reason::FreshnessInvalid,
    Reason::TransportSwitchDenied,
    Reason::SwitchRateLimited,
    Reason::ImprovementTooSmall,
    Reason::Loss,
    Reason::Jitter,
    Reason::Rtt,
    Reason::NoDelivery,
    Reason::SourceChanged,
    Reason::LinkDown,
    Reason::GatewayUnresponsive,
    Reason::BetterPath,
    Reason::OperatorRequest,
    Reason::SecReplayAttempt,
];

/// Messages a gateway or client must have opened, and datagrams that must have been on the wire.
const MESSAGES: [&str; 17] = [
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
    "VALIDATE",
    "PROVE",
    "REKEY",
    "PATH_REPORT",
    "CLOSE",
    "DONE",
    "client PING",
];

/// What a run must have seen and has not.
fn unseen(cover: &Cover) -> Vec<String> {
    let excused = |row: &usize| UNREACHABLE_ROWS.iter().any(|(known, _)| known == row);
    let rows =
        (0..TABLE.len()).filter(|row| !excused(row) && !cover.rows.contains_key(row)).map(|row| format!("row {row}"));
    let reasons = REASONS.iter().filter(|code| !cover.reasons.contains_key(code.name())).map(ToString::to_string);
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
    let seeds = number("JVPN_SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    match run_seeds(seeds, Bug::None) {
        Ok(cover) => {
            println!("{} seeds in {:?}, {} inputs\n{}", seeds, began.elapsed(), cover.inputs, cover.table());
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
fn found(bug: Bug, by: &str) {
    let _one_at_a_time = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match run_seeds(BUG_SEEDS, bug) {
        Ok(_) => panic!("{bug:?} was not found within {BUG_SEEDS} seeds"),
        Err((seed, what)) => {
            println!("{bug:?}: seed {seed}: {what}");
            assert!(what.contains(by), "{bug:?} was noticed by another check: {what}");
        }
    }
}

#[test]
fn a_skipped_challenge_is_found() {
    found(Bug::Engine(sabotage::Bug::SkipsChallenge), "where no client is");
}

#[test]
fn an_accepted_lower_nonce_is_found() {
    found(Bug::Engine(sabotage::Bug::AcceptsLowerNonce), "invariant 11: nonce");
}

#[test]
fn two_active_bindings_are_found() {
    found(Bug::TwoActive, "invariant 3");
}

#[test]
fn a_version_that_is_not_persisted_is_found() {
    found(Bug::VersionNotPersisted, "invariant 7/10");
}

#[test]
fn data_sent_to_a_draining_binding_is_found() {
    found(Bug::DrainSends, "data of");
}

#[test]
fn a_counter_reused_after_a_rekey_is_found() {
    found(Bug::Engine(sabotage::Bug::RekeyReusesCounter), "sealed twice");
}
