//! Benches: interleaved rounds of ours and rivals, one document each. Owns the choice of bench and where results go.
//! Never prints a single absolute number as a result: what counts are ratios paired by round.
//!
//! `tunnel`, `pps` and `latency` run over one link, `underlay`, with everybody in turn, `contender`: ours, `rig` (two bare
//! workers), `wireguard` (rivals); `variants` over the same link without rivals, `workers` the gateway's half alone. `traffic` and `generator` are the load, `stats` and `document` what becomes of figures.
//! `outage` breaks the lab under the product and under a rival, `scenarios` plays described troubles. `steer` and `jump`
//! run the kernel program alone: `program` loads it, `chart` draws. `relay` forwards over three namespaces. `verify` and
//! `telemetry` are about the record, made of `records`. `reattach` and `handshake` give the engine real messages by hand
//! (`control`); `churn` and `memory` run a gateway under a swarm (`served`).

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

pub mod chart;
pub mod churn;
pub mod contender;
pub mod control;
pub mod document;
pub mod generator;
pub mod handshake;
pub mod jump;
pub mod latency;
pub mod machine;
pub mod memory;
pub mod outage;
pub mod pps;
pub mod program;
pub mod reattach;
pub mod records;
pub mod relay;
pub mod rig;
pub mod scenarios;
pub mod served;
pub mod stats;
pub mod steer;
pub mod telemetry;
pub mod ticks;
pub mod traffic;
pub mod tunnel;
pub mod underlay;
pub mod variants;
pub mod verify;
pub mod wireguard;
pub mod workers;

use document::Document;

/// Benches there are.
pub const NAMES: [&str; 16] = [
    "tunnel",
    "pps",
    "latency",
    "variants",
    "workers",
    "outage",
    "scenarios",
    "steer",
    "jump",
    "relay",
    "verify",
    "telemetry",
    "reattach",
    "handshake",
    "churn",
    "memory",
];

/// What the command line asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Fewer and shorter rounds: shows that everything works, decides nothing.
    pub quick: bool,
    pub rounds: Option<u32>,
    /// Another userspace WireGuard beside those that are known.
    pub wireguard: Option<PathBuf>,
    /// Only these cells, of a bench that has some.
    pub only: Vec<String>,
    /// Where raw output and the document go.
    pub report: Option<PathBuf>,
}

impl Options {
    /// How many rounds: what was asked for, else as many as usual.
    pub fn rounds(&self, usual: u32) -> Result<u32> {
        let rounds = self.rounds.unwrap_or(usual);
        ensure!(rounds > 0, "--rounds must be at least 1");
        Ok(rounds)
    }

    /// Keeps raw output, if that was asked for.
    pub fn keep(&self, name: &str, text: &str) -> Result<()> {
        let Some(directory) = &self.report else { return Ok(()) };
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }
}

/// Runs every bench in turn, each with a directory of its own for what it reports; one that fails does not stop the others.
pub fn run_all(options: &Options, mut done: impl FnMut(&str, Result<Document>) -> Result<()>) -> Result<()> {
    for name in NAMES {
        let report = options.report.as_ref().map(|directory| directory.join(name));
        done(name, run(name, &Options { report, ..options.clone() }))?;
    }
    Ok(())
}

/// Runs one bench.
pub fn run(name: &str, options: &Options) -> Result<Document> {
    if let Some(directory) = &options.report {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    let document = match name {
        "tunnel" => tunnel::run(options)?,
        "pps" => pps::run(options)?,
        "latency" => latency::run(options)?,
        "variants" => variants::run(options)?,
        "workers" => workers::run(options)?,
        "outage" => outage::run(options)?,
        "scenarios" => scenarios::run(options)?,
        "steer" => steer::run(options)?,
        "jump" => jump::run(options)?,
        "relay" => relay::run(options)?,
        "verify" => verify::run(options)?,
        "telemetry" => telemetry::run(options)?,
        "reattach" => reattach::run(options)?,
        "handshake" => handshake::run(options)?,
        "churn" => churn::run(options)?,
        "memory" => memory::run(options)?,
        other => bail!("no bench {other:?}; there are: {}", NAMES.join(", ")),
    };
    options.keep("document.json", &serde_json::to_string_pretty(&document)?)?;
    options.keep("summary.txt", &document.human())?;
    Ok(document)
}
