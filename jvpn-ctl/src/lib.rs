//! Everything that touches the world: configuration, command line, store, record, API, data plane, event loops.
//!
//! Owns effects. Must never decide what happens to a session: `jvpn_common` does.

pub mod config;
pub mod store;
