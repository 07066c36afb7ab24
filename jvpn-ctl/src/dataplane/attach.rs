//! Loading the kernel program and holding it on an interface.
//!
//! Owns the order: look, refuse, make the maps, load, attach, pin; and the way back. A program is replaced
//! through its pinned link in one step, so that no packet passes between the old and the new. Must never
//! replace a program that is not ours, and never reuse maps of another layout or size.

pub use super::attach_error::AttachError;
use super::kernel::{capacity_of, data};
use super::link::{self, Facts};
use super::pins::Pins;
use super::{object, ticks};
use aya::maps::{Array, Map};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use jvpn_common::abi::{CONFIG_WORDS, Config, LAYOUT_HASH, PATHS_PER_SLOT, map};
use jvpn_common::limits::LOCATORS_MAX;
use jvpn_common::time::Duration;
use std::fs;
use std::thread;

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
    /// What may go wrong, one sentence each.
    pub warnings: Vec<String>,
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

/// Kernel memory of `max_sessions`: entry, keys, facts, paths, traffic and six locators a session.
#[must_use]
pub fn memory(max_sessions: u32) -> u64 {
    const HASH_ELEMENT: u64 = 80;
    u64::from(max_sessions) * (128 + 32 + 64 + 128 + 128 + LOCATORS_MAX as u64 * HASH_ELEMENT)
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
    Ok(Plan { replaces: ours.is_some(), ours, facts, foreign, warnings })
}

/// Loads, attaches and pins; maps that are there and fit are kept.
pub fn load(options: &LoadOptions) -> Result<Loaded, AttachError> {
    let LoadOptions { interface, max_sessions, pins, .. } = options;
    let bytes = object().ok_or(AttachError::NoObject)?;
    let plan = plan(interface, pins)?;
    if let Some((id, name)) = plan.foreign {
        return Err(AttachError::Foreign { interface: interface.clone(), id, name });
    }
    let kept_maps = ready(pins, *max_sessions)?;
    let result = load_into(bytes, options, kept_maps, &plan.warnings);
    if result.is_err() && !kept_maps {
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

/// The pin directory is ours and usable; whether maps of this size are there.
fn ready(pins: &Pins, max_sessions: u32) -> Result<bool, AttachError> {
    pins.create()?;
    if !pins.exist() {
        return Ok(false);
    }
    let have = capacity_of(&read_config(pins)?)?;
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

fn load_into(bytes: &[u8], options: &LoadOptions, kept_maps: bool, warnings: &[String]) -> Result<Loaded, AttachError> {
    let LoadOptions { interface, program: which, max_sessions, pins, wanted } = options;
    let mut ebpf = load_maps(bytes, pins, *max_sessions, kept_maps)?;
    let program = program(&mut ebpf, which.name())?;
    program.load().map_err(|error| AttachError::Load(chain(&error)))?;
    let verified = program.info().ok().and_then(|info| info.verified_instruction_count()).unwrap_or(0);
    let mode = attach(program, interface, pins, *wanted, warnings)?;
    Ok(Loaded { mode, kept_maps, verified, memory: memory(*max_sessions) })
}

/// A loader that makes the maps of this size and pins them, or takes the pinned ones.
fn loader(pins: &Pins, max_sessions: u32) -> EbpfLoader<'_> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for (name, per_session) in [
        (map::LOCATORS, LOCATORS_MAX as u32),
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

fn attach(
    program: &mut Xdp,
    interface: &str,
    pins: &Pins,
    wanted: Wanted,
    warnings: &[String],
) -> Result<Option<Mode>, AttachError> {
    let pin = pins.link(interface);
    if let Ok(pinned) = PinnedLink::from_pin(&pin) {
        let replaced = XdpLink::try_from(FdLink::from(pinned)).map(|link| program.attach_to_link(link));
        if matches!(replaced, Ok(Ok(_))) {
            return Ok(None);
        }
        // The interface it was on is gone; the pin holds nothing.
        fs::remove_file(&pin).map_err(|error| AttachError::Pins { path: pin.clone(), error })?;
    }
    let refuse = |error: ProgramError| refused(interface, &error, warnings);
    let (id, mode) = match wanted {
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
    link.pin(&pin).map_err(|error| AttachError::Load(chain(&error)))?;
    Ok(Some(mode))
}

fn refused(interface: &str, error: &ProgramError, warnings: &[String]) -> AttachError {
    let hint = warnings.iter().map(|warning| format!("; {warning}")).collect();
    AttachError::Attach { interface: interface.to_owned(), error: chain(error), hint }
}

/// Takes the program off an interface; with the last one all pins go. Whether it was there.
pub fn unload(interface: &str, pins: &Pins) -> Result<bool, AttachError> {
    if !pins.root().exists() {
        return Ok(false);
    }
    pins.check()?;
    let pin = pins.link(interface);
    let was = pin.exists();
    if was {
        let program = link::facts(interface).ok().and_then(|facts| facts.program);
        fs::remove_file(&pin).map_err(|error| AttachError::Pins { path: pin, error })?;
        await_detach(interface, program);
    }
    if pins.interfaces().is_empty() {
        pins.remove_all()?;
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
fn await_detach(interface: &str, program: Option<u32>) {
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
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
