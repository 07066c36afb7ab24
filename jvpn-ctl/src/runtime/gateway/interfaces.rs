//! The interfaces clients arrive on, while they come and go.
//!
//! Owns noticing that one went away or came back without the kernel program, and putting the program on it again.
//! Must never judge packets: the worker does where the program is missing.

use crate::api::model::{Problem, Xdp};
use crate::dataplane::attach::{self, AttachError, LoadOptions, Loaded, Program, Wanted};
use crate::dataplane::pins::Pins;
use jvpn_common::time::{Duration, Instant};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// How long after a refusal it is tried again: loading holds the event loop for milliseconds.
const AGAIN: Duration = Duration::from_secs(5);

/// How the program got onto an interface: what a start and a return both do.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub program: Program,
    pub max_sessions: u32,
    pub pins: Pins,
    pub wanted: Wanted,
}

#[derive(Debug)]
struct Interface {
    /// The kernel's number when the program was put on it; another one is another interface of the same name.
    index: Option<u32>,
    xdp: Xdp,
    /// Why the program is not on it, and when putting it there is tried again.
    missing: Option<(String, Instant)>,
}

/// Every configured interface.
#[derive(Debug)]
pub(crate) struct Interfaces {
    way: Way,
    each: Vec<Interface>,
    /// To ask the kernel for numbers.
    asking: Option<OwnedFd>,
}

impl Interfaces {
    /// Puts the program on every interface that does not have it yet.
    ///
    /// # Errors
    /// When one refuses.
    pub(crate) fn attach(names: &[String], way: Way) -> Result<Self, AttachError> {
        let asking = socket(AddressFamily::INET, SocketType::DGRAM, None).ok();
        let mut own = Self { way, each: Vec::new(), asking };
        for name in names {
            let xdp = own.put_on(name)?;
            let index = own.index(name);
            own.each.push(Interface { index, xdp, missing: None });
        }
        Ok(own)
    }

    /// Without the program.
    pub(crate) fn none(way: Way) -> Self {
        Self { way, each: Vec::new(), asking: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    pub(crate) fn xdp(&self) -> impl Iterator<Item = &Xdp> {
        self.each.iter().map(|interface| &interface.xdp)
    }

    /// Looks whether one went or came; a system call an interface when nothing did.
    pub(crate) fn look(&mut self, now: Instant) {
        for at in 0..self.each.len() {
            let Some(interface) = self.each.get(at) else { return };
            let name = interface.xdp.iface.clone();
            let index = self.index(&name);
            let due = interface.missing.as_ref().is_some_and(|(_, at)| *at <= now);
            if index == interface.index && (index.is_none() || !due) {
                continue;
            }
            let (xdp, missing) = match index {
                None => {
                    tracing::warn!(interface = name, "the interface is gone");
                    (None, Some(("it is gone".to_owned(), now)))
                }
                Some(_) => match self.put_on(&name) {
                    Ok(xdp) => (Some(xdp), None),
                    Err(error) => {
                        tracing::warn!(interface = name, %error, "the interface is back without the kernel program");
                        (None, Some((error.to_string(), now + AGAIN)))
                    }
                },
            };
            let Some(interface) = self.each.get_mut(at) else { return };
            interface.index = index;
            interface.xdp = xdp.unwrap_or(Xdp { iface: name, mode: "missing".to_owned(), prog_id: 0 });
            interface.missing = missing;
        }
    }

    /// What is wrong with them.
    pub(crate) fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        self.each.iter().filter_map(|interface| {
            let ((why, _), name) = (interface.missing.as_ref()?, &interface.xdp.iface);
            let fix = match interface.index {
                None => format!("bring {name} back: the kernel program is put on it by itself"),
                Some(_) => format!("try jvpn-ctl load {name}; this gateway tries again every few seconds"),
            };
            Some(Problem { problem: format!("the kernel program is not on {name}: {why}"), fix })
        })
    }

    fn index(&self, name: &str) -> Option<u32> {
        netdevice::name_to_index(self.asking.as_ref()?, name).ok()
    }

    fn put_on(&self, name: &str) -> Result<Xdp, AttachError> {
        let Way { program, max_sessions, pins, wanted } = self.way.clone();
        let plan = attach::plan(name, &pins)?;
        if plan.ours != Some(program) {
            let interface = name.to_owned();
            let loaded = attach::load(&LoadOptions { interface, program, max_sessions, pins: pins.clone(), wanted })?;
            let Loaded { verified, memory, .. } = loaded;
            tracing::info!(interface = name, verified, memory, "kernel program attached");
        }
        let facts = attach::plan(name, &pins)?.facts;
        let mode = if facts.generic { "generic" } else { "native" }.to_owned();
        Ok(Xdp { iface: name.to_owned(), mode, prog_id: facts.program.unwrap_or(0) })
    }
}
