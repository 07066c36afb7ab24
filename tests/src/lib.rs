//! Tests of Jumping VPN as a library: owns the modules that suites and lab tools share. Never part of the product.

pub mod bench;
pub mod lab;
#[cfg(feature = "sabotage")]
pub mod lifecycle;
pub mod packet_compare;
pub mod packet_kernel;
pub mod packet_kernel_maps;
pub mod rows;
#[cfg(feature = "sabotage")]
pub mod sim;
pub mod size;
pub mod swarm;
pub mod vm;

pub use jvpn_packets::{
    cases as packet_cases, edges as packet_edges, maps as packet_maps, oracle as packet_oracle, packet,
    random as packet_random, relay as packet_relay, sabotage as packet_sabotage,
};
