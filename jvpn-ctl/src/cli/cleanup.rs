//! `cleanup`: remove whatever a killed process left.
//!
//! Owns the list of what can be left: sockets nobody listens on, the firewall table, pins. Must never touch what a
//! living process uses: its lock is asked first.

use super::error::CliError;
use super::{Context, output, plane};
use crate::config::{ClientConfig, DEFAULT_TUN, FilePaths, Paths, RelayConfig, Role};
use crate::dataplane::attach;
use crate::dataplane::pins::Pins;
use crate::runtime::firewall;

/// Remove what a killed gateway or client left behind: socket, firewall table, kernel program and maps
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args, context: &Context) -> Result<(), CliError> {
    plane::privileged()?;
    let mut done = Vec::new();
    for instance in instances(context)? {
        instance.clean(&mut done)?;
    }
    if context.json {
        return output::document("jvpn.cleanup/1", serde_json::json!({ "removed": done }));
    }
    if done.is_empty() {
        output::talk("nothing was left");
    }
    done.iter().try_for_each(|what| output::data(&format!("removed {what}")))
}

/// One gateway or client of this host, by its places.
struct Instance {
    role: Role,
    paths: Paths,
    tun: String,
}

impl Instance {
    fn clean(&self, done: &mut Vec<String>) -> Result<(), CliError> {
        // Without its directory it never ran; asking for the lock would make one.
        let _lock = if self.paths.state_dir.exists() { Some(plane::unused(&self.paths)?) } else { None };
        let socket = &self.paths.socket;
        let dead = std::os::unix::net::UnixStream::connect(socket).is_err();
        if dead && std::fs::remove_file(socket).is_ok() {
            done.push(format!("socket {}", socket.display()));
        }
        if self.role == Role::Client {
            // Its device, with all addresses and routes over it, went with its process.
            return Ok(());
        }
        if self.role == Role::Gateway && firewall::remove_left(&self.tun) {
            done.push(format!("nftables table {}", firewall::table(&self.tun)));
        }
        let pins = Pins::below(&self.paths.pin_root);
        if pins.root().exists() {
            let interfaces = attach::cleanup(&pins)?;
            done.extend(interfaces.iter().map(|interface| format!("kernel program on {interface}")));
            done.push(format!("pins in {}", self.paths.pin_root.display()));
        }
        Ok(())
    }
}

/// The instance whose configuration is named; else every one that has a configuration in its usual place; on a host
/// where these are gone already, what stands in the usual places.
fn instances(context: &Context) -> Result<Vec<Instance>, CliError> {
    let (gateway, client) = (context.places.config_of(Role::Gateway), context.places.config_of(Role::Client));
    if context.places.config.is_some() {
        let one = match super::check::role_of(&client) {
            Role::Client => of_client(context),
            Role::Relay => of_relay(context),
            Role::Gateway => of_gateway(context),
        };
        return Ok(vec![one?]);
    }
    let mut found = Vec::new();
    if client.exists() {
        found.push(of_client(context)?);
    }
    if gateway.exists() {
        found.push(of_gateway(context)?);
    }
    Ok(if found.is_empty() { unconfigured(context) } else { found })
}

fn of_gateway(context: &Context) -> Result<Instance, CliError> {
    let (config, paths) = plane::gateway(context)?;
    Ok(Instance { role: Role::Gateway, paths, tun: config.tun })
}

fn of_relay(context: &Context) -> Result<Instance, CliError> {
    let config = RelayConfig::load(&context.places.config_of(Role::Relay))?;
    let paths = context.places.resolve(Role::Relay, &config.name, &config.paths);
    Ok(Instance { role: Role::Relay, paths, tun: DEFAULT_TUN.to_owned() })
}

fn of_client(context: &Context) -> Result<Instance, CliError> {
    let config = ClientConfig::load(&context.places.config_of(Role::Client))?;
    let paths = context.places.resolve(Role::Client, &config.name, &config.paths);
    Ok(Instance { role: Role::Client, paths, tun: config.tun })
}

fn unconfigured(context: &Context) -> Vec<Instance> {
    let instance = |role, name: &str| {
        let paths = context.places.resolve(role, name, &FilePaths::default());
        Instance { role, paths, tun: DEFAULT_TUN.to_owned() }
    };
    let run_dir = context.places.run_dir_or_default();
    let files = std::fs::read_dir(run_dir).into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let clients = names.filter_map(|name| Some(name.strip_prefix("client-")?.strip_suffix(".sock")?.to_owned()));
    std::iter::once(instance(Role::Gateway, "")).chain(clients.map(|name| instance(Role::Client, &name))).collect()
}
