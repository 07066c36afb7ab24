//! `load`: put the kernel program on an interface.
//!
//! Owns the arguments. What is done, and in which order, is the data plane's plan.

use super::error::CliError;
use super::{Context, plane};

/// Create the maps, attach the kernel program to an interface and pin both
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The interface clients arrive on
    interface: String,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Stay in the foreground without pinning; if this process ends within the time, in any way, it is detached
    #[arg(long, value_name = "TIME")]
    confirm_within: Option<humantime::Duration>,
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    plane::ready()?;
    let (_config, _paths) = plane::gateway(context)?;
    Err(CliError::failed(format!("this build cannot load onto {} ({:?}, {:?})", args.interface, args.dry_run, args.confirm_within)))
}
