//! The sealed control channel of a session: which key, which epoch, which tag.
//!
//! Owns the control keys of the epochs in use (previous, current, next) and both directions of them, for
//! either end. Must never act on a message, and never seal under an epoch the other side may not have.

use crate::abi::SteeringKeys;
use crate::crypto::seal::{control_opener, control_sealer};
use crate::crypto::{ControlOpener, ControlSealer, Directions};
use crate::ids::{Epoch, Locator, TransportIndex};
use crate::message::Message;
use crate::secret::Secret;
use crate::tag::steering_tag;
use crate::wire::header::{FLAG_DOWN, FLAGS_RESERVED};
use crate::wire::{Header, Kind};

/// Epochs a channel knows at once: previous, current, next.
const EPOCHS_MAX: usize = 3;

/// Which end of the session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Seals up, opens down.
    Client,
    /// Seals down, opens up.
    Gateway,
}

/// Why a control datagram was not opened; nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Shorter than a header, or flags of another version or direction.
    #[error("malformed header")]
    Header,
    /// The steering tag is wrong: junk.
    #[error("wrong steering tag")]
    Tag,
    /// None of the epochs in use.
    #[error("unknown epoch")]
    Epoch,
    /// Seen before.
    #[error("replayed")]
    Replayed,
    /// Not sealed under the key.
    #[error("does not open")]
    Forged,
    /// Opened, and is no message of this version.
    #[error("malformed message")]
    Format,
}

#[derive(Debug)]
struct Keys {
    epoch: Epoch,
    seal: ControlSealer,
    open: ControlOpener,
}

/// Control keys of one session at one end.
#[derive(Debug)]
pub struct Channel {
    side: Side,
    steering: SteeringKeys,
    /// Oldest first.
    keys: Vec<Keys>,
    sending: Epoch,
}

impl Channel {
    /// The channel of a BIRTH or RESUME.
    #[must_use]
    pub fn new(side: Side, epoch: Epoch, control: Directions<Secret<32>>, steering: SteeringKeys) -> Self {
        let mut channel = Self { side, steering, keys: Vec::new(), sending: epoch };
        channel.add(epoch, control);
        channel
    }

    /// Adds the keys of a REKEY. A client seals with them at once; a gateway after the first message that
    /// opens under them, since only then the client is known to have them.
    pub fn add(&mut self, epoch: Epoch, control: Directions<Secret<32>>) {
        let (seal, open) = match self.side {
            Side::Client => (control.up, control.down),
            Side::Gateway => (control.down, control.up),
        };
        if self.keys.len() == EPOCHS_MAX {
            self.keys.remove(0);
        }
        // One epoch is the rule: room for four, as a vector takes by itself, would be most of an idle session.
        self.keys.reserve_exact(1);
        self.keys.push(Keys { epoch, seal: control_sealer(seal), open: control_opener(open) });
        if self.side == Side::Client {
            self.sending = epoch;
        }
    }

    /// Forgets an epoch, unless it is the one in use.
    pub fn wipe(&mut self, epoch: Epoch) {
        if epoch != self.sending {
            self.keys.retain(|keys| keys.epoch != epoch);
        }
    }

    /// Sends under this epoch from now on: data has opened under it.
    pub fn promote(&mut self, epoch: Epoch) {
        if self.keys.iter().any(|keys| keys.epoch == epoch) {
            self.sending = self.sending.max(epoch);
        }
    }

    /// The epoch in use for sending.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.sending
    }

    /// The session's steering keys.
    #[must_use]
    pub const fn steering(&self) -> &SteeringKeys {
        &self.steering
    }

    /// Seals a message for transport `k`; `None` when the key has sealed all it may.
    #[must_use]
    pub fn seal(&self, k: TransportIndex, locator: Locator, message: &Message) -> Option<Vec<u8>> {
        let keys = self.keys.iter().find(|keys| keys.epoch == self.sending)?;
        let header = |counter| self.header(keys.epoch, k, locator, counter).to_bytes();
        keys.seal.seal(k.0, header, &message.encode()).ok()
    }

    fn header(&self, epoch: Epoch, k: TransportIndex, locator: Locator, counter: u64) -> Header {
        let (key, flags) = match self.side {
            Side::Client => (self.steering.up, 0),
            Side::Gateway => (self.steering.down, FLAG_DOWN),
        };
        let kind = Kind::Control as u8;
        let tag = steering_tag(key, counter, kind, epoch.wire(), flags, k.0, None);
        Header { kind, epoch: epoch.wire(), flags, tag, locator: locator.0, counter }
    }

    /// Opens a datagram that came on transport `k`, in place; cheap checks first.
    ///
    /// # Errors
    /// Every [`ChannelError`].
    pub fn open(&mut self, k: TransportIndex, datagram: &mut [u8]) -> Result<(Epoch, Message), ChannelError> {
        let (head, sealed) = datagram.split_first_chunk_mut::<24>().ok_or(ChannelError::Header)?;
        let header = Header::from_bytes(head);
        let (key, direction) = match self.side {
            Side::Client => (self.steering.down, FLAG_DOWN),
            Side::Gateway => (self.steering.up, 0),
        };
        if header.flags & (FLAGS_RESERVED | FLAG_DOWN) != direction {
            return Err(ChannelError::Header);
        }
        if steering_tag(key, header.counter, header.kind, header.epoch, header.flags, k.0, None) != header.tag {
            return Err(ChannelError::Tag);
        }
        let keys = self.keys.iter_mut().find(|keys| keys.epoch.wire() == header.epoch).ok_or(ChannelError::Epoch)?;
        let epoch = keys.epoch;
        let len = keys.open.open_exclusive(k.0, head, sealed).map_err(|error| match error {
            crate::crypto::seal::OpenError::Replay(_) => ChannelError::Replayed,
            _ => ChannelError::Forged,
        })?;
        self.promote(epoch);
        let message = sealed.get(..len).and_then(Message::decode).ok_or(ChannelError::Format)?;
        Ok((epoch, message))
    }
}
