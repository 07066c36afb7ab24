//! `bench scenarios`: described troubles played with the real product, each judged by what its own file promises. Owns
//! judging and the file of one run (`jvpn.scenario-run/1`: network, policy, events, criteria, raw records). Never plays.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::document::{Better, Contender, Document, LIMIT, Metric, Verdict, Wanted};
use super::stats::quantile;
use super::{Options, machine};

pub mod evidence;
mod flood;
pub mod plan;
pub mod play;

use evidence::Evidence;
use plan::{Kind, Plan, SHIPPED, time};
use play::{Network, Seen};

const SCHEMA: &str = "jvpn.scenario-run/1";
/// Played in a quick run: a minute in all.
const QUICK: [&str; 1] = ["replay_flood"];

/// One scenario, played and judged.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    schema: &'static str,
    version: String,
    plan: Plan,
    evidence: Evidence,
    pub(super) checks: Vec<Check>,
    pub(super) seen: Seen,
}

/// One promise of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    promise: String,
    kept: bool,
    seen: String,
}

pub fn run(options: &Options) -> Result<Document> {
    let version = machine::product_version()?;
    let plans = chosen(options)?;
    let (mut results, mut notes, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for plan in plans {
        eprintln!("{}: {}", plan.name, plan.about);
        let name = plan.name.clone();
        match played(plan, &version, options) {
            Ok(run) => {
                notes.extend(remarks(&run));
                results.extend(metrics(&run, options.quick));
            }
            Err(error) => {
                eprintln!("{name}: {error:#}");
                errors.push(format!("{name}: {error:#}"));
                // A scenario that could not be played is not one that passed.
                results.push(verdict(&name, None, options.quick));
            }
        }
    }
    Ok(Document {
        version,
        policy: "field, with what each file changes".into(),
        contenders: vec![
            Contender::new("ours", "serve and connect in the lab, two 1 kHz flows through them"),
            Contender::new(LIMIT, "what the scenario's own file promises"),
        ],
        results,
        notes,
        errors,
        ..machine::program_alone("scenarios")?
    })
}

fn chosen(options: &Options) -> Result<Vec<Plan>> {
    for wanted in &options.only {
        Plan::shipped(wanted)?;
    }
    let asked = |name: &&str| match options.only.is_empty() {
        true => !options.quick || QUICK.contains(name),
        false => options.only.iter().any(|wanted| wanted == name),
    };
    let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).filter(asked).collect();
    ensure!(!names.is_empty(), "nothing to play");
    names.into_iter().map(Plan::shipped).collect()
}

/// Plays one, judges it and keeps what was seen.
pub(super) fn played(plan: Plan, version: &str, options: &Options) -> Result<Run> {
    let flood = plan.steps()?.iter().any(|step| matches!(step.what, Kind::Reattach(_)));
    let seen = if flood { flood::play(&plan)? } else { play::play(&plan)? };
    let mut evidence = Evidence::of(&seen.during(&seen.records));
    // A run is void for what its sessions did at any time.
    evidence.voids = [&seen.records, &seen.others].map(|all| Evidence::of(all).voids).concat();
    let checks = judged(&plan, &seen, &evidence)?;
    let run = Run { schema: SCHEMA, version: version.to_owned(), plan, evidence, checks, seen };
    options.keep(&format!("scenario-{}.json", run.plan.name), &serde_json::to_string_pretty(&run)?)?;
    Ok(run)
}

fn check(promise: impl Into<String>, kept: bool, seen: impl Into<String>) -> Check {
    Check { promise: promise.into(), kept, seen: seen.into() }
}

/// Every promise of a file, kept or not, and that nothing voids the run.
fn judged(plan: &Plan, seen: &Seen, evidence: &Evidence) -> Result<Vec<Check>> {
    let (pass, mut checks) = (&plan.pass, Vec::new());
    let voids = if evidence.voids.is_empty() { "nothing".to_owned() } else { evidence.voids.join("; ") };
    checks.push(check("no dual binding, ambiguous owner or silent reset", evidence.voids.is_empty(), voids));
    checks.push(check("the record is there", !seen.records.is_empty(), format!("{} records", seen.records.len())));
    if let Some(text) = &pass.recovery_p99 {
        let (limit, mut outages) = (time(text)?.as_secs_f64() * 1e3, seen.outages_ms.clone());
        outages.sort_by(f64::total_cmp);
        let p99 = quantile(&outages, 0.99);
        let said = p99.map_or_else(|| "none".into(), |ms| format!("{ms:.1} ms over {} faults", outages.len()));
        checks.push(check(format!("recovery p99 below {text}"), p99.is_some_and(|ms| ms < limit), said));
    }
    let ended: u64 = evidence.terminations.values().sum();
    match (&pass.ends_with, &pass.ends_after, &pass.ends_within) {
        (Some(reason), Some(after), Some(within)) => {
            let (wanted, off) = (time(after)?.as_secs_f64(), time(within)?.as_secs_f64());
            let right = |(said, took): &(String, f64)| said == reason && (took - wanted).abs() <= off;
            let said = evidence.first_end.as_ref();
            let told =
                said.map_or_else(|| "it did not end".into(), |(reason, took)| format!("{reason} after {took:.2} s"));
            checks.push(check(format!("{reason} after {after} ± {within}"), said.is_some_and(right), told));
        }
        _ => checks.push(check("no session ends", ended == 0, format!("{:?}", evidence.terminations))),
    }
    let mut at_most = |what: &str, limit: Option<u64>, is: u64| {
        if let Some(limit) = limit {
            checks.push(check(format!("at most {limit} {what}"), is <= limit, is.to_string()));
        }
    };
    let others = Evidence::of(&seen.during(&seen.others));
    at_most("transitions", pass.transitions, evidence.transitions);
    at_most("paths given up for lost", pass.given_up, evidence.given_up);
    at_most("inner packets twice", pass.duplicated, seen.duplicated);
    at_most("transitions of the others", pass.others_transitions, others.transitions);
    if let Some(text) = &pass.delay_reaches {
        let longest = seen.network.delay_ms.last().copied().unwrap_or_default();
        let kept = longest >= time(text)?.as_secs_f64() * 1e3;
        checks.push(check(format!("a packet takes {text} or longer"), kept, format!("{longest:.0} ms")));
    }
    if let Some(percent) = pass.refused_percent {
        let kept = seen.copies > 0 && seen.refused * 100 >= seen.copies * percent;
        let said = format!("{} of {} copies", seen.refused, seen.copies);
        checks.push(check(format!("{percent} % of the copies are counted as refused"), kept, said));
    }
    if let Some(wanted) = pass.abuse {
        let Evidence { rate_limited, abuses, .. } = evidence;
        let said = format!("{} requests, {rate_limited} refusals and {abuses} abuses on the record", seen.requests);
        checks.push(check(
            "too many requests are refused and called an abuse",
            (*rate_limited > 0 && *abuses > 0) == wanted,
            said,
        ));
    }
    Ok(checks)
}

pub(super) fn remarks(run: &Run) -> Vec<String> {
    let (name, evidence) = (&run.plan.name, &run.evidence);
    let mut lines: Vec<String> = run
        .checks
        .iter()
        .map(|one| format!("{name}: {} {}: {}", if one.kept { "kept" } else { "BROKEN" }, one.promise, one.seen))
        .collect();
    let Network { delay_ms, lost_in_a_row } = &run.seen.network;
    if !delay_ms.is_empty() {
        let told: Vec<String> = delay_ms.iter().map(|ms| format!("{ms:.1}")).collect();
        lines.push(format!(
            "{name}: a packet took {} ms (shortest, 50, 90, 99, 99.9 %, longest); lost in a row, how often: {lost_in_a_row:?}",
            told.join(", ")
        ));
    }
    lines.push(format!(
        "{name}: {} switches, at most {} a minute; {} cooldown hits, {} refusals of too many; ended: {:?}",
        evidence.switches,
        evidence.switches_per_min,
        evidence.cooldown_hits,
        evidence.rate_limited,
        evidence.terminations
    ));
    lines
}

fn metrics(run: &Run, quick: bool) -> Vec<Metric> {
    let (name, evidence) = (&run.plan.name, &run.evidence);
    let metric = |what: &str, samples: &[f64]| {
        let wanted = Wanted { metric: "", unit: "ms", better: Better::Lower, bounds: &[] };
        let samples = samples.iter().copied().map(Some).collect();
        let mut metric = Metric::new(&wanted, samples, BTreeMap::new()).judged_at(0.99, None);
        metric.metric = format!("{what}_ms {name}");
        metric
    };
    let all = [
        ("detect", &evidence.detect_ms),
        ("prove", &evidence.prove_ms),
        ("switch", &evidence.switch_ms),
        ("outage", &run.seen.outages_ms),
    ];
    let mut metrics: Vec<Metric> = all
        .into_iter()
        .filter(|(_, samples)| !samples.is_empty())
        .map(|(what, samples)| metric(what, samples))
        .collect();
    metrics.push(verdict(name, Some(&run.checks), quick));
    metrics
}

/// How many promises of a file were broken; not measured if it could not be played, and a quick run decides nothing.
pub(super) fn verdict(name: &str, checks: Option<&[Check]>, quick: bool) -> Metric {
    let wanted = Wanted { metric: "", unit: "promises", better: Better::Lower, bounds: &[(LIMIT, 1.0, 1.0)] };
    let broken = checks.map(|checks| checks.iter().filter(|one| !one.kept).count() as f64);
    let mut metric = Metric::limited(&wanted, vec![broken], BTreeMap::new(), Some(0.0));
    metric.metric = format!("broken {name}");
    let verdict = match broken {
        None => Verdict::NotMeasured,
        Some(_) if quick => Verdict::TooFewRounds,
        Some(0.0) => Verdict::Holds,
        Some(_) => Verdict::Fails,
    };
    metric.verdicts.insert(LIMIT.into(), verdict);
    metric
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    SHIPPED.iter().map(|(name, _)| verdict(name, None, false)).collect()
}

#[cfg(test)]
#[path = "scenarios/tests.rs"]
mod tests;
