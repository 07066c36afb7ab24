//! `check`: whether a configuration could be used.
//!
//! Owns the order: the file, what it names, then its keys. Must never change anything.

use super::error::CliError;
use super::{Context, output};
use crate::config::{ClientConfig, GatewayConfig, RelayConfig, Role};
use std::path::{Path, PathBuf};

/// Read a configuration and its key files, and show what is wrong with the line and column
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// gateway.toml, relay.toml or client.toml [default: the gateway's]
    file: Option<PathBuf>,
    /// Do not read the key files, which only their owner can
    #[arg(long)]
    without_keys: bool,
}

/// What was found.
#[derive(Debug, serde::Serialize)]
struct Checked {
    schema: &'static str,
    file: PathBuf,
    role: Role,
    name: String,
    peers: usize,
    warnings: Vec<String>,
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let file = args.file.unwrap_or_else(|| context.places.config_of(Role::Gateway));
    let role = role_of(&file);
    let checked = match role {
        Role::Gateway => {
            let config = GatewayConfig::load(&file)?;
            if !args.without_keys {
                config.keys()?;
            }
            Checked { schema: SCHEMA, file, role, name: config.name, peers: config.peers.len(), warnings: Vec::new() }
        }
        Role::Relay => {
            let config = RelayConfig::load(&file)?;
            if !args.without_keys {
                config.key()?;
            }
            let peers = config.owners.len();
            Checked { schema: SCHEMA, file, role, name: config.name, peers, warnings: Vec::new() }
        }
        Role::Client => {
            let config = ClientConfig::load(&file)?;
            if !args.without_keys {
                config.keys()?;
            }
            Checked { schema: SCHEMA, file, role, name: config.name, peers: 0, warnings: config.warnings }
        }
    };
    if context.json {
        return output::value(&checked);
    }
    for warning in &checked.warnings {
        output::talk(&format!("{}: {warning}", output::styled(output::MIDDLING, "warning")));
    }
    let what = match checked.role {
        Role::Gateway => format!("gateway `{}`, {} peers", checked.name, checked.peers),
        Role::Relay => format!("relay `{}`, {} owners", checked.name, checked.peers),
        Role::Client => format!("client `{}`", checked.name),
    };
    output::data(&format!("{}: {} ({what})", checked.file.display(), output::styled(output::GOOD, "fine")))
}

const SCHEMA: &str = "jvpn.check/1";

/// A client's file has a table `[client]`, a relay's `[relay]`; everything else is read as a gateway's, whose errors then say what is missing.
pub(super) fn role_of(file: &Path) -> Role {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let has = |table: &str| text.lines().any(|line| line.split('#').next().unwrap_or_default().trim() == table);
    if has("[client]") {
        Role::Client
    } else if has("[relay]") {
        Role::Relay
    } else {
        Role::Gateway
    }
}
