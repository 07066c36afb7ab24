//! Taking a picture of the pinned maps.
//!
//! Owns the order of reading: the layout first, then sessions, then what belongs to those that are there. Must never
//! write, and never report a binding half of which is from before a jump.

use super::picture::{Picture, Secrets};
use crate::dataplane::attach::{self, AttachError};
use crate::dataplane::pins::Pins;
use crate::dataplane::{kernel, locators};
use crate::runtime::clock;
use aya::Pod;
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use jvpn_common::abi::{
    BUCKET_LANES, BUCKET_SOURCES, HOPS_MAX, LAYOUT_HASH, OWNERS_MAX, PATHS_PER_SLOT, SESSION_WORDS, SteeringKeys,
    WORD_ACTIVE, map, sequence::SEQUENCE,
};
use jvpn_common::verdict::VERDICTS_MAX;
use std::collections::BTreeMap;

/// Looks at one slot while it jumps: each look is two syscalls, and a session jumps a few times a minute.
const LOOKS: usize = 16;

/// Reads every map below `pins`.
pub fn picture(pins: &Pins) -> Result<Picture, AttachError> {
    pins.check()?;
    let config = attach::read_config(pins)?;
    if config.layout != LAYOUT_HASH {
        return Err(AttachError::Layout);
    }
    let ticks = kernel::ticks()?;
    let sessions = steady::<SESSION_WORDS>(pins, map::SESSIONS, config.max_sessions, WORD_ACTIVE)?;
    let slots: Vec<u32> = sessions.keys().copied().collect();
    let places: Vec<u32> = slots.iter().flat_map(|slot| (0..PATHS_PER_SLOT).map(move |at| slot * 4 + at)).collect();
    let keys = rows(pins, map::KEYS, slots.iter().copied())?;
    Ok(Picture {
        taken: jiff::Timestamp::now().to_string(),
        tick: ticks.now(),
        now: clock::boot().0,
        config: config.to_words(),
        locators: locators::table(pins)?.all(),
        info: rows(pins, map::SESSION_INFO, 0..config.max_sessions)?,
        paths: rows(pins, map::PATHS, places.into_iter())?,
        traffic: rows(pins, map::TRAFFIC, slots.iter().copied())?,
        buckets: rows(pins, map::BUCKETS, 0..BUCKET_SOURCES + BUCKET_LANES)?,
        owners: steady(pins, map::OWNERS, OWNERS_MAX, SEQUENCE)?,
        hops: steady(pins, map::HOPS, HOPS_MAX, SEQUENCE)?,
        verdicts: verdicts(pins)?,
        secrets: Some(Secrets {
            keys: keys.into_iter().map(|(slot, words)| (slot, SteeringKeys::from_words(words))).collect(),
        }),
        sessions,
    })
}

fn unread(name: &'static str) -> impl Fn(MapError) -> AttachError {
    move |error| AttachError::Map { name, error: error.to_string() }
}

fn data(pins: &Pins, name: &'static str) -> Result<MapData, AttachError> {
    MapData::from_pin(pins.map(name)).map_err(unread(name))
}

fn array<T: Pod>(pins: &Pins, name: &'static str) -> Result<Array<MapData, T>, AttachError> {
    Array::try_from(Map::Array(data(pins, name)?)).map_err(unread(name))
}

/// The entries at `keys` that are not all zero.
fn rows<const N: usize>(
    pins: &Pins,
    name: &'static str,
    keys: impl Iterator<Item = u32>,
) -> Result<BTreeMap<u32, [u64; N]>, AttachError>
where
    [u64; N]: Pod,
{
    let map = array::<[u64; N]>(pins, name)?;
    let mut rows = BTreeMap::new();
    for key in keys {
        let words = map.get(&key, 0).map_err(unread(name))?;
        if words.iter().any(|word| *word != 0) {
            rows.insert(key, words);
        }
    }
    Ok(rows)
}

/// Entries that others may be writing, with the word that tells: it is stored when the rest of what it vouches for stands.
/// The kernel copies a value while that happens; two copies with one such word are whole.
fn steady<const N: usize>(
    pins: &Pins,
    name: &'static str,
    entries: u32,
    teller: usize,
) -> Result<BTreeMap<u32, [u64; N]>, AttachError>
where
    [u64; N]: Pod,
{
    let map = array::<[u64; N]>(pins, name)?;
    let mut rows = BTreeMap::new();
    for key in 0..entries {
        let mut words = map.get(&key, 0).map_err(unread(name))?;
        for _ in 0..LOOKS {
            let again = map.get(&key, 0).map_err(unread(name))?;
            let whole = words.get(teller) == again.get(teller);
            words = again;
            if whole {
                break;
            }
        }
        if words.iter().any(|word| *word != 0) {
            rows.insert(key, words);
        }
    }
    Ok(rows)
}

fn verdicts(pins: &Pins) -> Result<BTreeMap<u32, Vec<u64>>, AttachError> {
    let name = map::VERDICTS;
    let map: PerCpuArray<_, u64> = PerCpuArray::try_from(Map::PerCpuArray(data(pins, name)?)).map_err(unread(name))?;
    let mut verdicts = BTreeMap::new();
    for number in 0..VERDICTS_MAX {
        let counts = map.get(&number, 0).map_err(unread(name))?;
        if counts.iter().any(|count| *count != 0) {
            verdicts.insert(number, counts.to_vec());
        }
    }
    Ok(verdicts)
}
