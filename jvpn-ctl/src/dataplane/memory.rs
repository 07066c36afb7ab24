//! The data plane on the heap: for tests, and for hosts where the kernel program cannot be loaded.
//!
//! Owns nothing but empty answers where a kernel would be. What it does not prove: that a map is large
//! enough, that the kernel reads these bytes the same way, that anything survives this process.

use super::DataPlaneError;
use super::plane::{Backing, Plane};
use super::shared::{Regions, Shared};
use super::sweep::Reader;
use super::ticks::Ticks;
use jvpn_common::abi::{Event, LocatorEntry, SteeringKeys};
use jvpn_common::ids::{Locator, Slot};
use jvpn_common::verdict::VERDICTS_MAX;
use std::sync::Arc;

/// A data plane without a kernel program.
pub type Memory = Plane<Nothing>;

/// Where the kernel would be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Memory {
    /// An empty one of `capacity` slots with the host's clock.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self::with_ticks(capacity, Ticks::own())
    }

    /// An empty one with the given ticks.
    #[must_use]
    pub fn with_ticks(capacity: u32, ticks: Ticks) -> Self {
        Self::over(Arc::new(Shared::new(capacity, Regions::heap(capacity), ticks)), Nothing)
    }
}

impl Backing for Nothing {
    fn put_locator(&mut self, _: Locator, _: &LocatorEntry) -> Result<(), DataPlaneError> {
        Ok(())
    }

    fn remove_locator(&mut self, _: Locator) {}

    fn locators(&self) -> Vec<(Locator, LocatorEntry)> {
        Vec::new()
    }

    fn locator(&self, _: Locator) -> Option<LocatorEntry> {
        None
    }

    fn recount_locators(&mut self) {}

    fn put_keys(&mut self, _: Slot, _: &SteeringKeys) -> Result<(), DataPlaneError> {
        Ok(())
    }

    fn keys(&self, _: Slot) -> Result<SteeringKeys, DataPlaneError> {
        Ok(SteeringKeys::default())
    }

    fn reader(&self) -> Option<Arc<Reader>> {
        None
    }

    fn verdicts(&self) -> Result<[u64; VERDICTS_MAX as usize], DataPlaneError> {
        Ok([0; VERDICTS_MAX as usize])
    }

    fn events(&mut self) -> Vec<Event> {
        Vec::new()
    }
}
