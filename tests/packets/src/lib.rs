//! Frames for the steering function, each with what must become of it: base frames ([`cases`], [`relay`]), frames at the
//! edge ([`edges`]), made-up ones ([`random`]), and who says whether an answer is right ([`oracle`]). Owns the small world
//! they meet ([`maps`]). Never asks the kernel: suites run the same frames there and compare ([`host`]).

pub mod cases;
pub mod edges;
pub mod host;
pub mod maps;
pub mod oracle;
pub mod packet;
pub mod random;
pub mod relay;
pub mod sabotage;

#[cfg(test)]
mod table;
