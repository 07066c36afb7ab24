//! `bench healthy`: how often detection gives up a path that is well and does not look it. Owns hours of it in virtual time,
//! ten minutes of it in the lab, and how alike the networks of both were. Never plays a scenario itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, ensure};
use jvpn_common::scenario::{Met, Scenario};
use jvpn_common::time::Duration;

use super::document::{Better, Contender, Document, LIMIT, Metric, Verdict, Wanted};
use super::scenarios::plan::Plan;
use super::scenarios::play::{Network, SHARES};
use super::scenarios::{self, Run};
use super::{Options, machine};

pub mod networks;

use networks::{AT_ONCE, upper_bound};

/// Hours that something is said of.
const HOURS: u64 = 1_000;
/// Of a quick run, of the first network, without the lab.
const QUICK: u64 = 1;
/// Times an hour that a healthy path may be given up.
const MUST: f64 = 1.0;
/// Sessions after which a long run says how far it is.
const PROGRESS: u64 = 25;
/// What is compared of how long packets took, with its place in [`SHARES`].
const COMPARED: [(&str, usize); 4] = [("p50", 1), ("p90", 2), ("p99", 3), ("p999", 4)];
const LAB: &str = "lab";

/// One network: its name, as the simulation has it, and the lab's file.
type Pair = (&'static str, fn() -> Scenario, &'static str);
const NETWORKS: [Pair; 3] = [
    ("loss", networks::loss, "healthy_loss"),
    ("pauses", networks::pauses, "healthy_pauses"),
    ("buffer", networks::buffer, "healthy_buffer"),
];

/// What so many hours came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    hours: u64,
    given_up: u32,
    met: Met,
}

/// What is known of one network: lost, of all that was sent, and the rest.
struct Side {
    network: Network,
    lost_percent: f64,
}

pub fn run(options: &Options) -> Result<Document> {
    ensure!(options.rounds.is_none(), "this bench plays hours, not rounds");
    let names = NETWORKS.map(|(name, ..)| name);
    for wanted in &options.only {
        ensure!(names.contains(&wanted.as_str()), "no network is called {wanted:?}; there are: {}", names.join(", "));
    }
    let version = machine::product_version()?;
    let (mut results, mut notes, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (name, scenario, file) in chosen(options) {
        eprintln!("{name}: hours in virtual time");
        let seen =
            if options.quick { simulated(&scenario(), QUICK, 1)? } else { simulated(&scenario(), HOURS, AT_ONCE)? };
        notes.push(format!("{name}: given up {} times in {} simulated hours", seen.given_up, seen.hours));
        let lab = (!options.quick).then(|| in_the_lab(file, &version, options)).transpose().unwrap_or_else(|error| {
            errors.push(format!("{file}: {error:#}"));
            None
        });
        notes.extend(lab.iter().flat_map(scenarios::remarks));
        results.push(rate(name, Some(&seen)));
        results
            .extend((!options.quick).then(|| scenarios::verdict(file, lab.as_ref().map(|run| &run.checks[..]), false)));
        results.extend(compared(name, &of_the_model(&seen.met), lab.as_ref().map(of_the_lab).as_ref()));
    }
    Ok(Document {
        version,
        policy: "field".into(),
        contenders: vec![
            Contender::new("ours", "the product's engines and packet path over the described network, in virtual time"),
            Contender::new(LAB, "serve and connect in the same network in the lab, ten minutes, two 1 kHz flows"),
            Contender::new(LIMIT, "once an hour, 95 % sure; in the lab what the file promises"),
        ],
        results,
        notes,
        errors,
        ..machine::program_alone("healthy")?
    })
}

fn chosen(options: &Options) -> impl Iterator<Item = Pair> {
    let asked = |name: &str| match options.only.is_empty() {
        true => !options.quick || name == NETWORKS[0].0,
        false => options.only.iter().any(|wanted| wanted == name),
    };
    NETWORKS.into_iter().filter(move |(name, ..)| asked(name))
}

fn in_the_lab(file: &str, version: &str, options: &Options) -> Result<Run> {
    let plan = Plan::healthy(file)?;
    eprintln!("{file}: {}", plan.about);
    scenarios::played(plan, version, options)
}

/// Plays sessions of so many hours on every processor, each with a seed of its own.
fn simulated(scenario: &Scenario, hours: u64, at_once: u64) -> Result<Seen> {
    let scenario = Scenario { duration: Duration::from_secs(at_once * 3_600), ..scenario.clone() };
    let (next, seen) = (AtomicU64::new(1), Mutex::new(Seen::default()));
    let play = || -> Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > hours / at_once {
                return Ok(());
            }
            let outcome = networks::play(&scenario, seed)?;
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.hours += at_once;
            seen.given_up += outcome.given_up;
            add(&mut seen.met.delays, &outcome.met.delays);
            add(&mut seen.met.lost_in_a_row, &outcome.met.lost_in_a_row);
            if (seen.hours / at_once).is_multiple_of(PROGRESS) {
                eprintln!("{}: {} of {hours} h, given up {} times", scenario.name, seen.hours, seen.given_up);
            }
        }
    };
    let processors = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let players: Vec<_> = (0..processors).map(|_| scope.spawn(play)).collect();
        players
            .into_iter()
            .try_for_each(|player| player.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(seen.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn add(to: &mut BTreeMap<u64, u64>, more: &BTreeMap<u64, u64>) {
    for (key, count) in more {
        *to.entry(*key).or_default() += count;
    }
}

fn of_the_model(met: &Met) -> Side {
    let came: u64 = met.delays.values().sum();
    let lost: u64 = met.lost_in_a_row.iter().map(|(row, times)| row * times).sum();
    let at = |share: f64| {
        let (wanted, mut before) = (((came as f64 * share).ceil() as u64).max(1), 0);
        let found = met.delays.iter().find(|(_, count)| {
            before += *count;
            before >= wanted
        });
        found.map(|(tenths, _)| *tenths as f64 / 10.0)
    };
    let network =
        Network { delay_ms: SHARES.into_iter().filter_map(at).collect(), lost_in_a_row: met.lost_in_a_row.clone() };
    Side { network, lost_percent: percent(lost, came + lost) }
}

fn of_the_lab(run: &Run) -> Side {
    Side { network: run.seen.network.clone(), lost_percent: percent(run.seen.lost, run.seen.sent) }
}

fn percent(part: u64, all: u64) -> f64 {
    part as f64 * 100.0 / all.max(1) as f64
}

/// How often at most, by what was seen.
fn rate(name: &str, seen: Option<&Seen>) -> Metric {
    let wanted = Wanted { metric: "", unit: "an hour, at most", better: Better::Lower, bounds: &[(LIMIT, 1.0, 1.0)] };
    let bound = seen.map(|seen| upper_bound(seen.given_up) / seen.hours as f64);
    let mut metric = Metric::limited(&wanted, vec![bound], BTreeMap::new(), Some(MUST));
    metric.metric = format!("given_up {name}");
    let verdict = match (seen, bound) {
        (Some(seen), Some(_)) if seen.hours < HOURS => Verdict::TooFewRounds,
        (_, Some(bound)) if bound <= MUST => Verdict::Holds,
        (_, Some(_)) => Verdict::Fails,
        (_, None) => Verdict::NotMeasured,
    };
    metric.verdicts.insert(LIMIT.into(), verdict);
    metric
}

/// The network of the simulation beside the lab's.
fn compared(name: &str, model: &Side, lab: Option<&Side>) -> Vec<Metric> {
    let alone = |side: &Side| {
        let rows = &side.network.lost_in_a_row;
        percent(rows.get(&1).copied().unwrap_or(0), rows.values().sum())
    };
    let metric = |what: String, unit: &'static str, of: &dyn Fn(&Side) -> Option<f64>| {
        let wanted = Wanted { metric: "", unit, better: Better::Lower, bounds: &[] };
        let labs = lab.map(|lab| (LAB.to_owned(), vec![of(lab)]));
        let mut metric = Metric::new(&wanted, vec![of(model)], labs.into_iter().collect());
        metric.metric = format!("{what} {name}");
        metric
    };
    let delays = COMPARED
        .map(|(share, at)| metric(format!("delay_{share}"), "ms", &move |side| side.network.delay_ms.get(at).copied()));
    let lost = metric("lost".into(), "% of packets", &|side| Some(side.lost_percent));
    let alone = metric("lost_alone".into(), "% of losses", &|side| Some(alone(side)));
    delays.into_iter().chain([lost, alone]).collect()
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    NETWORKS.into_iter().flat_map(|(name, _, file)| [rate(name, None), scenarios::verdict(file, None, false)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_holds_only_after_enough_hours() {
        let verdict = |hours, given_up| {
            let seen = Seen { hours, given_up, met: Met::default() };
            rate("loss", Some(&seen)).verdicts[LIMIT]
        };
        assert_eq!(verdict(1_000, 900), Verdict::Holds);
        assert_eq!(verdict(1_000, 1_000), Verdict::Fails, "as many as allowed were seen: nobody is sure");
        assert_eq!(verdict(8, 0), Verdict::TooFewRounds);
        assert_eq!(rate("loss", None).verdicts[LIMIT], Verdict::NotMeasured);
    }

    #[test]
    fn the_models_network_is_told_as_the_labs_is() {
        let delays = [(100, 900), (110, 90), (3_000, 10)].into();
        let side = of_the_model(&Met { delays, lost_in_a_row: [(1, 8), (2, 1)].into() });
        assert_eq!(side.network.delay_ms, [10.0, 10.0, 10.0, 11.0, 300.0, 300.0]);
        assert!((side.lost_percent - 100.0 * 10.0 / 1_010.0).abs() < 1e-9);
        let lab = of_the_model(&Met { delays: [(105, 1)].into(), lost_in_a_row: BTreeMap::new() });
        let told: BTreeMap<String, (Option<f64>, Option<f64>)> = compared("x", &side, Some(&lab))
            .into_iter()
            .map(|metric| (metric.metric.clone(), (metric.ours, metric.rivals[LAB])))
            .collect();
        assert_eq!(told["delay_p99 x"], (Some(11.0), Some(10.5)));
        assert_eq!(told["lost_alone x"], (Some(800.0 / 9.0), Some(0.0)));
    }

    #[test]
    fn every_session_has_a_seed_of_its_own_and_all_of_them_count() {
        let short = Scenario { traffic: Some(networks::MS * 500), ..networks::loss() };
        let (one, three) = (simulated(&short, 1, 1).unwrap(), simulated(&short, 3, 1).unwrap());
        let sum = |seen: &Seen| seen.met.delays.values().sum::<u64>();
        assert_eq!((one.hours, three.hours), (1, 3));
        assert!(sum(&three) > sum(&one) * 2 && three.met.lost_in_a_row != one.met.lost_in_a_row);
    }
}
