//! The outer headers, one a file: copied out of the frame, changed, written back once.
//!
//! Owns the layouts of Ethernet, IPv4, IPv6 and UDP as far as one packet's way needs them, and their
//! checksums. Must never hold a reference into a packet.

pub mod checksum;
pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod udp;
