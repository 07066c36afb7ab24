//! `genkey`: a fresh private key.
//!
//! Owns printing it, once. Must never log it.

use super::error::CliError;
use super::output;
use crate::runtime::entropy::System;
use jvpn_common::secret::PrivateKey;

/// Print a fresh private key, the same text as `wg genkey` makes
///
/// Redirect it into a file of your own: (umask 077; jvpn-ctl genkey > gateway.key)
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args) -> Result<(), CliError> {
    output::data(&PrivateKey::generate(&mut System).to_text())
}
