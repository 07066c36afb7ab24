//! `bench telemetry`: transitions a second into a record while every sink stands still, beside the same record without a
//! sink. Owns the sinks that nobody reads. Never counts a round in which they lost nothing: then they did not stand still.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use jvpn_ctl::audit::Audit;
use jvpn_ctl::config::{Syslog, TelemetryConfig};
use jvpn_ctl::observe::fanout::Sink;
use jvpn_ctl::observe::sink::Sinks;

use super::document::{Better, Contender, Document, LIMIT, Metric, Wanted};
use super::records::Records;
use super::{Options, machine};

/// Rounds, and transitions of one: several times what a queue holds.
const FULL: (u32, u64) = (9, 100_000);
const QUICK: (u32, u64) = (3, 30_000);
/// Transitions a second that must be recorded, and what is aimed at.
const MUST: f64 = 10_000.0;
const GOAL: f64 = 50_000.0;

/// One round; transitions a second.
fn round(records: &Records, count: u64, with_sinks: bool) -> Result<f64> {
    let state = tempfile::tempdir().context("a directory")?;
    let (audit, _) = Audit::open(state.path())?;
    let [journal, log] = ["journal", "log"].map(|name| state.path().join(name));
    let _unread = [UnixDatagram::bind(&journal)?, UnixDatagram::bind(&log)?];
    let wanted = TelemetryConfig { metrics: None, journald: Some(journal), syslog: Some(Syslog::Unix(log)) };
    let wanted = if with_sinks { wanted } else { TelemetryConfig::default() };
    let feed = audit.feed();
    let sinks = Sinks::start(&wanted, feed.fan())?;
    let reader = with_sinks.then(|| feed.subscribe(Sink::Api)).transpose()?;
    let begin = Instant::now();
    for number in 0..count {
        audit.append(records.record(number))?;
    }
    let took = begin.elapsed();
    for sink in Sink::ALL.into_iter().filter(|_| with_sinks) {
        ensure!(feed.fan().dropped(sink) > 0, "{} lost nothing: it did not stand still", sink.name());
    }
    drop((reader, sinks));
    Ok(count as f64 / took.as_secs_f64())
}

pub fn run(options: &Options) -> Result<Document> {
    let (rounds, count) = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(rounds)?;
    let records = Records::new();
    let (mut ours, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(Some(round(&records, count, true)?));
        alone.push(Some(round(&records, count, false)?));
    }
    Ok(Document {
        contenders: vec![
            Contender::new("ours", "record with journald, syslog and stream standing still"),
            Contender::new("alone", "the same record without a sink"),
            Contender::new(LIMIT, "the must; its ratio must not be below 1"),
        ],
        results: results(ours, alone),
        notes: vec![format!("{rounds} rounds of {count} transitions, one write each, synced 50 times a second")],
        ..machine::program_alone("telemetry")?
    })
}

fn results(ours: Vec<Option<f64>>, alone: Vec<Option<f64>>) -> Vec<Metric> {
    let wanted = Wanted {
        metric: "transitions_per_s",
        unit: "transitions a second",
        better: Better::Higher,
        bounds: &[(LIMIT, GOAL / MUST, 1.0)],
    };
    let rivals = BTreeMap::from([("alone".to_owned(), alone)]);
    vec![Metric::limited(&wanted, ours, rivals, Some(MUST))]
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    results(Vec::new(), Vec::new())
}
