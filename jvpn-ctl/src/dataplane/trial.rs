//! A program on an interface for a trial: held by this process alone, so that its death in any way takes it off.
//!
//! Owns the unpinned link, the mark that says so, and how another process asks for the pin. Must never leave the
//! program on an interface without somebody having said that it may stay.

use super::attach::{self, AttachError, LoadOptions, Loaded};
use super::detach::await_detach;
use super::held::Link;
use super::link;
use super::pins::{Mark, Pins};
use jvpn_common::time::Duration;
use std::thread;

/// How long a process that holds a trial may take to answer: it looks every [`LOOK_EVERY`].
const ANSWER: Duration = Duration::from_secs(5);
/// How often both sides look at the marks.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A trial that is under way. Dropping it takes the program off.
#[derive(Debug)]
pub struct Trial {
    interface: String,
    pins: Pins,
    link: Option<Link>,
    kept_maps: bool,
}

impl Trial {
    /// Loads and attaches, and pins all but the link.
    ///
    /// # Errors
    /// As [`attach::load`], and where our program is there for good already.
    pub fn begin(options: &LoadOptions) -> Result<(Self, Loaded), AttachError> {
        let LoadOptions { interface, pins, .. } = options;
        // Of one who asked an earlier trial and was killed.
        pins.unmark(Mark::Confirm, interface);
        let (loaded, link) = attach::load_unpinned(options)?;
        let (interface, pins, kept_maps) = (interface.clone(), pins.clone(), loaded.kept_maps);
        let trial = Self { interface, pins, link: Some(Link::unpinned(link)), kept_maps };
        trial.pins.mark(Mark::Trial, &trial.interface)?;
        Ok((trial, loaded))
    }

    /// Whether another process asked for the pin.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.pins.is_marked(Mark::Confirm, &self.interface)
    }

    /// Whether the program is still on the interface.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        let held = self.link.as_ref().and_then(Link::program);
        held.is_some() && link::program_on(&self.interface) == held
    }

    /// Pins the link: the program stays from now on.
    ///
    /// # Errors
    /// When bpffs refuses; the program is taken off then.
    pub fn confirm(mut self) -> Result<(), AttachError> {
        if let Some(link) = &mut self.link {
            link.pin_again(&self.pins, &self.interface)?;
        }
        self.link = None;
        Ok(())
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.pins.unmark(Mark::Trial, &self.interface);
        self.pins.unmark(Mark::Confirm, &self.interface);
        if let Some(link) = self.link.take() {
            let program = link.program();
            drop(link);
            await_detach(&self.interface, program);
            if !self.kept_maps
                && self.pins.interfaces().is_empty()
                && let Err(error) = self.pins.remove_all()
            {
                tracing::warn!(%error, "the maps of the trial are left");
            }
        }
    }
}

/// Asks the process that holds a trial to pin it; false when it was pinned already.
///
/// # Errors
/// When there is no trial, or nobody answers.
pub fn confirm(interface: &str, pins: &Pins) -> Result<bool, AttachError> {
    let (none, pinned) = (|| AttachError::NoTrial(interface.to_owned()), || pins.link(interface).exists());
    if !pins.root().exists() {
        return Err(none());
    }
    pins.check()?;
    if pinned() {
        return Ok(false);
    }
    if link::program_on(interface).and_then(attach::ours).is_none() {
        return Err(none());
    }
    for _ in 0..ANSWER.as_millis() / LOOK_EVERY.as_millis() {
        if pinned() {
            return Ok(true);
        }
        // It is marked a moment after the program is there.
        if pins.is_marked(Mark::Trial, interface) && !pins.is_marked(Mark::Confirm, interface) {
            pins.mark(Mark::Confirm, interface)?;
        }
        thread::sleep(LOOK_EVERY);
    }
    pins.unmark(Mark::Confirm, interface);
    if pinned() { Ok(true) } else { Err(none()) }
}
