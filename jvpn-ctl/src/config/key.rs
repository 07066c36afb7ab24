//! Key files: reading them only when nobody else can, and writing them so that nobody else can.
//!
//! Owns the text form (the base64 `wg genkey` prints) and the file's modes. Must never print a key or put one
//! into an error.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bytes of every key: X25519 private and public, pre-shared.
pub const KEY_LEN: usize = 32;

/// Longest key file in bytes: one line of 44 and some white space.
const FILE_MAX: u64 = 128;

/// Why a key file was refused. Never says what is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not there.
    #[error("key file {0} does not exist")]
    Missing(PathBuf),
    /// The file may not be read by this user.
    #[error("key file {0} may not be read by this user")]
    Denied(PathBuf),
    /// Others could read or change it.
    #[error("key file {path} has mode {mode:04o}: only its owner may have access")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a file.
    #[error("key file {0} is not a regular file")]
    NotAFile(PathBuf),
    /// Not base64 text.
    #[error("key file {0} does not hold base64 text")]
    NotText(PathBuf),
    /// Another length.
    #[error("key file {path} holds {length} bytes; a key has {KEY_LEN}")]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes after decoding.
        length: usize,
    },
    /// Anything else.
    #[error("key file {path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

impl KeyError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(path) => Some(format!("make one: (umask 077; jvpn-ctl genkey > {})", path.display())),
            Self::Denied(_) => Some("run as the user the file belongs to, or as root".into()),
            Self::Exposed { path, .. } => Some(format!("chmod 600 {}, and make a new key if others may have read it", path.display())),
            Self::NotText(_) | Self::Length { .. } => Some("a key is what `jvpn-ctl genkey` or `wg genkey` prints: 44 characters".into()),
            Self::NotAFile(_) | Self::Io { .. } => None,
        }
    }
}

/// Reads a secret key from a file that belongs to its owner alone.
///
/// # Errors
/// Missing, not readable, readable by others, binary, or of another length.
pub fn read(path: &Path) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    // Checked on the open file, not on the name: what was checked is what is read.
    let file = File::open(path).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => KeyError::Missing(path.into()),
        std::io::ErrorKind::PermissionDenied => KeyError::Denied(path.into()),
        _ => KeyError::Io { path: path.into(), cause },
    })?;
    let io = |cause| KeyError::Io { path: path.into(), cause };
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(KeyError::NotAFile(path.into()));
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.into(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(128));
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(io)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| KeyError::NotText(path.into()))?;
    decode(text.trim()).map_err(|fault| match fault {
        Fault::NotText => KeyError::NotText(path.into()),
        Fault::Length(length) => KeyError::Length { path: path.into(), length },
    })
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NotText,
    Length(usize),
}

fn decode(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, Fault> {
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| Fault::NotText)?);
    let key = bytes.as_slice().try_into().map_err(|_| Fault::Length(bytes.len()))?;
    Ok(Zeroizing::new(key))
}

/// A key in the text form people see: base64 with padding.
#[must_use]
pub fn encode(key: &[u8; KEY_LEN]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(key))
}

/// The public key of a text, as configuration files and `pubkey` print it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicText(pub [u8; KEY_LEN]);

impl std::str::FromStr for PublicText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match decode(text) {
            Ok(key) if key.iter().all(|byte| *byte == 0) => Err("the zero key belongs to nobody".into()),
            Ok(key) => Ok(Self(*key)),
            Err(Fault::NotText) => Err("not base64".into()),
            Err(Fault::Length(length)) => Err(format!("{length} bytes; a public key has {KEY_LEN}")),
        }
    }
}

impl std::fmt::Display for PublicText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl std::fmt::Debug for PublicText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicText({self})")
    }
}

/// A fresh private key, clamped as `wg genkey` does, so that both tools print the same text.
///
/// # Errors
/// The system has no randomness.
pub fn generate_private() -> std::io::Result<Zeroizing<[u8; KEY_LEN]>> {
    let mut key = generate_shared()?;
    key[0] &= 248;
    key[31] = (key[31] & 127) | 64;
    Ok(key)
}

/// A fresh pre-shared key.
///
/// # Errors
/// The system has no randomness.
pub fn generate_shared() -> std::io::Result<Zeroizing<[u8; KEY_LEN]>> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    getrandom::fill(key.as_mut_slice()).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(key)
}

/// The public key of a private one.
#[must_use]
pub fn public_of(private: &[u8; KEY_LEN]) -> PublicText {
    let secret = x25519_dalek::StaticSecret::from(*private);
    PublicText(x25519_dalek::PublicKey::from(&secret).to_bytes())
}

/// Parses a private or pre-shared key that came as text, such as on standard input.
///
/// # Errors
/// A sentence that does not repeat the text.
pub fn parse(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, String> {
    decode(text.trim()).map_err(|fault| match fault {
        Fault::NotText => "not base64 text".into(),
        Fault::Length(length) => format!("{length} bytes; a key has {KEY_LEN}"),
    })
}

/// Writes a new file with the given mode; an existing one is never overwritten.
///
/// # Errors
/// The file exists, or cannot be written.
pub fn write_new(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("k");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).expect("a file");
        file.write_all(text).expect("written");
        (dir, path)
    }

    #[test]
    fn a_key_reads_back_what_was_written_and_its_public_half_is_the_one_wg_prints() {
        let text = "YAnz5TF+lXXJte14tji3zlMNftftLH4Zfp6FjRDuEmU=";
        let (_dir, path) = file(format!("{text}\n").as_bytes(), 0o600);
        let key = read(&path).expect("a key");
        assert_eq!(encode(&key).as_str(), text);
        let zero = public_of(&[0; 32]);
        assert_eq!(zero.to_string(), "L+V9o0fNYkMVKNqsX7spBzD/9oSvxM/C7ZCZX1jLO3Q=");
    }

    #[test]
    fn a_key_file_others_can_read_is_refused_with_the_command() {
        for mode in [0o604, 0o640, 0o601] {
            let (_dir, path) = file(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", mode);
            let error = read(&path).expect_err("refused");
            assert_eq!(error.to_string(), format!("key file {} has mode {mode:04o}: only its owner may have access", path.display()));
            assert!(error.hint().is_some_and(|hint| hint.starts_with("chmod 600 ")));
        }
    }

    #[test]
    fn a_missing_binary_or_short_key_file_is_refused_without_its_content() {
        assert!(matches!(read(Path::new("/nonexistent/key")), Err(KeyError::Missing(_))));
        let (_dir, path) = file(&[0xff; 32], 0o600);
        assert!(matches!(read(&path), Err(KeyError::NotText(_))));
        let (_dir, path) = file(b"c2hvcnQ=", 0o600);
        let error = read(&path).expect_err("refused");
        assert!(error.to_string().ends_with("holds 5 bytes; a key has 32"), "{error}");
        assert!(!error.to_string().contains("c2hv"), "the content is not repeated");
        let (dir, _) = file(b"", 0o600);
        assert!(matches!(read(dir.path()), Err(KeyError::NotAFile(_))));
    }

    #[test]
    fn a_new_file_never_overwrites() {
        let (_dir, path) = file(b"old", 0o600);
        assert!(write_new(&path, "new", 0o600).is_err());
        assert_eq!(std::fs::read(&path).expect("still there"), b"old");
    }
}
