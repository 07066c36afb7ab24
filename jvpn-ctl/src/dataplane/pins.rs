//! Where maps, links and programs are pinned.
//!
//! Owns every path below the pin root and what the root must be: a directory on bpffs that belongs to root
//! alone, since bpffs lets everybody create directories. Must never follow or use another owner's.

use super::attach::AttachError;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where the product pins.
pub const PIN_ROOT: &str = "/sys/fs/bpf/jvpn";

/// `f_type` of bpffs.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// All pins of one gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    root: PathBuf,
}

impl Default for Pins {
    fn default() -> Self {
        Self::below(PIN_ROOT)
    }
}

impl Pins {
    /// Pins below `root`.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory of all of them.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Pin of a map.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Pin of the link that holds the program on an interface.
    #[must_use]
    pub fn link(&self, interface: &str) -> PathBuf {
        self.links().join(interface)
    }

    /// Interfaces with a pinned link, in order of name.
    #[must_use]
    pub fn interfaces(&self) -> Vec<String> {
        let entries = fs::read_dir(self.links()).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Whether there are pinned maps.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.map(jvpn_common::abi::map::CONFIG).exists()
    }

    /// Makes the directories, or checks those that are there.
    pub fn create(&self) -> Result<(), AttachError> {
        let parent = self.root.parent().unwrap_or(&self.root);
        let stat = rustix::fs::statfs(parent).map_err(|error| self.unusable(error))?;
        if stat.f_type as u64 & 0xffff_ffff != BPF_FS_MAGIC {
            return Err(AttachError::NoBpffs(parent.to_owned()));
        }
        for dir in [self.root.clone(), self.links()] {
            match DirBuilder::new().mode(0o700).create(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(self.unusable(error));
                }
                _ => {}
            }
        }
        self.check()
    }

    /// Refuses a root that is a link, another user's, or open to others.
    pub fn check(&self) -> Result<(), AttachError> {
        let meta = fs::symlink_metadata(&self.root).map_err(|error| self.unusable(error))?;
        if !meta.is_dir() || meta.uid() != 0 || meta.mode() & 0o077 != 0 {
            return Err(AttachError::ForeignPins(self.root.clone()));
        }
        Ok(())
    }

    /// Removes every pin and the directories. What still holds a map or program keeps it.
    pub fn remove_all(&self) -> Result<(), AttachError> {
        match fs::symlink_metadata(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            _ => self.check()?,
        }
        for dir in [self.links(), self.root.clone()] {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.path() != self.links() {
                    fs::remove_file(entry.path()).map_err(|error| self.unusable(error))?;
                }
            }
            if dir.exists() {
                fs::remove_dir(&dir).map_err(|error| self.unusable(error))?;
            }
        }
        Ok(())
    }

    fn unusable(&self, error: impl Into<std::io::Error>) -> AttachError {
        AttachError::Pins { path: self.root.clone(), error: error.into() }
    }
}
