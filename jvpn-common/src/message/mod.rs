//! What is inside a handshake and inside a sealed control message.
//!
//! Owns the typed messages and their encoding: [`handshake`] payloads, [`reattach`] bodies, and the
//! [`control`] envelope around everything that is sealed. Must never seal, open or act.

pub mod codec;
pub mod control;
pub mod handshake;
pub mod reattach;

pub use crate::session::Label;
pub use control::{Control, Message};
pub use handshake::{Accepted, Answer, HandshakePurpose, Hello};
pub use reattach::{Ack, Evidence, Purpose, Reject, Request};
