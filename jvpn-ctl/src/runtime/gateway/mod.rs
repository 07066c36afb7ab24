//! The gateway: engine, maps, worker, store, record and API in one event loop.
//!
//! Owns start, loop and end of `serve`. Nothing else changes the engine, so that its inputs have one order.
//!
//! ```text
//! workers─ datagrams ─┐                      ┌─► maps ─► store ─► record ─► datagrams   (commit.rs)
//! compute ─ results ──┼─► engine ─ commands ─┤
//! API, signals, time ─┘                      └─► compute, send
//! ```

mod api;
mod commit;
mod compute;
mod jump;
mod keeper;
mod metrics;
mod policy;
mod relays;
mod reload;
mod restore;
mod role;
pub mod sessions;
pub mod setup;
mod sockets;
mod start;
mod watch;
mod workers;

use crate::api::Request;
use crate::audit::Audit;
use crate::config::{GatewayConfig, Paths};
use crate::runtime::alarm::Alarm;
use crate::runtime::clock;
use crate::runtime::interfaces::Interfaces;
use crate::runtime::node::Detach;
use crate::runtime::reconcile::Reconcile;
use crate::runtime::stop::{Again, Stop};
use crate::runtime::sys;
use crate::tunnel::{FromWorker, Inbox};
use anyhow::{Context, Result};
use commit::Executor;
use compute::Compute;
use jump::PendingJump;
use jvpn_common::gateway::command::{Command, Input, Order};
use jvpn_common::gateway::{Commit, Engine};
use jvpn_common::ids::{Incarnation, OpId, OwnerEpoch};
use jvpn_common::limits::ALIVE_EVERY;
use jvpn_common::time::Instant;
pub(crate) use policy::shown;
use relays::Relays;
use reload::Told;
use sockets::GoneSockets;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFdReadyGuard;
use tokio::sync::mpsc::Receiver;
use watch::Watch;
use workers::Workers;

/// How long a gateway that stops waits for its clients to acknowledge that it goes: two copies over a usual
/// path. Who is not there delays the stop by no more than this.
const FAREWELL: Duration = Duration::from_millis(500);

/// Datagrams taken from the worker before everything else has its turn, so that timers and results are not starved.
const TURN_MAX: usize = 256;

/// A running gateway.
struct Gateway {
    config: GatewayConfig,
    engine: Engine,
    executor: Executor,
    /// Commits of this turn; none between turns.
    ready: Ready,
    compute: Compute,
    workers: Workers,
    gone: GoneSockets,
    interfaces: Interfaces,
    relays: Relays,
    watch: Watch,
    reconcile: Reconcile,
    jumps: Vec<PendingJump>,
    told: Told,
    /// Detaches at the end, if that was asked for.
    #[expect(dead_code, reason = "held for its drop")]
    detach: Option<Detach>,
    paths: Paths,
    incarnation: Incarnation,
    owner_epoch: OwnerEpoch,
    started: String,
}

/// Commits that may be carried out: those of a turn are written together.
#[derive(Default)]
struct Ready {
    quick: Vec<(OpId, Commit)>,
    /// These wait for the disk.
    durable: Vec<(OpId, Commit)>,
}

/// Runs a gateway until it is told to stop.
///
/// # Errors
/// When anything it needs is missing; nothing is left behind then.
pub async fn run(config: GatewayConfig, paths: Paths, detach_on_exit: bool) -> Result<()> {
    let local = tokio::task::LocalSet::new();
    local.run_until(start::start(config, paths, detach_on_exit)).await
}

impl Gateway {
    async fn run(&mut self, inbox: Inbox<FromWorker>, mut requests: Receiver<Request>) -> Result<()> {
        let mut alarm = Alarm::new().context("no timer")?;
        let bell = sys::watch(inbox.as_fd().try_clone_to_owned()?).context("cannot watch the worker's queue")?;
        let mut look = tokio::time::interval(watch::LOOK_EVERY);
        let mut lease = tokio::time::interval(ALIVE_EVERY);
        let mut stop = Stop::new()?;
        let mut again = Again::new()?;
        loop {
            self.carry_out();
            self.answer_jumps();
            alarm.set(self.wakeup())?;
            tokio::select! {
                biased;
                () = stop.asked() => break,
                event = self.relays.event() => self.relay_event(event),
                (op, result) = self.compute.next() => self.input(Input::Computed { op, result }),
                fired = alarm.fired() => {
                    fired?;
                    self.fire();
                }
                Some(request) = requests.recv() => self.serve(request),
                () = again.asked() => self.reload_by_signal(),
                _ = look.tick() => self.look(),
                _ = lease.tick() => self.lease_to_relays(),
                // Without a worker a gateway leaves some unserved; whoever started it starts it again.
                error = self.workers.ended() => {
                    self.workers.give_up(self.executor.plane.shared());
                    return Err(error).context(format!("the tunnel worker ended; is {} gone?", self.config.tun));
                }
                // Last, since under a storm it is always ready.
                ready = bell.readable() => self.drain_ready(ready?, &inbox).await,
            }
        }
        self.input(Input::Order(Order::GoingAway));
        let patience = tokio::time::sleep(FAREWELL);
        tokio::pin!(patience);
        loop {
            self.carry_out();
            if self.engine.unacknowledged() == 0 {
                break;
            }
            alarm.set(self.wakeup())?;
            tokio::select! {
                biased;
                event = self.relays.event() => self.relay_event(event),
                _ = lease.tick() => self.lease_to_relays(),
                // Before the end of the wait: on a machine that stood still for all of it a second copy leaves yet.
                fired = alarm.fired() => {
                    fired?;
                    self.fire();
                }
                () = &mut patience => break,
                ready = bell.readable() => self.drain_ready(ready?, &inbox).await,
            }
        }
        self.workers.give_up(self.executor.plane.shared());
        self.lease_to_relays();
        Ok(())
    }

    /// When anything is due.
    fn wakeup(&self) -> Option<Instant> {
        [self.engine.wakeup(), self.relays.wakeup()].into_iter().flatten().min()
    }

    fn fire(&mut self) {
        self.expire_relays();
        self.input(Input::Wakeup);
    }

    fn input(&mut self, input: Input<'_>) {
        self.engine.handle(clock::boot(), clock::wall(), input);
    }

    /// Carries out commands until there are none, outcomes included.
    fn carry_out(&mut self) {
        loop {
            self.take_commands();
            if !self.commit_ready() {
                return;
            }
        }
    }

    /// The same but for commits, which are only taken note of: those of a turn share one write of the record, one snapshot of
    /// the worker's, and one wait for the disk if they need it, which takes longer than all else that a birth costs.
    fn take_commands(&mut self) {
        while let Some(command) = self.engine.poll() {
            match command {
                Command::Send(datagram) => self.executor.sockets.send(&datagram),
                Command::Compute { op, job } => self.compute.submit(op, job),
                Command::Record(record) => {
                    if let Err(error) = self.executor.record(vec![*record]) {
                        self.executor.complain(&error, "a record could not be written");
                    }
                }
                Command::Commit { op, commit } => self.commit(op, commit),
            }
        }
    }

    /// Takes what the worker has, and what it brings meanwhile: a wake-up for each would cost as much as a message.
    async fn drain_ready<T: AsRawFd>(&mut self, mut ready: AsyncFdReadyGuard<'_, T>, inbox: &Inbox<FromWorker>) {
        let mut left = TURN_MAX;
        while left > 0 {
            let taken = self.drain(inbox, left);
            if taken == 0 {
                return ready.clear_ready();
            }
            left -= taken;
            self.carry_out();
        }
        // More may be waiting. Only whoever waits lets the runtime see what else is ready.
        tokio::task::yield_now().await;
    }

    /// Takes what the worker has, so much at most; how much that was.
    fn drain(&mut self, inbox: &Inbox<FromWorker>, most: usize) -> usize {
        for taken in 0..most {
            match inbox.next() {
                None => return taken,
                Some(FromWorker::Datagram { origin, mut bytes, .. }) => {
                    if let Some((origin, len)) = self.executor.sockets.origin(&origin, self.config.listen, &bytes) {
                        let bytes = bytes.get_mut(..len).unwrap_or_default();
                        self.input(Input::Datagram { origin, bytes });
                        self.take_commands();
                    }
                }
                Some(FromWorker::EpochProven { session, epoch }) => self.epoch_proven(session, epoch),
                Some(FromWorker::Busy { .. } | FromWorker::Pong { .. }) => {}
                Some(FromWorker::SocketLost { port, .. }) => self.socket_lost(&port),
            }
        }
        most
    }

    fn epoch_proven(&mut self, session: jvpn_common::ids::SessionId, epoch: jvpn_common::ids::Epoch) {
        if let Some(slot) = self.executor.sessions.slot_of(session) {
            let (opened, unanswered) = (Some(clock::boot()), None);
            self.input(Input::Activity { slot, opened, unanswered, epoch });
        }
    }

    fn audit(&self) -> &Arc<Audit> {
        &self.executor.audit
    }
}
