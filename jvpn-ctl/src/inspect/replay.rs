//! Captured frames through the very same `steer`, against a picture of the maps.
//!
//! Owns a private copy of what packets change (windows, counters, buckets), so that each frame meets what the frames
//! before it left, as in the kernel; and the clock of the run: the first frame comes at the moment the picture was
//! taken, and time goes on as the capture says. A worker or owner that was alive then is taken to stay so, since nobody
//! refreshes a copy. Must never call a tag right that it cannot check.

use super::picture::Picture;
use jvpn_common::abi::{
    BUCKET_LANES, BUCKET_SOURCES, Binding, Bucket, BucketField, Config, Hop, LocatorEntry, Owner, PATHS_PER_SLOT,
    PathCounters, ROLE_RELAY, SESSION_WORDS, SteeringKeys, TrafficField, WORD_ACTIVE, WORD_GENERATION, WORD_OWNER,
    binding_place,
};
use jvpn_common::limits::HEADER_LEN;
use jvpn_common::steer::{self, Address, Bytes, Exit, Judgement, NO_SLOT, Route, Session, Source, Tables};
use jvpn_common::tag::steering_tag;
use jvpn_common::verdict::Verdict;
use jvpn_common::wire::header::{Header, Kind};
use jvpn_common::wire::probe::words;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Stands in for keys that nobody has: a tag made with it is right by construction.
const STAND_IN: SteeringKeys = SteeringKeys { up: [0; 2], down: [0; 2] };

/// What became of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The verdict; if `tag_unknown`, the one it has when its tag is right.
    pub verdict: Verdict,
    /// Whether the tag could not be checked: then the verdict may be FORGED_TAG instead.
    pub tag_unknown: bool,
    /// Type of the datagram, if it is for the gateway's port and of this version.
    pub kind: Option<Kind>,
    /// Where it came from, if it is for the gateway's port.
    pub source: Option<Source>,
    /// Slot its locator leads to.
    pub slot: Option<u32>,
    /// Whether it is data from the draining binding.
    pub draining: bool,
}

/// One slot of `SESSIONS` in the picture.
#[derive(Clone, Copy, Debug)]
pub struct Slot([u64; SESSION_WORDS]);

impl Session for Slot {
    fn word(&self) -> u64 {
        self.0.get(WORD_ACTIVE).copied().unwrap_or(0)
    }
    fn entry(&self, entry: u8) -> Binding {
        let words = || self.0.get(binding_place(entry)?..)?.first_chunk().copied();
        Binding::from_words(words().unwrap_or_default())
    }
    fn generation(&self) -> u32 {
        self.0.get(WORD_GENERATION).copied().unwrap_or(0) as u32
    }
    fn flags(&self) -> u32 {
        (self.0.get(WORD_GENERATION).copied().unwrap_or(0) >> 32) as u32
    }
    fn owner(&self) -> u32 {
        self.0.get(WORD_OWNER).copied().unwrap_or(0) as u32
    }
}

/// Maps that packets change and nobody else.
#[derive(Debug)]
pub struct Replay {
    config: Config,
    locators: BTreeMap<u64, LocatorEntry>,
    sessions: BTreeMap<u32, [u64; SESSION_WORDS]>,
    keys: Option<BTreeMap<u32, SteeringKeys>>,
    owners: BTreeMap<u32, Owner>,
    hops: BTreeMap<u16, Hop>,
    /// What packets change.
    changing: RefCell<Changing>,
    start: (u64, u64),
    /// Interface the frames came in by; 0 = not known.
    ingress: u32,
    began_ns: Cell<Option<u64>>,
    past_ns: Cell<u64>,
    /// Whether keys were asked for that are not there; and whether the stand-in is given for them.
    keys_missed: Cell<bool>,
    stand_in: Cell<bool>,
}

#[derive(Debug)]
struct Changing {
    paths: BTreeMap<u32, [u64; 4]>,
    traffic: BTreeMap<u32, [u64; 16]>,
    buckets: BTreeMap<u32, [u64; 2]>,
    counted: BTreeMap<Verdict, u64>,
}

impl Replay {
    /// A run that begins with this picture.
    #[must_use]
    pub fn of(picture: &Picture) -> Self {
        let mut config = picture.config();
        let tick = picture.tick;
        config
            .alive_until
            .iter_mut()
            .filter(|until| **until != 0 && **until >= tick)
            .for_each(|until| *until = u64::MAX);
        Self {
            config,
            locators: picture.locators.clone(),
            sessions: picture.sessions.clone(),
            keys: picture.secrets.as_ref().map(|secrets| secrets.keys.clone()),
            owners: picture.owners.keys().filter_map(|index| Some((*index, owner(picture, *index)?))).collect(),
            hops: picture.hops.keys().filter_map(|id| hop(picture, *id)).collect(),
            changing: RefCell::new(Changing {
                paths: picture.paths.clone(),
                traffic: picture.traffic.clone(),
                buckets: picture.buckets.clone(),
                counted: BTreeMap::new(),
            }),
            start: (tick, picture.now),
            ingress: 0,
            began_ns: Cell::new(None),
            past_ns: Cell::new(0),
            keys_missed: Cell::new(false),
            stand_in: Cell::new(false),
        }
    }

    /// The same, with the interface the frames came in by: a relay sends a tagged frame back by that one only.
    #[must_use]
    pub fn by(self, ingress: u32) -> Self {
        Self { ingress, ..self }
    }

    /// Judges one frame, which becomes its answer if it has one.
    pub fn judge(&self, frame: &mut Vec<u8>, at_ns: u64) -> Judged {
        let began = self.began_ns.get().unwrap_or(at_ns);
        self.began_ns.set(Some(began));
        self.past_ns.set(at_ns.saturating_sub(began));
        let found = steer::locate(&Bytes::new(frame), self);
        let kind = found.and_then(|(_, at)| Kind::from_byte(*frame.get(at)?));
        self.keys_missed.set(false);
        let first = self.run(frame);
        let tag_unknown = self.keys_missed.get();
        let judgement =
            if tag_unknown { self.as_if_right(frame, found.map_or(0, |(_, at)| at), &first) } else { first };
        let mut changing = self.changing.borrow_mut();
        *changing.counted.entry(judgement.verdict).or_default() += 1;
        Judged {
            verdict: judgement.verdict,
            tag_unknown,
            kind,
            source: found.map(|(source, _)| source),
            slot: (judgement.entry.slot != NO_SLOT).then_some(judgement.entry.slot),
            draining: judgement.draining,
        }
    }

    /// Frames of each verdict so far.
    #[must_use]
    pub fn counted(&self) -> BTreeMap<Verdict, u64> {
        self.changing.borrow().counted.clone()
    }

    fn run(&self, frame: &mut Vec<u8>) -> Judgement {
        let mut view = Bytes::new(frame);
        let judgement = match self.config.role {
            ROLE_RELAY => steer::relay(&mut view, self, self).judgement,
            _ => steer::steer(&mut view, self),
        };
        let len = view.packet().len();
        frame.truncate(len);
        judgement
    }

    /// Runs the frame again with the tag the stand-in's key gives it. Up to the tag nothing was changed.
    fn as_if_right(&self, frame: &mut Vec<u8>, at: usize, first: &Judgement) -> Judgement {
        let asked = first.header;
        let Some(entry) = self.locator(asked.locator) else { return *first };
        let body = || frame.get(at + HEADER_LEN..)?.first_chunk().map(words);
        let body = if asked.kind == Kind::Probe as u8 { body() } else { None };
        let Header { counter, kind, epoch, flags, .. } = asked;
        let tag = steering_tag(STAND_IN.up, counter, kind, epoch, flags, entry.k, body.as_ref());
        let header = Header { tag, ..asked }.to_bytes();
        if let Some(place) = frame.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *place = header;
        }
        self.stand_in.set(true);
        let judgement = self.run(frame);
        self.stand_in.set(false);
        judgement
    }
}

/// What only the kernel knows: a way that is not resolved is not found here, so its packets are left to the process.
impl Route for Replay {
    fn ingress(&self) -> u32 {
        self.ingress
    }
    fn resolve(&self, _: &Hop, _: Address, _: u16) -> Option<Exit> {
        None
    }
}

/// An owner; one whose lease ran when the picture was taken is taken to renew it.
fn owner(picture: &Picture, index: u32) -> Option<Owner> {
    let mut owner = picture.owner(index)?;
    if owner.alive(picture.tick) {
        owner.alive_until = u64::MAX;
    }
    Some(owner)
}

fn hop(picture: &Picture, id: u32) -> Option<(u16, Hop)> {
    let id = u16::try_from(id).ok()?;
    Some((id, picture.hop(id)?))
}

impl Tables for Replay {
    type Session = Slot;

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }
    fn locator(&self, locator: u64) -> Option<LocatorEntry> {
        self.locators.get(&locator).copied()
    }
    fn session(&self, slot: u32) -> Option<Slot> {
        // A slot that nothing was written to is there all the same, all zero.
        (slot < self.config.max_sessions).then(|| Slot(self.sessions.get(&slot).copied().unwrap_or_default()))
    }
    fn keys(&self, slot: u32) -> Option<&SteeringKeys> {
        match &self.keys {
            Some(keys) => Some(keys.get(&slot).unwrap_or(&STAND_IN)),
            None if self.stand_in.get() => Some(&STAND_IN),
            None => {
                self.keys_missed.set(true);
                None
            }
        }
    }
    fn path(&self, slot: u32, place: u32) -> PathCounters {
        let index = slot * PATHS_PER_SLOT + place;
        PathCounters::from_words(self.changing.borrow().paths.get(&index).copied().unwrap_or_default())
    }
    fn set_path(&self, slot: u32, place: u32, path: &PathCounters) {
        self.changing.borrow_mut().paths.insert(slot * PATHS_PER_SLOT + place, path.to_words());
    }
    fn add(&self, slot: u32, field: TrafficField, amount: u64) {
        if let Some(word) = self.changing.borrow_mut().traffic.entry(slot).or_default().get_mut(field as usize) {
            *word = word.wrapping_add(amount);
        }
    }
    fn slot_bucket(&self, slot: u32, bucket: BucketField) -> Bucket {
        let changing = self.changing.borrow();
        let words = || changing.traffic.get(&slot)?.get(bucket as usize..)?.first_chunk::<2>().copied();
        let [at, tokens] = words().unwrap_or_default();
        Bucket { at, tokens }
    }
    fn set_slot_bucket(&self, slot: u32, which: BucketField, bucket: &Bucket) {
        let mut changing = self.changing.borrow_mut();
        let words = changing.traffic.entry(slot).or_default();
        if let Some(place) = words.get_mut(which as usize..).and_then(|rest| rest.first_chunk_mut::<2>()) {
            *place = [bucket.at, bucket.tokens];
        }
    }
    fn bucket(&self, index: u32) -> Bucket {
        let [at, tokens] = self.changing.borrow().buckets.get(&index).copied().unwrap_or_default();
        Bucket { at, tokens }
    }
    fn set_bucket(&self, index: u32, bucket: &Bucket) {
        if index < BUCKET_SOURCES + BUCKET_LANES {
            self.changing.borrow_mut().buckets.insert(index, [bucket.at, bucket.tokens]);
        }
    }
    fn owner(&self, index: u32) -> Option<Owner> {
        self.owners.get(&index).copied()
    }
    fn hop(&self, id: u16) -> Option<Hop> {
        self.hops.get(&id).copied()
    }
    fn lane(&self) -> u32 {
        0
    }
    fn ticks(&self) -> u64 {
        let past = u128::from(self.past_ns.get()) * u128::from(self.config.hz) / 1_000_000_000;
        self.start.0.saturating_add(u64::try_from(past).unwrap_or(u64::MAX))
    }
    fn now(&self) -> u64 {
        self.start.1.saturating_add(self.past_ns.get())
    }
    fn counts_arrivals(&self) -> bool {
        true
    }
    fn count(&self, _: Verdict) {
        // A frame is judged twice where its tag is unknown; `judge` counts it once.
    }
}
