//! The pins of a running gateway, kept as they were.
//!
//! Owns descriptors of every pinned map and link, so that they outlive their pins, and the pinning anew of what
//! somebody removed or replaced. Must never touch a directory that is not root's alone, nor a file that is not named after
//! something of ours.

use super::attach::{AttachError, chain};
use super::kernel::data;
use super::pins::Pins;
use aya::maps::{MapData, MapInfo};
use aya::programs::links::{FdLink, PinnedLink};
use jvpn_common::abi::map;
use std::fs;
use std::io;
use std::path::Path;

/// Every map of a gateway.
#[derive(Debug)]
pub struct Held {
    pins: Pins,
    maps: Vec<(&'static str, MapData, u32)>,
}

impl Held {
    /// Takes hold of what is pinned.
    ///
    /// # Errors
    /// When a map is not there.
    pub fn take(pins: &Pins) -> Result<Self, AttachError> {
        let one = |&name: &&'static str| {
            let data = data(pins, name)?;
            let id = data.info().map_err(|error| AttachError::Map { name, error: error.to_string() })?.id();
            Ok((name, data, id))
        };
        Ok(Self { pins: pins.clone(), maps: map::ALL.iter().map(one).collect::<Result<_, AttachError>>()? })
    }

    /// Pins again what is not pinned any more; the names of what that was.
    ///
    /// # Errors
    /// When the directory is not to be trusted, or bpffs refuses.
    pub fn mend(&self) -> Result<Vec<&'static str>, AttachError> {
        let missing: Vec<_> = self.maps.iter().filter(|(name, _, id)| self.pinned(name) != Some(*id)).collect();
        if !missing.is_empty() || !self.pins.root().exists() {
            self.pins.create()?;
        }
        self.pins.check()?;
        for (name, data, _) in &missing {
            let path = self.pins.map(name);
            repin(&path, |path| data.pin(path).map_err(|error| AttachError::Load(chain(&error))))?;
        }
        Ok(missing.into_iter().map(|(name, ..)| *name).collect())
    }

    fn pinned(&self, name: &str) -> Option<u32> {
        MapInfo::from_pin(self.pins.map(name)).ok().map(|info| info.id())
    }
}

/// Pins something at a path whatever stands there.
pub(super) fn repin(path: &Path, pin: impl FnOnce(&Path) -> Result<(), AttachError>) -> Result<(), AttachError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(AttachError::Pins { path: path.to_owned(), error })
        }
        _ => pin(path),
    }
}

/// What holds the program on an interface, pinned or not: while this lives the program stays.
#[derive(Debug)]
pub struct Link(Option<FdLink>);

impl Link {
    /// The pinned one of an interface.
    ///
    /// # Errors
    /// When there is none.
    pub fn pinned(pins: &Pins, interface: &str) -> Result<Self, AttachError> {
        let path = pins.link(interface);
        match PinnedLink::from_pin(&path) {
            Ok(pinned) => Ok(Self(Some(pinned.into()))),
            Err(error) => Err(AttachError::Pins { path, error: io::Error::other(chain(&error)) }),
        }
    }

    /// One that nothing is pinned of.
    pub(super) fn unpinned(link: FdLink) -> Self {
        Self(Some(link))
    }

    /// Id of the program it holds, also when its interface is gone.
    #[must_use]
    pub fn program(&self) -> Option<u32> {
        self.0.as_ref()?.info().ok().map(|info| info.program_id())
    }

    /// Pins it if it is not pinned; whether it was not.
    ///
    /// # Errors
    /// When bpffs refuses; the link is given up then, since a descriptor cannot be pinned and kept.
    pub fn pin_again(&mut self, pins: &Pins, interface: &str) -> Result<bool, AttachError> {
        let path = pins.link(interface);
        let id = |link: FdLink| link.info().ok().map(|info| info.id());
        let pinned = PinnedLink::from_pin(&path).ok().map(FdLink::from).and_then(id);
        let own = self.0.as_ref().and_then(|link| link.info().ok()).map(|info| info.id());
        if pinned.is_some() && pinned == own {
            return Ok(false);
        }
        pins.create()?;
        let Some(link) = self.0.take() else { return Ok(false) };
        repin(&path, |path| {
            self.0 = Some(link.pin(path).map_err(|error| AttachError::Load(chain(&error)))?.into());
            Ok(())
        })?;
        Ok(true)
    }
}
