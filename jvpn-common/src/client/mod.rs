//! The client engine: births, keeps, moves and resumes one session over whatever paths there are.
//!
//! Owns what the client decides: which path to use, when one is dead, what to ask the gateway. Must never
//! touch a socket, a clock or a device: inputs go in, commands come out. The gateway's copy of the session
//! is authoritative; this side believes what was acknowledged.
//!
//! ```text
//! runtime ── PathUp, Datagram, Activity, Wakeup ──► Engine ──► Send ──► sockets
//!                                                      ├─────► InstallKeys, Locators, Use, Hold, Ping ──► worker
//!                                                      └─────► Configure, Condition, Event, Ended ──► tunnel device, people
//! ```

pub mod command;
pub mod queue;
pub mod view;

pub use command::{
    Activity, Command, Config, DataKeys, Event, EventKind, Input, PathClass, PathId, PathUp, Sabotage, SetId, Transport,
};
pub use queue::{HOLD_BYTES_MAX, HOLD_FOR, HoldQueue};
pub use view::{PathState, PathView, Phase, View};

use crate::time::{Duration, Instant};

/// No inner packet for this long is idle; the next one is [`Input::TrafficStarted`].
pub const IDLE_AFTER: Duration = Duration::from_secs(1);

/// One client.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// A client that knows no path yet.
    #[must_use]
    pub fn new(config: Config, entropy: Box<dyn crate::crypto::Entropy + Send>, now: Instant) -> Self {
        let _ = (config, entropy, now);
        Self {}
    }

    /// Takes one input; then [`Self::poll`] until there is nothing more.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        let _ = (now, input);
    }

    /// The next command, in the order they must be carried out.
    pub fn poll(&mut self) -> Option<Command> {
        None
    }

    /// When [`Input::Wakeup`] is wanted at the latest.
    #[must_use]
    pub fn wakeup(&self) -> Option<Instant> {
        None
    }
}
