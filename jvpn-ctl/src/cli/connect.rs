//! `connect`: the client.
//!
//! Owns reading what it needs before anything is started.

use super::Context;
use super::error::CliError;
use super::output;
use crate::config::{ClientConfig, Role};
use crate::observe;

/// Run the client in the foreground
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args, context: &Context) -> Result<(), CliError> {
    observe::start_log().map_err(CliError::usage)?;
    let path = context.places.config_of(Role::Client);
    let missing = !path.exists();
    let config = ClientConfig::load(&path).map_err(|report| {
        let error = CliError::from(report);
        if missing { error.hint("get one from the gateway: jvpn-ctl peer add NAME --out FILE") } else { error }
    })?;
    for warning in &config.warnings {
        output::talk(&format!("{}: {warning}", output::styled(output::MIDDLING, "warning")));
    }
    let paths = context.places.resolve(Role::Client, &config.name, &config.paths);
    context.wait(async { Ok(crate::runtime::client::run(config, paths).await?) })
}
