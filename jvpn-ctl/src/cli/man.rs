//! `man`: the manual pages.
//!
//! Owns nothing: they are generated from the command line itself.

use super::error::CliError;
use super::output;
use std::path::PathBuf;

/// Print the manual page, or write one a verb into a directory
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write jvpn-ctl.1, jvpn-ctl-serve.1 and so on into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<(), CliError> {
    let command = super::command();
    if let Some(dir) = args.out {
        let written = std::fs::create_dir_all(&dir).and_then(|()| clap_mangen::generate_to(command, &dir));
        return written.map_err(|error| CliError::io(&dir.display().to_string(), &error));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(|error| CliError::failed(error.to_string()))?;
    output::data(String::from_utf8_lossy(&page).trim_end())
}
