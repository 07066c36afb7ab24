//! A picture as a file (`jvpn.dump/1`): what `trace` needs to judge packets somewhere else.
//!
//! Owns the form: each entry as its 64-bit words in hex, without the zeros at the end. Must never write keys unless
//! told to, and never believe a file: what does not fit is refused with its place.

use super::picture::{Picture, Secrets};
use jvpn_common::abi::{LAYOUT_HASH, LocatorEntry, SteeringKeys, map};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use thiserror::Error;

/// Form of the file.
pub const SCHEMA: &str = "jvpn.dump/1";

/// Bytes of a file at most: a million sessions with six locators each are half of it.
const FILE_MAX: u64 = 2 << 30;

/// Why a dump cannot be used.
#[derive(Debug, Error)]
pub enum DumpError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no dump.
    #[error("not a dump of the maps: {0}")]
    Form(String),
    /// It was made by another build.
    #[error("the dump was made by a build with another layout of the maps")]
    Layout,
    /// An entry does not fit.
    #[error("map {map}, entry {key}: {what}")]
    Entry {
        /// Map.
        map: String,
        /// Entry.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct File {
    schema: String,
    taken: String,
    tick: u64,
    now: u64,
    /// Whether `KEYS` and the seed of the buckets are in it.
    secrets: bool,
    maps: BTreeMap<String, BTreeMap<u64, String>>,
}

type Rows = BTreeMap<u64, String>;

fn text(words: &[u64]) -> String {
    let used = words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
    let used = words.iter().take(used.max(1));
    used.map(|word| format!("{word:x}")).collect::<Vec<_>>().join(" ")
}

fn array<const N: usize>(rows: &BTreeMap<u32, [u64; N]>) -> Rows {
    rows.iter().map(|(key, words)| (u64::from(*key), text(words))).collect()
}

/// The picture as text; keys only if it has them.
pub fn to_text(picture: &Picture) -> String {
    let locator = |(locator, entry): (&u64, &LocatorEntry)| {
        (*locator, text(&[u64::from(entry.slot), u64::from(entry.generation), u64::from(entry.k)]))
    };
    let counts = picture.verdicts.iter().map(|(number, counts)| (u64::from(*number), text(counts)));
    let mut maps = BTreeMap::from([
        (map::CONFIG.to_owned(), Rows::from([(0, text(&picture.config))])),
        (map::LOCATORS.to_owned(), picture.locators.iter().map(locator).collect()),
        (map::SESSIONS.to_owned(), array(&picture.sessions)),
        (map::SESSION_INFO.to_owned(), array(&picture.info)),
        (map::PATHS.to_owned(), array(&picture.paths)),
        (map::TRAFFIC.to_owned(), array(&picture.traffic)),
        (map::BUCKETS.to_owned(), array(&picture.buckets)),
        (map::OWNERS.to_owned(), array(&picture.owners)),
        (map::HOPS.to_owned(), array(&picture.hops)),
        (map::VERDICTS.to_owned(), counts.collect()),
    ]);
    if let Some(secrets) = &picture.secrets {
        let rows = secrets.keys.iter().map(|(slot, keys)| (u64::from(*slot), text(&keys.to_words())));
        maps.insert(map::KEYS.to_owned(), rows.collect());
    }
    let file = File {
        schema: SCHEMA.to_owned(),
        taken: picture.taken.clone(),
        tick: picture.tick,
        now: picture.now,
        secrets: picture.secrets.is_some(),
        maps,
    };
    serde_json::to_string(&file).unwrap_or_default() + "\n"
}

/// Writes it where only its owner may read it, whatever was there.
pub fn write(picture: &Picture, path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // A file that was there keeps the mode it had, and nothing is written before that is right.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(to_text(picture).as_bytes())?;
    file.sync_all()
}

/// Reads one.
pub fn read(path: &Path) -> Result<Picture, DumpError> {
    let size = std::fs::metadata(path)?.len();
    if size > FILE_MAX {
        return Err(DumpError::Form(format!("{size} bytes are more than any dump has")));
    }
    from_text(&std::fs::read_to_string(path)?)
}

/// The picture of a text.
pub fn from_text(text: &str) -> Result<Picture, DumpError> {
    let file: File = serde_json::from_str(text).map_err(|error| DumpError::Form(error.to_string()))?;
    if file.schema != SCHEMA {
        return Err(DumpError::Form(format!("its schema is `{}`, not `{SCHEMA}`", file.schema)));
    }
    let maps = Maps(file.maps);
    let config = maps.rows(map::CONFIG)?.get(&0).copied().unwrap_or_default();
    let mut verdicts = BTreeMap::new();
    for (number, counts) in maps.parsed(map::VERDICTS) {
        verdicts.insert(maps.index(map::VERDICTS, number)?, counts?);
    }
    let mut locators = BTreeMap::new();
    for (locator, words) in maps.parsed(map::LOCATORS) {
        let refuse = |what| DumpError::Entry { map: map::LOCATORS.to_owned(), key: locator.to_string(), what };
        let words: [u64; 3] = fixed(&words?).ok_or_else(|| refuse("more words than a value has"))?;
        let [slot, generation, k] = words;
        let (Ok(slot), Ok(generation), Ok(k)) = (slot.try_into(), generation.try_into(), k.try_into()) else {
            return Err(refuse("no slot, generation and transport index"));
        };
        locators.insert(locator, LocatorEntry { slot, generation, k });
    }
    let keys = maps.rows(map::KEYS)?.into_iter().map(|(slot, words)| (slot, SteeringKeys::from_words(words)));
    let picture = Picture {
        taken: file.taken,
        tick: file.tick,
        now: file.now,
        config,
        locators,
        sessions: maps.rows(map::SESSIONS)?,
        info: maps.rows(map::SESSION_INFO)?,
        paths: maps.rows(map::PATHS)?,
        traffic: maps.rows(map::TRAFFIC)?,
        buckets: maps.rows(map::BUCKETS)?,
        owners: maps.rows(map::OWNERS)?,
        hops: maps.rows(map::HOPS)?,
        verdicts,
        secrets: file.secrets.then(|| Secrets { keys: keys.collect() }),
    };
    // A dump of maps that were never configured is one too: all zero, everything passes.
    if picture.config().layout != LAYOUT_HASH && picture.config().layout != 0 {
        return Err(DumpError::Layout);
    }
    Ok(picture)
}

/// The words at the front of a value of `N`; none if there are more.
fn fixed<const N: usize>(words: &[u64]) -> Option<[u64; N]> {
    let mut out = [0; N];
    out.get_mut(..words.len())?.copy_from_slice(words);
    Some(out)
}

struct Maps(BTreeMap<String, Rows>);

impl Maps {
    /// Keys and words of a map, as they stand in the file.
    fn parsed(&self, name: &'static str) -> impl Iterator<Item = (u64, Result<Vec<u64>, DumpError>)> {
        let words = move |key: u64, text: &str| {
            let word = |word| u64::from_str_radix(word, 16);
            let words: Result<Vec<_>, _> = text.split_whitespace().map(word).collect();
            words.map_err(|_| DumpError::Entry { map: name.to_owned(), key: key.to_string(), what: "not words in hex" })
        };
        self.0.get(name).into_iter().flatten().map(move |(key, text)| (*key, words(*key, text)))
    }

    fn index(&self, name: &str, key: u64) -> Result<u32, DumpError> {
        let what = "no such entry";
        u32::try_from(key).map_err(|_| DumpError::Entry { map: name.to_owned(), key: key.to_string(), what })
    }

    /// The rows of an array whose values are `N` words.
    fn rows<const N: usize>(&self, name: &'static str) -> Result<BTreeMap<u32, [u64; N]>, DumpError> {
        let mut rows = BTreeMap::new();
        for (key, words) in self.parsed(name) {
            let what = "more words than a value has";
            let entry = || DumpError::Entry { map: name.to_owned(), key: key.to_string(), what };
            rows.insert(self.index(name, key)?, fixed(&words?).ok_or_else(entry)?);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jvpn_common::abi::{BUCKET_SOURCES, Config};

    fn picture() -> Picture {
        let config = Config { layout: LAYOUT_HASH, port: 51_821, role: 1, bucket_seed: [7, 8], ..Config::default() };
        let mut session = [0; 16];
        (session[0], session[1], session[5]) = (0x2_0102_0000, 1, u64::MAX);
        Picture {
            taken: "2026-01-02T03:04:05Z".to_owned(),
            tick: 5_000_000,
            now: u64::MAX,
            config: config.to_words(),
            locators: [(u64::MAX, LocatorEntry { slot: 1, generation: 1, k: 2 })].into(),
            sessions: [(1, session)].into(),
            info: [(1, [1, 2, 3, 4, 5])].into(),
            paths: [(4, [1, 2, 3, 4])].into(),
            traffic: [(1, [9; 16])].into(),
            buckets: [(3, [1, 2]), (BUCKET_SOURCES, [3, 4])].into(),
            owners: [(0, [2; 10])].into(),
            hops: [(1_023, [4; 6])].into(),
            verdicts: [(12, vec![0, 5, 0])].into(),
            secrets: Some(Secrets {
                keys: [(1, SteeringKeys { up: [0xdead_beef_0123, 2], down: [3, 0xfeed_4567] })].into(),
            }),
        }
    }

    #[test]
    fn a_picture_reads_back_from_its_file() {
        let mut before = picture();
        let after = from_text(&to_text(&before)).expect("a dump");
        // Zeros at the end of a value are not written; those of VERDICTS are processors that counted nothing.
        before.verdicts = [(12, vec![0, 5])].into();
        assert_eq!(after, before);
    }

    #[test]
    fn without_secrets_no_key_no_seed_and_nothing_that_follows_from_the_seed_is_left() {
        let text = to_text(&picture().without_secrets());
        for secret in ["deadbeef0123", "feed4567", "KEYS"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let after = from_text(&text).expect("a dump");
        assert_eq!((after.config().bucket_seed, &after.secrets), ([0; 2], &None));
        assert_eq!(after.buckets.keys().copied().collect::<Vec<_>>(), [BUCKET_SOURCES]);
        assert_eq!((after.config().port, after.sessions), (51_821, picture().sessions));
    }

    #[test]
    fn the_file_is_its_owners_alone_even_where_another_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("dump");
        std::fs::write(&path, "long ago, and longer than what is written now ".repeat(100)).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        write(&picture(), &path).expect("written");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).expect("a dump").sessions, picture().sessions);
    }

    #[test]
    fn what_is_no_dump_is_refused_with_its_place() {
        let good = to_text(&picture());
        for (from, to, said) in [
            (SCHEMA, "jvpn.maps/1", "its schema is `jvpn.maps/1`"),
            ("\"4\":\"1 2 3 4\"", "\"4\":\"1 2 3 4 5\"", "map PATHS, entry 4: more words"),
            ("\"4\":\"1 2 3 4\"", "\"4\":\"1 x\"", "map PATHS, entry 4: not words in hex"),
            ("\"4\":\"1 2 3 4\"", "\"4294967296\":\"1\"", "map PATHS, entry 4294967296: no such entry"),
            ("\"1 1 2\"", "\"1 1 10000\"", "map LOCATORS, entry 18446744073709551615: no slot"),
            (&format!("{LAYOUT_HASH:x}"), "1", "another layout"),
        ] {
            assert!(good.contains(from), "{from} in {good}");
            let error = from_text(&good.replacen(from, to, 1)).expect_err(to).to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(from_text("junk").is_err());
    }
}
