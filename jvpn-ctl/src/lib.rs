//! Jumping VPN: gateway, client and command line; everything that touches the world.

pub mod tunnel;
