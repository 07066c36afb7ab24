//! What a gateway, a relay and a client are told: files, keys, places, and what is wrong with them.
//!
//! Owns the configuration files' meaning and their errors. Must never start anything.

mod claims;
pub mod client;
pub mod diff;
pub mod emergency;
pub mod gateway;
pub mod key;
mod load;
pub mod paths;
pub mod policy;
pub mod relay;
pub mod report;
pub mod scenario;
pub mod telemetry;
pub mod template;
#[cfg(test)]
mod tests;

pub use client::{ClientConfig, ClientKeys, KeySource, TransportClass, TransportConfig, Via};
pub use diff::Diff;
pub use emergency::{Emergency, EmergencyError, Frozen};
pub use gateway::{GatewayConfig, GatewayKeys, PeerConfig, XdpMode};
pub(crate) use load::check_name;
pub use paths::{FilePaths, Paths, Places, Role};
pub use relay::{OwnerPeer, RelayConfig, RelayPeer};
pub use report::Report;
pub use telemetry::{Syslog, TelemetryConfig};

/// Name of the TUN device unless the file gives another one.
pub const DEFAULT_TUN: &str = "jvpn0";
