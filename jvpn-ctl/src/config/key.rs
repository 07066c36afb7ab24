//! Key files: reading them only when nobody else can, and writing them so that nobody else can.
//!
//! Owns the text form (the base64 `wg genkey` prints) and the file's modes. Must never print a key or put one
//! into an error.

use jvpn_common::secret;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use zeroize::Zeroizing;

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
    /// What is in it is no key.
    #[error("key file {path}: {cause}")]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: secret::KeyError,
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
            Self::Exposed { path, .. } => {
                Some(format!("chmod 600 {}, and make a new key if others may have read it", path.display()))
            }
            Self::NoKey { .. } => Some("a key is what `jvpn-ctl genkey` or `wg genkey` prints: 44 characters".into()),
            Self::NotAFile(_) | Self::Io { .. } => None,
        }
    }
}

/// Reads a secret key from a file that belongs to its owner alone.
///
/// # Errors
/// Missing, not readable, readable by others, binary, or of another length.
pub fn read<K: FromStr<Err = secret::KeyError>>(path: &Path) -> Result<K, KeyError> {
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
    // As large as all that is read: a vector that grew would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(256));
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(io)?;
    let not_text = |cause| KeyError::NoKey { path: path.into(), cause };
    let text = std::str::from_utf8(&bytes).map_err(|_| not_text(secret::KeyError::NotBase64))?;
    text.trim().parse().map_err(not_text)
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
    use jvpn_common::secret::PrivateKey;

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
        let key: PrivateKey = read(&path).expect("a key");
        assert_eq!(key.to_text().as_str(), text);
        assert_eq!(key.public().to_string(), "LXYWnydY54fFJWT70KsJmjNB44kljpX95Kpnt/Yo+Cg=");
    }

    #[test]
    fn a_key_file_others_can_read_is_refused_with_the_command() {
        for mode in [0o604, 0o640, 0o601] {
            let (_dir, path) = file(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", mode);
            let error = read::<PrivateKey>(&path).expect_err("refused");
            assert_eq!(
                error.to_string(),
                format!("key file {} has mode {mode:04o}: only its owner may have access", path.display())
            );
            assert!(error.hint().is_some_and(|hint| hint.starts_with("chmod 600 ")));
        }
    }

    #[test]
    fn a_missing_binary_or_short_key_file_is_refused_without_its_content() {
        assert!(matches!(read::<PrivateKey>(Path::new("/nonexistent/key")), Err(KeyError::Missing(_))));
        let (_dir, path) = file(&[0xff; 32], 0o600);
        assert!(read::<PrivateKey>(&path).expect_err("refused").to_string().ends_with("this is not base64"));
        let (_dir, path) = file(b"c2hvcnQ=", 0o600);
        let error = read::<PrivateKey>(&path).expect_err("refused");
        assert!(error.to_string().ends_with("this one has 5 bytes"), "{error}");
        assert!(!error.to_string().contains("c2hv"), "the content is not repeated");
        let (dir, _) = file(b"", 0o600);
        assert!(matches!(read::<PrivateKey>(dir.path()), Err(KeyError::NotAFile(_))));
    }

    #[test]
    fn a_new_file_never_overwrites() {
        let (_dir, path) = file(b"old", 0o600);
        assert!(write_new(&path, "new", 0o600).is_err());
        assert_eq!(std::fs::read(&path).expect("still there"), b"old");
    }
}
