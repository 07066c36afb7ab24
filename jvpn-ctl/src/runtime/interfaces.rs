//! The interfaces clients arrive on, while they and the program on them come and go.
//!
//! Owns noticing that an interface went away or came back without the kernel program, that somebody took the program
//! off or removed a pin, and putting all of it back. Must never judge packets: the worker does where the program is
//! missing.

use crate::api::model::{Problem, Xdp};
use crate::config::XdpMode;
use crate::dataplane::attach::{self, AttachError, LoadOptions, Loaded, Program, Wanted};
use crate::dataplane::held::{Held, Link};
use crate::dataplane::pins::{Mark, Pins};
use jvpn_common::time::{Duration, Instant};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// How long after a refusal it is tried again: loading holds the event loop for milliseconds.
const AGAIN: Duration = Duration::from_secs(5);

/// How often pins and attached programs are compared with what was made: a netlink request each.
const CHECK_EVERY: Duration = Duration::from_secs(2);

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
    /// What holds the program on it, with or without its pin.
    link: Option<Link>,
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
    /// The maps all of them use.
    held: Option<Held>,
    /// Why pins are not as they should be.
    pins: Option<String>,
    checked: Instant,
}

impl Interfaces {
    /// Puts the program on every interface that does not have it yet.
    ///
    /// # Errors
    /// When one refuses.
    pub(crate) fn attach(names: &[String], way: Way) -> Result<Self, AttachError> {
        let asking = socket(AddressFamily::INET, SocketType::DGRAM, None).ok();
        let mut own = Self { asking, ..Self::none(way) };
        for name in names {
            // What an operator took off while an earlier process ran.
            own.way.pins.unmark(Mark::Off, name);
            let (xdp, link) = own.put_on(name)?;
            let index = own.index(name);
            own.each.push(Interface { index, xdp, link: Some(link), missing: None });
        }
        Ok(own)
    }

    /// Without the program.
    pub(crate) fn none(way: Way) -> Self {
        Self { way, each: Vec::new(), asking: None, held: None, pins: None, checked: Instant::default() }
    }

    /// Holds on to the maps, whatever becomes of their pins.
    ///
    /// # Errors
    /// When one is not there.
    pub(crate) fn hold(mut self) -> Result<Self, AttachError> {
        self.held = Some(Held::take(&self.way.pins)?);
        Ok(self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    pub(crate) fn xdp(&self) -> impl Iterator<Item = &Xdp> {
        self.each.iter().map(|interface| &interface.xdp)
    }

    /// Looks whether one went or came; two system calls an interface when nothing did.
    pub(crate) fn look(&mut self, now: Instant) {
        for at in 0..self.each.len() {
            let Some(interface) = self.each.get(at) else { return };
            let name = interface.xdp.iface.clone();
            if self.way.pins.is_marked(Mark::Off, &name) {
                if interface.link.is_some() {
                    tracing::warn!(interface = name, "the kernel program was unloaded by an operator");
                    let why = "it was taken off by jvpn-ctl unload --force".to_owned();
                    self.lose(at, interface.index, why, now);
                }
                continue;
            }
            let index = self.index(&name);
            let due = interface.missing.as_ref().is_some_and(|(_, at)| *at <= now);
            if index == interface.index && (index.is_none() || !due) {
                continue;
            }
            match index {
                None => {
                    tracing::warn!(interface = name, "the interface is gone");
                    self.lose(at, index, "it is gone".to_owned(), now);
                }
                Some(_) => self.put_back(at, index, now),
            }
        }
    }

    /// Compares pins and attached programs with what was made, every two seconds; what was found and put back, in words.
    pub(crate) fn check(&mut self, now: Instant) -> Vec<String> {
        if self.checked + CHECK_EVERY > now {
            return Vec::new();
        }
        self.checked = now;
        let mut found = match self.held.as_ref().map_or(Ok(Vec::new()), Held::mend) {
            Ok(pins) => {
                self.pins = None;
                pins.into_iter().map(|name| format!("pin of {name}")).collect()
            }
            Err(error) => {
                let known = self.pins.replace(error.to_string()).is_some();
                if known { Vec::new() } else { vec!["pin directory".to_owned()] }
            }
        };
        for at in 0..self.each.len() {
            found.extend(self.check_one(at, now));
        }
        for what in &found {
            tracing::warn!(what, "somebody changed what this node made; it is put back");
        }
        found
    }

    fn check_one(&mut self, at: usize, now: Instant) -> Option<String> {
        let interface = self.each.get_mut(at)?;
        let (name, link) = (interface.xdp.iface.clone(), interface.link.as_mut()?);
        let holds = link.program();
        if holds.is_none() || holds != attach::program_on(&name) {
            let index = interface.index;
            self.put_back(at, index, now);
            return Some(format!("program on {name}"));
        }
        let held = holds.unwrap_or(0);
        if held != interface.xdp.prog_id {
            // Whoever has the link may replace its program in place, as `load` does.
            if attach::ours(held) != Some(self.way.program) {
                let index = interface.index;
                self.put_back(at, index, now);
                return Some(format!("program on {name}"));
            }
            tracing::info!(interface = name, program = held, "the kernel program was replaced in place");
            interface.xdp.prog_id = held;
        }
        match link.pin_again(&self.way.pins, &name) {
            Ok(false) => None,
            Ok(true) => Some(format!("pin of the link of {name}")),
            Err(error) => {
                self.pins.get_or_insert_with(|| error.to_string());
                None
            }
        }
    }

    /// What is wrong with them.
    pub(crate) fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        let pins = self.pins.iter().map(|error| Problem {
            problem: format!("the pins are not as they should be: {error}"),
            fix: format!("make {} root's own with mode 0700, or remove it", self.way.pins.root().display()),
        });
        pins.chain(self.each.iter().filter_map(|interface| {
            let ((why, _), name) = (interface.missing.as_ref()?, &interface.xdp.iface);
            let fix = match interface.index {
                None => format!("bring {name} back: the kernel program is put on it by itself"),
                Some(_) if self.way.pins.is_marked(Mark::Off, name) => format!("jvpn-ctl load {name}"),
                Some(_) => format!("try jvpn-ctl load {name}; it is tried again every few seconds"),
            };
            Some(Problem { problem: format!("the kernel program is not on {name}: {why}"), fix })
        }))
    }

    /// Those that got the slow mode although nobody asked for it.
    pub(crate) fn slow(&self, asked: XdpMode) -> impl Iterator<Item = Problem> + '_ {
        let generic = self.xdp().filter(move |xdp| asked == XdpMode::Auto && xdp.mode == "generic");
        generic.map(|xdp| Problem {
            problem: format!("XDP on {} is generic: slow, and GRO is off", xdp.iface),
            fix: "use an interface whose driver has native XDP, or set xdp = \"generic\" to accept it".to_owned(),
        })
    }

    fn index(&self, name: &str) -> Option<u32> {
        netdevice::name_to_index(self.asking.as_ref()?, name).ok()
    }

    fn lose(&mut self, at: usize, index: Option<u32>, why: String, again: Instant) {
        let Some(interface) = self.each.get_mut(at) else { return };
        let iface = std::mem::take(&mut interface.xdp.iface);
        interface.xdp = Xdp { iface, mode: "missing".to_owned(), prog_id: 0 };
        (interface.index, interface.link, interface.missing) = (index, None, Some((why, again)));
    }

    fn put_back(&mut self, at: usize, index: Option<u32>, now: Instant) {
        let Some(name) = self.each.get(at).map(|interface| interface.xdp.iface.clone()) else { return };
        match self.put_on(&name) {
            Ok((xdp, link)) => {
                let Some(interface) = self.each.get_mut(at) else { return };
                *interface = Interface { index, xdp, link: Some(link), missing: None };
            }
            Err(error) => {
                tracing::warn!(interface = name, %error, "the interface is without the kernel program");
                self.lose(at, index, error.to_string(), now + AGAIN);
            }
        }
    }

    fn put_on(&self, name: &str) -> Result<(Xdp, Link), AttachError> {
        // A program loaded while pins are missing would get maps of its own.
        self.held.as_ref().map_or(Ok(Vec::new()), Held::mend)?;
        let Way { program, max_sessions, pins, wanted } = self.way.clone();
        let interface = name.to_owned();
        let options = LoadOptions { interface, program, max_sessions, pins: pins.clone(), wanted, only_newer: true };
        let Loaded { verified, memory, .. } = attach::load(&options)?;
        tracing::info!(interface = name, verified, memory, "kernel program attached");
        let facts = attach::plan(name, &pins)?.facts;
        let mode = if facts.generic { "generic" } else { "native" }.to_owned();
        let link = Link::pinned(&pins, name)?;
        Ok((Xdp { iface: name.to_owned(), mode, prog_id: facts.program.unwrap_or(0) }, link))
    }
}
