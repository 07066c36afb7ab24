//! The heart of Jumping VPN: everything that is decided, nothing that touches the world.
//!
//! Two tiers. The default one is `no_std` and shared with the kernel program: identifiers, the byte
//! contract of the maps ([`abi`]), the outer headers ([`net`]), the wire ([`wire`]) and the one steering
//! function ([`steer`]). The feature `engine` adds the session core ([`session`]), the cryptography
//! ([`crypto`]) and both protocol engines ([`gateway`], [`client`]).
//!
//! It owns decisions. It must never read a clock, draw randomness, open anything, or start a thread: time
//! is a parameter, randomness is injected, effects leave as commands and their outcomes come back.

#![cfg_attr(not(any(feature = "engine", test)), no_std)]
#![forbid(unsafe_code)]

pub mod abi;
#[cfg(feature = "engine")]
pub mod alarm;
#[cfg(feature = "engine")]
pub mod channel;
#[cfg(feature = "engine")]
pub mod client;
#[cfg(feature = "engine")]
pub mod crypto;
#[cfg(feature = "engine")]
pub mod event;
#[cfg(feature = "engine")]
pub mod gateway;
pub mod ids;
pub mod limits;
#[cfg(feature = "engine")]
pub mod locators;
#[cfg(feature = "engine")]
pub mod mapop;
#[cfg(feature = "engine")]
pub mod message;
pub mod net;
pub mod reason;
#[cfg(feature = "engine")]
pub mod relay;
#[cfg(feature = "engine")]
pub mod replay;
#[cfg(feature = "engine")]
pub mod sabotage;
#[cfg(feature = "engine")]
pub mod scenario;
#[cfg(feature = "engine")]
pub mod secret;
#[cfg(feature = "engine")]
pub mod session;
pub mod steer;
pub mod tag;
pub mod time;
#[cfg(feature = "engine")]
mod transports;
pub mod verdict;
pub mod wire;
