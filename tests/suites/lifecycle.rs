//! The session core on its own: explored in every order of requests, losses, restarts and timers, and under paths that
//! flap. Deliberate mistakes show that what judges it would notice.
//!
//! Owns the sizes of the explorations and of the schedules, what they must have seen, and which mistake is found where.
//! `JVPN_SEED=n` runs one schedule of flapping paths.

// A test that unwraps fails at the right line, helpers included.
#![allow(clippy::unwrap_used)]

use jvpn_common::session::transition::TABLE;
use jvpn_common::session::twin::{Core, Slip};
use jvpn_tests::lifecycle::explore::{Explored, explore, told};
use jvpn_tests::lifecycle::flap;
use jvpn_tests::lifecycle::world::{COARSE, FINE, Rules};
use jvpn_tests::rows::row_name;
use jvpn_tests::size;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One exploration: what is in it, how deep, and what it must at least have met.
struct Size {
    name: &'static str,
    unit: Duration,
    transports: u16,
    in_flight: usize,
    endless: bool,
    /// Things that happen in a row at most; [`WHOLE`]: until nothing is new.
    depth: usize,
    worlds_min: usize,
}

/// Deeper than any exploration gets.
const WHOLE: usize = 1_000;

/// The explorations of both sizes. A coarse unit is longer than a meter remembers, a fine one half of a minute; a
/// session without end is one whose own TTL lies beyond what is explored.
fn sizes() -> [Size; 4] {
    [
        Size {
            name: "three transports, one message on its way, every depth",
            unit: COARSE,
            transports: 3,
            in_flight: 1,
            endless: true,
            depth: WHOLE,
            worlds_min: 80_000,
        },
        Size {
            name: "three transports, messages that overtake each other",
            unit: COARSE,
            transports: 3,
            in_flight: 2,
            endless: true,
            depth: size::of(6, 8),
            worlds_min: size::of(20_000, 100_000),
        },
        Size {
            name: "budgets that refill by and by",
            unit: FINE,
            transports: 2,
            in_flight: 1,
            endless: true,
            depth: size::of(9, 12),
            worlds_min: size::of(20_000, 30_000),
        },
        Size {
            name: "a session that ends by itself",
            unit: COARSE,
            transports: 2,
            in_flight: 1,
            endless: false,
            depth: size::of(9, 12),
            worlds_min: size::of(20_000, 25_000),
        },
    ]
}

/// Rows that no exploration can take, each with the reason.
const UNREACHED: [(usize, &str); 0] = [];

fn tell(seen: &Explored, rules: &Rules) -> String {
    let Some((way, wrong)) = &seen.wrong else { return String::new() };
    format!("after {} things: {wrong}\n{}", way.len(), told(rules, way))
}

#[test]
fn every_order_of_requests_losses_restarts_and_timers_keeps_the_invariants_and_the_guarantee() {
    let mut rows = vec![0_u64; TABLE.len()];
    let mut worlds = 0;
    for size in sizes() {
        let rules = Rules::new(Core::default(), size.unit, size.transports, size.in_flight, size.endless);
        let began = Instant::now();
        let seen = explore(&rules, size.depth);
        let refused: Vec<u64> = rules.refusals.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        println!(
            "{}: {} states, {} steps, depth {}{}, refusals {refused:?}, {:.1} s",
            size.name,
            seen.worlds,
            seen.steps,
            seen.depth,
            if seen.whole { ", all there are" } else { "" },
            began.elapsed().as_secs_f64()
        );
        assert!(seen.wrong.is_none(), "{}: {}", size.name, tell(&seen, &rules));
        assert!(seen.worlds >= size.worlds_min, "{}: only {} states", size.name, seen.worlds);
        assert_eq!(seen.whole, size.depth == WHOLE, "{}", size.name);
        rows.iter_mut().zip(&rules.rows).for_each(|(sum, count)| *sum += count.load(Ordering::Relaxed));
        worlds += seen.worlds;
    }
    println!("{worlds} states");
    for (index, count) in rows.iter().enumerate() {
        println!("{count:>9}  {}", row_name(index));
        let known = UNREACHED.iter().find(|(row, _)| *row == index);
        assert_eq!(*count == 0, known.is_some(), "row {}: {}, {known:?}", index + 1, row_name(index));
    }
}

/// Runs the schedules below `seeds` on two threads; the first that fails is told.
fn schedules(core: Core, seeds: u64, judged: bool) -> Result<flap::Seen, String> {
    let (next, sum, wrong) = (AtomicU64::new(0), Mutex::new(flap::Seen::default()), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while wrong.lock().unwrap().is_empty() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    match flap::run(core, seed, judged) {
                        Ok(seen) => sum.lock().unwrap().add(&seen),
                        Err(what) => drop(wrong.lock().unwrap().insert(seed, what)),
                    }
                }
            });
        }
    });
    match wrong.into_inner().unwrap().into_values().next() {
        Some(what) => Err(what),
        None => Ok(sum.into_inner().unwrap()),
    }
}

#[test]
fn no_schedule_of_flapping_paths_strands_a_session_or_lets_it_swing_beyond_its_bounds() {
    if let Some(seed) = std::env::var("JVPN_SEED").ok().and_then(|seed| seed.parse().ok()) {
        println!("{:#?}", flap::run(Core::default(), seed, true).unwrap());
        return;
    }
    let seeds = size::of(2_000, 100_000);
    let began = Instant::now();
    let seen = schedules(Core::default(), seeds, true).unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{seeds} schedules in {:.1} s: {seen:#?}", began.elapsed().as_secs_f64());
    assert!(seen.free <= flap::STRANDED_MAX && seen.unbound > Duration::from_millis(100), "{seen:?}");
    assert!(seen.optional > 5 * seeds && seen.necessary > 10 * seeds && seen.denied > seeds, "{seen:?}");
    // The bound is met, not only kept: the check looks at something.
    assert_eq!(seen.run, 12, "no run of optional switches was as long as the rate allows");
}

/// Where a mistake is found.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    /// The exploration.
    Explored,
    /// Schedules of flapping paths.
    Flapping,
    /// The same without the judge: stranding and oscillation alone.
    Unjudged,
}

/// Every mistake, where it is found, and words of the check that finds it.
const FOUND: &[(Slip, By, &str)] = &[
    (Slip::ResumeRenames, By::Explored, "the identity changed"),
    (Slip::ResumeExtendsLife, By::Explored, "invariant 5"),
    (Slip::VersionSkips, By::Explored, "a version is not the next one"),
    (Slip::RebindWithoutVersion, By::Explored, "a version is not the next one"),
    (Slip::LostStaysBound, By::Explored, "invariant 3"),
    (Slip::LostSkipsRecovering, By::Explored, "invariant 4"),
    (Slip::KeepsLostAt, By::Explored, "invariant 3"),
    (Slip::TerminatedRevives, By::Explored, "TERMINATED does not absorb"),
    (Slip::EndKeepsKeys, By::Explored, "invariant 12"),
    (Slip::LowerNonceAccepted, By::Explored, "a nonce was taken twice or out of order"),
    (Slip::RepeatActsAgain, By::Explored, "a nonce was taken twice or out of order"),
    (Slip::FutureVersionBelieved, By::Explored, "a version from the future"),
    (Slip::StaleKeysAccepted, By::Explored, "under dead keys"),
    (Slip::RestartKeepsKeys, By::Explored, "a restart left"),
    (Slip::RestartKeepsBinding, By::Explored, "a restart left"),
    (Slip::ForeignResume, By::Explored, "another peer resumed it"),
    (Slip::CooldownIgnored, By::Explored, "inside the cooldown"),
    (Slip::CooldownIgnored, By::Flapping, "inside the cooldown"),
    (Slip::ImprovementIgnored, By::Explored, "without improvement"),
    (Slip::RateIgnored, By::Explored, "spent switch budget"),
    (Slip::RateIgnored, By::Flapping, "more optional switches"),
    (Slip::RateIgnored, By::Unjudged, "oscillation"),
    (Slip::CooldownBlocksLost, By::Explored, "a verified LOST does not bind"),
    (Slip::CooldownBlocksLost, By::Unjudged, "stranded"),
    (Slip::BudgetStrands, By::Explored, "a verified LOST does not bind"),
    (Slip::BudgetStrands, By::Unjudged, "stranded"),
    (Slip::AbuseUnbounded, By::Explored, "more requests than the abuse limit"),
    (Slip::RebindMovesAnywhere, By::Explored, "an optional switch"),
    (Slip::RefillsAtOnce, By::Flapping, "switch"),
    (Slip::RefillsAtOnce, By::Explored, "switch"),
    (Slip::RecoveriesUncounted, By::Explored, "recoveries of a DEGRADED session without end"),
    (Slip::RecoveriesUncounted, By::Flapping, "recoveries of a DEGRADED session without end"),
    (Slip::AttemptsUncounted, By::Explored, "attempts without end"),
    (Slip::OneReportMoves, By::Explored, "one report moved it"),
    (Slip::QualitySurvivesBinding, By::Explored, "one report moved it"),
    (Slip::AttemptResetsLoss, By::Explored, "loss TTL"),
    (Slip::LossTtlNever, By::Explored, "loss TTL"),
    (Slip::SessionTtlNever, By::Explored, "session TTL"),
    (Slip::WindowNever, By::Explored, "past its window"),
    (Slip::KeysNeverExpire, By::Explored, "its keys live past"),
    (Slip::TimersBackwards, By::Explored, "was due"),
    (Slip::TimersAfterInput, By::Explored, "before the timer"),
    (Slip::SameOwnerEnds, By::Explored, "an owner that is not newer"),
    (Slip::Moody, By::Explored, "determinism"),
    (Slip::StoreForgetsBudget, By::Explored, "the encoding does not give the session back"),
];

/// Schedules within which a mistake must be found.
const SLIP_SEEDS: u64 = 200;

/// Looks for a mistake; gives the words of the check that found it.
fn search(slip: Slip, by: By) -> Option<String> {
    let core = Core::with(slip);
    match by {
        By::Flapping => schedules(core, SLIP_SEEDS, true).err(),
        By::Unjudged => schedules(core, SLIP_SEEDS, false).err(),
        By::Explored => {
            // Small worlds: what ends by itself, what overtakes, what goes deep.
            let small = [(1, false, 6), (2, true, 6), (1, true, 10)];
            small.iter().find_map(|&(in_flight, endless, depth)| {
                let rules = Rules::new(core, COARSE, 2, in_flight, endless);
                explore(&rules, depth).wrong.map(|(way, wrong)| format!("after {} things: {wrong}", way.len()))
            })
        }
    }
}

#[test]
fn each_deliberate_mistake_of_the_core_is_found_by_the_check_that_is_about_it() {
    for slip in Slip::ALL {
        assert!(FOUND.iter().any(|(known, ..)| known == slip), "nobody looks for {slip:?}");
    }
    let mut missed = Vec::new();
    for &(slip, by, words) in FOUND {
        let began = Instant::now();
        let found = search(slip, by);
        let short: String = found.as_deref().unwrap_or("NOT FOUND").chars().take(100).collect();
        println!("{slip:?} {by:?} {:.2} s: {short}", began.elapsed().as_secs_f64());
        if !found.is_some_and(|found| found.contains(words)) {
            missed.push(format!("{slip:?} {by:?}: {short}, not `{words}`"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn the_page_lists_every_deliberate_mistake_with_the_check_that_finds_it() {
    let page = include_str!("../../docs/testing.md");
    for &(slip, _, words) in FOUND {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{slip:?}` |")));
        assert!(
            row.is_some_and(|row| row.contains(words)),
            "{slip:?} and `{words}` are not in docs/testing.md: {row:?}"
        );
    }
}

/// Whether `name` is declared in a file: as a function, a type, a constant, or a variant.
fn declares(text: &str, name: &str) -> bool {
    let word = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
    let declared = |line: &&str| {
        let code = line.trim_start();
        let kinds = ["fn ", "struct ", "enum ", "const ", "type "];
        let variant = code.trim_end_matches(',') == name;
        variant || (kinds.iter().any(|kind| code.contains(&format!("{kind}{name}"))) && word(code))
    };
    text.lines().find(declared).is_some()
}

#[test]
fn every_name_on_the_page_of_invariants_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/invariants.md")).unwrap();
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
    let switches = ["jvpn-common/src/sabotage.rs", "tests/src/sim/mod.rs"].map(read).concat();
    let slips = read("jvpn-common/src/session/twin.rs");
    let (mut names, mut missing) = (0, Vec::new());
    for name in page.split('`').skip(1).step_by(2).filter(|span| span.contains("::")) {
        let exists = match name.split_once("::").unwrap() {
            ("Slip", slip) => declares(&slips, slip),
            ("Bug", bug) => declares(&switches, bug),
            (file, what) => declares(&read(file), what),
        };
        names += 1;
        missing.extend((!exists).then_some(name));
    }
    assert!(missing.is_empty(), "not there any more: {missing:#?}");
    assert!(names > 60, "only {names} names on the page");
    for number in 1..=13 {
        assert!(page.contains(&format!("\n| {number} ")), "invariant {number} is not on the page");
    }
}
