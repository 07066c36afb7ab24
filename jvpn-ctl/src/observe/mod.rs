//! What others see of a daemon while it runs: the log on standard error, events in forms of other systems.
//!
//! Owns the set-up of the log. Must never carry a secret, and never replaces the audit record.

pub mod ocsf;

use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Starts the log: INFO and above, or what `JVPN_LOG` says (`debug`, `jvpn_ctl::runtime=trace`). Under systemd
/// lines carry no time, since the journal adds its own.
///
/// # Errors
/// `JVPN_LOG` cannot be read.
pub fn start_log() -> Result<(), String> {
    let wanted = std::env::var("JVPN_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&wanted).map_err(|error| format!("JVPN_LOG=`{wanted}`: {error}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let log = log.with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    // Started twice only by tests, which share one process.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() { log.without_time().try_init() } else { log.try_init() };
    Ok(())
}
