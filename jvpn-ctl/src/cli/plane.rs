//! What the verbs about the kernel program share.
//!
//! Owns the errors for a build or a user that cannot load it. Must never load anything itself.

use super::Context;
use super::check::role_of;
use super::error::{CliError, Kind};
use crate::config::{GatewayConfig, Paths, RelayConfig, Role, XdpMode};
use crate::dataplane::attach::{AttachError, Program};
use crate::dataplane::object;
use crate::store::{DirLock, LockError};

/// Refuses where loading cannot work: a build without the program, or a user without the right.
pub(super) fn ready() -> Result<(), CliError> {
    match object() {
        Some(_) => privileged(),
        None => Err(AttachError::NoObject.into()),
    }
}

/// Refuses a user who is not root.
pub(super) fn privileged() -> Result<(), CliError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let again: Vec<_> = std::env::args().collect();
    Err(CliError::new(Kind::Privilege, "this needs root").hint(format!("sudo {}", again.join(" "))))
}

/// The gateway's configuration and places.
pub(super) fn gateway(context: &Context) -> Result<(GatewayConfig, Paths), CliError> {
    let file = context.places.config_of(Role::Gateway);
    let missing = !file.exists();
    let config = GatewayConfig::load(&file).map_err(|report| {
        let error = CliError::from(report);
        if missing { error.hint("make one: jvpn-ctl init gateway; or name it with --config FILE") } else { error }
    })?;
    let paths = context.places.resolve(Role::Gateway, &config.name, &config.paths);
    Ok((config, paths))
}

/// What these verbs need to know of a gateway or a relay.
pub(super) struct Node {
    pub(super) program: Program,
    pub(super) xdp: XdpMode,
    pub(super) max_sessions: u32,
    pub(super) paths: Paths,
}

/// The gateway or relay whose file is named.
pub(super) fn node(context: &Context) -> Result<Node, CliError> {
    let file = context.places.config_of(Role::Gateway);
    if role_of(&file) == Role::Relay {
        let config = RelayConfig::load(&file)?;
        let paths = context.places.resolve(Role::Relay, &config.name, &config.paths);
        let RelayConfig { xdp, max_sessions, .. } = config;
        return Ok(Node { program: Program::Relay, xdp, max_sessions, paths });
    }
    let (GatewayConfig { xdp, max_sessions, .. }, paths) = gateway(context)?;
    Ok(Node { program: Program::Gateway, xdp, max_sessions, paths })
}

/// Refuses while a daemon lives on these places; holds its lock meanwhile, so that none starts.
pub(super) fn unused(paths: &Paths) -> Result<DirLock, CliError> {
    DirLock::take(&paths.state_dir).map_err(|error| match error {
        LockError::Held { .. } => CliError::new(Kind::Refused, error.to_string()).hint("stop that process first"),
        LockError::Io { .. } => CliError::failed(error.to_string()),
    })
}
