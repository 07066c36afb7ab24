//! `cleanup`: remove whatever a killed process left.
//!
//! Owns the list of what can be left: sockets nobody listens on, the firewall table, pins. Must never touch what a
//! living process uses: its lock is asked first.

use super::error::CliError;
use super::{Context, output, plane};
use crate::config::{ClientConfig, GatewayConfig, Paths, Role};
use crate::dataplane::attach;
use crate::dataplane::pins::Pins;
use crate::runtime::firewall;

/// Remove what a killed gateway or client left behind: socket, firewall table, kernel program and maps
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args, context: &Context) -> Result<(), CliError> {
    plane::privileged()?;
    let mut done = Vec::new();
    let (role, paths, tun) = place(context)?;
    let _lock = plane::unused(&paths)?;
    let dead = std::os::unix::net::UnixStream::connect(&paths.socket).is_err();
    if dead && std::fs::remove_file(&paths.socket).is_ok() {
        done.push(format!("socket {}", paths.socket.display()));
    }
    if role == Role::Gateway {
        if firewall::remove_left(&tun) {
            done.push(format!("nftables table {}", firewall::table(&tun)));
        }
        let pins = Pins::below(&paths.pin_root);
        if pins.root().exists() {
            let interfaces = attach::cleanup(&pins)?;
            done.extend(interfaces.iter().map(|interface| format!("kernel program on {interface}")));
            done.push(format!("pins in {}", paths.pin_root.display()));
        }
    }
    if context.json {
        return output::document("jvpn.cleanup/1", serde_json::json!({ "removed": done }));
    }
    if done.is_empty() {
        output::talk("nothing was left");
    }
    done.iter().try_for_each(|what| output::data(&format!("removed {what}")))
}

/// Places of the configured instance: the gateway's, or the client's when that file is named or is all there is.
fn place(context: &Context) -> Result<(Role, Paths, String), CliError> {
    let named = context.places.config.as_ref();
    let gateway = context.places.config_of(Role::Gateway);
    let client = context.places.config_of(Role::Client);
    let as_client = if named.is_some() {
        super::check::role_of(&client) == Role::Client
    } else {
        !gateway.exists() && client.exists()
    };
    if as_client {
        let config = ClientConfig::load(&client)?;
        return Ok((Role::Client, context.places.resolve(Role::Client, &config.name, &config.paths), config.tun));
    }
    let config = GatewayConfig::load(&gateway)?;
    Ok((Role::Gateway, context.places.resolve(Role::Gateway, &config.name, &config.paths), config.tun))
}
