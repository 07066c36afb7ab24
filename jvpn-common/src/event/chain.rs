//! The chain over the record: every line names the one before it.
//!
//! Owns the two last fields of a line. Must never accept a line that is not byte for byte what was sealed.
//! It proves that nobody changed, removed or inserted a line before the last one; that the last lines were
//! cut off, or the whole file written anew, only a checkpoint kept elsewhere can show.

use sha2::{Digest, Sha256};

use super::{Record, hex, hex_onto};

/// SHA-256 of a sealed line; all zero before the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of its 64 digits, lower case only.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex(text.as_bytes()).map(Self)
    }
}

impl core::fmt::Display for Hash {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A line as it is appended, without the line feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The JSON text.
    pub line: String,
    /// What the next line names.
    pub hash: Hash,
}

/// A line that was read back and belongs to the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsealed {
    /// What it says.
    pub record: Record,
    /// What the next line names.
    pub hash: Hash,
}

/// Why a line does not belong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Cut short, or no record.
    #[error("not a whole record: {0}")]
    NotARecord(String),
    /// Its own hash does not fit its bytes.
    #[error("the line was changed: its hash does not fit")]
    Changed,
    /// It follows another line than the one before it.
    #[error("a line is missing, was inserted or moved: it follows {named}, not {head}")]
    NotNext {
        /// What it names.
        named: Hash,
        /// What came before.
        head: Hash,
    },
}

/// `,"prev":"…64…"` and `,"hash":"…64…"}`.
const PREV: &str = ",\"prev\":\"";
const HASH: &str = ",\"hash\":\"";

/// SHA-256 over the head ‖ the line's bytes up to `,"hash"`.
fn digest(head: Hash, line: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update(head.0).chain_update(line).finalize().into())
}

/// Seals a line (of [`Record::line`]) after `prev`. The caller goes on from the returned hash once the line was written.
#[must_use]
pub fn seal(line: &str, prev: Hash) -> Sealed {
    let mut text = line.as_bytes().to_vec();
    let hash = close(&mut text, 0, prev);
    Sealed { line: String::from_utf8(text).expect("text and hexadecimal digits"), hash }
}

/// Seals a record after `prev`, behind what `to` holds already: a gateway under a storm writes ten thousand a second, and
/// each has more than a kilobyte that need not be copied.
#[must_use]
pub fn seal_onto(to: &mut Vec<u8>, record: &Record, prev: Hash) -> Hash {
    let start = to.len();
    record.write(to);
    close(to, start, prev)
}

/// Gives the line that begins at `start`, the last one, its two last fields.
fn close(text: &mut Vec<u8>, start: usize, prev: Hash) -> Hash {
    if text.last() == Some(&b'}') {
        text.pop();
    }
    let add = |text: &mut Vec<u8>, label: &str, hash: Hash| {
        text.extend_from_slice(label.as_bytes());
        hex_onto(text, &hash.0);
        text.push(b'"');
    };
    add(text, PREV, prev);
    let hash = digest(prev, text.get(start..).unwrap_or_default());
    add(text, HASH, hash);
    text.push(b'}');
    hash
}

/// What no digit is worth; its high bit is in no value.
const NO_DIGIT: u8 = 0xff;

/// What each byte is worth as a hexadecimal digit, lower case only. A table: a verification decodes two hashes a line.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        let digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        digits[digit as usize] = value;
        value += 1;
    }
    digits
};

/// 32 bytes from their hexadecimal form, lower case only.
pub(super) fn unhex(digits: &[u8]) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = digits.try_into().ok()?;
    let (pairs, _) = digits.as_chunks::<2>();
    let mut bytes = [0; 32];
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| DIGITS[usize::from(digit)]);
        seen |= high | low;
        *byte = high << 4 | low;
    }
    (seen & 0xf0 == 0).then_some(bytes)
}

/// Splits `… label 64-hex "` off the end of a text.
fn field<'a>(text: &'a [u8], label: &str) -> Option<(&'a [u8], Hash)> {
    let text = text.strip_suffix(b"\"")?;
    let (rest, digits) = text.split_at_checked(text.len().checked_sub(64)?)?;
    Some((rest.strip_suffix(label.as_bytes())?, Hash(unhex(digits)?)))
}

/// A sealed line, taken apart at its end; nothing is decoded but the two hashes.
struct Parts<'a> {
    /// Its own fields.
    body: &'a [u8],
    /// The bytes that are hashed.
    hashed: &'a [u8],
    named: Hash,
    hash: Hash,
}

impl<'a> Parts<'a> {
    fn of(line: &'a [u8]) -> Result<Self, LineError> {
        let whole = |what: &str| LineError::NotARecord(what.into());
        let text = line.strip_suffix(b"}").ok_or_else(|| whole("it does not end"))?;
        let (hashed, hash) = field(text, HASH).ok_or_else(|| whole("it has no hash"))?;
        let (body, named) = field(hashed, PREV).ok_or_else(|| whole("it names no line before it"))?;
        Ok(Self { body, hashed, named, hash })
    }
}

/// Checks that a sealed line follows `head`; gives its hash and the bytes before `prev`. Nothing is allocated and
/// nothing else of the line is read: who wants to know what it says reads on.
pub fn follow(line: &[u8], head: Hash) -> Result<(Hash, &[u8]), LineError> {
    let Parts { body, hashed, named, hash } = Parts::of(line)?;
    if named != head {
        return Err(LineError::NotNext { named, head });
    }
    if digest(named, hashed) != hash {
        return Err(LineError::Changed);
    }
    Ok((hash, body))
}

/// What a sealed line says it follows.
pub fn named(line: &[u8]) -> Result<Hash, LineError> {
    Parts::of(line).map(|parts| parts.named)
}

/// Reads a sealed line that must follow `head`.
pub fn open(line: &str, head: Hash) -> Result<Unsealed, LineError> {
    let (hash, body) = follow(line.as_bytes(), head)?;
    let not = |error: &dyn core::fmt::Display| LineError::NotARecord(error.to_string());
    let body = core::str::from_utf8(body).map_err(|error| not(&error))?;
    let record = serde_json::from_str(&format!("{body}}}")).map_err(|error| not(&error))?;
    Ok(Unsealed { record, hash })
}
