//! Everything that touches the world: configuration, sockets, TUN, kernel maps, store, record, API, command line.
//!
//! Owns all input and output of Jumping VPN; what is decided is decided in `jvpn_common`. Must never decide
//! what a session does.

pub mod api;
pub mod audit;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod inspect;
pub mod observe;
pub mod runtime;
pub mod store;
pub mod tunnel;

/// What this build has for tests, as `--version` and the metrics say it; a release has `none`.
pub const FEATURES: &str = match (cfg!(feature = "lab-clock"), jvpn_common::sabotage::POSSIBLE) {
    (false, false) => "none",
    (true, false) => "lab-clock",
    (false, true) => "sabotage",
    (true, true) => "lab-clock, sabotage",
};
