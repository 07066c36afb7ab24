//! Benches: interleaved rounds of ours and rivals, one document each. Owns the choice of bench and where results go.
//! Never prints a single absolute number as a result: what counts are ratios paired by round.
//!
//! `tunnel`, `pps` and `latency` run over one link, `underlay`, with everybody in turn, `contender`: ours, `rig` (two bare
//! workers), `rival` (of which `wireguard` is a kind); `variants` over the same link without rivals, `workers` the gateway's half
//! alone. `traffic` and `generator` are the load, `stats`, `document` and `chart` what becomes of figures.
//! `outage` breaks the lab under the product and under a rival, `scenarios` plays described troubles, `healthy` networks
//! without any. `steer` and `jump` run the kernel program alone: `program` loads it. `relay` forwards over three namespaces.
//! `verify` and `telemetry` are about the record, made of `records`. `reattach` and `handshake` give the engine real messages
//! by hand (`control`); `churn` and `memory` run a gateway under a swarm (`served`). `page` makes the page of figures from
//! the documents of runs that `publish` put there.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

pub mod apart;
pub mod chart;
pub mod churn;
pub mod contender;
pub mod control;
pub mod document;
pub mod generator;
pub mod handshake;
pub mod healthy;
pub mod jump;
pub mod latency;
pub mod machine;
pub mod memory;
pub mod outage;
pub mod page;
pub mod pps;
pub mod program;
pub mod publish;
pub mod reattach;
pub mod records;
pub mod relay;
pub mod rig;
pub mod rival;
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

use document::{Document, Metric};

/// One bench.
#[derive(Debug)]
pub struct Bench {
    pub name: &'static str,
    run: fn(&Options) -> Result<Document>,
    /// What a run of it says before anything is measured: every metric that is asked for, with its bounds.
    pub unmeasured: fn() -> Vec<Metric>,
}

const fn bench(name: &'static str, run: fn(&Options) -> Result<Document>, unmeasured: fn() -> Vec<Metric>) -> Bench {
    Bench { name, run, unmeasured }
}

/// Benches there are.
pub const BENCHES: [Bench; 17] = [
    bench("tunnel", tunnel::run, tunnel::unmeasured),
    bench("pps", pps::run, pps::unmeasured),
    bench("latency", latency::run, latency::unmeasured),
    bench("variants", variants::run, variants::unmeasured),
    bench("workers", workers::run, workers::unmeasured),
    bench("outage", outage::run, outage::unmeasured),
    bench("scenarios", scenarios::run, scenarios::unmeasured),
    bench("healthy", healthy::run, healthy::unmeasured),
    bench("steer", steer::run, steer::unmeasured),
    bench("jump", jump::run, jump::unmeasured),
    bench("relay", relay::run, relay::unmeasured),
    bench("verify", verify::run, verify::unmeasured),
    bench("telemetry", telemetry::run, telemetry::unmeasured),
    bench("reattach", reattach::run, reattach::unmeasured),
    bench("handshake", handshake::run, handshake::unmeasured),
    bench("churn", churn::run, churn::unmeasured),
    bench("memory", memory::run, memory::unmeasured),
];

/// What they are called.
pub const NAMES: [&str; BENCHES.len()] = {
    let (mut names, mut at) = ([""; BENCHES.len()], 0);
    while at < names.len() {
        names[at] = BENCHES[at].name;
        at += 1;
    }
    names
};

/// Names of what is measured together with something else, and by which bench.
const PARTS: [(&str, &str); 1] = [("cpu", "tunnel")];

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
    let name = PARTS.iter().find(|(part, _)| *part == name).map_or(name, |(_, whole)| *whole);
    let bench = BENCHES.iter().find(|bench| bench.name == name);
    let bench = bench.with_context(|| format!("no bench {name:?}; there are: {}", NAMES.join(", ")))?;
    let document = (bench.run)(options)?;
    options.keep("document.json", &serde_json::to_string_pretty(&document)?)?;
    options.keep("summary.txt", &document.human())?;
    options.keep("table.txt", &page::table::rows(&document))?;
    if let Some(chart) = page::drawn::chart(&document) {
        options.keep("chart.svg", &chart)?;
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_bench_is_no_bench_and_is_found_in_one() {
        for (part, whole) in PARTS {
            assert!(!NAMES.contains(&part) && NAMES.contains(&whole), "{part}");
        }
        let missing = run("cpus", &Options::default()).unwrap_err().to_string();
        assert!(missing.contains("\"cpus\"") && missing.contains("tunnel"), "{missing}");
    }
}
