//! `pubkey`: the public half of a private key.
//!
//! Owns reading it from standard input, so that it stands in no command line. Must never print it back.

use super::error::CliError;
use super::output;
use jvpn_common::secret::PrivateKey;
use std::io::Read as _;
use zeroize::Zeroizing;

/// Read a private key from standard input, print its public key
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Bytes of standard input that are read; a key has 45.
const INPUT_MAX: u64 = 256;

pub(super) fn run(_: Args) -> Result<(), CliError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(512));
    let read = std::io::stdin().lock().take(INPUT_MAX).read_to_end(&mut bytes);
    read.map_err(|error| CliError::failed(format!("standard input: {error}")))?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| CliError::usage("standard input holds no key: it is not text"))?;
    let key: PrivateKey = text.trim().parse().map_err(|error| CliError::usage(format!("standard input: {error}")))?;
    output::data(&key.public().to_string())
}
