//! Taking the kernel program off an interface, and the last traces of it away.
//!
//! Owns what goes when: the link first, the maps with the last one. Must never touch a directory that is not ours.

use super::attach::AttachError;
use super::link;
use super::pins::{Mark, Pins};
use jvpn_common::time::Duration;
use std::fs;
use std::thread;

/// Takes the program off an interface; with the last one all pins go. Whether it was there.
pub fn unload(interface: &str, pins: &Pins) -> Result<bool, AttachError> {
    if !pins.root().exists() {
        return Ok(false);
    }
    pins.check()?;
    let was = unpin(interface, pins)?;
    if pins.interfaces().is_empty() {
        pins.remove_all()?;
    }
    Ok(was)
}

fn unpin(interface: &str, pins: &Pins) -> Result<bool, AttachError> {
    let pin = pins.link(interface);
    let was = pin.exists();
    if was {
        let program = link::program_on(interface);
        fs::remove_file(&pin).map_err(|error| AttachError::Pins { path: pin, error })?;
        await_detach(interface, program);
    }
    Ok(was)
}

/// Takes the program off an interface while a gateway lives: maps and pins stay, and it is told not to put it back.
pub fn take_off(interface: &str, pins: &Pins) -> Result<bool, AttachError> {
    pins.check()?;
    pins.mark(Mark::Off, interface)?;
    let was = unpin(interface, pins)?;
    if !was {
        pins.unmark(Mark::Off, interface);
    }
    Ok(was)
}

/// Takes the program off every interface and removes all pins.
pub fn cleanup(pins: &Pins) -> Result<Vec<String>, AttachError> {
    let interfaces = pins.interfaces();
    let program = |interface: &String| link::facts(interface).ok().and_then(|facts| facts.program);
    let programs: Vec<_> = interfaces.iter().map(program).collect();
    pins.remove_all()?;
    interfaces.iter().zip(programs).for_each(|(interface, program)| await_detach(interface, program));
    Ok(interfaces)
}

/// The kernel lets go of a link whose pin is gone in its own time (after a grace period, from a work queue).
/// Waits for it, so that who asks next is told the truth; a kernel that takes longer is not waited for.
pub(super) fn await_detach(interface: &str, program: Option<u32>) {
    const TRIES: usize = 200;
    const BETWEEN: Duration = Duration::from_millis(10);
    let still = || program.is_some() && link::program_on(interface) == program;
    for _ in 0..TRIES {
        if !still() {
            return;
        }
        thread::sleep(BETWEEN);
    }
}
