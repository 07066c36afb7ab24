//! The way of one packet: one function for the kernel, the tunnel worker and the tests.
//!
//! ```text
//! frame ─ outer::parse ─┬─ not our port ─────────────────────────────► Pass
//!                       └─ judge ── type ─┬─ initiation ─ bucket ─────► User
//!                                         └─ locator, generation, flags, tag
//!                                              ├─ control ────────────► User
//!                                              ├─ probe ─ window ─ echo ► Answer
//!                                              └─ data ── alive ── binding ─┬─ bound ► User
//!                                                                          └─ notice ► Answer
//! ```
//!
//! The kernel program calls [`steer`] with a whole frame, the worker [`datagram`] with a payload and the
//! source `recvmsg` told it; both come through the same [`judge`]. The order is by price: what needs no
//! look-up first, then the tag, and only then anything that writes. Owns that order. It must never decide
//! what policy decides, and the tag it checks authenticates nothing that changes a session.

pub mod bind;
pub mod bucket;
mod frame;
mod outer;
pub mod probe;
mod tables;
#[cfg(test)]
mod tests;

pub use frame::{Bytes, Frame};
pub use tables::{Session, Tables};

use crate::abi::{
    BUCKET_LANES, BUCKET_SOURCES, Config, LAYOUT_HASH, LocatorEntry, PATHS_PER_SLOT, PENDING, ROLE_GATEWAY,
    TrafficField,
};
use crate::limits::{HANDSHAKE_LEN, HEADER_LEN, TAG_LEN, TRAILER_LEN};
use crate::tag::steering_tag;
use crate::verdict::{Class, Verdict};
use crate::wire::header::{FLAG_DOWN, FLAG_PARTIAL_CHECKSUM, FLAGS_RESERVED, Header, Kind};
use crate::wire::probe::{Body, words};
use bind::Relation;
use bucket::Limit;

/// Where a datagram came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Address; IPv4 as IPv4-mapped IPv6.
    pub address: [u8; 16],
    /// UDP port.
    pub port: u16,
}

/// Slot of a [`Judgement`] about a packet of no session.
pub const NO_SLOT: u32 = u32::MAX;

/// A verdict and what was learned on the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// Where the locator led; slot [`NO_SLOT`] if nowhere.
    pub entry: LocatorEntry,
    /// The header, if the type has one and it was read; all zero otherwise.
    pub header: Header,
    /// Whether data came from the draining binding.
    pub draining: bool,
}

impl Judgement {
    const fn of(verdict: Verdict) -> Self {
        let entry = LocatorEntry { slot: NO_SLOT, generation: 0, k: 0, reserved: 0 };
        let header = Header { kind: 0, epoch: 0, flags: 0, tag: 0, locator: 0, counter: 0 };
        Self { verdict, entry, header, draining: false }
    }
}

/// A session that a datagram's header led to.
pub struct Known<T: Tables> {
    /// The header.
    pub header: Header,
    /// What the locator stands for.
    pub entry: LocatorEntry,
    /// The slot.
    pub session: T::Session,
}

impl<T: Tables> core::fmt::Debug for Known<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Known").field("header", &self.header).field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// Judges a whole frame, turns it round if it is answered, and counts the verdict.
#[inline(always)]
pub fn steer<T: Tables>(frame: &mut impl Frame, tables: &T) -> Judgement {
    let parsed = configured(tables).and_then(|config| outer::parse(frame, config.port));
    let judgement = match parsed {
        Err(verdict) => Judgement::of(verdict),
        Ok(outer) => {
            let mut judgement = judge(frame, outer.payload, outer.len, &outer.source, tables);
            if let Class::Answer = judgement.verdict.class() {
                let len = answer_len(judgement.verdict, outer.len);
                if outer::turn(frame, &outer, len).is_none() {
                    judgement.verdict = Verdict::WriteFailed;
                }
            }
            judgement
        }
    };
    tables.count(judgement.verdict);
    judgement
}

/// Source and locator of a frame that was not changed, read anew for a report about it: keeping them until
/// then would cost every packet what only a sampled one needs.
#[inline(always)]
pub fn describe<T: Tables>(frame: &impl Frame, tables: &T) -> Option<(Source, u64)> {
    let outer = outer::parse(frame, tables.config()?.port).ok()?;
    let locator = frame.read::<8>(outer.payload + 8)?;
    Some((outer.source, u64::from_le_bytes(locator)))
}

/// Judges a datagram's payload and counts the verdict. An answer stands in `payload` afterwards, cut to
/// its length, for the caller to send to `source`.
#[inline(always)]
pub fn datagram<T: Tables>(payload: &mut impl Frame, source: &Source, tables: &T) -> Judgement {
    let len = payload.len();
    let mut judgement = judge(payload, 0, len, source, tables);
    if let Class::Answer = judgement.verdict.class()
        && payload.shorten(answer_len(judgement.verdict, len)).is_none()
    {
        judgement.verdict = Verdict::WriteFailed;
    }
    tables.count(judgement.verdict);
    judgement
}

/// Bytes of the answer to a question of `len` bytes; never more.
#[inline(always)]
const fn answer_len(verdict: Verdict, len: usize) -> usize {
    match verdict {
        Verdict::Noticed if len > probe::ANSWER_LEN => probe::ANSWER_LEN,
        _ => len,
    }
}

#[inline(always)]
fn configured<T: Tables>(tables: &T) -> Result<&Config, Verdict> {
    match tables.config() {
        Some(config) if config.layout == LAYOUT_HASH && config.role == ROLE_GATEWAY => Ok(config),
        _ => Err(Verdict::Unconfigured),
    }
}

/// Judges the datagram of `len` bytes at `at`, writing the answer over it if it is answered.
#[inline(always)]
pub fn judge<T: Tables>(frame: &mut impl Frame, at: usize, len: usize, source: &Source, tables: &T) -> Judgement {
    if len == 0 {
        return Judgement::of(Verdict::Short);
    }
    let Some([first]) = frame.read::<1>(at) else {
        return Judgement::of(Verdict::Short);
    };
    let Some(kind) = Kind::from_byte(first) else {
        return Judgement::of(Verdict::UnknownType);
    };
    let shortest = match kind {
        Kind::Initiation => return Judgement::of(initiation(len, source, tables)),
        Kind::Response | Kind::CookieReply | Kind::Echo | Kind::Notice => {
            return Judgement::of(Verdict::ClientOnly);
        }
        Kind::Data | Kind::Control => HEADER_LEN + TAG_LEN,
        Kind::Probe => probe::ANSWER_LEN,
    };
    if len < shortest {
        return Judgement::of(Verdict::Short);
    }
    let Some(bytes) = frame.read::<HEADER_LEN>(at) else {
        return Judgement::of(Verdict::Short);
    };
    let mut judgement = Judgement::of(Verdict::UnknownLocator);
    judgement.header = Header::from_bytes(&bytes);
    let known = match look_up(judgement.header, tables) {
        Ok(known) => known,
        Err(verdict) => {
            return Judgement { verdict, ..judgement };
        }
    };
    judgement.entry = known.entry;
    judgement.verdict = match kind {
        Kind::Probe => judge_probe(frame, at, len, source, &known, tables),
        _ => match check_tag(&known, None, tables) {
            Err(verdict) => verdict,
            Ok(()) if matches!(kind, Kind::Control) => Verdict::Control,
            Ok(()) => judge_data(frame, at, len, source, &known, tables, &mut judgement.draining),
        },
    };
    judgement
}

/// Message 1: its size, its source's share, everybody's share.
#[inline(always)]
fn initiation<T: Tables>(len: usize, source: &Source, tables: &T) -> Verdict {
    // As a client sends it, or with what a relay puts behind it: whether it is one, the controller knows.
    if len != HANDSHAKE_LEN && len != HANDSHAKE_LEN + TRAILER_LEN {
        return Verdict::HandshakeSize;
    }
    let Some(config) = tables.config() else {
        return Verdict::Unconfigured;
    };
    if config.handshake_rate == 0 {
        return Verdict::Handshake;
    }
    let own = bucket::of_source(config.bucket_seed, &source.address) % BUCKET_SOURCES;
    let everybody = BUCKET_SOURCES + tables.lane() % BUCKET_LANES;
    let tick = tables.ticks();
    let limit = Limit { rate: config.handshake_rate, burst: config.handshake_burst };
    let all = Limit { rate: config.handshake_total_rate, burst: config.handshake_total_burst };
    let Some(own_after) = bucket::take(&tables.bucket(own), limit, tick, config.hz) else {
        return Verdict::HandshakeRate;
    };
    let Some(all_after) = bucket::take(&tables.bucket(everybody), all, tick, config.hz) else {
        return Verdict::HandshakeRate;
    };
    tables.set_bucket(own, &own_after);
    tables.set_bucket(everybody, &all_after);
    Verdict::Handshake
}

/// From the locator to the session, past everything that can be refused without a key.
#[inline(always)]
fn look_up<T: Tables>(header: Header, tables: &T) -> Result<Known<T>, Verdict> {
    let entry = tables.locator(header.locator).ok_or(Verdict::UnknownLocator)?;
    let session = tables.session(entry.slot).ok_or(Verdict::UnknownLocator)?;
    if session.generation() != entry.generation || entry.generation == 0 {
        return Err(Verdict::StaleGeneration);
    }
    let allowed = if header.kind == Kind::Data as u8 { FLAG_PARTIAL_CHECKSUM } else { 0 };
    if header.flags & (FLAGS_RESERVED | FLAG_PARTIAL_CHECKSUM) & !allowed != 0 {
        return Err(Verdict::BadFlags);
    }
    if header.flags & FLAG_DOWN != 0 {
        return Err(Verdict::BadDirection);
    }
    Ok(Known { header, entry, session })
}

/// Compares the steering tag; what a session that is pending may receive is decided here too.
#[inline(always)]
fn check_tag<T: Tables>(known: &Known<T>, body: Option<&[u64; 6]>, tables: &T) -> Result<(), Verdict> {
    let slot = known.entry.slot;
    let keys = tables.keys(slot).ok_or(Verdict::UnknownLocator)?;
    let Header { kind, epoch, flags, tag, counter, .. } = known.header;
    if steering_tag(keys.up, counter, kind, epoch, flags, known.entry.k, body) != tag {
        tables.add(slot, TrafficField::Forged, 1);
        return Err(Verdict::ForgedTag);
    }
    if known.session.flags() & PENDING != 0 && kind != Kind::Control as u8 {
        return Err(Verdict::PendingSlot);
    }
    Ok(())
}

#[inline(always)]
fn judge_probe<T: Tables>(
    frame: &mut impl Frame,
    at: usize,
    len: usize,
    source: &Source,
    known: &Known<T>,
    tables: &T,
) -> Verdict {
    let Some(bytes) = frame.read(at + HEADER_LEN) else {
        return Verdict::Short;
    };
    let words = words(&bytes);
    match check_tag(known, Some(&words), tables) {
        Err(verdict) => verdict,
        Ok(()) => probe::echo(frame, at, len, source, known, &Body::from_words(&words), tables),
    }
}

#[inline(always)]
fn judge_data<T: Tables>(
    frame: &mut impl Frame,
    at: usize,
    len: usize,
    source: &Source,
    known: &Known<T>,
    tables: &T,
    draining: &mut bool,
) -> Verdict {
    let LocatorEntry { slot, k, .. } = known.entry;
    let tick = tables.ticks();
    let Some(config) = tables.config() else {
        return Verdict::Unconfigured;
    };
    if !config.alive(known.header.locator, tick) {
        return Verdict::WorkerDead;
    }
    let Some(bound) = bind::read(&known.session) else {
        return Verdict::Torn;
    };
    match bound.relation(&source.address, source.port, k, tick) {
        Relation::Active => {}
        Relation::Draining => *draining = true,
        Relation::Expired => return Verdict::DrainExpired,
        Relation::Unbound => return probe::notice(frame, at, len, known, tick, tables),
    }
    if tables.counts_arrivals() {
        let place = u32::from(k) % PATHS_PER_SLOT;
        let mut path = probe::of_transport(tables.path(slot, place), k);
        path.data = path.data.wrapping_add(1);
        tables.set_path(slot, place, &path);
        tables.add(slot, TrafficField::DataPackets, 1);
        tables.add(slot, TrafficField::DataBytes, len as u64);
    }
    Verdict::Data
}
