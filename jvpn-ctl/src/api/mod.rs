//! The API: JSON over HTTP on a Unix socket, the same for `curl --unix-socket` and for our own verbs.
//!
//! Owns the pages, their forms, and who may ask. Must never decide anything about a session: questions go to
//! the event loop as [`Request`]s and come back as the forms of [`model`].

pub mod client;
mod metrics;
pub mod model;
mod pages;
mod request;
mod server;
mod sessions;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientError};
pub(crate) use pages::Pages;
pub use request::{Caller, REQUESTS_MAX, Refused, Reply, Request, Wish};
pub use server::{Handle, serve};
pub(crate) use sessions::PAGE;
pub(crate) use socket::group_number;
pub use socket::{Socket, SocketError};

/// Reads `--since`: a time (RFC 3339), or how long ago (`10m`).
pub(crate) fn parse_since(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is neither a time (2026-01-02T03:04:05Z) nor a duration (10m)"))?;
    let ago = jiff::SignedDuration::try_from(ago).map_err(|error| error.to_string())?;
    jiff::Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}
