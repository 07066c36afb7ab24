//! `bench pps`: small inner datagrams a second, with as little loss as an application notices. Owns the search for the rate
//! and what counts as carried. Never counts what did not arrive, nor a rate at which more than the allowed share was lost.

use anyhow::{Result, ensure};

use super::Options;
use super::apart::Apart;
use super::contender::{Field, Samples, Who};
use super::document::{Better, Document, LIMIT, Metric, Wanted};
use super::generator::{Trial, Way, trial};
use super::underlay::Underlay;

/// What a run plays.
struct Size {
    rounds: u32,
    /// Of the interval between a rate that was carried and one that was not: after four the last step is 4 %, without any a rate
    /// is within a half.
    halvings: u32,
}

const FULL: Size = Size { rounds: 9, halvings: 4 };
const QUICK: Size = Size { rounds: 1, halvings: 0 };
/// In the order of a round.
const ALL: [Who; 6] = [Who::Plain, Who::Ours, Who::TwoWorkers, Who::Gotatun, Who::Boringtun, Who::WireguardGo];
const RIVALS: [Who; 6] = [Who::Plain, Who::TwoWorkers, Who::Gotatun, Who::Boringtun, Who::WireguardGo, Who::Named];
/// Lost share at which a rate still counts.
const LOSS_MAX: f64 = 0.005;
/// Datagrams a second that are tried first; every rival carries them.
const START: f64 = 20_000.0;
/// Beyond this the generator is what is measured.
const CEILING: f64 = 4_000_000.0;

/// Single datagrams, in thousands a second. Four times gotatun's 86 is the goal of 350 written as a ratio.
const SINGLE: Wanted = Wanted {
    metric: "kpps_single",
    unit: "1,000 datagrams/s",
    better: Better::Higher,
    bounds: &[("gotatun", 4.0, 2.5), ("plain", 1.0, 0.9)],
};
/// Sent with UDP_SEGMENT; the limit is a million.
const SEGMENTED: Wanted = Wanted {
    metric: "kpps_segmented",
    unit: "1,000 datagrams/s",
    better: Better::Higher,
    bounds: &[(LIMIT, 2.0, 1.0)],
};
const REORDERED: Wanted =
    Wanted { metric: "reordered", unit: "datagrams, plus one", better: Better::Lower, bounds: &[(LIMIT, 1.0, 1.0)] };

/// What one contender carried in one round.
#[derive(Clone, Copy, Debug)]
struct Carried {
    single: Trial,
    segmented: Trial,
}

pub fn run(options: &Options) -> Result<Document> {
    let Size { rounds, halvings } = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(rounds)?;
    let mut field = Field::of(options, &ALL)?;
    let work = |underlay: &Underlay, server| {
        // The plain link has no process of its own: its load has all processors.
        let _apart = Apart::begin(&[underlay.client(), underlay.gateway()])?;
        let mut raw = String::new();
        let mut best = |way| {
            highest(halvings, |rate| {
                let trial = trial(&underlay.client(), &underlay.gateway(), server, way, rate)?;
                raw.push_str(&format!("{way:?} asked {rate:.0}/s: {trial:?}\n"));
                Ok(trial)
            })
        };
        let carried = Carried { single: best(Way::Single)?, segmented: best(Way::Segmented)? };
        Ok((carried, vec![("trials.txt", raw)]))
    };
    let (samples, machine) = field.play(rounds, work, |Carried { single, segmented }| {
        format!(
            "single {:.0}, segmented {:.0} kpps; {} reordered",
            single.kpps(),
            segmented.kpps(),
            single.reordered + segmented.reordered
        )
    })?;
    let note = format!(
        "64-byte inner IPv4 datagrams, 64 a system call (sendmmsg, or one UDP_SEGMENT send), highest rate with at most \
         {:.1} % lost; upload",
        LOSS_MAX * 100.0
    );
    let apart = "both ends of a tunnel share the first half of the processors, sender and receiver the other; the plain link's load has all";
    field.document("pps", machine, results(&samples), vec![note, apart.into()])
}

fn results(samples: &Samples<Carried>) -> Vec<Metric> {
    let of = |wanted: &Wanted, limit: f64, value: fn(&Carried) -> f64| {
        let ours = samples.series(Who::Ours, value);
        Metric::limited(wanted, ours, samples.against(&RIVALS, value), Some(limit))
    };
    vec![
        of(&SINGLE, 350.0, |carried| carried.single.kpps()),
        of(&SEGMENTED, 1_000.0, |carried| carried.segmented.kpps()),
        // One more than there were, so that the ratio to a limit of one is one where there was none.
        of(&REORDERED, 1.0, |carried| (carried.single.reordered + carried.segmented.reordered) as f64 + 1.0),
    ]
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    results(&Samples::default())
}

/// The trial with the highest rate that was carried: doubled until too much is lost, then the interval halved so
/// many times.
fn highest(halvings: u32, mut run: impl FnMut(f64) -> Result<Trial>) -> Result<Trial> {
    let carried = |trial: &Trial| trial.loss() <= LOSS_MAX;
    let (mut rate, mut best): (f64, Option<(f64, Trial)>) = (START, None);
    while rate <= CEILING {
        let trial = run(rate)?;
        if !carried(&trial) {
            break;
        }
        let bound = trial.sent_kpps() * 1_000.0 < rate * 0.9;
        best = Some((rate, trial));
        rate *= 2.0;
        if bound {
            // The generator cannot send more: asking again would measure the same.
            break;
        }
    }
    let Some((mut low, mut best)) = best else {
        // Not even the first one: less.
        let trial = run(START / 8.0)?;
        ensure!(carried(&trial), "{:.1} % of {:.0} datagrams/s lost", trial.loss() * 100.0, START / 8.0);
        return Ok(trial);
    };
    let mut high = rate;
    for _ in 0..halvings {
        let middle = f64::midpoint(low, high);
        let trial = run(middle)?;
        if carried(&trial) {
            low = middle;
            if trial.kpps() > best.kpps() {
                best = trial;
            }
        } else {
            high = middle;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A path that carries `capacity` and loses the rest, and a generator that ends at `most`.
    fn path(capacity: f64, most: f64) -> impl FnMut(f64) -> Result<Trial> {
        move |rate| {
            let sent = rate.min(most);
            let arrived = sent.min(capacity) as u64;
            Ok(Trial { sent: sent as u64, arrived, reordered: 0, took: Duration::from_secs(1) })
        }
    }

    #[test]
    fn the_search_comes_close_to_what_a_path_carries_and_never_beyond() {
        for capacity in [30_000.0, 86_000.0, 333_333.0, 1_234_567.0] {
            let found = highest(FULL.halvings, path(capacity, 1e9)).unwrap().kpps() * 1_000.0;
            assert!(found <= capacity && found > capacity * 0.9, "{found} of {capacity}");
        }
    }

    #[test]
    fn a_generator_at_its_end_is_not_asked_for_ever() {
        let found = highest(FULL.halvings, path(1e9, 300_000.0)).unwrap();
        assert!((found.kpps() - 300.0).abs() < 1.0);
    }

    #[test]
    fn a_path_that_carries_next_to_nothing_is_an_error() {
        assert!(highest(FULL.halvings, path(100.0, 1e9)).is_err());
        assert!(highest(FULL.halvings, path(5_000.0, 1e9)).is_ok());
    }
}
