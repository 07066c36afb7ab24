//! The seeded simulation: 2,000 runs, everything seen, deliberate bugs found.
//!
//! Owns the size of the run and what it must have seen. `JVPN_SEED=n` replays one seed with its trace.

use jvpn_tests::sim::{self, Bug, Size};

#[test]
fn one_seed() {
    let seed = std::env::var("JVPN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let began = std::time::Instant::now();
    match sim::run(seed, Size::CI, Bug::None, true) {
        Ok(cover) => println!("{}inputs {} trace {:016x} in {:?}", cover.table(), cover.inputs, cover.trace, began.elapsed()),
        Err(failure) => {
            for line in &failure.lines {
                println!("{line}");
            }
            panic!("seed {}: {}", failure.seed, failure.what);
        }
    }
}
