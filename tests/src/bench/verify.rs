//! `bench verify`: how many records `jvpn-ctl audit verify` proves in a second. Owns a record made with the product's own
//! writer and the real verb run over it. Never counts a run that did not prove every record of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use jvpn_ctl::audit::{Audit, public_key};
use serde_json::Value;

use super::document::{Better, Contender, Document, LIMIT, Metric, Wanted};
use super::records::Records;
use super::{Options, machine};
use crate::lab::process::find_binary;

/// Rounds, and records of the record: some 500 MB, so that starting and ending are a small part.
const FULL: (u32, u64) = (9, 400_000);
const QUICK: (u32, u64) = (3, 50_000);
/// Records written at once.
const COMMIT: u64 = 100;
/// What must be proven in a second, and what is aimed at.
const MUST: f64 = 500_000.0;
const GOAL: f64 = 750_000.0;

/// Writes the record.
fn write(state: &Path, count: u64) -> Result<()> {
    let (audit, _) = Audit::open(state)?;
    let records = Records::new();
    for first in (0..count).step_by(usize::try_from(COMMIT)?) {
        audit.append_all((first..count.min(first + COMMIT)).map(|number| records.record(number)).collect())?;
    }
    Ok(())
}

/// Runs the verb once; records a second, and bytes of the record.
fn prove(program: &Path, state: &Path, key: &str, count: u64) -> Result<(f64, u64)> {
    let mut command = Command::new(program);
    command.args(["audit", "verify", "--json", "--key", key]).arg(state.join("audit"));
    let begin = Instant::now();
    let output = command.output().context("run jvpn-ctl audit verify")?;
    let took = begin.elapsed();
    ensure!(output.status.success(), "it failed: {}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(said["intact"] == true && said["records"] == count && said["covered"] == count, "not all of it: {said}");
    Ok((count as f64 / took.as_secs_f64(), said["bytes"].as_u64().unwrap_or(0)))
}

pub fn run(options: &Options) -> Result<Document> {
    let (rounds, count) = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(rounds)?;
    let program = find_binary()?;
    let state = tempfile::tempdir().context("a directory")?;
    write(state.path(), count)?;
    let key = public_key(state.path())?.to_string();
    // The first run brings the files into memory: what is measured is proving, not the disk.
    let (_, bytes) = prove(&program, state.path(), &key, count)?;
    let mut rates = Vec::new();
    for _ in 0..rounds {
        rates.push(Some(prove(&program, state.path(), &key, count)?.0));
    }
    Ok(Document {
        contenders: vec![
            Contender::new("ours", "jvpn-ctl audit verify, from its start to its end"),
            Contender::new(LIMIT, "the must in records a second; its ratio must not be below 1"),
        ],
        results: results(rates),
        notes: vec![
            format!("{rounds} rounds over {count} records of {} bytes on average, files in memory", bytes / count),
            "with --key: every signed checkpoint is verified, too".into(),
        ],
        ..machine::program_alone("verify")?
    })
}

fn results(rates: Vec<Option<f64>>) -> Vec<Metric> {
    let wanted = Wanted {
        metric: "records_per_s",
        unit: "records a second",
        better: Better::Higher,
        bounds: &[(LIMIT, GOAL / MUST, 1.0)],
    };
    vec![Metric::limited(&wanted, rates, BTreeMap::new(), Some(MUST))]
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    results(Vec::new())
}
