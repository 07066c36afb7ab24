//! The wire, version JVP/1: from a datagram's first byte to a typed message.
//!
//! Owns the header and the probe, which the kernel reads; what is inside a handshake or a sealed control
//! message is in `message`. Must never act on a message: parsing gives types or nothing.
//!
//! ```text
//!  1 initiation   2 response   3 cookie reply        plain framing around Noise, to the controller
//!  4 data                                            sealed, to the worker
//!  5 control                                         sealed, to the controller
//!  6 probe        7 echo       8 notice              tagged, in the kernel
//! ```

pub mod header;
pub mod probe;

pub use header::{Header, Kind};
