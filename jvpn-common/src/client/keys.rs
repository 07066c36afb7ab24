//! One key set: what a BIRTH or RESUME gave, and the epochs REKEY added.
//!
//! Owns the control keys, the steering keys and the locators of a set. Must never keep a data key: those go
//! to the worker at once. Everything it opens has passed tag, window and AEAD, in this order.

use super::command::{DataKeys, SetId};
use crate::abi::SteeringKeys;
use crate::channel::{Channel, Side};
use crate::crypto::{Directions, EpochKeys, Suite};
use crate::ids::{Epoch, Locator, TransportIndex};
use crate::limits::{HEADER_LEN, LOCATORS_MAX, PREVIOUS_KEYS_LIFE};
use crate::message::Message;
use crate::sabotage::{Bug, Sabotage};
use crate::secret::Secret;
use crate::tag::steering_tag;
use crate::time::Instant;
use crate::wire::header::FLAG_DOWN;
use crate::wire::probe::{self, BODY_LEN, Body};
use crate::wire::{Header, Kind};
use std::collections::BTreeMap;

/// Locators of a set that are remembered, given-up ones included until the gateway retires them.
const LOCATORS_KNOWN_MAX: usize = 4 * LOCATORS_MAX;

/// A key set.
#[derive(Debug)]
pub(super) struct KeySet {
    pub(super) id: SetId,
    channel: Channel,
    made: Instant,
    previous: Option<(Epoch, Instant)>,
    /// Only under sabotage: the first control keys a second time.
    twin: Option<Directions<Secret<32>>>,
    locators: BTreeMap<Locator, TransportIndex>,
    spare: BTreeMap<TransportIndex, Locator>,
}

impl KeySet {
    /// The set of a handshake, and the keys for the worker.
    pub(super) fn new(
        id: SetId,
        epoch: Epoch,
        suite: Suite,
        keys: EpochKeys,
        sabotage: Sabotage,
        now: Instant,
    ) -> (Self, DataKeys) {
        let steering = keys.steering_words();
        let twin = sabotage
            .is(Bug::RekeyReusesCounter)
            .then(|| Directions { up: keys.control.up.duplicate(), down: keys.control.down.duplicate() });
        let channel = Channel::new(Side::Client, epoch, keys.control, steering);
        let data = DataKeys { set: id, epoch, suite, up: keys.data.up, down: keys.data.down };
        let (locators, spare) = (BTreeMap::new(), BTreeMap::new());
        (Self { id, channel, made: now, previous: None, twin, locators, spare }, data)
    }

    /// The epoch of a REKEY; from now on everything is sealed under it.
    pub(super) fn add_epoch(&mut self, epoch: Epoch, suite: Suite, keys: EpochKeys, now: Instant) -> DataKeys {
        self.previous = Some((self.channel.epoch(), now + PREVIOUS_KEYS_LIFE));
        match self.twin.take() {
            None => self.channel.add(epoch, keys.control),
            Some(twin) => self.channel = Channel::new(Side::Client, self.channel.epoch(), twin, self.steering()),
        }
        self.made = now;
        DataKeys { set: self.id, epoch, suite, up: keys.data.up, down: keys.data.down }
    }

    /// The steering keys.
    pub(super) fn steering(&self) -> SteeringKeys {
        *self.channel.steering()
    }

    /// The epoch everything is sealed under.
    pub(super) const fn epoch(&self) -> Epoch {
        self.channel.epoch()
    }

    /// When the current epoch was made.
    pub(super) const fn made(&self) -> Instant {
        self.made
    }

    /// When the previous epoch is wiped.
    pub(super) fn wipe_due(&self) -> Option<Instant> {
        self.previous.map(|(_, at)| at)
    }

    /// Wipes the previous epoch when its time has come, and names it.
    pub(super) fn wipe(&mut self, now: Instant) -> Option<Epoch> {
        let (epoch, _) = self.previous.take_if(|(_, at)| *at <= now)?;
        self.channel.wipe(epoch);
        Some(epoch)
    }

    /// Takes locators from message 2 or an ACK; gives those that were new.
    pub(super) fn add_locators(&mut self, given: &[(TransportIndex, Locator)]) -> Vec<(TransportIndex, Locator)> {
        let mut new = Vec::new();
        for &(k, locator) in given {
            let known = self.locators.contains_key(&locator) || self.locators.values().any(|&other| other == k);
            if !known && locator != Locator(0) && self.locators.len() < LOCATORS_KNOWN_MAX {
                self.locators.insert(locator, k);
                self.spare.insert(k, locator);
                new.push((k, locator));
            }
        }
        new
    }

    /// Gives a locator up; whether it was there.
    pub(super) fn retire(&mut self, k: TransportIndex) -> bool {
        self.spare.remove(&k);
        let before = self.locators.len();
        self.locators.retain(|_, &mut other| other != k);
        before != self.locators.len()
    }

    /// A locator no network has seen, lowest index first.
    pub(super) fn take_locator(&mut self) -> Option<(TransportIndex, Locator)> {
        self.spare.pop_first()
    }

    /// Transport index of one of our locators.
    pub(super) fn index_of(&self, locator: u64) -> Option<TransportIndex> {
        self.locators.get(&Locator(locator)).copied()
    }

    /// Seals a control message for a transport; `None` when the key has sealed all it may.
    pub(super) fn seal(&self, k: TransportIndex, locator: Locator, message: &Message) -> Option<Vec<u8>> {
        self.channel.seal(k, locator, message)
    }

    /// Opens a control message under one of our locators.
    pub(super) fn open(&mut self, bytes: &mut [u8]) -> Option<(TransportIndex, Message)> {
        let (header, _) = Header::parse(bytes)?;
        let k = self.index_of(header.locator)?;
        let (_, message) = self.channel.open(k, bytes).ok()?;
        Some((k, message))
    }

    /// A probe of `size` bytes of UDP payload.
    pub(super) fn probe(&self, k: TransportIndex, locator: Locator, sequence: u64, time: u64, size: usize) -> Vec<u8> {
        let words = Body { client_time: time, ..Body::default() }.words();
        let (kind, epoch) = (Kind::Probe as u8, self.epoch().wire());
        let tag = steering_tag(self.channel.steering().up, sequence, kind, epoch, 0, k.0, Some(&words));
        let header = Header { kind, epoch, flags: 0, tag, locator: locator.0, counter: sequence };
        let mut datagram = Vec::with_capacity(size.max(HEADER_LEN + BODY_LEN));
        datagram.extend_from_slice(&header.to_bytes());
        datagram.extend_from_slice(&probe::bytes(&words));
        if datagram.len() < size {
            datagram.resize(size, 0);
        }
        datagram
    }

    /// Header, transport index and body of an echo or notice whose tag is right.
    pub(super) fn hint(&self, bytes: &[u8]) -> Option<(Header, TransportIndex, Body)> {
        let (header, rest) = Header::parse(bytes)?;
        let body: &[u8; BODY_LEN] = rest.first_chunk()?;
        let words = probe::words(body);
        let k = self.index_of(header.locator)?;
        let tag = steering_tag(
            self.channel.steering().down,
            header.counter,
            header.kind,
            header.epoch,
            header.flags,
            k.0,
            Some(&words),
        );
        (header.tag == tag && header.flags == FLAG_DOWN).then(|| (header, k, Body::from_words(&words)))
    }
}
