//! The log of a kernel program that was built to write one (`cargo xtask build --log`).
//!
//! Owns finding the ring of a running program and reading its lines. Reading takes lines away from whoever else reads
//! them. Must never change the program or its maps.

use aya_log::{EbpfLogger, Error};
use jvpn_common::steer::NO_SLOT;
use jvpn_common::verdict::Verdict;
use log::{Metadata, Record};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;

/// Why there is nothing to follow.
#[derive(Debug, Error)]
pub enum FollowError {
    /// A program without a log.
    #[error("the program there writes no log")]
    Silent,
    /// The kernel refused.
    #[error("opening the log: {0}")]
    Refused(String),
}

/// What was said of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its verdict.
    pub verdict: Verdict,
    /// Slot its locator leads to.
    pub slot: Option<u32>,
    /// Its locator; 0 without one.
    pub locator: u64,
    /// Its counter.
    pub counter: u64,
}

impl Told {
    /// Reads a line of the program.
    fn of(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut number = |name: &str| {
            let is_it = words.next()? == name;
            words.next()?.parse::<u64>().ok().filter(|_| is_it)
        };
        let verdict = Verdict::from_number(u16::try_from(number("verdict")?).ok()?)?;
        let slot = u32::try_from(number("slot")?).ok()?;
        Some(Self {
            verdict,
            slot: (slot != NO_SLOT).then_some(slot),
            locator: number("locator")?,
            counter: number("counter")?,
        })
    }
}

/// Where aya-log puts what it reads.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Told>>>);

impl log::Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let told = Told::of(&record.args().to_string());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
    }
    fn flush(&self) {}
}

/// The log of one program.
pub struct Log {
    reader: EbpfLogger<Lines>,
    lines: Lines,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

impl Log {
    /// The log of the running program with this id.
    pub fn of(program: u32) -> Result<Self, FollowError> {
        let lines = Lines::default();
        let reader = EbpfLogger::init_from_id_with_logger(program, lines.clone()).map_err(|error| match error {
            Error::MapNotFound => FollowError::Silent,
            other => FollowError::Refused(other.to_string()),
        })?;
        Ok(Self { reader, lines })
    }

    /// What was said since the last time; nothing is waited for.
    pub fn said(&mut self) -> Vec<Told> {
        self.reader.flush();
        mem::take(&mut *self.lines.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something is said, and returns it.
    pub fn wait(&mut self) -> io::Result<Vec<Told>> {
        loop {
            let said = self.said();
            if !said.is_empty() {
                return Ok(said);
            }
            poll(&mut [PollFd::new(&self.reader, PollFlags::IN)], None)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_program_is_read_and_junk_is_not() {
        let told = Told::of("verdict 41 slot 3 locator 255 counter 7").expect("a line");
        assert_eq!(told, Told { verdict: Verdict::ForgedTag, slot: Some(3), locator: 255, counter: 7 });
        let none = Told::of("verdict 1 slot 4294967295 locator 0 counter 0").expect("a line");
        assert_eq!((none.verdict, none.slot), (Verdict::Foreign, None));
        for junk in ["", "verdict", "verdict x slot 1", "verdict 0 slot 1 locator 1 counter 1", "slot 1 verdict 1"] {
            assert_eq!(Told::of(junk), None, "{junk}");
        }
    }
}
