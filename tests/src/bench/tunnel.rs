//! `bench tunnel`: one TCP flow through the product, through its worker alone, through rivals, and past them all.
//! Owns the order of contenders and the metrics. Never measures two at once.

use anyhow::Result;

use super::Options;
use super::contender::{Field, Samples, Who};
use super::document::{Better, Document, Metric, Wanted};
use super::traffic::{Load, Sample, measure};
use super::underlay::Underlay;

/// Rounds and seconds of each flow. Nine are the fewest a verdict is given for.
const FULL: (u32, u32) = (9, 4);
const QUICK: (u32, u32) = (1, 1);
/// In the order of a round.
const ALL: [Who; 10] = [
    Who::Plain,
    Who::Null,
    Who::Worker,
    Who::Ours,
    Who::Chacha,
    Who::Gotatun,
    Who::Boringtun,
    Who::WireguardGo,
    Who::OpenVpn,
    Who::Nebula,
];
const RIVALS: [Who; 9] = [
    Who::Plain,
    Who::Null,
    Who::Worker,
    Who::Gotatun,
    Who::Boringtun,
    Who::WireguardGo,
    Who::Named,
    Who::OpenVpn,
    Who::Nebula,
];
/// Rival, goal, must.
type Bound = (&'static str, f64, f64);
const TCP: [Bound; 3] = [("plain", 0.55, 0.40), ("null", 0.92, 0.75), ("gotatun", 7.0, 4.5)];
const TCP_CHACHA: [Bound; 1] = [("gotatun", 5.0, 3.5)];
const CPU: [Bound; 1] = [("gotatun", 0.14, 0.22)];
const ROUND_TRIP: [Bound; 1] = [("gotatun", 0.5, 1.0)];

/// A figure of a sample.
type Value = fn(&Sample) -> f64;

const METRICS: [(Wanted, Value); 5] = [
    (metric("inner_tcp_gbps", "Gbit/s", Better::Higher, &TCP), |s| s.up_gbps.min(s.down_gbps)),
    (metric("inner_tcp_gbps_up", "Gbit/s", Better::Higher, &[]), |s| s.up_gbps),
    (metric("inner_tcp_gbps_down", "Gbit/s", Better::Higher, &[]), |s| s.down_gbps),
    (metric("cpu_s_per_gb", "s/GB", Better::Lower, &CPU), |s| s.cpu_s_per_gb),
    (metric("rtt_idle_p50_us", "µs", Better::Lower, &ROUND_TRIP), |s| s.rtt_p50_us),
];
/// The worker with the rivals' cipher.
const CHACHA: Wanted = metric("inner_tcp_gbps_chacha", "Gbit/s", Better::Higher, &TCP_CHACHA);

const fn metric(
    metric: &'static str,
    unit: &'static str,
    better: Better,
    bounds: &'static [(&'static str, f64, f64)],
) -> Wanted {
    Wanted { metric, unit, better, bounds }
}

pub fn run(options: &Options) -> Result<Document> {
    let (rounds, seconds) = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(rounds)?;
    let mut field = Field::of(options, &ALL)?;
    let work = |underlay: &Underlay, server| {
        let mut sample = measure(underlay, Load { seconds, flows: 1, server })?;
        let raw = std::mem::take(&mut sample.raw);
        Ok((sample, raw))
    };
    let (samples, machine) = field.play(rounds, work, |sample| {
        format!(
            "up {:.2} down {:.2} Gbit/s, {:.2} CPU s/GB, rtt {:.0} µs, {:.0} B/frame",
            sample.up_gbps, sample.down_gbps, sample.cpu_s_per_gb, sample.rtt_p50_us, sample.frame_bytes,
        )
    })?;
    field.document("tunnel", machine, results(&samples), notes(&samples))
}

fn results(samples: &Samples<Sample>) -> Vec<Metric> {
    let of = |wanted: &Wanted, who, value: Value| {
        Metric::new(wanted, samples.series(who, value), samples.against(&RIVALS, value))
    };
    let mut results: Vec<Metric> = METRICS.iter().map(|(wanted, value)| of(wanted, Who::Ours, *value)).collect();
    results.insert(3, of(&CHACHA, Who::Chacha, |s| s.up_gbps.min(s.down_gbps)));
    results
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    results(&Samples::default())
}

fn notes(samples: &Samples<Sample>) -> Vec<String> {
    let largest = samples.all().map(|sample| sample.frame_bytes).fold(0.0, f64::max);
    let retransmits: f64 = samples.series(Who::Ours, |sample| sample.retransmits as f64).into_iter().flatten().sum();
    vec![
        format!("bytes ÷ packets on the underlay: at most {largest:.0} in any round"),
        format!("TCP retransmits through ours, all rounds: {retransmits:.0}"),
    ]
}
