//! The tunnel worker: AEAD between UDP sockets and a TUN device, in batches, on a thread of its own.
//!
//! The way of a packet from outside: [`udp`] receives a batch → [`inbound`] walks it, asks the [`role`],
//! opens in place → [`inner`] checks → [`coalesce`] merges → [`tun`] writes. From inside: [`tun`] reads a
//! super-packet → [`inner`] checks → the [`role`] names the route → [`split`] → [`outbound`] seals into one
//! buffer → [`batch`] sends it with one call.
//!
//! It owns bytes under way. It must never decide where a session is bound (the role reads that), read a clock
//! or allocate per packet, or log per packet: it counts.

mod aead;
mod batch;
mod checksum;
mod coalesce;
mod counters;
mod icmp;
mod inbound;
mod inner;
mod key;
mod lpm;
mod outbound;
mod pace;
mod pieces;
mod ping;
mod ports;
mod queue;
mod role;
mod session;
mod split;
mod sys;
mod tun;
mod udp;
mod vnet;
mod worker;

#[cfg(test)]
mod tests;

pub use aead::DataAead;
pub use counters::{Counter, Counters};
pub use icmp::TunnelAddresses;
pub use inner::{INNER_MAX, Inner};
pub use key::{DataKey, KeySet};
pub use lpm::Lpm;
pub use pieces::{ByKey, BySlot};
pub use queue::{FromWorker, Inbox, ToController, WorkerHandle, to_controller};
pub use role::{Inbound, Origin, Role, Route, SocketId};
pub use session::{SessionData, Traffic};
pub use tun::{Tun, TunOptions};
pub(crate) use udp::Received;
pub use udp::{RECEIVE_BUFFER, SEGMENTS_MAX, SEND_BUFFER, SEND_MAX, UdpOptions, UdpPort};
pub use worker::{Worker, WorkerOptions};
