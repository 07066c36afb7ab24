//! Tests of Jumping VPN as a library: owns the modules that suites and lab tools share. Never part of the product.

pub mod bench;
pub mod lab;
#[cfg(feature = "sabotage")]
pub mod lifecycle;
pub mod packet;
pub mod packet_cases;
pub mod packet_compare;
pub mod packet_edges;
pub mod packet_kernel;
pub mod packet_maps;
pub mod packet_oracle;
pub mod packet_random;
pub mod packet_relay;
pub mod packet_sabotage;
pub mod rows;
#[cfg(feature = "sabotage")]
pub mod sim;
pub mod size;
pub mod swarm;
pub mod vm;
