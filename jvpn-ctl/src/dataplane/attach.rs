//! Loading the kernel program and holding it on an interface.
//!
//! Owns the order: look, refuse, make the maps, load, attach, pin; and the way back. A program is replaced
//! through its pinned link in one step, so that no packet passes between the old and the new. Must never
//! replace a program that is not ours, and never reuse maps of another layout or size.

pub use super::attach_error::AttachError;
use super::cost;
pub use super::detach::{cleanup, take_off, unload};
use super::kernel::{capacity_of, data};
use super::link::{self, Facts};
use super::pins::{Mark, Pins};
use super::{object, ticks};
use aya::maps::{Array, Map};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp, loaded_programs};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use jvpn_common::abi::{BUCKETS_PER_SESSION, CONFIG_WORDS, Config, LAYOUT_HASH, PATHS_PER_SLOT, map};
use std::fs;

const CLOCK: &str = "jvpn_clock";

/// Largest MTU of a native program without fragments on common drivers: a page minus headroom and tail.
const MTU_MAX: u32 = 3_498;

/// Which program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// A gateway's, which passes data on to the worker.
    Gateway,
    /// A relay's, which rewrites it towards the other side.
    Relay,
}

impl Program {
    const ALL: [Self; 2] = [Self::Gateway, Self::Relay];

    /// Its name in the object and in the kernel.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "jvpn_wan",
            Self::Relay => "jvpn_relay",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| program.name() == name)
    }
}

/// How a program sits on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the stack, where the driver cannot: slower than no program at all under load.
    Generic,
}

/// What `load` would do on an interface, and what it found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is known of the interface.
    pub facts: Facts,
    /// Our program is there already and will be replaced in place.
    pub replaces: bool,
    /// Which of ours that is.
    pub ours: Option<Program>,
    /// A program of somebody else that stands in the way: id and name.
    pub foreign: Option<(u32, String)>,
    /// The program is there for a trial of ours.
    pub on_trial: bool,
    /// What may go wrong, one sentence each.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Refuses where another program is in the way.
    pub fn free(&self) -> Result<(), AttachError> {
        let interface = self.facts.interface.clone();
        match &self.foreign {
            Some((_, name)) if self.on_trial && Program::named(name).is_some() => Err(AttachError::OnTrial(interface)),
            Some((id, name)) => Err(AttachError::Foreign { interface, id: *id, name: name.clone() }),
            None => Ok(()),
        }
    }
}

/// Where the program may sit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// In the driver or not at all.
    Native,
    /// In the driver if it can, else in the stack.
    Either,
    /// In the stack.
    Generic,
}

/// Options of [`load`].
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Interface towards clients.
    pub interface: String,
    /// Which program.
    pub program: Program,
    /// Slots of the maps.
    pub max_sessions: u32,
    /// Where to pin.
    pub pins: Pins,
    /// Which mode will do.
    pub wanted: Wanted,
    /// Leave a program of this very build in place instead of replacing it by itself.
    pub only_newer: bool,
}

/// What [`load`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// How the program sits; `None` when one was replaced in place, which keeps its mode.
    pub mode: Option<Mode>,
    /// Whether the maps were there already, sessions and all.
    pub kept_maps: bool,
    /// Instructions the verifier walked.
    pub verified: u32,
    /// Bytes of all maps whose size depends on `max_sessions`.
    pub memory: u64,
}

/// Looks at an interface without changing anything.
pub fn plan(interface: &str, pins: &Pins) -> Result<Plan, AttachError> {
    let facts = link::facts(interface)?;
    let name = facts.program.and_then(|id| link::program_name(id).map(|name| (id, name)));
    let named = name.as_ref().and_then(|(_, name)| Program::named(name));
    let ours = named.filter(|_| pins.link(interface).exists());
    let foreign = if ours.is_some() { None } else { name };
    let mut warnings = Vec::new();
    if facts.mtu > MTU_MAX {
        warnings.push(format!("MTU {} is above the {MTU_MAX} most drivers allow with XDP", facts.mtu));
    }
    if facts.lro == Some(true) {
        warnings.push(format!("LRO is on; drivers refuse XDP with it: ethtool -K {interface} lro off"));
    }
    if facts.kind == "veth" && facts.gro == Some(false) {
        warnings.push(format!(
            "GRO is off; native XDP on a veth delivers to it only when on: ethtool -K {interface} gro on"
        ));
    }
    let on_trial = pins.is_marked(Mark::Trial, interface);
    Ok(Plan { replaces: ours.is_some(), ours, facts, foreign, on_trial, warnings })
}

/// Loads, attaches and pins; maps that are there and fit are kept.
pub fn load(options: &LoadOptions) -> Result<Loaded, AttachError> {
    let LoadOptions { interface, pins, .. } = options;
    into_maps(options, |program, plan| {
        for mark in [Mark::Off, Mark::Trial] {
            // What an operator took off comes back; a trial that still runs was refused above.
            pins.unmark(mark, interface);
        }
        if replace(program, options)? {
            return Ok((None, ()));
        }
        let (link, mode) = attach(program, options, &plan.warnings)?;
        link.pin(pins.link(interface)).map_err(|error| AttachError::Load(chain(&error)))?;
        Ok((Some(mode), ()))
    })
    .map(|(loaded, ())| loaded)
}

/// The same with a link that is not pinned: it goes with its owner.
pub(super) fn load_unpinned(options: &LoadOptions) -> Result<(Loaded, FdLink), AttachError> {
    into_maps(options, |program, plan| {
        if plan.replaces {
            return Err(AttachError::Pinned(options.interface.clone()));
        }
        let (link, mode) = attach(program, options, &plan.warnings)?;
        Ok((Some(mode), link))
    })
}

/// Loads over maps that are made or kept, and puts the program where it belongs.
fn into_maps<T>(
    options: &LoadOptions,
    put: impl FnOnce(&mut Xdp, &Plan) -> Result<(Option<Mode>, T), AttachError>,
) -> Result<(Loaded, T), AttachError> {
    let LoadOptions { interface, max_sessions, pins, .. } = options;
    let bytes = object().ok_or(AttachError::NoObject)?;
    let plan = plan(interface, pins)?;
    plan.free()?;
    let kept_maps = ready(pins, *max_sessions)?;
    let result = (|| {
        let mut ebpf = load_maps(bytes, pins, *max_sessions, kept_maps)?;
        let program = program(&mut ebpf, options.program.name())?;
        program.load().map_err(|error| AttachError::Load(chain(&error)))?;
        let verified = program.info().ok().and_then(|info| info.verified_instruction_count()).unwrap_or(0);
        let (mode, what) = put(program, &plan)?;
        Ok((Loaded { mode, kept_maps, verified, memory: cost::memory(*max_sessions) }, what))
    })();
    if result.is_err() && !kept_maps && pins.interfaces().is_empty() {
        // Nothing of ours was there before: leave nothing.
        pins.remove_all()?;
    }
    result
}

/// Makes the maps and pins them, without a program on any interface; those that are there and fit are kept.
pub fn make_maps(pins: &Pins, max_sessions: u32) -> Result<(), AttachError> {
    let bytes = object().ok_or(AttachError::NoObject)?;
    let kept = ready(pins, max_sessions)?;
    load_maps(bytes, pins, max_sessions, kept).map(drop)
}

/// Refuses a kernel older than the oldest on which the program is known to work. One that names no version is tried.
pub fn proven_kernel() -> Result<(), AttachError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if cost::is_proven(&release) == Some(false) { Err(AttachError::OldKernel(release)) } else { Ok(()) }
}

/// The kernel will do, the pin directory is ours and usable; whether maps of this size are there.
fn ready(pins: &Pins, max_sessions: u32) -> Result<bool, AttachError> {
    proven_kernel()?;
    pins.create()?;
    if !pins.exist() {
        // Maps without their configuration were left by a load that was killed.
        pins.remove_maps()?;
        return Ok(false);
    }
    let config = read_config(pins)?;
    if config.layout == 0 && pins.interfaces().is_empty() {
        // Killed before the configuration was written, which is before anything is attached.
        pins.remove_maps()?;
        return Ok(false);
    }
    let have = capacity_of(&config)?;
    if have == max_sessions { Ok(true) } else { Err(AttachError::Size { have, wanted: max_sessions }) }
}

fn load_maps(bytes: &[u8], pins: &Pins, max_sessions: u32, kept: bool) -> Result<Ebpf, AttachError> {
    let ebpf = loader(pins, max_sessions).load(bytes).map_err(|error| AttachError::Load(chain(&error)))?;
    if !kept {
        let config = Config {
            layout: LAYOUT_HASH,
            max_sessions,
            hz: u32::try_from(1_000_000_000 / ticks::period_ns()).unwrap_or(250),
            ..Config::default()
        };
        write_config(pins, &config)?;
    }
    Ok(ebpf)
}

/// A loader that makes the maps of this size and pins them, or takes the pinned ones.
fn loader(pins: &Pins, max_sessions: u32) -> EbpfLoader<'_> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for (name, per_session) in [
        (map::LOCATORS, BUCKETS_PER_SESSION),
        (map::SESSIONS, 1),
        (map::KEYS, 1),
        (map::SESSION_INFO, 1),
        (map::PATHS, PATHS_PER_SLOT),
        (map::TRAFFIC, 1),
    ] {
        loader.map_max_entries(name, max_sessions.saturating_mul(per_session));
    }
    for name in map::ALL {
        loader.map_pin_path(name, pins.map(name));
    }
    loader
}

/// The program that tells the kernel's tick.
pub(super) struct Clock(Ebpf);

impl Clock {
    /// Loads it beside maps of one entry, which go with it.
    pub(super) fn load() -> Result<Self, AttachError> {
        let bytes = object().ok_or(AttachError::NoObject)?;
        let mut loader = EbpfLoader::new();
        for name in map::SIZED {
            loader.map_max_entries(name, 1);
        }
        let mut ebpf = loader.load(bytes).map_err(|error| AttachError::Load(chain(&error)))?;
        program(&mut ebpf, CLOCK)?.load().map_err(|error| AttachError::Load(chain(&error)))?;
        Ok(Self(ebpf))
    }

    /// The tick now.
    pub(super) fn jiffies(&self) -> Result<u64, AttachError> {
        let missing = || AttachError::Clock(format!("the object has no program {CLOCK}"));
        let program: &Xdp = self.0.program(CLOCK).ok_or_else(missing)?.try_into().map_err(|_| missing())?;
        let frame = [0; 64];
        let mut out = [0; 64];
        let options = TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        program.test_run(options).map_err(|error| AttachError::Clock(chain(&error)))?;
        let (tick, _) = out.split_first_chunk().ok_or_else(missing)?;
        Ok(u64::from_le_bytes(*tick))
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, AttachError> {
    let missing = || AttachError::Load(format!("the object has no program {name}"));
    ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_| missing())
}

/// Replaces the program of the pinned link in one step, if there is such a link and it still holds something.
fn replace(program: &mut Xdp, options: &LoadOptions) -> Result<bool, AttachError> {
    let LoadOptions { interface, pins, only_newer, .. } = options;
    let pin = pins.link(interface);
    let Ok(pinned) = PinnedLink::from_pin(&pin) else { return Ok(false) };
    let link = FdLink::from(pinned);
    let holds = link.info().ok().map(|info| info.program_id()).filter(|id| link::program_on(interface) == Some(*id));
    let tag = |id| loaded_programs().flatten().find(|info| info.id() == id).map(|info| info.tag());
    if *only_newer && holds.is_some_and(|id| tag(id) == program.info().ok().map(|info| info.tag())) {
        return Ok(true);
    }
    let replaced = XdpLink::try_from(link).map(|link| program.attach_to_link(link));
    if holds.is_some() && matches!(replaced, Ok(Ok(_))) {
        return Ok(true);
    }
    // The interface it was on is gone, or somebody detached it; the pin holds nothing.
    fs::remove_file(&pin).map_err(|error| AttachError::Pins { path: pin.clone(), error })?;
    Ok(false)
}

/// Attaches; the program goes with the link.
fn attach(program: &mut Xdp, options: &LoadOptions, warnings: &[String]) -> Result<(FdLink, Mode), AttachError> {
    let interface = &options.interface;
    let refuse = |error: ProgramError| refused(interface, &error, warnings);
    let (id, mode) = match options.wanted {
        Wanted::Native => (program.attach(interface, XdpMode::Driver).map_err(refuse)?, Mode::Native),
        Wanted::Generic => (program.attach(interface, XdpMode::Skb).map_err(refuse)?, Mode::Generic),
        Wanted::Either => match program.attach(interface, XdpMode::Driver) {
            Ok(id) => (id, Mode::Native),
            Err(error) => (program.attach(interface, XdpMode::Skb).map_err(|_| refuse(error))?, Mode::Generic),
        },
    };
    let link = program.take_link(id).map_err(|error| refused(interface, &error, warnings))?;
    let link = FdLink::try_from(link).map_err(|error| AttachError::Attach {
        interface: interface.to_owned(),
        error: chain(&error),
        hint: String::new(),
    })?;
    Ok((link, mode))
}

fn refused(interface: &str, error: &ProgramError, warnings: &[String]) -> AttachError {
    let hint = warnings.iter().map(|warning| format!("; {warning}")).collect();
    AttachError::Attach { interface: interface.to_owned(), error: chain(error), hint }
}

/// Id of the XDP program on an interface.
#[must_use]
pub fn program_on(interface: &str) -> Option<u32> {
    link::program_on(interface)
}

/// Which of ours a loaded program is, by its name.
#[must_use]
pub fn ours(program: u32) -> Option<Program> {
    link::program_name(program).and_then(|name| Program::named(&name))
}

fn config_map(pins: &Pins) -> Result<Array<aya::maps::MapData, [u64; CONFIG_WORDS]>, AttachError> {
    let name = map::CONFIG;
    Array::try_from(Map::Array(data(pins, name)?)).map_err(|error| AttachError::Map { name, error: error.to_string() })
}

/// The configuration as pinned.
pub fn read_config(pins: &Pins) -> Result<Config, AttachError> {
    let name = map::CONFIG;
    let words = config_map(pins)?.get(&0, 0);
    words.map(|words| Config::from_words(&words)).map_err(|error| AttachError::Map { name, error: error.to_string() })
}

fn write_config(pins: &Pins, config: &Config) -> Result<(), AttachError> {
    let name = map::CONFIG;
    config_map(pins)?.set(0, config.to_words(), 0).map_err(|error| AttachError::Map { name, error: error.to_string() })
}

/// An error with its causes: the kernel's own word is the last.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
