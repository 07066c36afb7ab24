//! What others see of a daemon while it runs: the log on standard error, metrics, events in forms of other systems.
//!
//! Owns the set-up of the log, and what is told of a record once it was written. Lossy by design: it counts what it lost and
//! says so, and delays nothing. Must never carry a secret, and never replaces the audit record.

pub mod counted;
pub mod fanout;
mod journald;
pub mod metrics;
pub mod ocsf;
mod said;
pub mod sink;
mod syslog;
pub mod table;

use crate::runtime::clock;
use counted::Counted;
use fanout::{FanOut, Sink};
use jvpn_common::event::Record;
use jvpn_common::time::Instant;
use metrics::Exposition;
use std::io::IsTerminal as _;
use std::sync::Arc;
use table::Metric;
use tracing_subscriber::EnvFilter;

/// What is told of the records of one daemon.
#[derive(Debug)]
pub struct Telemetry {
    counted: Counted,
    fan: Arc<FanOut>,
    started: Instant,
    /// Wall clock, nanoseconds since 1970.
    started_wall: u64,
}

impl Default for Telemetry {
    fn default() -> Self {
        let (started, started_wall) = (clock::boot(), clock::wall());
        Self { counted: Counted::default(), fan: Arc::default(), started, started_wall }
    }
}

impl Telemetry {
    /// Tells of a record that was written, with its line.
    pub(crate) fn told(&self, record: &Record, line: &str) {
        self.counted.count(record);
        self.fan.offer(line);
    }

    /// Whoever hears of it.
    #[must_use]
    pub const fn fan(&self) -> &Arc<FanOut> {
        &self.fan
    }

    /// Adds what is the same for every role.
    pub(crate) fn expose(&self, to: &mut Exposition) {
        to.level(Metric::Start, &[], self.started_wall as f64 / 1e9);
        to.level(Metric::Uptime, &[], clock::boot().since(self.started).as_secs_f64());
        to.counts(&self.counted.now());
        for sink in Sink::ALL {
            to.sink(sink, self.fan.sent(sink), self.fan.dropped(sink));
        }
    }
}

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

#[cfg(test)]
mod tests;
