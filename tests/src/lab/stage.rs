//! Owns the stage of the demo: lab, product and traffic while they run, and the questions an act asks them. Never
//! breaks anything.

use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Lab;
use super::act::{Act, SlotSeen};
use super::clock::now_ns;
use super::demo::{FREEZE, Options};
use super::flow::Flows;
use super::http::{Download, Server};
use super::inspect;
use super::process::{Product, Role};
use super::record::{self, Record, Session};
use super::setup::{Endpoint, Setup};
use super::topology::{INNER_CLIENT_V4, LAN_V4, Path};

/// Until traffic runs, paths are validated and a jump is allowed: standby paths are checked every 5 s.
const SETTLE_LIMIT: Duration = Duration::from_secs(45);
/// Longer than the cooldown of the default policy.
const AFTER_JUMP: Duration = Duration::from_millis(1_500);
/// Where the relay pins.
const RELAY_PINS: &str = "relay-1";
pub(super) const POLL: Duration = Duration::from_millis(50);

/// Fields drop in this order: traffic, product, lab.
pub(super) struct Stage<'a> {
    pub(super) flows: Flows,
    pub(super) download: Download,
    pub(super) server: Server,
    pub(super) product: Product,
    pub(super) lab: Lab,
    pub(super) options: &'a Options,
}

impl<'a> Stage<'a> {
    /// With a relay, both of the client's paths lead to it.
    pub(super) fn set(options: &'a Options, relayed: bool) -> Result<Stage<'a>> {
        let relays = usize::from(relayed);
        let lab = Lab::with(relays, 1)?;
        eprintln!("lab {} is up", lab.prefix());
        let endpoints = if relayed { vec![Endpoint::Relay(0)] } else { Vec::new() };
        let setup = Setup { xdp: options.xdp, relays, endpoints, ..Setup::default() };
        let mut product = Product::start(&lab, &setup)?;
        product.wait_healthy()?;
        let (client, lan) = (lab.topology.client(), lab.topology.lan());
        let (inner, host): (IpAddr, IpAddr) = (INNER_CLIENT_V4.parse()?, LAN_V4.parse()?);
        let flows = Flows::start((&client, inner), (&lan, host))?;
        let server = Server::start(&lan, host)?;
        let download = Download::start(&client, server.address)
            .with_context(|| format!("through the tunnel\n{}", product.log_tail(Role::Gateway)))?;
        let stage = Stage { flows, download, server, product, lab, options };
        stage.settle().context("traffic through the new tunnel")?;
        eprintln!("session up, traffic runs");
        Ok(stage)
    }

    /// Waits until both flows and the download run.
    pub(super) fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let mut bytes = self.download.bytes();
        loop {
            thread::sleep(POLL * 2);
            let recent = now_ns().saturating_sub(self.flows.last_arrival_ns()) < 50_000_000;
            if recent && self.download.bytes() > bytes {
                return Ok(());
            }
            bytes = self.download.bytes();
            ensure!(
                Instant::now() < deadline,
                "flows run: {recent}; download alive: {}, {bytes} bytes\n{}\n{}",
                self.download.alive(),
                self.product.log_tail(Role::Gateway),
                self.product.log_tail(Role::Client),
            );
        }
    }

    /// The session as the gateway knows it; its transport as the client calls it, whose names these are.
    pub(super) fn session(&self) -> Result<Session> {
        let mut session = record::live_session(&self.product.json(Role::Gateway, &["sessions"])?)?;
        let status = self.product.json(Role::Client, &["status"])?;
        if let Some(name) = status["session"]["transport"]["name"].as_str() {
            session.transport = Some(name.to_owned());
        }
        Ok(session)
    }

    /// The session and its history as of one moment: what changes between the two questions is asked again.
    pub(super) fn session_and_history(&self) -> Result<(Session, Vec<Record>)> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let session = self.session()?;
            let records = self.history(&session.id)?;
            if self.session()? == session {
                return Ok((session, records));
            }
            ensure!(Instant::now() < deadline, "the session changes faster than it can be read");
        }
    }

    pub(super) fn history(&self, id: &str) -> Result<Vec<Record>> {
        record::history(&self.product.json(Role::Gateway, &["sessions", id, "history"])?)
    }

    pub(super) fn active(&self) -> Result<Path> {
        let session = self.session()?;
        let name = session.transport.context("the session has no active transport")?;
        Path::of_transport(&name).with_context(|| format!("unknown transport {name:?}"))
    }

    /// Asks for a jump until it is granted; returns the instant before the request that was.
    pub(super) fn jump(&self, to: Path) -> Result<u64> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let at_ns = now_ns();
            let (code, out, err) = self.product.verb(Role::Client, &["jump", "--to", to.transport()])?;
            if code == 0 {
                return Ok(at_ns);
            }
            ensure!(
                Instant::now() < deadline,
                "jump to {} exits with {code}: {} {}",
                to.transport(),
                out.trim(),
                err.trim()
            );
            thread::sleep(POLL * 6);
        }
    }

    /// Brings the session where the act wants it.
    pub(super) fn prepare(&self, act: &Act) -> Result<()> {
        self.settle()?;
        let Some(wanted) = act.starts_on else { return Ok(()) };
        let deadline = Instant::now() + SETTLE_LIMIT;
        // On a busy machine the client may find a reason to move once more.
        while self.active()? != wanted {
            ensure!(Instant::now() < deadline, "the session does not stay on {}", wanted.transport());
            self.jump(wanted).context("bring the session to where the act starts")?;
            thread::sleep(AFTER_JUMP);
            self.settle()?;
        }
        Ok(())
    }

    /// Time until the client's status names the frozen gateway, watched until shortly before it thaws.
    pub(super) fn wait_noticed(&self, since_ns: u64) -> Result<Option<f64>> {
        let until = since_ns + FREEZE.as_nanos() as u64 - 200_000_000;
        while now_ns() < until {
            let status = self.product.json(Role::Client, &["status"])?;
            if record::has_problem(&status, "GATEWAY_UNRESPONSIVE") {
                return Ok(Some((now_ns() - since_ns) as f64 / 1e6));
            }
            thread::sleep(POLL / 2);
        }
        Ok(None)
    }

    /// The slot of the relay, if there is one.
    pub(super) fn relay_slot(&self) -> Result<Option<SlotSeen>> {
        let pins = self.lab.pin_root().join(RELAY_PINS);
        if !pins.exists() {
            return Ok(None);
        }
        inspect::slots(&pins).map(|slots| slots.into_iter().next())
    }

    pub(super) fn dump(&self, when: &str) -> Result<()> {
        let Some(out) = &self.options.out else {
            return Ok(());
        };
        let relay = self.lab.pin_root().join(RELAY_PINS);
        if relay.exists() {
            let file = out.join(format!("bpftool-relay-{when}.txt"));
            return inspect::bpftool(&self.lab.topology.relay(0), &relay, &file);
        }
        let file = out.join(format!("bpftool-{when}.txt"));
        inspect::bpftool(&self.lab.topology.gateway(), &self.lab.pin_root(), &file)?;
        if when == "after"
            && let Ok(session) = self.session()
        {
            for (role, name) in [(Role::Gateway, "gateway"), (Role::Client, "client")] {
                // A client that keeps no history of its own is not an error of the demo.
                if let Ok(history) = self.product.json(role, &["sessions", &session.id, "history"]) {
                    fs::write(out.join(format!("{name}-record.json")), history.to_string())?;
                }
            }
        }
        Ok(())
    }
}
