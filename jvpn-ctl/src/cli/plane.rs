//! What the verbs about the kernel program share.
//!
//! Owns the errors for a build, a user or a host that cannot load it. Must never load anything itself.

use super::Context;
use super::error::{CliError, Kind};
use crate::config::{GatewayConfig, Paths, Role};

/// Refuses where loading cannot work: a build without the program, or a user without the right.
pub(super) fn ready() -> Result<(), CliError> {
    if env!("JVPN_EBPF_EMBEDDED") != "1" {
        let error = CliError::new(Kind::Privilege, "built without the kernel program");
        return Err(error.hint("cargo xtask build"));
    }
    privileged()
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
    let config = GatewayConfig::load(&context.places.config_of(Role::Gateway))?;
    let paths = context.places.resolve(Role::Gateway, &config.name, &config.paths);
    Ok((config, paths))
}
