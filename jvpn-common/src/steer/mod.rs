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
//! source `recvmsg` told it; both come through the same [`judge`]. A relay's do the same with [`relay()`] and
//! [`relay_datagram`], whose data goes on to the other side instead of to a worker. The order is by price: what needs no
//! look-up first, then the tag, and only then anything that writes. Owns that order. It must never decide
//! what policy decides, and the tag it checks authenticates nothing that changes a session.

mod address;
pub mod bind;
pub mod bucket;
mod frame;
mod judgement;
mod locate;
mod outer;
pub mod probe;
mod relay;
mod rewrite;
mod tables;
#[cfg(test)]
mod tests;

pub use address::Address;
pub use frame::{Bytes, Frame};
pub use judgement::{Judgement, NO_SLOT, Source};
pub use locate::{Cells, find};
pub use relay::{Passed, Relayed, Way, relay, relay_datagram};
pub use rewrite::{Exit, Route};
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
use judgement::{Datagram, Known, Life};

/// Judges a whole frame, turns it round if it is answered, and counts the verdict.
#[inline(always)]
pub fn steer<T: Tables>(frame: &mut impl Frame, tables: &T) -> Judgement {
    let parsed = configured(tables, ROLE_GATEWAY).and_then(|config| outer::parse(frame, config.port));
    let judgement = match parsed {
        Err(verdict) => Judgement::of(verdict),
        Ok(outer) => {
            let datagram = Datagram { at: outer.payload, len: outer.len, source: &outer.source };
            let mut judgement = judge(frame, &datagram, tables);
            if let Class::Answer = judgement.verdict.class() {
                judgement.verdict = turned(frame, &outer, judgement.verdict);
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

/// Source of a frame's datagram for our port, and where in the frame its payload begins: for whoever shows what was
/// judged. The packet path has no use for it.
pub fn locate<T: Tables>(frame: &impl Frame, tables: &T) -> Option<(Source, usize)> {
    let outer = outer::parse(frame, tables.config()?.port).ok()?;
    Some((outer.source, outer.payload))
}

/// Judges a datagram's payload and counts the verdict. An answer stands in `payload` afterwards, cut to
/// its length, for the caller to send to `source`.
#[inline(always)]
pub fn datagram<T: Tables>(payload: &mut impl Frame, source: &Source, tables: &T) -> Judgement {
    let len = payload.len();
    let mut judgement = judge(payload, &Datagram { at: 0, len, source }, tables);
    judgement.verdict = cut(payload, len, judgement.verdict);
    tables.count(judgement.verdict);
    judgement
}

/// The verdict of a frame that is answered, once it was turned round.
#[inline(always)]
fn turned(frame: &mut impl Frame, outer: &outer::Outer, verdict: Verdict) -> Verdict {
    match outer::turn(frame, outer, answer_len(verdict, outer.len)) {
        Some(()) => verdict,
        None => Verdict::WriteFailed,
    }
}

/// The verdict of a payload, once it was cut to the answer if it is one.
#[inline(always)]
fn cut(payload: &mut impl Frame, len: usize, verdict: Verdict) -> Verdict {
    match verdict.class() {
        Class::Answer if payload.shorten(answer_len(verdict, len)).is_none() => Verdict::WriteFailed,
        _ => verdict,
    }
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
fn configured<T: Tables>(tables: &T, role: u16) -> Result<&Config, Verdict> {
    match tables.config() {
        Some(config) if config.layout == LAYOUT_HASH && config.role == role => Ok(config),
        _ => Err(Verdict::Unconfigured),
    }
}

/// Judges a datagram, writing the answer over it if it is answered.
#[inline(always)]
fn judge<T: Tables>(frame: &mut impl Frame, datagram: &Datagram<'_>, tables: &T) -> Judgement {
    let kind = match kind(frame, datagram) {
        Ok(kind) => kind,
        Err(verdict) => return Judgement::of(verdict),
    };
    match kind {
        Kind::Initiation => return Judgement::of(initiation(datagram, tables)),
        Kind::Response | Kind::CookieReply | Kind::Echo | Kind::Notice => {
            return Judgement::of(Verdict::ClientOnly);
        }
        Kind::Data | Kind::Control | Kind::Probe => {}
    }
    let mut judgement = Judgement::of(Verdict::UnknownLocator);
    let known = match open(frame, datagram, kind, 0, tables, &mut judgement) {
        Ok(known) => known,
        Err(verdict) => {
            return Judgement { verdict, ..judgement };
        }
    };
    judgement.verdict = match kind {
        Kind::Probe => judge_probe(frame, datagram, &known, tables),
        _ => match check_tag(&known, None, tables) {
            Err(verdict) => verdict,
            Ok(()) if matches!(kind, Kind::Control) => Verdict::Control,
            Ok(()) => judge_data(frame, datagram, &known, tables, &mut judgement.draining),
        },
    };
    judgement
}

/// The type of the datagram.
#[inline(always)]
fn kind(frame: &impl Frame, datagram: &Datagram<'_>) -> Result<Kind, Verdict> {
    if datagram.len == 0 {
        return Err(Verdict::Short);
    }
    let [first] = frame.read::<1>(datagram.at).ok_or(Verdict::Short)?;
    Kind::from_byte(first).ok_or(Verdict::UnknownType)
}

/// Reads the header of data, control or a probe and finds its session. What was learned stands in `judgement`, the way
/// there too if it ends in between.
#[inline(always)]
fn open<T: Tables>(
    frame: &impl Frame,
    datagram: &Datagram<'_>,
    kind: Kind,
    directions: u16,
    tables: &T,
    judgement: &mut Judgement,
) -> Result<Known<T>, Verdict> {
    let shortest = if let Kind::Probe = kind { probe::ANSWER_LEN } else { HEADER_LEN + TAG_LEN };
    if datagram.len < shortest {
        return Err(Verdict::Short);
    }
    let bytes = frame.read::<HEADER_LEN>(datagram.at).ok_or(Verdict::Short)?;
    judgement.header = Header::from_bytes(&bytes);
    let known = look_up(judgement.header, directions, tables)?;
    judgement.entry = known.entry;
    Ok(known)
}

/// Message 1: its size, its source's share, everybody's share.
#[inline(always)]
fn initiation<T: Tables>(datagram: &Datagram<'_>, tables: &T) -> Verdict {
    let len = datagram.len;
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
    let own = bucket::of_source(config.bucket_seed, &datagram.source.address) % BUCKET_SOURCES;
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

/// From the locator to the session, past everything that can be refused without a key. `directions` is
/// [`FLAG_DOWN`] where datagrams from an owner come by too.
#[inline(always)]
fn look_up<T: Tables>(header: Header, directions: u16, tables: &T) -> Result<Known<T>, Verdict> {
    let entry = tables.locator(header.locator).ok_or(Verdict::UnknownLocator)?;
    let session = tables.session(entry.slot).ok_or(Verdict::UnknownLocator)?;
    if session.generation() != entry.generation || entry.generation == 0 {
        return Err(Verdict::StaleGeneration);
    }
    let allowed = if header.kind == Kind::Data as u8 { FLAG_PARTIAL_CHECKSUM } else { 0 };
    if header.flags & (FLAGS_RESERVED | FLAG_PARTIAL_CHECKSUM) & !allowed != 0 {
        return Err(Verdict::BadFlags);
    }
    if header.flags & FLAG_DOWN & !directions != 0 {
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
    let key = if flags & FLAG_DOWN == 0 { keys.up } else { keys.down };
    if steering_tag(key, counter, kind, epoch, flags, known.entry.k, body) != tag {
        tables.add(slot, TrafficField::Forged, 1);
        return Err(Verdict::ForgedTag);
    }
    if known.session.flags() & PENDING != 0 && kind != Kind::Control as u8 {
        return Err(Verdict::PendingSlot);
    }
    Ok(())
}

#[inline(always)]
fn judge_probe<T: Tables>(frame: &mut impl Frame, datagram: &Datagram<'_>, known: &Known<T>, tables: &T) -> Verdict {
    let asked = match asked(frame, datagram, known, tables) {
        Ok(asked) => asked,
        Err(verdict) => return verdict,
    };
    probe::echo(frame, datagram, known, &asked, tables, |tick| Life::own(known.header.locator, tick, tables))
}

/// The body of a probe whose tag is right.
#[inline(always)]
fn asked<T: Tables>(
    frame: &impl Frame,
    datagram: &Datagram<'_>,
    known: &Known<T>,
    tables: &T,
) -> Result<Body, Verdict> {
    let words = words(&frame.read(datagram.at + HEADER_LEN).ok_or(Verdict::Short)?);
    check_tag(known, Some(&words), tables)?;
    Ok(Body::from_words(&words))
}

#[inline(always)]
fn judge_data<T: Tables>(
    frame: &mut impl Frame,
    datagram: &Datagram<'_>,
    known: &Known<T>,
    tables: &T,
    draining: &mut bool,
) -> Verdict {
    let tick = tables.ticks();
    let Some(life) = Life::own(known.header.locator, tick, tables) else {
        return Verdict::Unconfigured;
    };
    if !life.alive {
        return Verdict::WorkerDead;
    }
    match from_bound(frame, datagram, known, tick, life, tables) {
        Err(verdict) => return verdict,
        Ok(drains) => *draining = drains,
    }
    count_arrival(&known.entry, datagram.len, tables);
    Verdict::Data
}

/// Whether data came from the draining binding instead of the active one. Data from neither is answered with a
/// notice, if one is due.
#[inline(always)]
fn from_bound<T: Tables>(
    frame: &mut impl Frame,
    datagram: &Datagram<'_>,
    known: &Known<T>,
    tick: u64,
    life: Life,
    tables: &T,
) -> Result<bool, Verdict> {
    let bound = bind::words(&known.session).ok_or(Verdict::Torn)?;
    match bound.relation(&datagram.source.address, datagram.source.port, known.entry.k, tables.arrival(tick)) {
        Relation::Active => Ok(false),
        Relation::Draining => Ok(true),
        Relation::Expired => Err(Verdict::DrainExpired),
        Relation::Unbound => Err(probe::notice(frame, datagram, known, tick, life.incarnation, tables)),
    }
}

/// Counts data of `len` bytes from a client.
#[inline(always)]
fn count_arrival<T: Tables>(entry: &LocatorEntry, len: usize, tables: &T) {
    if !tables.counts_arrivals() {
        return;
    }
    let LocatorEntry { slot, k, .. } = *entry;
    let place = u32::from(k) % PATHS_PER_SLOT;
    let mut path = probe::of_transport(tables.path(slot, place), k);
    path.data = path.data.wrapping_add(1);
    tables.set_path(slot, place, &path);
    tables.add(slot, TrafficField::DataPackets, 1);
    tables.add(slot, TrafficField::DataBytes, len as u64);
}
