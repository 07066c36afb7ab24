//! The step `rows`: owns where the runs of a test note which rows of the transition table they recorded, and the look at it
//! in the end. Must never pass on what an earlier run noted.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::{paths, run};

/// The file of a step; `tests/src/rows.rs` adds to it.
const VARIABLE: &str = "JVPN_ROWS";

fn directory() -> PathBuf {
    paths::target().join("tmp/rows")
}

/// Forgets what every step noted.
pub(super) fn forget() -> anyhow::Result<()> {
    absent(fs::remove_dir_all(directory()), &directory())
}

/// An empty place for what a step notes, as a variable for it.
pub(super) fn of(step: &str) -> anyhow::Result<(&'static str, String)> {
    let file = directory().join(step);
    fs::create_dir_all(directory()).with_context(|| directory().display().to_string())?;
    absent(fs::remove_file(&file), &file)?;
    Ok((VARIABLE, file.display().to_string()))
}

/// What is noted may be root's; the directory is not.
fn absent(removed: std::io::Result<()>, path: &Path) -> anyhow::Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| path.display().to_string()),
        _ => Ok(()),
    }
}

/// The table, and an error when a row has no run.
pub(super) fn run() -> anyhow::Result<()> {
    let mut command = Command::new(paths::binary("jvpn-lab"));
    command.arg("rows").arg(directory());
    run::run(command)
}
