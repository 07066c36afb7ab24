//! `genpsk`: a fresh pre-shared key.
//!
//! Owns printing it, once. Must never log it.

use super::error::CliError;
use super::output;
use crate::runtime::entropy::System;
use jvpn_common::secret::PresharedKey;

/// Print a fresh pre-shared key
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args) -> Result<(), CliError> {
    output::data(&PresharedKey::generate(&mut System).to_text())
}
