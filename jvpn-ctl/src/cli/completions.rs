//! `completions`: what a shell needs to complete our verbs.
//!
//! Owns nothing: it is generated from the command line itself.

use super::error::CliError;
use super::output;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which shell
    shell: clap_complete::Shell,
}

pub(super) fn run(args: Args) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "jvpn-ctl", &mut text);
    output::data(String::from_utf8_lossy(&text).trim_end())
}
