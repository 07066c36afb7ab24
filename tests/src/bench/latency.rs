//! `bench latency`: round trips while nothing else is sent, and beside one bulk flow. Owns what is asked of them. Never
//! mixes both.

use anyhow::Result;

use super::Options;
use super::contender::{Field, Samples, Who};
use super::document::{Better, Document, Metric, Wanted};
use super::traffic::{Trips, idle, loaded};
use super::underlay::Underlay;

/// Rounds, and seconds of the bulk flow.
const FULL: (u32, u32) = (9, 4);
const QUICK: (u32, u32) = (1, 1);
/// In the order of a round.
const ALL: [Who; 7] = [Who::Plain, Who::Null, Who::Worker, Who::Ours, Who::Gotatun, Who::Boringtun, Who::WireguardGo];
const RIVALS: [Who; 7] =
    [Who::Plain, Who::Null, Who::Worker, Who::Gotatun, Who::Boringtun, Who::WireguardGo, Who::Named];
/// Rival, goal, must.
const IDLE: &[(&str, f64, f64)] = &[("gotatun", 0.5, 1.0)];
const LOADED: &[(&str, f64, f64)] = &[("gotatun", 0.3, 0.6)];

type Value = fn(&(Trips, Trips)) -> f64;

const METRICS: [(Wanted, Value); 5] = [
    (metric("rtt_idle_p50_us", IDLE), |(idle, _)| idle.p50_us),
    (metric("rtt_idle_p90_us", IDLE), |(idle, _)| idle.p90_us),
    // Noise here: printed and not judged.
    (metric("rtt_idle_p99_us", &[]), |(idle, _)| idle.p99_us),
    (metric("rtt_loaded_p50_us", LOADED), |(_, loaded)| loaded.p50_us),
    (metric("rtt_loaded_p99_us", LOADED), |(_, loaded)| loaded.p99_us),
];

const fn metric(metric: &'static str, bounds: &'static [(&'static str, f64, f64)]) -> Wanted {
    Wanted { metric, unit: "µs", better: Better::Lower, bounds }
}

pub fn run(options: &Options) -> Result<Document> {
    let (rounds, seconds) = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(rounds)?;
    let mut field = Field::of(options, &ALL)?;
    let work = |underlay: &Underlay, server| {
        let (idle, quiet) = idle(underlay, server)?;
        let (loaded, busy) = loaded(underlay, server, seconds)?;
        Ok(((idle, loaded), vec![("idle.txt", quiet), ("loaded.txt", busy)]))
    };
    let (samples, machine) = field.play(rounds, work, |(idle, loaded)| {
        format!(
            "idle p50 {:.0} p90 {:.0}, beside a bulk flow p50 {:.0} p99 {:.0} µs",
            idle.p50_us, idle.p90_us, loaded.p50_us, loaded.p99_us
        )
    })?;
    let note = "ping of 56 bytes every 2 ms, idle; every 5 ms beside one TCP upload, whose queue is in it";
    field.document("latency", machine, results(&samples), vec![note.into()])
}

fn results(samples: &Samples<(Trips, Trips)>) -> Vec<Metric> {
    let of = |(wanted, value): &(Wanted, Value)| {
        Metric::new(wanted, samples.series(Who::Ours, value), samples.against(&RIVALS, value))
    };
    METRICS.iter().map(of).collect()
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    results(&Samples::default())
}
