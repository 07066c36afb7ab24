//! crate
pub mod dataplane;
