//! Benches: interleaved rounds of ours and rivals, one document each. Owns the choice of bench and where results go.
//! Never prints a single absolute number as a result: what counts are ratios paired by round.
//!
//! `tunnel` is one bench; `underlay` is the link it runs over, `rig` two bare workers, `gotatun` a rival, `traffic`
//! the load, `stats` and `document` what becomes of figures. `steer` and `jump` run the kernel program alone: `program`
//! loads it, `chart` draws. `relay` forwards over three namespaces. `verify` and `telemetry` are about the record, made of
//! `records`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

pub mod chart;
pub mod document;
pub mod gotatun;
pub mod jump;
pub mod machine;
pub mod program;
pub mod records;
pub mod relay;
pub mod rig;
pub mod stats;
pub mod steer;
pub mod telemetry;
pub mod traffic;
pub mod tunnel;
pub mod underlay;
pub mod verify;

use document::Document;

/// Benches there are.
pub const NAMES: [&str; 6] = ["tunnel", "steer", "jump", "relay", "verify", "telemetry"];

/// What the command line asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Fewer and shorter rounds: shows that everything works, decides nothing.
    pub quick: bool,
    pub rounds: Option<u32>,
    /// Where raw output and the document go.
    pub report: Option<PathBuf>,
}

impl Options {
    /// Keeps raw output, if that was asked for.
    pub fn keep(&self, name: &str, text: &str) -> Result<()> {
        let Some(directory) = &self.report else { return Ok(()) };
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }
}

/// Runs one bench.
pub fn run(name: &str, options: &Options) -> Result<Document> {
    if let Some(directory) = &options.report {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    let document = match name {
        "tunnel" => tunnel::run(options)?,
        "steer" => steer::run(options)?,
        "jump" => jump::run(options)?,
        "relay" => relay::run(options)?,
        "verify" => verify::run(options)?,
        "telemetry" => telemetry::run(options)?,
        other => bail!("no bench {other:?}; there are: {}", NAMES.join(", ")),
    };
    options.keep("document.json", &serde_json::to_string_pretty(&document)?)?;
    options.keep("summary.txt", &document.human())?;
    Ok(document)
}
