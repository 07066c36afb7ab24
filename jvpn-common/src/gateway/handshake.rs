//! Handshake cryptography as jobs: data in, data out, run wherever it delays nothing.
//!
//! Owns the two jobs of a handshake and the framing of message 2. Must never touch the engine's state: it
//! runs on another thread.
//!
//! ```text
//! message 1 ─► door ─► Job::Read ─► who, what for ─► decide ─► Job::Answer ─► keys ─► pending slot ─► message 2
//! ```

use crate::crypto::cookie::{MACS_LEN, MacKeys, VERSION};
use crate::crypto::noise::{NoiseError, Responder};
use crate::crypto::{Entropy, EpochKeys};
use crate::secret::{PresharedKey, PrivateKey, PublicKey};
use crate::wire::Kind;
use std::sync::Arc;

/// Framing in front of Noise: type, version, two zeros, index.
pub(super) const FRAMING: usize = 8;

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
            Self::Read { private, noise } => JobResult::Read(
                Responder::read1(&private, &noise, entropy)
                    .map(|(peer, payload, responder)| Read { peer, payload, responder: Box::new(responder) }),
            ),
            Self::Answer { responder, preshared_key, payload } => JobResult::Answered(
                responder.answer(&preshared_key, &payload).map(|(bytes, split)| (bytes, EpochKeys::derive(split))),
            ),
        }
    }
}

/// Noise bytes of a framed message 1.
pub(super) fn noise_of(message: &[u8]) -> Option<&[u8]> {
    let [kind, version, 0, 0, ..] = *message else { return None };
    if kind != Kind::Initiation as u8 || version != VERSION {
        return None;
    }
    message.get(FRAMING..message.len().checked_sub(MACS_LEN)?)
}

/// Message 2 in its framing, with mac1 for `peer`.
pub(super) fn frame_response(noise: &[u8], receiver: u32, peer: &PublicKey) -> Vec<u8> {
    let mut message = vec![Kind::Response as u8, VERSION, 0, 0];
    message.extend_from_slice(&receiver.to_le_bytes());
    message.extend_from_slice(noise);
    message.resize(message.len() + MACS_LEN, 0);
    let filled = MacKeys::new(peer).fill(&mut message, None);
    debug_assert!(filled.is_some(), "the message was just given room for its MACs");
    message
}
