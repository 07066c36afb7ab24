//! The key that signs checkpoints of a record.
//!
//! Owns its file, its making and its use. Must never print or log the secret half; the public half is for everybody.

use super::AuditError;
use crate::config::key;
use crate::runtime::entropy::System;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jvpn_common::event::{Checkpoint, Signed};
use jvpn_common::secret::{KeyError, Secret};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use zeroize::Zeroizing;

/// Its file in the state directory: beside the record's directory, so that a copy of the record never holds it.
const FILE: &str = "record.key";

/// The public half, an Ed25519 key: base64 of 32 bytes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordPublicKey(pub [u8; 32]);

impl fmt::Display for RecordPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl FromStr for RecordPublicKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| "a record's key is 44 characters of base64")?;
        bytes.try_into().map(Self).map_err(|_| "a record's key is 32 bytes (44 characters of base64)")
    }
}

impl RecordPublicKey {
    /// Whether this key signed it.
    #[must_use]
    pub fn verifies(&self, signed: &Signed<'_>) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        signed.checkpoint.key == self.0 && key.verify(signed.signed.as_bytes(), &signed.signature).is_ok()
    }
}

/// 32 random bytes in a file.
struct Seed(Secret<32>);

impl FromStr for Seed {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| KeyError::NotBase64)?);
        let mut secret = Secret::zeroed();
        let seed: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| KeyError::Length(bytes.len()))?;
        secret.expose_mut().copy_from_slice(seed);
        if secret.same(&Secret::zeroed()) { Err(KeyError::Zero) } else { Ok(Self(secret)) }
    }
}

/// The key pair; the library wipes it when it is dropped.
pub(super) struct RecordKey(Ed25519KeyPair);

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({})", self.public())
    }
}

impl RecordKey {
    /// Reads the key of a state directory; makes one at the first start. Where there is a record already, that is told.
    pub(super) fn open(state_dir: &Path, used: bool) -> Result<Self, AuditError> {
        let path = state_dir.join(FILE);
        let seed = match key::read::<Seed>(&path) {
            Err(key::KeyError::Missing(_)) => {
                let seed = Self::make(state_dir, &path)?;
                if used {
                    tracing::warn!(path = %path.display(), "the key of the record's checkpoints was gone; another one signs");
                }
                seed
            }
            read => read.map_err(|cause| AuditError::Key { cause: Box::new(cause) })?,
        };
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.0.expose());
        pair.map(Self).map_err(|_| AuditError::io(&path, std::io::Error::other("no Ed25519 key can be made of it")))
    }

    fn make(state_dir: &Path, path: &Path) -> Result<Seed, AuditError> {
        let secret = Secret::generate(&mut System);
        let mut text = Zeroizing::new(String::with_capacity(64));
        STANDARD.encode_string(secret.expose(), &mut text);
        text.push('\n');
        key::write_new(path, &text, 0o600).map_err(|cause| AuditError::io(path, cause))?;
        let synced = std::fs::File::open(state_dir).and_then(|dir| dir.sync_all());
        synced.map_err(|cause| AuditError::io(state_dir, cause))?;
        Ok(Seed(secret))
    }

    pub(super) fn public(&self) -> RecordPublicKey {
        let mut public = [0; 32];
        // Its length is the algorithm's.
        self.0.public_key().as_ref().iter().zip(&mut public).for_each(|(from, to)| *to = *from);
        RecordPublicKey(public)
    }

    /// The signed line of a checkpoint.
    pub(super) fn sign(&self, checkpoint: &Checkpoint) -> String {
        let text = checkpoint.to_sign();
        let signature = self.0.sign(text.as_bytes());
        let mut bytes = [0; 64];
        signature.as_ref().iter().zip(&mut bytes).for_each(|(from, to)| *to = *from);
        Checkpoint::line(&text, &bytes)
    }
}

/// The public half of the key in a state directory.
///
/// # Errors
/// There is none, or it may not be read.
pub fn public_key(state_dir: &Path) -> Result<RecordPublicKey, key::KeyError> {
    let seed = key::read::<Seed>(&key_file(state_dir))?;
    let no_key = || key::KeyError::NoKey { path: key_file(state_dir), cause: KeyError::Zero };
    Ed25519KeyPair::from_seed_unchecked(seed.0.expose()).map(|pair| RecordKey(pair).public()).map_err(|_| no_key())
}

/// Where the key of a state directory is.
#[must_use]
pub fn key_file(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_key_is_made_once_for_its_owner_alone_and_is_the_same_afterwards() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = RecordKey::open(dir.path(), false).expect("made").public();
        assert_eq!(RecordKey::open(dir.path(), false).expect("read").public(), first);
        assert_eq!(public_key(dir.path()).expect("read"), first);
        let mode = std::fs::metadata(key_file(dir.path())).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(first.to_string().parse(), Ok(first));
        let text = std::fs::read_to_string(key_file(dir.path())).expect("text");
        assert!(!format!("{:?}", RecordKey::open(dir.path(), false).expect("read")).contains(text.trim()));
    }

    #[test]
    fn a_key_others_can_read_or_that_is_none_is_refused_and_never_replaced() {
        for (text, mode) in [("AAAA", 0o600), ("junk", 0o600), ("", 0o600), ("QUJD\n", 0o644)] {
            let dir = tempfile::tempdir().expect("a directory");
            key::write_new(&key_file(dir.path()), text, mode).expect("written");
            let error = RecordKey::open(dir.path(), false).expect_err("refused").to_string();
            assert!(error.contains("record.key"), "{error}");
            assert_eq!(std::fs::read_to_string(key_file(dir.path())).expect("there"), text);
        }
    }

    #[test]
    fn a_signature_is_of_one_key_and_one_text() {
        let [ours, other] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let (ours, other) =
            (RecordKey::open(ours.path(), false).expect("made"), RecordKey::open(other.path(), false).expect("made"));
        let checkpoint = |key: &RecordKey, seq| Checkpoint {
            node: "gw".into(),
            seq,
            head: jvpn_common::event::Hash([1; 32]),
            ts: "2026-01-02T03:04:05Z".into(),
            key: key.public().0,
        };
        let line = ours.sign(&checkpoint(&ours, 7));
        assert!(ours.public().verifies(&Checkpoint::read(&line).expect("reads")));
        assert!(!other.public().verifies(&Checkpoint::read(&line).expect("reads")));
        let changed = line.replace("\"seq\":\"7\"", "\"seq\":\"8\"");
        assert!(!ours.public().verifies(&Checkpoint::read(&changed).expect("reads")));
        let foreign = other.sign(&checkpoint(&ours, 7));
        assert!(
            !ours.public().verifies(&Checkpoint::read(&foreign).expect("reads")),
            "says our key, signed by another"
        );
    }
}
