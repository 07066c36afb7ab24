//! `[telemetry]`: who else is told, the same table in every file.
//!
//! Owns its keys, their defaults and what they may not say. Must never open anything.

use super::load::Reader;
use super::report::Problem;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use toml::Spanned;

/// Where systemd's journal takes datagrams.
const JOURNALD: &str = "/run/systemd/journal/socket";

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTelemetry {
    #[schemars(with = "Option<String>")]
    metrics: Option<Spanned<String>>,
    journald: Option<bool>,
    #[schemars(with = "Option<String>")]
    journald_socket: Option<Spanned<String>>,
    #[schemars(with = "Option<String>")]
    syslog: Option<Spanned<String>>,
}

/// Who is told, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// Loopback address on which metrics are answered over TCP.
    pub metrics: Option<SocketAddr>,
    /// Socket of the journal that gets the events.
    pub journald: Option<PathBuf>,
    /// Where syslog messages of the events go.
    pub syslog: Option<Syslog>,
}

/// Where syslog messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Syslog {
    /// A datagram socket of this host.
    Unix(PathBuf),
    /// A datagram each.
    Udp(SocketAddr),
}

impl FromStr for Syslog {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("unix", _)) => Err("the path of a socket begins with `/`".into()),
            Some(("udp", address)) => {
                let parsed: Result<SocketAddr, _> = address.parse();
                let usable = parsed.ok().filter(|at| at.port() != 0 && !at.ip().is_unspecified());
                usable.map(Self::Udp).ok_or_else(|| format!("`{address}` is no address with a port"))
            }
            _ => Err("it begins with neither `unix:` nor `udp:`".into()),
        }
    }
}

/// The table of a file.
pub(super) fn read(reader: &mut Reader<'_>, raw: &RawTelemetry) -> TelemetryConfig {
    let metrics = raw.metrics.as_ref().and_then(|value| loopback(reader, value));
    let socket = raw.journald_socket.as_ref().map_or_else(|| JOURNALD.into(), |path| reader.path(path));
    let journald = raw.journald.unwrap_or(false).then_some(socket);
    let syslog = raw
        .syslog
        .as_ref()
        .and_then(|value| reader.parsed("syslog", value, "\"unix:/dev/log\" or \"udp:192.0.2.9:514\""));
    TelemetryConfig { metrics, journald, syslog }
}

fn loopback(reader: &mut Reader<'_>, value: &Spanned<String>) -> Option<SocketAddr> {
    let at: SocketAddr = reader.parsed("metrics", value, "\"127.0.0.1:9586\" or \"[::1]:9586\"")?;
    let wrong = if at.port() == 0 {
        "has no port"
    } else if !at.ip().to_canonical().is_loopback() {
        "is no loopback address"
    } else {
        return Some(at);
    };
    let mark = reader.source.mark(value.span(), "127.0.0.1 or [::1], and a port");
    let problem = Problem::at(format!("`metrics` {wrong}"), mark);
    reader.report.push(
        problem.hint(
            "metrics are not encrypted and nobody is asked who reads them; let a collector on this host fetch them",
        ),
    );
    None
}
