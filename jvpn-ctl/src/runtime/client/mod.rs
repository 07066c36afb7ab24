//! The client: engine, networks, worker, record and API in one event loop.
//!
//! Owns start, loop and end of `connect`. Nothing else changes the engine, so that its inputs have one order.
//!
//! ```text
//! worker ─ datagrams ──┐                      ┌─► sockets
//! netlink ─ networks ──┼─► engine ─ commands ─┼─► key sets, transport in use (role.rs)
//! API, signals, time ──┘                      └─► tunnel device, record
//! ```

mod api;
mod metrics;
pub mod network;
mod paths;
mod record;
pub mod role;
mod start;

use crate::api::Request;
use crate::audit::Audit;
use crate::config::Paths;
use crate::config::client::ClientConfig;
use crate::runtime::alarm::Alarm;
use crate::runtime::clock;
use crate::runtime::netlink::Netlink;
use crate::runtime::stop::{self, Again, Stop};
use crate::runtime::sys::watch;
use crate::tunnel::{Counters, FromWorker, Inbox, UdpPort, WorkerHandle};
use anyhow::{Context, Result};
use jvpn_common::client::Engine;
use jvpn_common::client::command::{Activity, Command, Input, PathId, Sealed};
use jvpn_common::ids::SessionId;
use jvpn_common::time::Instant;
use paths::Networks;
use role::Sets;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

/// Datagrams taken from the worker in one turn, so that timers are not starved.
const TURN_MAX: usize = 256;

/// A clock that went on this much longer than the loop's own timer slept with the machine.
const SUSPEND_MIN: Duration = Duration::from_secs(5);

/// How often the loop looks at its clocks.
const CLOCK_EVERY: Duration = Duration::from_secs(1);

/// A running client.
struct Client {
    config: ClientConfig,
    engine: Engine,
    networks: Networks,
    sets: Sets,
    worker: WorkerHandle,
    counters: Arc<Counters>,
    audit: Arc<Audit>,
    watch: Netlink,
    tun: u32,
    session: Option<SessionId>,
    /// Packets opened when last looked at, and when that changed.
    received: (u64, Option<Instant>),
    started: String,
    jump: Option<api::PendingJump>,
}

/// Runs a client until it is told to stop.
///
/// # Errors
/// When anything it needs is missing; nothing is left behind then.
pub async fn run(config: ClientConfig, paths: Paths) -> Result<()> {
    let local = tokio::task::LocalSet::new();
    local.run_until(start::start(config, paths)).await
}

impl Client {
    async fn run(
        &mut self,
        inbox: Inbox<FromWorker>,
        mut requests: Receiver<Request>,
        mut ended: oneshot::Receiver<std::io::Error>,
    ) -> Result<()> {
        let mut alarm = Alarm::new().context("no timer")?;
        let bell = watch(inbox.as_fd().try_clone_to_owned()?).context("cannot watch the worker's queue")?;
        let mut clocks = tokio::time::interval(CLOCK_EVERY);
        let mut looked = (clock::boot(), clock::monotonic());
        let (mut stop, mut again) = (Stop::new()?, Again::new()?);
        self.input(Input::WallClock(clock::wall()));
        self.look_at_networks().await?;
        loop {
            self.carry_out().await;
            self.answer_jump();
            alarm.set(self.engine.wakeup())?;
            tokio::select! {
                biased;
                () = stop.asked() => break,
                () = again.asked() => stop::unread("client"),
                ready = bell.readable() => {
                    let mut ready = ready?;
                    if !self.drain(&inbox) {
                        ready.clear_ready();
                    }
                }
                fired = alarm.fired() => {
                    fired?;
                    self.input(Input::Wakeup);
                }
                () = self.watch.changed() => self.look_at_networks().await?,
                Some(request) = requests.recv() => self.serve(request),
                Ok(error) = &mut ended => {
                    return Err(error).context(format!("the tunnel worker ended; is {} gone?", self.config.tun));
                }
                _ = clocks.tick() => {
                    looked = self.look_at_clocks(looked);
                    if self.networks.is_incomplete() {
                        self.look_at_networks().await?;
                    }
                }
            }
        }
        self.input(Input::Close);
        self.carry_out().await;
        Ok(())
    }

    fn input(&mut self, input: Input<'_>) {
        let now = clock::boot();
        let activity = self.activity();
        self.engine.handle(now, Input::Activity(activity));
        self.engine.handle(now, input);
    }

    /// Tells the engine which networks came and went.
    async fn look_at_networks(&mut self) -> Result<()> {
        let host = network::read(&self.watch.handle).await?;
        let candidates = network::candidates(&host, &self.config);
        for change in self.networks.update(candidates, &self.worker) {
            match change {
                paths::Change::Up(up) => self.input(Input::PathUp(up)),
                paths::Change::Down(path) => {
                    self.input(Input::PathDown { path, reason: jvpn_common::reason::Reason::LinkDown });
                }
            }
        }
        Ok(())
    }

    /// Whether the machine slept: boot time went on, monotonic time did not.
    fn look_at_clocks(&mut self, (boot, monotonic): (Instant, Instant)) -> (Instant, Instant) {
        let now = (clock::boot(), clock::monotonic());
        let suspended = now.0.since(boot).saturating_sub(now.1.since(monotonic));
        self.input(Input::WallClock(clock::wall()));
        if suspended >= SUSPEND_MIN {
            self.input(Input::Woke { suspended });
        }
        now
    }

    /// Carries out commands until there are none.
    async fn carry_out(&mut self) {
        loop {
            let mut sent = false;
            while let Some(command) = self.engine.poll() {
                sent |= matches!(command, Command::Send { .. });
                self.carry(command).await;
            }
            if !sent {
                return;
            }
            // A probe is compared with what was sealed around the moment it left: the sooner the second look, the
            // closer the two.
            let activity = self.activity();
            self.engine.handle(clock::boot(), Input::Activity(activity));
        }
    }

    async fn carry(&mut self, command: Command) {
        match command {
            Command::Send { path, to, bytes } => {
                if let Some(port) = self.networks.send(path, to, &bytes) {
                    self.socket_lost(path, &port);
                }
            }
            Command::OpenPort { beside } => {
                if let Some(up) = self.networks.open_beside(beside, &self.worker) {
                    self.input(Input::PathUp(up));
                }
            }
            Command::ClosePort { path } => self.networks.close(path, &self.worker),
            Command::Locators { set, steering, add, remove } => self.sets.locators(set, steering, add, &remove),
            Command::InstallKeys(keys) => self.sets.install(*keys, clock::boot()),
            Command::WipeKeys { set, epoch } => self.sets.wipe(set, epoch),
            Command::Forget { set } => self.sets.forget(set),
            Command::Use(transport) => {
                self.sets.use_transport(transport);
                self.worker.wake();
            }
            Command::Hold => {
                self.sets.hold();
                self.worker.wake();
            }
            Command::Ping(transport) => {
                if !self.worker.ping(Sets::ping_name(transport.set), 0) {
                    tracing::debug!("the worker is too busy for a ping");
                }
            }
            Command::Configure { session, addresses, mtu, .. } => {
                self.session = Some(session);
                tracing::info!(%session, ?addresses, mtu, "configured");
                let configured = network::configure(&self.watch.handle, self.tun, &addresses, &self.config.routes);
                if let Err(error) = configured.await {
                    tracing::error!(error = format!("{error:#}"), "the tunnel device could not be configured");
                }
            }
            Command::Condition { reason, set } => tracing::warn!(condition = reason.name(), set, "condition"),
            Command::Event(event) => self.record(&event),
            Command::Ended { session, reason } => {
                tracing::warn!(%session, reason = reason.name(), "the session ended");
                self.sets.end();
            }
        }
    }

    /// Takes what the worker has; true when more may be waiting.
    fn drain(&mut self, inbox: &Inbox<FromWorker>) -> bool {
        for _ in 0..TURN_MAX {
            match inbox.next() {
                None => return false,
                Some(FromWorker::Datagram { origin, mut bytes, .. }) => {
                    let path = PathId(origin.socket.0);
                    self.input(Input::Datagram { path, from: origin.remote, bytes: &mut bytes });
                }
                Some(FromWorker::Busy { .. }) => self.input(Input::TrafficStarted),
                Some(FromWorker::Pong { .. } | FromWorker::EpochProven { .. }) => self.input(Input::Wakeup),
                Some(FromWorker::SocketLost { socket, port }) => self.socket_lost(PathId(socket.0), &port),
            }
        }
        true
    }

    /// A path is gone without a word from its interface, or before it.
    fn socket_lost(&mut self, path: PathId, port: &Arc<UdpPort>) {
        if self.networks.lost(path, port, &self.worker) {
            self.input(Input::PathDown { path, reason: jvpn_common::reason::Reason::LinkDown });
        }
    }

    /// What the worker did, from its counters.
    fn activity(&mut self) -> Activity {
        let mut activity = Activity::default();
        let snapshot = self.sets.snapshot();
        let using = snapshot.active;
        for (&id, set) in &snapshot.sets {
            let traffic = set.data.traffic();
            let opened = set.locators.keys().filter_map(|&k| Some((id, k, set.data.last_opened(k.0)?)));
            activity.opened.extend(opened);
            if traffic.tx_packets.load(Relaxed) > 0 {
                let sent = Instant(traffic.last_sealed.load(Relaxed));
                activity.inner_sent = activity.inner_sent.max(Some(sent).filter(|at| at.0 > 0));
            }
            if let Some(transport) = using.filter(|using| using.set == id) {
                let packets = traffic.rx_packets.load(Relaxed);
                activity.received = traffic.rx_bytes.load(Relaxed);
                if packets != self.received.0 {
                    let at = activity.opened.iter().filter(|(set, ..)| *set == id).map(|&(.., at)| at).max();
                    self.received = (packets, at);
                }
                if let Some(key) = set.data.sealing() {
                    let (epoch, k) = (key.epoch(), transport.k);
                    activity.sealed = Some(Sealed { set: id, epoch, k, next: key.sealing().next_counter(k.0) });
                    activity.rekey_due = key.worn();
                    activity.key_spent = key.spent(clock::boot());
                }
            }
        }
        activity.inner_received = self.received.1;
        activity
    }
}
