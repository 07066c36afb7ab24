//! Looking into the kernel's maps from outside: a picture of all of them, what people are shown of it, and what packets
//! would meet in it.
//!
//! ```text
//! pins ── live ──► Picture ──┬──► view (tables, JSON)
//!                   │  ▲     └──► replay ◄── capture (pcap)
//!                   ▼  │            └──► verdicts
//!                  dump (a file)
//! ```
//!
//! Owns [`Picture`]. Reads pins as root and nothing else: no daemon is asked, and what is read is never written back.

pub mod capture;
pub mod dump;
pub mod follow;
pub mod live;
pub mod model;
mod picture;
pub mod replay;
pub mod view;

pub use picture::{Picture, Secrets};

/// Every form of this module with its JSON schema, for the committed files.
#[must_use]
pub fn schemas() -> Vec<(&'static str, schemars::Schema)> {
    use crate::api::model::{Body as _, Envelope};
    vec![(model::Maps::SCHEMA, schemars::schema_for!(Envelope<model::Maps>))]
}
