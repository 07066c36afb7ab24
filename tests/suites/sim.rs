//! The seeded simulation: thousands of runs, everything seen, deliberate bugs found.
//!
//! Owns the size of the run and what it must have seen. `JVPN_SEED=n` replays one seed and prints the end of
//! its trace; `JVPN_SEEDS=n` runs so many.

use jvpn_tests::sim::{self, Bug, Size, cover::Cover};
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
        Err(failure) => format!("{}\nseed {seed}: {}\nreplay: JVPN_SEED={seed}", failure.lines.join("\n"), failure.what),
    }
}

#[test]
fn no_seed_breaks_an_invariant_and_every_session_comes_back() {
    if let Some(seed) = number("JVPN_SEED") {
        return match sim::run(seed, Size::CI, Bug::None, true) {
            Ok(cover) => println!("{}\n{}inputs {} trace {:016x}", Vec::from(cover.lines.clone()).join("\n"), cover.table(), cover.inputs, cover.trace),
            Err(_) => panic!("{}", explain(seed, Bug::None)),
        };
    }
    let seeds = number("JVPN_SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    match run_seeds(seeds, Bug::None) {
        Ok(cover) => println!("{} seeds in {:?}, {} inputs\n{}", seeds, began.elapsed(), cover.inputs, cover.table()),
        Err((seed, _)) => panic!("{}", explain(seed, Bug::None)),
    }
}
