//! `peer`: who may connect to this gateway.
//!
//! Owns telling a running gateway that the peers changed. Must never change the gateway's own file: peers it made
//! live one a file in `peers.d`.

mod add;
mod allocate;
mod list;
mod rm;

use super::Context;
use super::error::{CliError, Kind};
use super::output;
use crate::api::Client;
use crate::api::model::{Envelope, Reloaded};
use crate::config::{GatewayConfig, Role};
use std::path::PathBuf;

/// Add, remove and list the peers of a gateway
#[derive(Debug, clap::Subcommand)]
pub(super) enum Peer {
    Add(add::Args),
    Rm(rm::Args),
    List(list::Args),
}

pub(super) fn run(verb: Peer, context: &Context) -> Result<(), CliError> {
    match verb {
        Peer::Add(args) => add::run(args, context),
        Peer::Rm(args) => rm::run(args, context),
        Peer::List(args) => list::run(args, context),
    }
}

/// The gateway's configuration and where it is.
pub(super) fn gateway(context: &Context) -> Result<(GatewayConfig, PathBuf), CliError> {
    let path = context.places.config_of(Role::Gateway);
    let missing = !path.exists();
    let config = GatewayConfig::load(&path).map_err(|report| {
        let error = CliError::from(report);
        if missing { error.hint("make one: jvpn-ctl init gateway") } else { error }
    })?;
    Ok((config, path))
}

/// Tells the running gateway, if there is one, to read its peers again.
fn tell(context: &Context, config: &GatewayConfig) -> Result<(), CliError> {
    let paths = context.places.resolve(Role::Gateway, &config.name, &config.paths);
    let client = Client::at(context.socket.as_ref().unwrap_or(&paths.socket));
    let told: Result<Envelope<Reloaded>, CliError> = context.wait(async { Ok(client.post("/v1/peers/reload").await?) });
    match told {
        Ok(_) => Ok(()),
        Err(error) if error.kind == Kind::NoDaemon => {
            output::talk("no gateway is running; this counts from its next start");
            Ok(())
        }
        Err(error) => Err(error.hint("the files are changed; start the gateway again to use them")),
    }
}
