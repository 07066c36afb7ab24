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

/// What two processes tell each other about an interface. A mark is an empty directory beside the pins: bpffs holds no
/// files but pins, and whoever may make one there is root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// An operator took the program off while a gateway runs: that gateway leaves it off.
    Off,
    /// A program is on it for a trial, by a link that dies with the process that holds it.
    Trial,
    /// That process is asked to pin its link.
    Confirm,
}

impl Mark {
    const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Trial => "trial",
            Self::Confirm => "confirm",
        }
    }
}

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

    fn marks(&self) -> PathBuf {
        self.root.join("marks")
    }

    /// Pin of the link that holds the program on an interface. bpffs reserves the dot, which names of VLANs have;
    /// no interface has a colon.
    #[must_use]
    pub fn link(&self, interface: &str) -> PathBuf {
        self.links().join(interface.replace('.', ":"))
    }

    fn mark_of(&self, mark: Mark, interface: &str) -> PathBuf {
        self.marks().join(format!("{}:{}", mark.name(), interface.replace('.', ":")))
    }

    /// Whether an interface has this mark.
    #[must_use]
    pub fn is_marked(&self, mark: Mark, interface: &str) -> bool {
        self.mark_of(mark, interface).exists()
    }

    /// Marks an interface.
    pub fn mark(&self, mark: Mark, interface: &str) -> Result<(), AttachError> {
        self.create()?;
        self.directory(&self.marks())?;
        self.directory(&self.mark_of(mark, interface))
    }

    /// Takes a mark away; whether it was there.
    pub fn unmark(&self, mark: Mark, interface: &str) -> bool {
        fs::remove_dir(self.mark_of(mark, interface)).is_ok()
    }

    /// Interfaces with a pinned link, in order of name.
    #[must_use]
    pub fn interfaces(&self) -> Vec<String> {
        let entries = fs::read_dir(self.links()).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.filter_map(|entry| Some(entry.file_name().into_string().ok()?.replace(':', "."))).collect();
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
        self.directory(&self.root)?;
        self.directory(&self.links())?;
        self.check()
    }

    fn directory(&self, path: &Path) -> Result<(), AttachError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(self.unusable(error)),
            _ => Ok(()),
        }
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
        for dir in [self.marks(), self.links(), self.root.clone()] {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = entry.path();
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let removed = if is_dir { fs::remove_dir(&path) } else { fs::remove_file(&path) };
                removed.map_err(|error| self.unusable(error))?;
            }
            if dir.exists() {
                fs::remove_dir(&dir).map_err(|error| self.unusable(error))?;
            }
        }
        Ok(())
    }

    /// Removes the pins of all maps and leaves links where they are.
    pub fn remove_maps(&self) -> Result<(), AttachError> {
        self.check()?;
        for name in jvpn_common::abi::map::ALL {
            match fs::remove_file(self.map(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(self.unusable(error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn unusable(&self, error: impl Into<std::io::Error>) -> AttachError {
        AttachError::Pins { path: self.root.clone(), error: error.into() }
    }
}
