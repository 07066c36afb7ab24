//! tests

pub mod packet;
pub mod packet_cases;
pub mod packet_kernel;
pub mod packet_maps;
