//! tests

pub mod packet;
pub mod packet_kernel;
