//! Handshake cryptography as jobs: data in, data out, run wherever it delays nothing.
//!
//! Owns the two jobs of a handshake. Must never touch the engine's state: it
//! runs on another thread.
//!
//! ```text
//! message 1 ─► door ─► Job::Read ─► who, what for ─► decide ─► Job::Answer ─► keys ─► pending slot ─► message 2
//! ```

use crate::crypto::noise::{NoiseError, Responder};
use crate::crypto::{Entropy, EpochKeys};
use crate::secret::{PresharedKey, PrivateKey, PublicKey};
use std::sync::Arc;

/// A computation.
#[derive(Debug)]
pub enum Job {
    /// Open message 1.
    Read {
        /// The gateway's static key.
        private: Arc<PrivateKey>,
        /// Noise bytes, without framing and MACs.
        noise: Vec<u8>,
    },
    /// Make message 2 and the keys.
    Answer {
        /// State after message 1.
        responder: Box<Responder>,
        /// The peer's preshared key.
        preshared_key: PresharedKey,
        /// What message 2 says.
        payload: Vec<u8>,
    },
}

/// What message 1 was.
#[derive(Debug)]
pub struct Read {
    /// Who sent it.
    pub peer: PublicKey,
    /// What it says.
    pub payload: Vec<u8>,
    /// State for the answer.
    pub responder: Box<Responder>,
}

/// Result of a [`Job`].
#[derive(Debug)]
pub enum JobResult {
    /// Of [`Job::Read`].
    Read(Result<Read, NoiseError>),
    /// Of [`Job::Answer`]: Noise bytes of message 2, keys.
    Answered(Result<(Vec<u8>, EpochKeys), NoiseError>),
}

impl Job {
    /// Runs it.
    #[must_use]
    pub fn run(self, entropy: &mut dyn Entropy) -> JobResult {
        match self {
            Self::Read { private, noise } => {
                JobResult::Read(Responder::read1(&private, &noise, entropy).map(|(peer, payload, responder)| Read {
                    peer,
                    payload,
                    responder: Box::new(responder),
                }))
            }
            Self::Answer { responder, preshared_key, payload } => JobResult::Answered(
                responder.answer(&preshared_key, &payload).map(|(bytes, split)| (bytes, EpochKeys::derive(split))),
            ),
        }
    }
}
