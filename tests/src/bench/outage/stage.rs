//! Owns a lab with one contender in it and the trials played there: when one begins, what is broken, when it is over.
//! Never judges. A fault that was not in force is an error, not a figure.

use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jvpn_common::client::IDLE_AFTER;

use super::OURS;
use super::cell::{Cell, Point, Trial, What};
use super::ours::{Ours, Standing};
use crate::bench::rival::{Joined, Kind};
use crate::bench::wireguard::{self, Place};
use crate::lab::Lab;
use crate::lab::clock::{now_ns, sleep_until};
use crate::lab::fault::{Fault, Way};
use crate::lab::flow::{Account, Direction, Flows};
use crate::lab::topology::{GATEWAY_V4, INNER_CLIENT_V4, LAN_V4, Path};
use crate::lab::torrent::Torrent;

/// What never comes back is looked at this long and reported as longer.
pub(super) const CAP: Duration = Duration::from_secs(30);
/// Arrivals without a pause of [`PAUSE_NS`] for this long: the fault is over for the traffic.
const STEADY_NS: u64 = 500_000_000;
const PAUSE_NS: u64 = 60_000_000;
/// Until traffic runs through a tunnel.
const RUNS_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of an inner packet's payload that fit 1,500 and no longer 1,300 with the tunnel's headers around them.
const LARGE: usize = 1_300;
const SMALL: usize = 64;
/// Packets a second of the fast jump, and how long the way must have been without loss before it.
const FAST: u64 = 90_000;
const CLEAN: Duration = Duration::from_millis(1_000);
/// And how long packets sent after it are counted, and may then take.
const AFTERWARDS: Duration = Duration::from_millis(1_500);
const STRAGGLERS: Duration = Duration::from_millis(1_000);
const POLL: Duration = Duration::from_millis(20);
/// Loss of the one lossy fault, and of the lossy point.
const LOSS: (f64, Duration) = (0.3, Duration::from_secs(3));
const POINT_LOSS: f64 = 0.02;

/// Whom to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    Ours,
    /// Another VPN: the program of this file.
    Rival(Kind, PathBuf),
}

impl Whom {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Whom::Ours => OURS,
            Whom::Rival(kind, _) => kind.name(),
        }
    }
}

enum Tunnel {
    Ours(Ours),
    Rival(Joined),
}

/// Fields drop in this order: traffic, tunnel, what makes the point, lab.
pub(super) struct Stage {
    flows: Flows,
    payload: usize,
    tunnel: Tunnel,
    conditions: Vec<Fault>,
    lab: Lab,
    point: Point,
}

/// How one trial ended.
pub(super) enum Outcome {
    Seen(Trial),
    /// The session was not ATTACHED when the fault was to begin, or the way not clean.
    Discarded,
}

impl Stage {
    pub(super) fn set(whom: &Whom, point: Point) -> Result<Stage> {
        let lab = Lab::shaped(|topology| topology.with_third(point == Point::Paths3))?;
        let mut conditions = Vec::new();
        if point == Point::V6 {
            lab.nat66().context("a NAT of IPv6")?;
        }
        for path in Path::BOTH {
            if let Some(delay) = point.delay(path) {
                conditions.push(lab.delay(path, delay)?);
            }
            if point == Point::Loss2 {
                conditions.push(lab.loss(path, POINT_LOSS)?);
            }
        }
        let tunnel = match whom {
            Whom::Ours => Tunnel::Ours(Ours::start(&lab, point)?),
            Whom::Rival(kind, program) => {
                let place = Place {
                    client: lab.topology.client(),
                    gateway: lab.topology.gateway(),
                    prefix: lab.prefix().to_owned(),
                    files: lab.files().to_owned(),
                };
                Tunnel::Rival(kind.join(place, program)?)
            }
        };
        let flows = flows(&lab, &tunnel, SMALL)?;
        Ok(Stage { flows, payload: SMALL, tunnel, conditions, lab, point })
    }

    /// Ends everything in order.
    pub(super) fn close(self) -> Result<()> {
        let Stage { flows, tunnel, conditions, lab, .. } = self;
        drop(flows);
        match tunnel {
            Tunnel::Ours(ours) => ours.stop()?,
            Tunnel::Rival(rival) => drop(rival),
        }
        for condition in conditions {
            condition.undo()?;
        }
        lab.down()
    }

    /// Plays one trial.
    pub(super) fn trial(&mut self, cell: &Cell) -> Result<Outcome> {
        ensure!(cell.point == self.point, "{} does not belong on this stage", cell.name());
        let payload = if cell.what == What::Mtu1300 { LARGE } else { SMALL };
        if payload != self.payload {
            self.flows = flows(&self.lab, &self.tunnel, payload)?;
            self.payload = payload;
        }
        self.forget_sizes()?;
        self.wait_running()?;
        let (path, before) = self.ready(cell.what.starts_on())?;
        if cell.what == What::FastJump {
            return self.fast_jump(path, before);
        }
        let ways = self.begin_receiving_only(cell.what);
        self.flows.forget_before(now_ns().saturating_sub(1_000_000_000));
        if !self.still_attached(before.as_ref())? {
            self.flows.quiet_up(false);
            return Ok(Outcome::Discarded);
        }
        let broken = self.break_it(cell.what, path);
        let (fault_ns, held) = broken.inspect_err(|_| self.flows.quiet_up(false))?;
        let (window_ns, capped) = self.watch(&ways, fault_ns, cell.what.shortest());
        self.flows.quiet_up(false);
        let account = ways
            .iter()
            .map(|&way| self.flows.trace(way).account_within(fault_ns, window_ns))
            .fold(Account::default(), Account::join);
        for fault in held {
            fault.undo()?;
        }
        let mut trial = Trial {
            outage_ms: (account.outage_ms * 1e3).round() / 1e3,
            capped,
            sent: account.sent,
            lost: account.lost,
            duplicated: account.duplicated,
            reordered: account.reordered,
            stall_ms: account.stall_ms,
            window_ms: window_ns / 1_000_000,
            path: path.transport().into(),
            ..Trial::default()
        };
        if let (Tunnel::Ours(ours), Some(before)) = (&self.tunnel, &before) {
            ours.note(before, &mut trial)?;
        }
        Ok(Outcome::Seen(trial))
    }

    fn ready(&self, wanted: Option<Path>) -> Result<(Path, Option<Standing>)> {
        match &self.tunnel {
            Tunnel::Ours(ours) => ours.ready(wanted).map(|(path, standing)| (path, Some(standing))),
            Tunnel::Rival(_) => {
                // It follows the kernel's routes: the first default route, unless one of its own leads elsewhere.
                let path = wanted.unwrap_or(Path::A);
                let client = self.lab.topology.client();
                match path {
                    Path::A => client.run(&["ip", "route", "flush", GATEWAY_V4], None).map(|_| ())?,
                    Path::B => client.ip(&format!("route replace {GATEWAY_V4} via 192.168.20.1 dev wan-b\n"))?,
                }
                self.wait_running()?;
                Ok((path, None))
            }
        }
    }

    fn still_attached(&self, before: Option<&Standing>) -> Result<bool> {
        match (&self.tunnel, before) {
            (Tunnel::Ours(ours), Some(before)) => {
                let now = ours.standing()?;
                Ok(now.attached
                    && now.id == before.id
                    && now.transport == before.transport
                    && now.version == before.version)
            }
            _ => Ok(true),
        }
    }

    /// Stops the flow up where that is part of it; the directions that are measured.
    fn begin_receiving_only(&self, what: What) -> Vec<Direction> {
        if what != What::NatIdle {
            return Direction::BOTH.into();
        }
        self.flows.quiet_up(true);
        // Until the client, too, calls itself one that only receives.
        thread::sleep(IDLE_AFTER + Duration::from_millis(500));
        vec![Direction::Down]
    }

    /// What earlier trials taught the hosts about path MTUs would hide the next one.
    fn forget_sizes(&self) -> Result<()> {
        for space in [self.lab.topology.client(), self.lab.topology.lan()] {
            space.run(&["ip", "route", "flush", "cache"], None)?;
        }
        Ok(())
    }

    fn wait_running(&self) -> Result<()> {
        let deadline = Instant::now() + RUNS_LIMIT;
        let mut steady = now_ns();
        while now_ns().saturating_sub(steady) < STEADY_NS {
            thread::sleep(POLL);
            if now_ns().saturating_sub(self.flows.last_arrival_ns()) > PAUSE_NS {
                steady = now_ns();
            }
            ensure!(Instant::now() < deadline, "nothing comes through the tunnel");
        }
        Ok(())
    }

    /// Breaks it and proves that it is broken; the instant before, and what is to be undone.
    fn break_it(&mut self, what: What, path: Path) -> Result<(u64, Vec<Fault>)> {
        let v6 = self.point == Point::V6;
        let lab = &self.lab;
        let fault_ns = now_ns();
        let held = match what {
            What::Silent => {
                let fault = lab.silence_now(path)?;
                lab.prove_silent(path)?;
                let probe = lab.canary.probe(path, v6, 64)?;
                ensure!(!probe.arrived, "{path:?} is not silent: {probe:?}");
                vec![fault]
            }
            What::SilentUp => vec![lab.silence(path, Way::Up)?],
            What::SilentDown => vec![lab.silence(path, Way::Down)?],
            What::LinkEvent => vec![lab.uplink_down(path)?],
            What::NatIdle | What::NatTraffic => return Ok((lab.nat_forget_of(v6)?, Vec::new())),
            What::Loss30 => {
                let fault = lab.loss(path, LOSS.0)?;
                sleep_until(fault_ns + LOSS.1.as_nanos() as u64);
                fault.undo()?;
                Vec::new()
            }
            What::Mtu1300 => vec![lab.mtu(path, 1_300)?],
            What::Crash => {
                match &mut self.tunnel {
                    Tunnel::Ours(ours) => ours.crash()?,
                    Tunnel::Rival(rival) => rival.crash_gateway()?,
                }
                Vec::new()
            }
            What::PlannedJump | What::FastJump => {
                let Tunnel::Ours(ours) = &self.tunnel else { bail!("nobody else jumps when asked to") };
                return Ok((ours.jump(path.other())?, Vec::new()));
            }
        };
        Ok((fault_ns, held))
    }

    /// Waits until arrivals go on as before; the window, and whether it ended without that.
    fn watch(&self, ways: &[Direction], fault_ns: u64, shortest: Duration) -> (u64, bool) {
        let (shortest_ns, cap_ns) = (shortest.as_nanos() as u64, CAP.as_nanos() as u64);
        let mut steady = now_ns();
        loop {
            thread::sleep(POLL);
            let now = now_ns();
            let last = ways.iter().map(|&way| self.flows.last_arrival_of(way)).min().unwrap_or(0);
            if now.saturating_sub(last) > PAUSE_NS {
                steady = now;
            }
            let runs = now.saturating_sub(steady) >= STEADY_NS;
            let length = now.saturating_sub(fault_ns);
            if (runs && length >= shortest_ns) || length >= cap_ns {
                // What is on its way between the threads just now is of the next window.
                return (length.saturating_sub(PAUSE_NS), !runs);
            }
        }
    }

    /// A jump under 90,000 packets a second up: every one of them must arrive once.
    fn fast_jump(&self, path: Path, before: Option<Standing>) -> Result<Outcome> {
        let (Tunnel::Ours(ours), Some(before)) = (&self.tunnel, before) else {
            bail!("nobody else jumps when asked to")
        };
        let (client, lan) = (self.lab.topology.client(), self.lab.topology.lan());
        let (inner, host): (IpAddr, IpAddr) = (INNER_CLIENT_V4.parse()?, LAN_V4.parse()?);
        // A queue of 500 packets is five milliseconds of this flow: what the machine does beside it would count as loss.
        client.ip("link set jvpn0 txqueuelen 10000\n")?;
        let torrent = Torrent::start((&client, inner), (&lan, host), FAST)?;
        thread::sleep(CLEAN);
        let (clean, began) = (torrent.now(), Instant::now());
        thread::sleep(CLEAN);
        if !self.still_attached(Some(&before))? {
            return Ok(Outcome::Discarded);
        }
        let (jumped, took, dropped) = (torrent.now(), began.elapsed(), self.lab.topology.dropped()?);
        let rate = (jumped - clean) as f64 / took.as_secs_f64();
        let at_ns = ours.jump(path.other())?;
        thread::sleep(AFTERWARDS);
        let end = torrent.now();
        thread::sleep(STRAGGLERS);
        let (control, count) = (torrent.count(clean..jumped), torrent.count(jumped..end));
        let dropped_by_lab = self.lab.topology.dropped()? - dropped;
        drop(torrent);
        // A way that loses without a jump says nothing of one, and a slower flow is another cell.
        if control.lost > 0 || rate < 0.9 * FAST as f64 {
            eprintln!(
                "discarded: {} of {} lost before the jump, {rate:.0} packets a second",
                control.lost, control.sent
            );
            return Ok(Outcome::Discarded);
        }
        let mut trial = Trial {
            sent: count.sent,
            lost: count.lost,
            duplicated: count.duplicated,
            dropped_by_lab,
            window_ms: (now_ns() - at_ns) / 1_000_000,
            path: path.transport().into(),
            ..Trial::default()
        };
        ours.note(&before, &mut trial)?;
        Ok(Outcome::Seen(trial))
    }
}

fn flows(lab: &Lab, tunnel: &Tunnel, payload: usize) -> Result<Flows> {
    let (client, gateway, lan) = (lab.topology.client(), lab.topology.gateway(), lab.topology.lan());
    match tunnel {
        Tunnel::Ours(_) => Flows::sized((&client, INNER_CLIENT_V4.parse()?), (&lan, LAN_V4.parse()?), payload),
        Tunnel::Rival(_) => {
            let ends = (wireguard::INNER_CLIENT.parse()?, wireguard::INNER_GATEWAY.parse()?);
            Flows::sized((&client, ends.0), (&gateway, ends.1), payload)
        }
    }
}
