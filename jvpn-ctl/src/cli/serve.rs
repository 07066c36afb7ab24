//! `serve`: the gateway, or a relay.
//!
//! Owns reading what it needs before anything is started. Must never run two on one state directory: the store's
//! lock names the holder.

use super::Context;
use super::check::role_of;
use super::error::CliError;
use crate::config::{GatewayConfig, RelayConfig, Role};
use crate::observe;

/// Run the gateway, or with a relay's file a relay, in the foreground
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Detach the kernel program on exit instead of leaving it for the next start
    #[arg(long)]
    detach_on_exit: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    observe::start_log().map_err(CliError::usage)?;
    let path = context.places.config_of(Role::Gateway);
    if role_of(&path) == Role::Relay {
        let config = RelayConfig::load(&path)?;
        let paths = context.places.resolve(Role::Relay, &config.name, &config.paths);
        return context.wait(async { Ok(crate::runtime::relay::run(config, paths, args.detach_on_exit).await?) });
    }
    let missing = !path.exists();
    let config = GatewayConfig::load(&path).map_err(|report| {
        let error = CliError::from(report);
        if missing { error.hint("make one: jvpn-ctl init gateway") } else { error }
    })?;
    let paths = context.places.resolve(Role::Gateway, &config.name, &config.paths);
    context.wait(async { Ok(crate::runtime::gateway::run(config, paths, args.detach_on_exit).await?) })
}
