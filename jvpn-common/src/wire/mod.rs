//! The wire, version JVP/1: from a datagram's first byte to a typed message.
//!
//! Owns every format, one family a file with its drawing. Must never act on a message: parsing gives types
//! or nothing, deciding is somebody else's.
//!
//! ```text
//!  1 initiation   2 response   3 cookie reply        handshake.rs   plain framing around Noise
//!  4 data                                            header.rs      sealed, to the worker
//!  5 control                                         control.rs     sealed, to the controller
//!  6 probe        7 echo       8 notice              probe.rs       tagged, in the kernel
//! ```

pub mod header;
pub mod probe;

#[cfg(feature = "engine")]
pub mod codec;
#[cfg(feature = "engine")]
pub mod control;
#[cfg(feature = "engine")]
pub mod handshake;
#[cfg(feature = "engine")]
pub mod reattach;

pub use header::{Header, Kind};
