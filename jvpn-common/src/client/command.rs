//! What goes into the client engine and what comes out of it.
//!
//! Owns the types at its edge: names of paths and key sets, inputs, commands, the client's own events. Must
//! never do anything. No command waits for an outcome: what the gateway did comes back as a datagram, and a
//! datagram that was not sent is one that was lost.

use crate::abi::SteeringKeys;
use crate::crypto::Suite;
use crate::ids::{Epoch, Locator, SessionId, TransportIndex, Version};
use crate::message::Label;
use crate::reason::Reason;
use crate::secret::{PresharedKey, PrivateKey, PublicKey, Secret};
use crate::session::TransportClass;
use crate::time::{Duration, Instant};
use core::net::SocketAddr;
use ipnet::IpNet;

/// Name of one local network: interface, local address and default gateway together. The runtime gives a
/// new one when any of the three changes and the same one when the same network is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);

/// Number of a key set, from 1: BIRTH and RESUME make one, with locators and steering keys of its own;
/// REKEY adds an epoch to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u32);

/// What the configuration thinks of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum PathClass {
    /// Preferred.
    Primary = TransportClass::Primary as u8,
    /// Next.
    Secondary = TransportClass::Secondary as u8,
    /// Only when nothing else works.
    Backup = TransportClass::Backup as u8,
    /// Not at all; never on the wire.
    Never = 0,
}

/// Who the client is and whom it talks to.
#[derive(Debug)]
pub struct Config {
    /// What this client is called; for events only.
    pub name: String,
    /// Its identity.
    pub private_key: PrivateKey,
    /// The gateway's.
    pub gateway: PublicKey,
    /// Second secret, or [`PresharedKey::none`].
    pub psk: PresharedKey,
    /// Where the gateway listens; tried in order, each path uses those of its own address family.
    pub endpoints: Vec<SocketAddr>,
    /// What this machine can seal data with.
    pub suites: Vec<Suite>,
}

/// What goes in.
#[derive(Debug)]
pub enum Input<'a> {
    /// A path can be used, or its properties changed.
    PathUp(PathUp),
    /// A path is gone: link, address or route.
    PathDown {
        /// Which.
        path: PathId,
        /// LINK_DOWN, or what the runtime knows better.
        reason: Reason,
    },
    /// A datagram of type 2, 3, 5, 7 or 8; data (4) is the worker's. Opened in place.
    Datagram {
        /// The path whose socket it came to.
        path: PathId,
        /// Whom it came from.
        from: SocketAddr,
        /// The UDP payload.
        bytes: &'a mut [u8],
    },
    /// What the worker did since the last time, read from its counters before every other input.
    Activity(Activity),
    /// The first inner packet after the tunnel was idle for [`super::IDLE_AFTER`].
    TrafficStarted,
    /// An operator wants the session on this path.
    Jump {
        /// The path's label.
        label: Label,
    },
    /// End the session and stay ended.
    Close,
    /// The machine slept this long.
    Woke {
        /// How long.
        suspended: Duration,
    },
    /// Wall clock now, nanoseconds since 1970: for the handshake's timestamp and nothing else. Given at start,
    /// after waking, and whenever the clock was set.
    WallClock(u64),
    /// The time passed to `handle` is all there is: fire what is due.
    Wakeup,
}

/// A path that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathUp {
    /// Its name.
    pub path: PathId,
    /// What people call it.
    pub label: Label,
    /// How much it is wanted.
    pub class: PathClass,
    /// Whether bytes cost money: probed rarely while idle.
    pub metered: bool,
    /// Whether its outer packets are IPv6; a dual-stack interface is two paths.
    pub v6: bool,
    /// The endpoint it leads to, where an interface has a path to each of several; else it uses one after the other.
    pub endpoint: Option<SocketAddr>,
    /// The path of which it is another port, if [`Command::OpenPort`] asked for it.
    pub beside: Option<PathId>,
    /// MTU of its interface.
    pub link_mtu: u16,
}

/// What the worker saw. Every field is "latest so far", never a difference: reading it twice is harmless.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// When the last inner packet was sealed and sent; not data PINGs.
    pub inner_sent: Option<Instant>,
    /// When the last inner packet was opened.
    pub inner_received: Option<Instant>,
    /// Bytes of inner packets opened under the key set in use.
    pub received: u64,
    /// When anything last opened under the data keys, PONGs included, per transport.
    pub opened: Vec<(SetId, TransportIndex, Instant)>,
    /// How far the data counter of the transport in use is; judges notices, and what arrives.
    pub sealed: Option<Sealed>,
    /// Whether the sealing key in use wants to be replaced (`SealingKey::rekey_due`, `OpeningKey::rekey_due`).
    pub rekey_due: bool,
    /// Whether the sealing key in use refused to seal (`SealError::Spent`).
    pub key_spent: bool,
}

/// The next data counter of a transport under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Key set.
    pub set: SetId,
    /// Epoch of it.
    pub epoch: Epoch,
    /// Transport index.
    pub k: TransportIndex,
    /// Everything below has been sealed.
    pub next: u64,
}

/// Keys for the worker.
#[derive(Debug)]
pub struct DataKeys {
    /// Which set they belong to.
    pub set: SetId,
    /// Which epoch of it.
    pub epoch: Epoch,
    /// Which cipher.
    pub suite: Suite,
    /// Client to gateway: seals here.
    pub up: Secret<32>,
    /// Gateway to client: opens here.
    pub down: Secret<32>,
}

/// How a datagram of data leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Through which socket.
    pub path: PathId,
    /// Where to.
    pub to: SocketAddr,
    /// Under which set.
    pub set: SetId,
    /// Under which epoch of it.
    pub epoch: Epoch,
    /// Transport index, for the nonce and the tag.
    pub k: TransportIndex,
    /// For the header.
    pub locator: Locator,
    /// Proven path MTU (outer packet with IP header); inner packets must fit after the overhead.
    pub mtu: u16,
}

/// What comes out.
#[derive(Debug)]
pub enum Command {
    /// Send a datagram.
    Send {
        /// Through which socket.
        path: PathId,
        /// Where to.
        to: SocketAddr,
        /// UDP payload.
        bytes: Vec<u8>,
    },
    /// Open another port on the network of a path. Its PathUp says `beside`; without one the path is left as it is.
    OpenPort {
        /// Which path.
        beside: PathId,
    },
    /// Close the port of a path; the engine has forgotten it.
    ClosePort {
        /// Which path.
        path: PathId,
    },
    /// Worker: locators of a set, so that inbound data is recognised. The first of a set makes it.
    Locators {
        /// Which set.
        set: SetId,
        /// Its steering keys: `up` tags, `down` verifies.
        steering: SteeringKeys,
        /// New ones.
        add: Vec<(TransportIndex, Locator)>,
        /// Given up.
        remove: Vec<TransportIndex>,
    },
    /// Worker: open under these keys from now on; seal under them when [`Command::Use`] says so.
    InstallKeys(Box<DataKeys>),
    /// Worker: wipe the keys of one epoch.
    WipeKeys {
        /// Of which set.
        set: SetId,
        /// Which epoch.
        epoch: Epoch,
    },
    /// Worker: wipe a set: its keys, windows and locators.
    Forget {
        /// Which set.
        set: SetId,
    },
    /// Worker: send inner packets this way from now on, first those held back.
    Use(Transport),
    /// Worker: there is no way just now. Keep inner packets in a [`super::HoldQueue`] until the next `Use`.
    Hold,
    /// Worker: send one data PING (type 4, empty inner packet) this way; whatever opens is the answer.
    Ping(Transport),
    /// Tunnel device: addresses, MTU; policy snapshot for display.
    Configure {
        /// The session.
        session: SessionId,
        /// Inner addresses.
        addresses: Vec<IpNet>,
        /// Inner MTU.
        mtu: u16,
        /// Policy snapshot in its own encoding.
        policy: Vec<u8>,
    },
    /// A condition began or ended; `view()` holds all of them.
    Condition {
        /// Which: GATEWAY_UNRESPONSIVE or UNKNOWN_PEER and the like.
        reason: Reason,
        /// Whether it holds.
        set: bool,
    },
    /// For the client's own history.
    Event(Box<Event>),
    /// The session is over. Unless the client closed it, a new handshake follows by itself.
    Ended {
        /// Which.
        session: SessionId,
        /// Why.
        reason: Reason,
    },
}

/// What happened, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A handshake was answered and confirmed: a new session.
    SessionCreated,
    /// The same session under new keys.
    Resumed,
    /// The gateway acknowledged a new binding.
    TransportSwitch,
    /// The gateway refused one.
    ReattachReject,
    /// The active path was given up: the client's own view, before anybody acknowledged it.
    PathLost,
    /// Keys were rotated.
    KeyRotated,
    /// A condition began or ended.
    Condition,
    /// A handshake was refused or went unanswered.
    HandshakeFailed,
    /// The session ended.
    Termination,
    /// The gateway said it will be away.
    GoingAway,
}

/// A line of the client's own history. `acknowledged` says whether the gateway said so, or only the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, boot time.
    pub at: Instant,
    /// What.
    pub kind: EventKind,
    /// Whether the gateway said so.
    pub acknowledged: bool,
    /// Session it is about.
    pub session: Option<SessionId>,
    /// Why.
    pub reason: Reason,
    /// More about why.
    pub detail: Option<Reason>,
    /// Number of the session's state as last acknowledged, 0 without session.
    pub state: u8,
    /// Version as last acknowledged.
    pub version: Version,
    /// From which path.
    pub from: Option<Label>,
    /// To which path.
    pub to: Option<Label>,
    /// First sign to decision.
    pub detect: Duration,
    /// Decision to acknowledgement.
    pub prove: Duration,
}
