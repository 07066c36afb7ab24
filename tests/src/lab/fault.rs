//! Owns the verbs that break the lab: one call each, proved by a canary before it returns, undone on drop. Works in
//! the routers only, so that neither end of a path sees a link event. Never touches the product, except `freeze`.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Lab;
use super::clock::now_ns;
use super::netns::Netns;
use super::registry::stat_fields;
use super::topology::{Path, nat_rules, nat66_rules};

/// Which way a fault acts, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
    Both,
}

impl Way {
    /// nftables matches in a router's forward chain.
    fn matches(self) -> &'static [&'static str] {
        match self {
            Way::Up => &["iifname \"client\""],
            Way::Down => &["oifname \"client\""],
            Way::Both => &["iifname \"client\"", "oifname \"client\""],
        }
    }
}

/// Packets that a lossy path's canary expects to lose at least: with 20 the chance of none is e⁻²⁰.
const EXPECTED_LOSSES: f64 = 20.0;
/// Bytes that pass a rate limit at once; also the canary's tolerance.
const RATE_BURST: u64 = 16_000;
/// Processes stop within a scheduler tick, or when a busy machine comes to it.
const STOP_LIMIT: Duration = Duration::from_secs(10);

enum Undo {
    Table { space: Netns, name: String },
    LinkUp { space: Netns, route: Box<dyn Fn() -> Result<()> + Send> },
    Rate { space: Netns, interfaces: [&'static str; 2] },
    Continue(Pid),
    Other(Box<dyn FnOnce() -> Result<()> + Send>),
}

/// A fault in force. Dropping it undoes it.
#[must_use = "a fault ends when this value drops"]
pub struct Fault {
    undo: Option<Undo>,
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fault").field("in_force", &self.undo.is_some()).finish()
    }
}

impl Fault {
    fn new(undo: Undo) -> Self {
        Self { undo: Some(undo) }
    }

    pub(super) fn undone_by(undo: impl FnOnce() -> Result<()> + Send + 'static) -> Self {
        Self::new(Undo::Other(Box::new(undo)))
    }

    /// Ends the fault and says whether that worked.
    pub fn undo(mut self) -> Result<()> {
        self.undo.take().map_or(Ok(()), run_undo)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take()
            && let Err(error) = run_undo(undo)
        {
            eprintln!("a fault could not be undone: {error:#}");
        }
    }
}

fn run_undo(undo: Undo) -> Result<()> {
    match undo {
        Undo::Table { space, name } => space.nft(&format!("delete table inet {name}\n")),
        Undo::LinkUp { space, route } => space.ip("link set core up\n").and_then(|()| route()),
        Undo::Rate { space, interfaces } => {
            for interface in interfaces {
                space.run(&["tc", "qdisc", "del", "dev", interface, "root"], None)?;
            }
            Ok(())
        }
        Undo::Other(undo) => undo(),
        // The process may have been killed meanwhile, which also ends the freeze.
        Undo::Continue(pid) => match kill_process(pid, Signal::CONT) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error).context("continue a frozen process"),
        },
    }
}

impl Lab {
    /// Packets vanish; nobody is told.
    pub fn silence(&self, path: Path, way: Way) -> Result<Fault> {
        let fault = self.drop_rule(path, way, "")?;
        let expected = way == Way::Down;
        let probe = self.canary.probe_until(path, false, 64, |probe| probe.arrived == expected)?;
        ensure!(probe.round_trip.is_none(), "{path:?} still answers: {probe:?}");
        ensure!(probe.arrived == expected, "silence {way:?} of {path:?} broke the wrong way: {probe:?}");
        Ok(fault)
    }

    /// Like `silence`, without waiting for the canary: for faults that must begin at once, proved by `prove_silent`.
    pub fn silence_now(&self, path: Path) -> Result<Fault> {
        self.drop_rule(path, Way::Both, "")
    }

    pub fn prove_silent(&self, path: Path) -> Result<()> {
        let probe = self.canary.probe(path, false, 64)?;
        ensure!(!probe.arrived, "{path:?} is not silent: {probe:?}");
        Ok(())
    }

    /// The link behind the router goes down.
    pub fn link_down(&self, path: Path) -> Result<Fault> {
        let space = self.topology.router(path);
        space.ip("link set core down\n")?;
        let topology = self.topology.clone();
        let short = match path {
            Path::A => "ra",
            Path::B => "rb",
        };
        let fault = Fault::new(Undo::LinkUp {
            space,
            // The far end keeps its address but loses the routes over this link.
            route: Box::new(move || topology.route(short).and_then(|()| topology.route("core"))),
        });
        self.prove_silent(path)?;
        Ok(fault)
    }

    /// Each packet is lost with probability `p`, either way.
    pub fn loss(&self, path: Path, p: f64) -> Result<Fault> {
        ensure!((0.001..=1.0).contains(&p), "loss probability {p} is outside 0.001–1");
        let of_ten_thousand = (p * 10_000.0).round() as u32;
        let fault = self.drop_rule(path, Way::Both, &format!("numgen random mod 10000 < {of_ten_thousand}"))?;
        let count = (EXPECTED_LOSSES / p).ceil() as u64;
        let arrived = self.canary.burst(path, count, 64, Duration::from_millis(100))?.len() as u64;
        ensure!(arrived < count, "no packet of {count} was lost at p = {p}");
        ensure!(p > 0.5 || arrived > 0, "all {count} packets were lost at p = {p}");
        Ok(fault)
    }

    /// Each packet of one of these sizes is lost on its way up with probability `p`; others pass.
    pub fn loss_of(&self, path: Path, p: f64, sizes: RangeInclusive<usize>) -> Result<Fault> {
        ensure!((0.01..=0.9).contains(&p), "loss probability {p} is outside 0.01–0.9");
        let (least, most) = sizes.into_inner();
        let of_ten_thousand = (p * 10_000.0).round() as u32;
        let condition = format!("meta length {least}-{most} numgen random mod 10000 < {of_ten_thousand}");
        let fault = self.drop_rule(path, Way::Up, &condition)?;
        let count = (EXPECTED_LOSSES / p).ceil() as u64;
        let arrived = self.canary.burst(path, count, least, Duration::from_millis(300))?.len() as u64;
        ensure!(arrived < count && arrived > 0, "{arrived} of {count} packets of {least} bytes arrived at p = {p}");
        for size in [least - 1, most + 1] {
            // As long as a busy machine may take: it is over when all of them are there.
            let arrived = self.canary.burst(path, count, size, Duration::from_secs(2))?.len() as u64;
            ensure!(arrived == count, "{arrived} of {count} packets of {size} bytes arrived");
        }
        Ok(fault)
    }

    /// Packets longer than `mtu` vanish without ICMP: the worst kind of small MTU.
    pub fn mtu(&self, path: Path, mtu: usize) -> Result<Fault> {
        ensure!((576..1500).contains(&mtu), "MTU {mtu} is outside 576–1499");
        let fault = self.drop_rule(path, Way::Both, &format!("meta length > {mtu}"))?;
        let fits = self.canary.probe_until(path, false, mtu, |probe| probe.arrived)?;
        let too_long = self.canary.probe(path, false, mtu + 1)?;
        ensure!(fits.arrived, "a packet of {mtu} bytes does not pass");
        ensure!(!too_long.arrived, "a packet of {} bytes still passes", mtu + 1);
        Ok(fault)
    }

    /// Limits both ways to `bits_per_s`; a path that is slow was made so before.
    pub fn rate(&self, path: Path, bits_per_s: u64) -> Result<Fault> {
        let space = self.topology.router(path);
        let (rate, burst) = (format!("{bits_per_s}bit"), format!("{RATE_BURST}"));
        // What is slow leaves by another interface.
        let interfaces = ["client", if self.is_slow(path) { "slow" } else { "core" }];
        let fault = Fault::new(Undo::Rate { space: space.clone(), interfaces });
        for interface in interfaces {
            space.run(
                &[
                    "tc", "qdisc", "replace", "dev", interface, "root", "tbf", "rate", &rate, "burst", &burst, "limit",
                    "1000000",
                ],
                None,
            )?;
        }
        let (count, size) = (100u64, 1_000usize);
        let queued_bits = (count * size as u64 - RATE_BURST) * 8;
        let expected = Duration::from_secs_f64(queued_bits as f64 / bits_per_s as f64);
        let arrivals = self.canary.burst(path, count, size, expected * 3 + Duration::from_millis(200))?;
        let (first, last) = (arrivals.iter().min(), arrivals.iter().max());
        let (Some(first), Some(last)) = (first, last) else {
            bail!("nothing passes at {bits_per_s} bit/s");
        };
        let took = Duration::from_nanos(last - first);
        ensure!(took > expected / 2, "{count} packets took {took:?}, less than half of {expected:?}");
        Ok(fault)
    }

    /// The NAT forgets every mapping and hands out other ports from now on. Nothing to undo: NATs never do.
    /// Returns the instant before it did.
    pub fn nat_forget(&self) -> Result<u64> {
        self.nat_forget_of(false)
    }

    /// The same, proved in IPv6 where `nat66` is in force.
    pub fn nat_forget_of(&self, v6: bool) -> Result<u64> {
        let before = self.canary.seen_port_of(Path::B, v6).context("before the NAT forgets")?;
        let at_ns = now_ns();
        self.nat_forget_now()?;
        let after = self.canary.seen_port_of(Path::B, v6).context("after the NAT forgot")?;
        ensure!(before != after, "the gateway still sees port {before}");
        Ok(at_ns)
    }

    /// From now on path B's router translates IPv6 as well.
    pub fn nat66(&self) -> Result<()> {
        self.nat66.store(true, Ordering::Relaxed);
        self.nat_forget_now()?;
        let port = self.canary.seen_port_of(Path::B, true)?;
        ensure!((20_000..40_000).contains(&port), "the gateway sees port {port}, which is none of the NAT's");
        Ok(())
    }

    /// The forgetting alone; `nat_forget` proves it.
    pub fn nat_forget_now(&self) -> Result<()> {
        let generation = self.nat_generation.fetch_add(1, Ordering::Relaxed) + 1;
        let router = self.topology.router(Path::B);
        // Rules first: a packet between the two steps must not revive the old range.
        router.nft(&nat_rules(generation))?;
        if self.nat66.load(Ordering::Relaxed) {
            router.nft(&nat66_rules(generation))?;
        }
        router.run(&["conntrack", "-F"], None).map(|_| ())
    }

    /// Stops a process as a machine without time would: it keeps its sockets and maps, and does nothing.
    pub fn freeze(&self, pid: u32) -> Result<Fault> {
        let pid = Pid::from_raw(pid.cast_signed()).context("process id")?;
        kill_process(pid, Signal::STOP).context("freeze a process")?;
        let fault = Fault::new(Undo::Continue(pid));
        let deadline = std::time::Instant::now() + STOP_LIMIT;
        loop {
            let fields = stat_fields(&pid.as_raw_nonzero().to_string()).context("frozen process is gone")?;
            if fields.first().is_some_and(|state| state == "T") {
                return Ok(fault);
            }
            ensure!(std::time::Instant::now() < deadline, "process {pid:?} does not stop");
            std::thread::yield_now();
        }
    }

    fn drop_rule(&self, path: Path, way: Way, condition: &str) -> Result<Fault> {
        let name = format!("fault{}", self.faults.fetch_add(1, Ordering::Relaxed));
        let space = self.topology.router(path);
        let rules: String =
            way.matches().iter().map(|direction| format!("{direction} {condition} counter drop\n")).collect();
        space.nft(&format!(
            "table inet {name} {{ chain forward {{ type filter hook forward priority -300; policy accept;\n{rules}}}\n}}\n"
        ))?;
        Ok(Fault::new(Undo::Table { space, name }))
    }
}
