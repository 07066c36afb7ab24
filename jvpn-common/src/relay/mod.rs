//! The relay: what an owner tells it, and what both make of it. No sockets, no maps, no clock of its own.
//!
//! Owns the stream's vocabulary and both ends' bookkeeping. A relay is never trusted with state: its maps are a
//! cache of what the owner committed, under a lease. The single-active invariant is the owner's word.
//!
//! ```text
//! owner: commit ─► picture ─► hub ── Bind ──► hold ─► map operations     relay
//!                              ▲ └── Lease ─►
//!                              └──── Ack ────┘    first the relay's word, then the owner's, then the client's ACK
//! ```
//!
//! A stream that breaks costs nothing at once: the relay keeps what it has until its lease ends. A new one begins
//! with everything the owner wants held, and ends with [`ToRelay::Complete`]: a reconcile, not a replay.

mod frame;
mod hold;
mod hub;
mod picture;

pub use frame::{Held, ToOwner, ToRelay, Way, Welcome};
pub use hold::{Change, Hold};
pub use hub::{Begin, Frames, Hub, Settled};
pub use picture::Gateways;

#[cfg(test)]
mod tests;
