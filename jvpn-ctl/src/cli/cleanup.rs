//! `cleanup`: remove whatever a killed process left.
//!
//! Owns the list of what can be left: sockets nobody listens on, the firewall table, pins. Must never touch what a
//! living process uses: its lock is asked first.

use super::error::{CliError, Kind};
use super::{Context, output, plane};
use crate::config::{ClientConfig, GatewayConfig, Paths, Role};
use crate::runtime::firewall;
use crate::store::{DirLock, LockError};

/// Remove what a killed gateway or client left behind: socket, firewall table, pins
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args, context: &Context) -> Result<(), CliError> {
    plane::privileged()?;
    let mut done = Vec::new();
    let (paths, tun) = place(context)?;
    let _lock = DirLock::take(&paths.state_dir).map_err(|error| match error {
        LockError::Held { .. } => CliError::new(Kind::Refused, error.to_string()).hint("stop that process first"),
        LockError::Io { .. } => CliError::failed(error.to_string()),
    })?;
    let dead = std::os::unix::net::UnixStream::connect(&paths.socket).is_err();
    if dead && std::fs::remove_file(&paths.socket).is_ok() {
        done.push(paths.socket.display().to_string());
    }
    if firewall::remove_left(&tun) {
        done.push(format!("nftables table {}", firewall::table(&tun)));
    }
    if context.json {
        return output::document("jvpn.cleanup/1", serde_json::json!({ "removed": done }));
    }
    if done.is_empty() {
        output::talk("nothing was left");
    }
    done.iter().try_for_each(|what| output::data(&format!("removed {what}")))
}

/// Places of the configured instance, gateway or client.
fn place(context: &Context) -> Result<(Paths, String), CliError> {
    let file = context.places.config_of(Role::Client);
    if let Ok(config) = ClientConfig::load(&file) {
        return Ok((context.places.resolve(Role::Client, &config.name, &config.paths), config.tun));
    }
    let config = GatewayConfig::load(&context.places.config_of(Role::Gateway))?;
    Ok((context.places.resolve(Role::Gateway, &config.name, &config.paths), config.tun))
}
