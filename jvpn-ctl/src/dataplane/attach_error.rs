//! Why the kernel program or its maps could not be had.
//!
//! Owns the errors of loading, attaching, pinning and opening; each names its fix where there is one. Must
//! never be about a session.

use super::cost::FLOOR;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why the program could not be loaded, attached, opened or removed.
#[derive(Debug, Error)]
pub enum AttachError {
    /// Built without it.
    #[error("built without the kernel program: cargo xtask build")]
    NoObject,
    /// Older than what is tested.
    #[error(
        "this kernel is {0}; the program is tested on {major}.{minor} and newer, and not loaded on an older one",
        major = FLOOR.0, minor = FLOOR.1
    )]
    OldKernel(String),
    /// Not on bpffs.
    #[error("{} is no bpffs: mount -t bpf bpf /sys/fs/bpf", .0.display())]
    NoBpffs(PathBuf),
    /// The pin directory belongs to somebody else.
    #[error("{} is not root's own with mode 0700; it may be planted: rm -r {}", .0.display(), .0.display())]
    ForeignPins(PathBuf),
    /// The pin directory cannot be used.
    #[error("{}: {error}", path.display())]
    Pins {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Nothing is loaded, or not all of it.
    #[error("map {name}: {error}; is the program loaded? jvpn-ctl load IFACE")]
    Map {
        /// Map.
        name: &'static str,
        /// Why.
        error: String,
    },
    /// Maps of another build.
    #[error("the pinned maps were made by another version: jvpn-ctl cleanup, then load again")]
    Layout,
    /// Maps of another size.
    #[error("the pinned maps hold {have} sessions and {wanted} are configured: jvpn-ctl cleanup, then load again")]
    Size {
        /// As loaded.
        have: u32,
        /// As configured.
        wanted: u32,
    },
    /// There is none of that name.
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// Somebody else's program.
    #[error(
        "{interface} runs the XDP program {name} (id {id}) of somebody else; remove it first: ip link set dev {interface} xdp off"
    )]
    Foreign {
        /// Interface.
        interface: String,
        /// Id of the program.
        id: u32,
        /// Name of the program.
        name: String,
    },
    /// Our program is there for a trial.
    #[error("{0} runs the program on trial, until that is confirmed or its time is over: jvpn-ctl load --confirm {0}")]
    OnTrial(String),
    /// Our program is there for good already.
    #[error("our program is on {0} and pinned already; `jvpn-ctl load {0}` replaces it without a gap")]
    Pinned(String),
    /// There is no trial to confirm.
    #[error("no program waits for confirmation on {0}")]
    NoTrial(String),
    /// The object or its maps.
    #[error("loading the kernel program: {0}")]
    Load(String),
    /// The interface refused.
    #[error("attaching to {interface}: {error}{hint}")]
    Attach {
        /// Interface.
        interface: String,
        /// What the kernel said.
        error: String,
        /// What may be the reason.
        hint: String,
    },
    /// The kernel's tick could not be learned.
    #[error("learning the kernel's tick: {0}")]
    Clock(String),
    /// The kernel did not answer about its interfaces.
    #[error("asking the kernel about its interfaces: {0}")]
    Netlink(String),
}
