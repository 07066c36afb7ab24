//! `init`: commented configuration files with fresh keys.
//!
//! Owns the files' modes and what they are filled with. Must never overwrite anything.

use super::error::CliError;
use super::{Context, output};
use crate::api::group_number;
use crate::config::gateway::DEFAULT_PORT;
use crate::config::template::{self, ClientValues, GatewayValues, RelayValues};
use crate::config::{Role, check_name, key};
use crate::runtime::entropy::System;
use clap::ValueEnum;
use ipnet::IpNet;
use jvpn_common::secret::{PrivateKey, PublicKey};
use std::net::SocketAddr;
use std::path::Path;

/// Write a commented configuration with a fresh key; existing files are left alone
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What this host is to be
    role: Kind,
    /// Name of this node in records [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    /// gateway, relay: interface clients arrive on [default: the one with the default route]
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,
    /// gateway: its inner address with the prefix its peers live in [default: 10.77.0.1/24, fd77::1/64]
    #[arg(long = "address", value_name = "PREFIX")]
    addresses: Vec<IpNet>,
    /// gateway: UDP port
    #[arg(long, default_value_t = DEFAULT_PORT)]
    listen: u16,
    /// client, relay: the gateway's public key
    #[arg(long, value_name = "KEY")]
    gateway_key: Option<PublicKey>,
    /// client, relay: where the gateway answers
    #[arg(long = "endpoint", value_name = "ADDRESS:PORT")]
    endpoints: Vec<SocketAddr>,
    /// client: what goes through the tunnel [default: 10.77.0.0/24, fd77::/64]
    #[arg(long = "route", value_name = "PREFIX")]
    routes: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Gateway,
    Relay,
    Client,
}

/// What a client's file says until somebody fills it in; `check` then points at it.
const FILL_IN: &str = "the gateway's public key goes here";

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let name = args.name.clone().unwrap_or_else(host_name);
    check_name(&name)
        .map_err(|cause| CliError::usage(format!("the name `{name}` {cause}")).hint("give another one with --name"))?;
    let role = match args.role {
        Kind::Gateway => Role::Gateway,
        Kind::Relay => Role::Relay,
        Kind::Client => Role::Client,
    };
    let config = context.places.config_of(role);
    let dir = config.parent().unwrap_or_else(|| Path::new(""));
    let key_file = dir.join(match role {
        Role::Gateway => "gateway.key",
        Role::Relay => "relay.key",
        Role::Client => "client.key",
    });
    for path in [&config, &key_file] {
        if path.exists() {
            let exists = CliError::usage(format!("{} exists already; nothing was changed", path.display()));
            return Err(exists.hint("move it away, or give another place with --config FILE"));
        }
    }
    make_dir(dir)?;
    let private = PrivateKey::generate(&mut System);
    write(&key_file, &format!("{}\n", private.to_text().as_str()), 0o600)?;
    let text = match role {
        Role::Gateway => template::gateway(&gateway_values(&args, name, &key_file)),
        Role::Relay => template::relay(&relay_values(&args, name, &key_file)),
        Role::Client => template::client(&client_values(&args, name)).to_string(),
    };
    // Members of the group may read who the peers are; a client's file has nobody else to read it.
    write(&config, &text, if role == Role::Client { 0o600 } else { 0o640 })?;
    say(&args, context, &config, &key_file, &private.public())
}

fn say(args: &Args, context: &Context, config: &Path, key_file: &Path, public: &PublicKey) -> Result<(), CliError> {
    if context.json {
        let written = serde_json::json!({
            "config": config, "private_key_file": key_file, "public_key": public.to_string(),
        });
        return output::document("jvpn.init/1", written);
    }
    output::talk(&format!("wrote {} and {}", config.display(), key_file.display()));
    output::talk(&match args.role {
        Kind::Gateway => format!(
            "next: read it, then `jvpn-ctl peer add NAME --qr` and `jvpn-ctl serve --config {}`",
            config.display()
        ),
        Kind::Relay => format!(
            "next: fill in [[owner]], give its gateway a table [[relay]] with this key, then `jvpn-ctl serve --config {}`",
            config.display()
        ),
        Kind::Client if args.gateway_key.is_none() || args.endpoints.is_empty() => {
            format!("next: fill in `public_key` and `endpoints`, then `jvpn-ctl check {}`", config.display())
        }
        Kind::Client => format!("next, on the gateway: jvpn-ctl peer add NAME --public-key {public}"),
    });
    output::data(&public.to_string())
}

fn gateway_values(args: &Args, name: String, key_file: &Path) -> GatewayValues {
    let texts = |nets: &[IpNet]| nets.iter().map(IpNet::to_string).collect::<Vec<_>>();
    let default = || vec!["10.77.0.1/24".to_owned(), "fd77::1/64".to_owned()];
    GatewayValues {
        name,
        private_key_file: key_file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        interfaces: if args.interfaces.is_empty() { vec![default_interface()] } else { args.interfaces.clone() },
        addresses: if args.addresses.is_empty() { default() } else { texts(&args.addresses) },
        listen: args.listen,
    }
}

fn relay_values(args: &Args, name: String, key_file: &Path) -> RelayValues {
    let interfaces = if args.interfaces.is_empty() { vec![default_interface()] } else { args.interfaces.clone() };
    RelayValues {
        name,
        private_key_file: key_file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        interfaces,
        owner_key: args.gateway_key.map_or_else(|| FILL_IN.to_owned(), |key| key.to_string()),
        owner_address: args
            .endpoints
            .first()
            .map_or_else(|| format!("192.0.2.1:{DEFAULT_PORT}"), SocketAddr::to_string),
    }
}

fn client_values(args: &Args, name: String) -> ClientValues {
    let default = || vec!["10.77.0.0/24".to_owned(), "fd77::/64".to_owned()];
    let endpoints = args.endpoints.iter().map(SocketAddr::to_string).collect::<Vec<_>>();
    ClientValues {
        name,
        private_key: None,
        preshared_key: None,
        routes: if args.routes.is_empty() { default() } else { args.routes.iter().map(IpNet::to_string).collect() },
        public_key: args.gateway_key.map_or_else(|| FILL_IN.to_owned(), |key| key.to_string()),
        // TEST-NET-1: an address that answers nobody.
        endpoints: if endpoints.is_empty() { vec![format!("192.0.2.1:{DEFAULT_PORT}")] } else { endpoints },
    }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// The interface of the IPv4 default route, from the kernel's table.
fn default_interface() -> String {
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (interface, destination) = (fields.next()?, fields.next()?);
        (destination == "00000000").then(|| interface.to_owned())
    });
    default.unwrap_or_else(|| "eth0".to_owned())
}

/// Makes a directory other users cannot list; the group `jvpn`, where it exists, can.
pub(super) fn make_dir(dir: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::DirBuilderExt as _;
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(dir);
    made.map_err(|error| CliError::io(&dir.display().to_string(), &error))?;
    share(dir);
    Ok(())
}

/// Writes a new file; one that the group may read is given to it.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    key::write_new(path, text, mode).map_err(|error| CliError::io(&path.display().to_string(), &error))?;
    if mode & 0o040 != 0 {
        share(path);
    }
    Ok(())
}

/// Gives a file to the group `jvpn`. Without the group, or without the right to, it stays with its owner's group.
fn share(path: &Path) {
    if let Some(group) = group_number() {
        let _ = std::os::unix::fs::chown(path, None, Some(group));
    }
}
