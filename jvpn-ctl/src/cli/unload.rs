//! `unload`: take the kernel program off an interface.
//!
//! Owns the arguments, and refusing while a gateway lives.

use super::error::CliError;
use super::{Context, plane};

/// Detach the kernel program from an interface and remove its pins
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The interface
    interface: String,
    /// Also while a gateway is running; its sessions then go through the worker alone
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    plane::privileged()?;
    let (_config, _paths) = plane::gateway(context)?;
    Err(CliError::failed(format!("this build cannot unload from {} ({:?})", args.interface, args.force)))
}
