//! `audit`: prove what the record says, offline.
//!
//! Owns the words of the verdict and the exit codes. Must never need a daemon, nor a privilege beyond reading the files.

use super::error::{CliError, Kind};
use super::{Context, output};
use crate::api::model::{Body, Envelope};
use crate::audit::verify::{Report, Wanted, segments_of, verify};
use crate::audit::{self, RecordPublicKey};
use jvpn_common::event::Checkpoint;
use schemars::JsonSchema;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Verify the record, export a signed checkpoint of it, show the key that signs
#[derive(Debug, clap::Subcommand)]
pub(super) enum Audit {
    Verify(VerifyArgs),
    /// Print the newest signed checkpoint, one line of JSON, to be kept where the gateway cannot write
    ///
    /// With `audit verify --checkpoint` it shows later whether anything before it was changed.
    Checkpoint(WhereArgs),
    /// Print the public key that signs the checkpoints, as `audit verify --key` takes it
    Key(WhereArgs),
}

/// Verify a record: no line changed, missing, added or moved, and nothing that was signed taken back
///
/// Needs no daemon and no privilege but to read the files; a copy elsewhere does. Ends at the first record that does not
/// hold and names it: segment, number, line, byte, and what is wrong.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the record holds, 6 it does not (the first bad record is named), 4 there is no record, 2 a \
                  key or checkpoint that is none, 7 the files may not be read, 1 anything else.\n\n\
                  Without --checkpoint whoever could write the files could have cut them off at the end; without --key, \
                  have written them anew. What was not shown is said."
)]
pub(super) struct VerifyArgs {
    /// The record's directory, or its segments, oldest first [default: the audit directory of --state-dir]
    #[arg(value_name = "DIR|FILES")]
    paths: Vec<PathBuf>,
    /// Public key that signed the checkpoints, as `audit key` prints it; may be given again after a change of keys
    #[arg(long, value_name = "PUB")]
    key: Vec<RecordPublicKey>,
    /// File of checkpoints that were kept elsewhere, one a line, as `audit checkpoint` prints them; `-` is standard input
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// The beginning of the record is kept elsewhere
    #[arg(long)]
    partial: bool,
}

/// Where a record is.
#[derive(Debug, clap::Args)]
pub(super) struct WhereArgs {
    /// The state directory, or the record's [default: --state-dir]
    dir: Option<PathBuf>,
}

/// The outcome of a verification.
#[derive(Debug, Serialize, JsonSchema)]
struct Verified {
    /// Whether everything that was checked holds.
    intact: bool,
    /// Records that hold.
    records: u64,
    /// Their bytes.
    bytes: u64,
    /// Number of the first record.
    first: Option<u64>,
    /// Number of the last record that holds.
    last: Option<u64>,
    /// Its hash.
    head: Option<String>,
    /// Checkpoints that hold.
    checkpoints: u64,
    /// Number of the newest record a checkpoint holds for.
    covered: Option<u64>,
    /// Keys that signed them.
    keys: Vec<String>,
    /// What was not shown.
    notes: Vec<String>,
    /// The first thing that does not hold.
    fault: Option<FaultView>,
}

/// What is wrong, and where.
#[derive(Debug, Serialize, JsonSchema)]
struct FaultView {
    /// Stable name of what it is.
    code: &'static str,
    /// In words.
    text: String,
    /// The segment, or the file of checkpoints.
    file: String,
    /// Number of the record, as it should be.
    record: Option<u64>,
    /// Line of the file, from 1.
    line: Option<u64>,
    /// Where the line begins in the file.
    offset: Option<u64>,
}

impl Body for Verified {
    const SCHEMA: &'static str = "jvpn.audit/1";
}

#[cfg(test)]
pub(super) fn schema() -> (&'static str, schemars::Schema) {
    (Verified::SCHEMA, schemars::schema_for!(Envelope<Verified>))
}

impl From<&Report> for Verified {
    fn from(report: &Report) -> Self {
        let fault = report.fault.as_ref().map(|fault| FaultView {
            code: fault.what.code(),
            text: fault.what.to_string(),
            file: fault.file.display().to_string(),
            record: fault.record,
            line: fault.line,
            offset: fault.offset,
        });
        Self {
            intact: report.is_intact(),
            records: report.records,
            bytes: report.bytes,
            first: report.first,
            last: report.last,
            head: report.head.map(|head| head.to_string()),
            checkpoints: report.checkpoints,
            covered: report.covered,
            keys: report.keys.iter().map(ToString::to_string).collect(),
            notes: report.notes.clone(),
            fault,
        }
    }
}

pub(super) fn run(verb: Audit, context: &Context) -> Result<(), CliError> {
    match verb {
        Audit::Verify(args) => run_verify(args, context),
        Audit::Checkpoint(args) => checkpoint(&record_dir(args.dir, context)),
        Audit::Key(args) => key(&args.dir.unwrap_or_else(|| context.places.state_dir_or_default()), context),
    }
}

/// The record's directory; a state directory is as good.
pub(super) fn record_dir(given: Option<PathBuf>, context: &Context) -> PathBuf {
    let dir = given.unwrap_or_else(|| audit::dir_of(&context.places.state_dir_or_default()));
    if audit::dir_of(&dir).is_dir() { audit::dir_of(&dir) } else { dir }
}

/// No record there.
pub(super) fn no_record(dir: &Path) -> CliError {
    CliError::new(Kind::NotFound, format!("there is no record in {}", dir.display()))
        .hint("a gateway keeps it in /var/lib/jvpn/audit, a client in /var/lib/jvpn/client-NAME/audit")
}

fn run_verify(args: VerifyArgs, context: &Context) -> Result<(), CliError> {
    let exported = exported(&args.checkpoint)?;
    let files = args.paths.iter().all(|path| path.is_file()) && !args.paths.is_empty();
    let segments = match args.paths.as_slice() {
        paths if files => paths.to_vec(),
        [] | [_] => {
            let dir = record_dir(args.paths.into_iter().next(), context);
            let segments = segments_of(&dir)?;
            // That it is gone is worth more than a missing file when somebody holds a checkpoint of it.
            if segments.is_empty() && exported.is_empty() {
                return Err(no_record(&dir));
            }
            segments
        }
        _ => return Err(CliError::usage("give one directory, or files")),
    };
    let report = verify(&Wanted { segments, keys: args.key, exported, partial: args.partial })?;
    if context.json {
        output::value(&Envelope::from(Verified::from(&report)))?;
    } else {
        output::data(&verdict(&report))?;
    }
    if report.is_intact() { Ok(()) } else { Err(CliError::new(Kind::Unhealthy, "the record does not hold")) }
}

/// The lines of files of checkpoints.
fn exported(files: &[PathBuf]) -> Result<Vec<(PathBuf, String)>, CliError> {
    let mut lines = Vec::new();
    for file in files {
        let text = if file == Path::new("-") {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(file)
        };
        let text = text.map_err(|error| CliError::io(&file.display().to_string(), &error))?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if Checkpoint::read(line).is_none() {
                let text = format!("{}: a line of it is no checkpoint", file.display());
                return Err(CliError::usage(text).hint("it holds what `jvpn-ctl audit checkpoint` printed, one a line"));
            }
            lines.push((file.clone(), line.to_owned()));
        }
        if text.trim().is_empty() {
            return Err(CliError::usage(format!("{}: it holds no checkpoint", file.display())));
        }
    }
    Ok(lines)
}

fn verdict(report: &Report) -> String {
    let mark = if report.is_intact() {
        output::styled(output::GOOD, "the record holds")
    } else {
        output::styled(output::BAD, "THE RECORD DOES NOT HOLD")
    };
    let span = match (report.first, report.last) {
        (Some(first), Some(last)) => {
            format!("{} records, {first} to {last}, {}", report.records, output::bytes(report.bytes))
        }
        _ => "no record".to_owned(),
    };
    let signed = match report.covered {
        Some(covered) => format!("{} checkpoints hold, the newest for record {covered}", report.checkpoints),
        None => "no checkpoint".to_owned(),
    };
    let mut lines = vec![format!("{mark}: {span}; {signed}")];
    lines.extend(report.fault.iter().map(|fault| format!("  {fault}")));
    lines.extend(report.keys.iter().map(|key| format!("  signed with {key}")));
    lines.extend(report.notes.iter().map(|note| format!("  note: {note}")));
    lines.join("\n")
}

fn checkpoint(dir: &Path) -> Result<(), CliError> {
    match audit::newest_checkpoint(dir)? {
        Some(line) => output::data(&line),
        None if segments_of(dir)?.is_empty() => Err(no_record(dir)),
        None => Err(CliError::new(Kind::NotFound, "the record has no checkpoint yet").hint("one is made within 10 s")),
    }
}

fn key(state_dir: &Path, context: &Context) -> Result<(), CliError> {
    let key = audit::public_key(state_dir).map_err(|error| match error {
        crate::config::key::KeyError::Missing(path) => {
            let text = format!("{} does not exist: no daemon has run with this state directory", path.display());
            CliError::new(Kind::NotFound, text)
        }
        error => error.into(),
    })?;
    if context.json {
        return output::document("jvpn.audit-key/1", serde_json::json!({ "key": key.to_string() }));
    }
    output::data(&key.to_string())
}
