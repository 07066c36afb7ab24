//! The lab: namespaces with two paths between a client and a gateway, faults, flows and the real product in them.
//! Owns the life of one lab from `up` to removal. Never leaves anything behind unless asked to keep it, and touches
//! no namespace but its own.
//!
//! One lab is `Lab::up()`; `topology` draws it, `fault` breaks it, `canary` proves that it is broken, `flow` and
//! `http` measure, `process` runs the product, `act` and `demo` tell the story.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};

pub mod act;
pub mod bulk;
pub mod canary;
pub mod chart;
pub mod child;
pub mod clock;
pub mod delay;
pub mod demo;
mod drops;
pub mod fault;
pub mod flow;
pub mod ground;
pub mod hostile;
pub mod http;
pub mod inspect;
mod link;
mod mapping;
pub mod metric;
pub mod mode;
pub mod netns;
pub mod pass;
pub mod ping;
pub mod process;
pub mod record;
pub mod registry;
pub mod report;
pub mod setup;
mod stage;
pub(crate) mod sys;
pub mod tap;
pub mod topology;
pub mod torrent;

pub use sys::{CountingAllocator, allocations};

use canary::Canary;
use registry::Entry;
use topology::Topology;

/// A lab that is up. Dropping it removes it, also while a panic unwinds.
#[derive(Debug)]
pub struct Lab {
    entry: Entry,
    pub topology: Topology,
    pub canary: Canary,
    /// How often the NAT has forgotten; picks its port range.
    nat_generation: Arc<AtomicUsize>,
    /// Numbers the tables of faults, so that two at once do not meet.
    faults: AtomicUsize,
    /// Whether path B's router translates IPv6 as well.
    nat66: AtomicBool,
    /// What pauses the paths that have a delay.
    slow: Mutex<BTreeMap<topology::Path, delay::Pauser>>,
    keep: bool,
}

/// Labs of this process, for the thread that waits for signals.
static LIVE: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
static GUARDED: AtomicBool = AtomicBool::new(false);
/// Held while something is made that removal must see whole, and by the signal thread until the process ends.
static STEADY: Mutex<()> = Mutex::new(());

impl Lab {
    /// Builds a lab and proves both of its paths with a canary.
    pub fn up() -> Result<Lab> {
        Self::with(0, 1)
    }

    /// The same with so many relays beside so many gateways.
    pub fn with(relays: usize, owners: usize) -> Result<Lab> {
        Self::shaped(|topology| topology.with_relays(relays).with_owners(owners))
    }

    /// The same in another shape.
    pub fn shaped(shape: impl FnOnce(Topology) -> Topology) -> Result<Lab> {
        require_root()?;
        go_ahead();
        mount_bpffs()?;
        let steady = steady();
        let entry = Entry::create()?;
        live().push(entry.clone());
        let topology = shape(Topology::named(&entry.prefix));
        let wired = topology.build();
        drop(steady);
        let built =
            wired.and_then(|()| Canary::start(&topology)).and_then(|canary| canary.prove_both_paths().map(|()| canary));
        match built {
            Ok(canary) => Ok(Lab {
                entry,
                topology,
                canary,
                nat_generation: Arc::default(),
                faults: AtomicUsize::new(0),
                nat66: AtomicBool::new(false),
                slow: Mutex::default(),
                keep: false,
            }),
            Err(error) => {
                if let Err(removal) = remove(&entry) {
                    return Err(error.context(format!("and removing it failed: {removal:#}")));
                }
                Err(error.context("build the lab"))
            }
        }
    }

    pub fn prefix(&self) -> &str {
        &self.entry.prefix
    }

    /// Directory for configuration, state and logs of this run; goes with the lab.
    pub fn files(&self) -> &FilePath {
        &self.entry.files
    }

    pub fn pin_root(&self) -> std::path::PathBuf {
        self.entry.pin_root()
    }

    /// Leaves the lab and its processes up when this value drops; `clean` removes them later.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Removes the lab and says what failed; dropping does the same and can only print it.
    pub fn down(mut self) -> Result<()> {
        self.keep = true; // the drop that follows has nothing left to do
        self.canary.stop();
        remove(&self.entry)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.canary.stop();
        if self.keep {
            live().retain(|other| *other != self.entry);
        } else if let Err(error) = remove(&self.entry) {
            eprintln!("lab {} is not fully removed: {error:#}; run `jvpn-lab clean`", self.entry.prefix);
        }
    }
}

/// Makes Ctrl-C, SIGTERM and SIGHUP remove the labs of this process before it ends with 128 + signal.
pub fn guard_signals() -> Result<()> {
    if GUARDED.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    let mut signals = sys::note_ending_signals().context("watch signals")?;
    thread::Builder::new()
        .name("lab-signals".into())
        .spawn(move || {
            let mut number = [0u8; 4];
            if signals.read_exact(&mut number).is_err() {
                return; // the write end never closes while the process lives
            }
            let signal = i32::from_ne_bytes(number);
            eprintln!("\nsignal {signal}: removing the lab");
            let _forever = steady();
            let entries = live().clone();
            for entry in entries {
                if let Err(error) = entry.remove() {
                    eprintln!("lab {}: {error:#}; run `jvpn-lab clean`", entry.prefix);
                }
            }
            std::process::exit(128 + signal);
        })
        .context("start the signal thread")?;
    Ok(())
}

/// Fails with the command to run instead.
pub fn require_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let command: Vec<String> = std::env::args().collect();
    bail!("the lab needs root for its namespaces; run: sudo {}", command.join(" "))
}

/// Puts this thread, and every thread and process it starts, ahead of what else the machine does: a build beside the
/// lab would otherwise be measured as an outage.
fn go_ahead() {
    const NICE: i32 = -10;
    // Where even root may not (a container), the lab is only less steady.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// Pins live on bpffs; containers and fresh machines come without it.
fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        return Ok(());
    }
    netns::run(&["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], None).map(|_| ())
}

/// Keeps a removal by signal away while the guard lives; once that has begun, nobody else gets past.
fn steady() -> MutexGuard<'static, ()> {
    STEADY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn live() -> MutexGuard<'static, Vec<Entry>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes a lab of this process once: a drop and a signal at the same time must not both try.
fn remove(entry: &Entry) -> Result<()> {
    let _steady = steady();
    let mut entries = live();
    let known = entries.len();
    entries.retain(|other| other != entry);
    let mine = entries.len() < known;
    drop(entries);
    if mine { entry.remove() } else { Ok(()) }
}
