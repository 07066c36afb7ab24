//! `bench tunnel`: one TCP flow through the product, through its worker alone, through a rival, and past them all.
//! Owns contenders, their order and the metrics. Never measures two at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jvpn_common::crypto::Suite;

use super::document::{Better, Contender, Document, Metric, SCHEMA, Wanted};
use super::gotatun::{self, Gotatun};
use super::rig::{self, Rig, inner4};
use super::traffic::{Load, Sample, busy_share, measure};
use super::underlay::{CLIENT_INTERFACE, Underlay};
use super::{Options, machine};
use crate::lab::mode::Xdp;
use crate::lab::netns::run as tool;
use crate::lab::pass;
use crate::lab::ping::ping;
use crate::lab::process::{Product, Role, find_binary};
use crate::lab::setup::Setup;
use crate::lab::topology::{GATEWAY_V4, INNER_GATEWAY_V4};

/// Rounds and seconds of each flow. Nine are the fewest a verdict is given for.
const FULL: (u32, u32) = (9, 4);
const QUICK: (u32, u32) = (3, 1);
/// Until the first echo through a new tunnel.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Looked at before each round, to say how quiet the machine was.
const QUIET_LOOK: Duration = Duration::from_millis(300);
/// The inner TCP ÷ gotatun that is promised today, and what is aimed at.
const GOTATUN: (&str, f64, f64) = ("gotatun", 7.0, 1.5);

/// A figure of a sample.
type Value = fn(&Sample) -> f64;

const METRICS: [(Wanted, Value); 5] = [
    (metric("inner_tcp_gbps", "Gbit/s", Better::Higher, &[GOTATUN]), |s| s.up_gbps.min(s.down_gbps)),
    (metric("inner_tcp_gbps_up", "Gbit/s", Better::Higher, &[]), |s| s.up_gbps),
    (metric("inner_tcp_gbps_down", "Gbit/s", Better::Higher, &[]), |s| s.down_gbps),
    (metric("cpu_s_per_gb", "s/GB", Better::Lower, &[]), |s| s.cpu_s_per_gb),
    (metric("rtt_idle_p50_us", "µs", Better::Lower, &[]), |s| s.rtt_p50_us),
];
/// The worker with the rival's cipher.
const CHACHA: Wanted = metric("inner_tcp_gbps_chacha", "Gbit/s", Better::Higher, &[]);

const fn metric(
    metric: &'static str,
    unit: &'static str,
    better: Better,
    bounds: &'static [(&'static str, f64, f64)],
) -> Wanted {
    Wanted { metric, unit, better, bounds }
}

/// Who runs, in the order of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Plain,
    Null,
    Worker,
    Ours,
    Chacha,
    Gotatun,
}

impl Who {
    const ALL: [Who; 6] = [Who::Plain, Who::Null, Who::Worker, Who::Ours, Who::Chacha, Who::Gotatun];

    fn name(self) -> &'static str {
        match self {
            Who::Plain => "plain",
            Who::Null => "null",
            Who::Worker => "worker",
            Who::Ours => "ours",
            Who::Chacha => "chacha",
            Who::Gotatun => "gotatun",
        }
    }

    fn rig(self) -> Option<rig::Setup> {
        let suite = match self {
            Who::Null => None,
            Who::Worker => Some(Suite::Aes256Gcm),
            Who::Chacha => Some(Suite::ChaCha20Poly1305),
            Who::Plain | Who::Ours | Who::Gotatun => return None,
        };
        Some(rig::Setup { suite, ..rig::Setup::default() })
    }
}

/// The bench while it runs.
struct Bench<'a> {
    options: &'a Options,
    seconds: u32,
    gotatun: Option<PathBuf>,
    /// The kernel program on the gateway's interface, as its status says.
    xdp: String,
    samples: BTreeMap<Who, Vec<Option<Sample>>>,
    errors: Vec<String>,
}

pub fn run(options: &Options) -> Result<Document> {
    let mut machine = machine::describe()?;
    let (rounds, seconds) = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds.unwrap_or(rounds);
    ensure!(rounds > 0, "--rounds must be at least 1");
    let binary = find_binary()?;
    let version = tool(&[binary.to_str().context("the path of jvpn-ctl is not UTF-8")?, "--version"], None)?;
    let gotatun = gotatun::find();
    let mut bench = Bench { options, seconds, gotatun, xdp: "?".into(), samples: BTreeMap::new(), errors: Vec::new() };
    if bench.gotatun.is_none() {
        let missing = format!("gotatun is not installed; run: {}", gotatun::INSTALL);
        eprintln!("{missing}");
        bench.errors.push(missing);
    }
    for round in 1..=rounds {
        machine.busy_before_rounds.push(busy_share(|| std::thread::sleep(QUIET_LOOK))?);
        for who in Who::ALL {
            bench.turn(round, who);
        }
    }
    Ok(Document {
        schema: SCHEMA,
        bench: "tunnel".into(),
        machine,
        kernel: machine::kernel()?,
        version: version.lines().collect::<Vec<_>>().join("; "),
        command: machine::command(),
        policy: "field".into(),
        contenders: bench.contenders()?,
        results: bench.results(),
        notes: bench.notes(),
        errors: bench.errors,
    })
}

impl Bench<'_> {
    /// One contender's turn; a failure is written down and the round goes on.
    fn turn(&mut self, round: u32, who: Who) {
        let sample = if who == Who::Gotatun && self.gotatun.is_none() { None } else { Some(self.measured(who)) };
        let sample = sample.and_then(|sample| match sample {
            Ok(sample) => {
                eprintln!(
                    "round {round} {:<8} up {:.2} down {:.2} Gbit/s, {:.2} CPU s/GB, rtt {:.0} µs, {:.0} B/frame",
                    who.name(),
                    sample.up_gbps,
                    sample.down_gbps,
                    sample.cpu_s_per_gb,
                    sample.rtt_p50_us,
                    sample.frame_bytes,
                );
                for (file, text) in &sample.raw {
                    let name = format!("round-{round:02}-{}-{file}", who.name());
                    if let Err(error) = self.options.keep(&name, text) {
                        self.errors.push(format!("{error:#}"));
                    }
                }
                Some(sample)
            }
            Err(error) => {
                let line = format!("round {round}, {}: {error:#}", who.name());
                eprintln!("{line}");
                self.errors.push(line);
                None
            }
        });
        self.samples.entry(who).or_default().push(sample);
    }

    fn measured(&mut self, who: Who) -> Result<Sample> {
        if let Some(setup) = who.rig() {
            let rig = Rig::new(setup)?;
            let mut sample = self.through(&rig.underlay, &inner4(1).to_string())?;
            sample.raw.push(("counters.txt", rig.dump()));
            return Ok(sample);
        }
        let underlay = Underlay::up()?;
        match who {
            Who::Gotatun => {
                let program = self.gotatun.clone().context("gotatun is not installed")?;
                let mut rival = Gotatun::start(&underlay, &program)?;
                let sample = self.through(&underlay, gotatun::INNER_GATEWAY)?;
                ensure!(rival.alive(), "a gotatun process ended during the measurement");
                Ok(sample)
            }
            Who::Ours => self.product(&underlay),
            _ => self.through(&underlay, GATEWAY_V4),
        }
    }

    /// The real product: `serve` and `connect`, with the kernel program where the binary has it.
    fn product(&mut self, underlay: &Underlay) -> Result<Sample> {
        // What the program answers with XDP_TX arrives over veth only if the other end runs a program as well.
        pass::attach(&underlay.client(), CLIENT_INTERFACE.uplink(), &pass::load()?)?;
        let ground = &underlay.ground;
        let setup = |xdp| Setup { xdp, uplinks: vec![CLIENT_INTERFACE], ..Setup::default() };
        let xdp = if self.xdp == "off" { Xdp::Detached } else { Xdp::Native };
        let directory = ground.files().join("run");
        std::fs::create_dir(&directory)?;
        let mut product = Product::start_in(&ground.topology, &directory, &ground.pin_root(), &setup(xdp))?;
        if let Err(error) = product.wait_healthy() {
            ensure!(xdp == Xdp::Native && format!("{error:#}").contains("without the kernel program"), error);
            self.xdp = "off".into();
            drop(product);
            let directory = ground.files().join("run-off");
            std::fs::create_dir(&directory)?;
            product = Product::start_in(&ground.topology, &directory, &ground.pin_root(), &setup(Xdp::Detached))?;
            product.wait_healthy()?;
        }
        let status = product.json(Role::Gateway, &["status"])?;
        let mode = status["xdp"].as_array().and_then(|all| all.first()).unwrap_or(&status["xdp"])["mode"].as_str();
        self.xdp = mode.unwrap_or("off").to_owned();
        let sample = self.through(underlay, INNER_GATEWAY_V4);
        let logs = format!("{}\n{}", product.log_tail(Role::Gateway), product.log_tail(Role::Client));
        let mut sample = sample.with_context(|| logs.clone())?;
        sample.raw.push(("logs.txt", logs));
        if let Ok(metrics) = product.verb(Role::Gateway, &["metrics"]) {
            sample.raw.push(("gateway-metrics.txt", metrics.1));
        }
        for role in [Role::Client, Role::Gateway] {
            product.stop(role)?;
        }
        Ok(sample)
    }

    fn through(&self, underlay: &Underlay, server: &str) -> Result<Sample> {
        let load = Load { seconds: self.seconds, server: server.parse().context("address of a bench")? };
        underlay.client().sysctl("ipv4/ping_group_range", "0 0")?;
        ping(&underlay.client(), load.server, 56, CONNECT_LIMIT).context("no way through")?;
        measure(underlay, load)
    }

    fn series(&self, who: Who, value: Value) -> Vec<Option<f64>> {
        let all = self.samples.get(&who).into_iter().flatten();
        all.map(|sample| sample.as_ref().map(value)).collect()
    }

    fn against(&self, rivals: &[Who], value: Value) -> BTreeMap<String, Vec<Option<f64>>> {
        rivals.iter().map(|&who| (who.name().to_owned(), self.series(who, value))).collect()
    }

    fn results(&self) -> Vec<Metric> {
        let rivals = [Who::Plain, Who::Null, Who::Worker, Who::Gotatun];
        let mut results: Vec<Metric> = METRICS
            .iter()
            .map(|(wanted, value)| Metric::new(wanted, self.series(Who::Ours, *value), self.against(&rivals, *value)))
            .collect();
        let worse: Value = |s| s.up_gbps.min(s.down_gbps);
        let rivals = self.against(&[Who::Plain, Who::Null, Who::Gotatun], worse);
        results.insert(3, Metric::new(&CHACHA, self.series(Who::Chacha, worse), rivals));
        results
    }

    fn contenders(&self) -> Result<Vec<Contender>> {
        let rival = self.gotatun.as_deref().map(gotatun::version).transpose()?;
        let what = |who| match who {
            Who::Plain => "the link itself, MTU 1500".to_owned(),
            Who::Null => "our worker at both ends without a cipher: the ceiling".into(),
            Who::Worker => "our worker at both ends, AES-256-GCM, fixed keys, no controller, no kernel program".into(),
            Who::Ours => format!("serve and connect, AES-256-GCM, kernel program at the gateway: {}", self.xdp),
            Who::Chacha => "our worker at both ends, ChaCha20-Poly1305, fixed keys, no kernel program".into(),
            Who::Gotatun => {
                let version = rival.clone().unwrap_or_else(|| "not installed".into());
                format!("{version}, ChaCha20-Poly1305, its defaults, MTU {}", rig::INNER_MTU)
            }
        };
        Ok(Who::ALL.map(|who| Contender { name: who.name().into(), what: what(who) }).into())
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "both ends, their tunnels and iperf3 share this machine's processors; ratios count, not figures".to_owned(),
            "underlay: veth, tso off, gso off, tx-udp-segmentation off, gro on".to_owned(),
        ];
        if self.xdp == "native" {
            notes.push(
                "XDP on veth copies every frame for headroom, which no hardware does: 13–15 % of ours here".into(),
            );
        }
        let frames = self.samples.values().flatten().flatten().map(|sample| sample.frame_bytes);
        let largest = frames.fold(0.0, f64::max);
        notes.push(format!("bytes ÷ packets on the underlay: at most {largest:.0} in any round"));
        let retransmits: u64 =
            self.samples.get(&Who::Ours).into_iter().flatten().flatten().map(|s| s.retransmits).sum();
        notes.push(format!("TCP retransmits through ours, all rounds: {retransmits}"));
        notes
    }
}
