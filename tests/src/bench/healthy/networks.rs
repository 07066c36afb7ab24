//! Networks that are well and do not look it, for the simulation, and how many mistakes say what of their rate. The engines,
//! their timers and the packet path are the product's, the clock is virtual.
//!
//! Owns the description and the bound. Must never forgive a path that was given up.

use anyhow::{Result, ensure};
use jvpn_common::client::PathClass;
use jvpn_common::message::Label;
use jvpn_common::scenario::{Fault, Kind, Outcome, Path, Scenario, Verdict, run};
use jvpn_common::session::Policy;
use jvpn_common::time::Duration;

/// Hours of one session.
pub const AT_ONCE: u64 = 4;

pub const MS: Duration = Duration::from_millis(1);

/// One of them, of two paths.
pub fn network(name: &str, loss: u16, faults: Vec<Fault>) -> Scenario {
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

/// Something of a path, every so many seconds.
pub fn again(path: usize, kind: Kind, at: Duration, lasts: Duration, every: u64) -> Fault {
    Fault { paths: vec![path], kind, at, lasts, every: Some(Duration::from_secs(every)) }
}

/// A fiftieth of everything is lost, each way, on both paths.
pub fn loss() -> Scenario {
    network("2 % lost", 20, Vec::new())
}

/// Three times a minute the radio of a path lets nothing pass for 300 ms, in turns: a session meets them wherever it is.
pub fn pauses() -> Scenario {
    let of = |path: usize, at: u64| again(path, Kind::Pause, Duration::from_secs(at), MS * 300, 20);
    network("pauses of 300 ms", 0, vec![of(0, 15), of(1, 25)])
}

/// A transfer of the client's own that fills a buffer of a second in eight, and is over: each half second the wait grows. It
/// ends at once, and between two steps a packet may slip through: both are harder than a real buffer. The paths fill in turns:
/// a session meets it wherever it is, with the other path empty beside it.
pub fn buffer() -> Scenario {
    let steps = (0..16).flat_map(|step: u32| {
        let wait = Kind::Delay(MS * (10 + 62 * (step + 1)));
        [20, 35]
            .into_iter()
            .enumerate()
            .map(move |(path, begins)| again(path, wait, Duration::from_secs(begins) + MS * 500 * step, MS * 499, 30))
    });
    network("a buffer of a second", 0, steps.collect())
}

/// 95 % of the time no more than so many are to be expected where `seen` were (Poisson; Wilson and Hilferty's
/// approximation, within a hundredth of the exact bound).
pub fn upper_bound(seen: u32) -> f64 {
    let n = f64::from(seen) + 1.0;
    n * (1.0 - 1.0 / (9.0 * n) + 1.645 / (3.0 * n.sqrt())).powi(3)
}

/// Plays one session of a network under `field`.
pub fn play(scenario: &Scenario, seed: u64) -> Result<Outcome> {
    let outcome = run(scenario, &Policy::field().versioned(), seed);
    let (name, verdict) = (&scenario.name, outcome.verdict);
    ensure!(!outcome.stuck && verdict != Verdict::NeverConnected, "{name}, seed {seed}: {verdict:?}");
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::upper_bound;

    #[test]
    fn a_rate_is_bounded_as_the_tables_of_poisson_say() {
        // Half of the chi-square distribution's 95th percentile with 2 (n + 1) degrees of freedom.
        for (seen, exact) in [(0, 2.996), (1, 4.744), (2, 6.296), (10, 16.96), (250, 277.62)] {
            let bound = upper_bound(seen);
            assert!((bound / exact - 1.0).abs() < 0.01, "{seen}: {bound} instead of {exact}");
        }
    }
}
