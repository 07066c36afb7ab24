//! Owns the contenders of the benches over an underlay: how each is brought up, by which address its other end is reached,
//! and that it goes again. Never measures; a contender that is missing or fails is written down and the round goes on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jvpn_common::crypto::Suite;

use super::document::{Contender, Document, Machine, Metric};
use super::machine::Watched;
use super::rig::{self, Rig, inner4};
use super::rival::Kind;
use super::underlay::{CLIENT_INTERFACE, Underlay};
use super::wireguard;
use super::{Options, machine};
use crate::lab::mode::Xdp;
use crate::lab::ping::ping;
use crate::lab::process::{Product, Role};
use crate::lab::setup::Setup;
use crate::lab::topology::{GATEWAY_V4, INNER_GATEWAY_V4};

/// Until the first echo through a new tunnel.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Who runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Plain,
    Null,
    Worker,
    Ours,
    TwoWorkers,
    Chacha,
    Gotatun,
    Boringtun,
    WireguardGo,
    Named,
    OpenVpn,
    Nebula,
}

impl Who {
    pub const fn name(self) -> &'static str {
        match self {
            Who::Plain => "plain",
            Who::Null => "null",
            Who::Worker => "worker",
            Who::Ours => "ours",
            Who::TwoWorkers => "two_workers",
            Who::Chacha => "chacha",
            Who::Gotatun => wireguard::GOTATUN.name,
            Who::Boringtun => wireguard::BORINGTUN.name,
            Who::WireguardGo => wireguard::WIREGUARD_GO.name,
            Who::Named => wireguard::NAMED.name,
            Who::OpenVpn => Kind::OpenVpn.name(),
            Who::Nebula => Kind::Nebula.name(),
        }
    }

    fn rig(self) -> Option<rig::Setup> {
        let suite = match self {
            Who::Null => None,
            Who::Worker => Some(Suite::Aes256Gcm),
            Who::Chacha => Some(Suite::ChaCha20Poly1305),
            _ => return None,
        };
        Some(rig::Setup { suite, ..rig::Setup::default() })
    }

    const fn rival(self) -> Option<Kind> {
        match self {
            Who::Gotatun => Some(Kind::WireGuard(wireguard::GOTATUN)),
            Who::Boringtun => Some(Kind::WireGuard(wireguard::BORINGTUN)),
            Who::WireguardGo => Some(Kind::WireGuard(wireguard::WIREGUARD_GO)),
            Who::Named => Some(Kind::WireGuard(wireguard::NAMED)),
            Who::OpenVpn => Some(Kind::OpenVpn),
            Who::Nebula => Some(Kind::Nebula),
            _ => None,
        }
    }
}

/// Raw output: name, text.
pub type Raw = Vec<(&'static str, String)>;

/// The contenders of a bench, and what went wrong with them.
#[derive(Debug)]
pub struct Field<'a> {
    options: &'a Options,
    all: Vec<Who>,
    programs: BTreeMap<Who, PathBuf>,
    /// The kernel program on the gateway's interface, as its status says.
    xdp: String,
    errors: Vec<String>,
}

impl<'a> Field<'a> {
    /// Those of `wanted`, or the ones of them that were asked for; a program that is not there is said so once.
    pub fn of(options: &'a Options, wanted: &[Who]) -> Result<Field<'a>> {
        let wanted = &among(wanted, |who| who.name(), &options.only)?;
        let mut field =
            Field { options, all: wanted.clone(), programs: BTreeMap::new(), xdp: "?".into(), errors: Vec::new() };
        if let Some(program) = &options.wireguard {
            ensure!(program.is_file(), "no program {}", program.display());
            field.programs.insert(Who::Named, program.clone());
            field.all.push(Who::Named);
        }
        for (who, kind) in wanted.iter().filter_map(|who| Some(*who).zip(who.rival())) {
            if let Some(program) = kind.find() {
                field.programs.insert(who, program);
                continue;
            }
            let missing = format!("{} is not installed; run: {}", kind.name(), kind.install());
            eprintln!("{missing}");
            field.errors.push(missing);
        }
        Ok(field)
    }

    /// Every contender in every round: what each did, and the machine meanwhile. `told` says it in a line.
    pub fn play<T>(
        &mut self,
        rounds: u32,
        work: impl Fn(&Underlay, IpAddr) -> Result<(T, Raw)>,
        told: impl Fn(&T) -> String,
    ) -> Result<(Samples<T>, Machine)> {
        let (mut machine, mut samples) = (Watched::begin()?, Samples::default());
        for round in 1..=rounds {
            machine.round()?;
            for who in self.all.clone() {
                let sample = self.turn(round, who, &work);
                if let Some(sample) = &sample {
                    eprintln!("round {round} {:<12} {}", who.name(), told(sample));
                }
                samples.add(who, sample);
            }
        }
        Ok((samples, machine.end()?))
    }

    /// The document of a bench that was played, with what it has to say beside what all of them do.
    pub fn document(self, bench: &str, machine: Machine, results: Vec<Metric>, notes: Vec<String>) -> Result<Document> {
        Ok(Document {
            machine,
            version: machine::product_version()?,
            policy: "field".into(),
            contenders: self.contenders()?,
            results,
            notes: [self.notes(), notes].concat(),
            errors: self.errors,
            ..machine::program_alone(bench)?
        })
    }

    /// One contender's turn: it is brought up, `work` gets the link and the address of its other end inside, and it goes.
    fn turn<T>(&mut self, round: u32, who: Who, work: impl FnOnce(&Underlay, IpAddr) -> Result<(T, Raw)>) -> Option<T> {
        if who.rival().is_some() && !self.programs.contains_key(&who) {
            return None;
        }
        let outcome = self.with(who, work);
        kept(self.options, &mut self.errors, (round, who.name()), outcome)
    }

    fn with<T>(&mut self, who: Who, work: impl FnOnce(&Underlay, IpAddr) -> Result<(T, Raw)>) -> Result<(T, Raw)> {
        if let Some(setup) = who.rig() {
            let rig = Rig::new(setup)?;
            let (sample, mut raw) = through(&rig.underlay, &inner4(1).to_string(), work)?;
            raw.push(("counters.txt", rig.dump()));
            return Ok((sample, raw));
        }
        let underlay = Underlay::up()?;
        if let Some(kind) = who.rival() {
            let program = self.programs.get(&who).with_context(|| format!("{} is not installed", kind.name()))?;
            let mut rival = kind.join(underlay.place(), program)?;
            let sample = through(&underlay, wireguard::INNER_GATEWAY, work)?;
            ensure!(rival.alive(), "a process of {} ended during the measurement", kind.name());
            return Ok(sample);
        }
        match who {
            Who::Ours => self.product(&underlay, 1, work),
            Who::TwoWorkers => self.product(&underlay, 2, work),
            _ => through(&underlay, GATEWAY_V4, work),
        }
    }

    /// The real product: `serve` and `connect`, with the kernel program where the binary has it.
    fn product<T>(
        &mut self,
        underlay: &Underlay,
        workers: u32,
        work: impl FnOnce(&Underlay, IpAddr) -> Result<(T, Raw)>,
    ) -> Result<(T, Raw)> {
        let _wakes = underlay.wakes()?;
        let setup = |xdp| Setup { xdp, workers, uplinks: vec![CLIENT_INTERFACE], ..Setup::default() };
        let xdp = if self.xdp == "off" { Xdp::Detached } else { Xdp::Native };
        let product = match start(underlay, "run", &setup(xdp)) {
            Err(error) => {
                ensure!(xdp == Xdp::Native && format!("{error:#}").contains("without the kernel program"), error);
                start(underlay, "run-off", &setup(Xdp::Detached))?
            }
            product => product?,
        };
        self.xdp = mode(&product)?;
        finish(product, || through(underlay, INNER_GATEWAY_V4, work))
    }

    /// For the document: who ran, each in a line.
    fn contenders(&self) -> Result<Vec<Contender>> {
        let what = |who: Who| -> Result<String> {
            if let Some(kind) = who.rival() {
                return kind.told(self.programs.get(&who).map(PathBuf::as_path));
            }
            Ok(match who {
                Who::Plain => "the link itself, MTU 1500".into(),
                Who::Null => "our worker at both ends without a cipher: the ceiling".into(),
                Who::Worker => {
                    "our worker at both ends, AES-256-GCM, fixed keys, no controller, no kernel program".into()
                }
                Who::Ours => format!("serve and connect, AES-256-GCM, kernel program at the gateway: {}", self.xdp),
                Who::TwoWorkers => "the same with two workers at the gateway".into(),
                _ => "our worker at both ends, ChaCha20-Poly1305, fixed keys, no kernel program".into(),
            })
        };
        self.all.iter().map(|&who| Ok(Contender::new(who.name(), what(who)?))).collect()
    }

    /// What every bench over an underlay has to say beside its figures.
    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "both ends, their tunnels and the load share this machine's processors; ratios count, not figures"
                .to_owned(),
            "underlay: veth, tso off, gso off, tx-udp-segmentation off, gro on".to_owned(),
        ];
        if self.xdp == "native" {
            notes.push(
                "XDP on veth copies every frame for headroom, which no hardware does: 13–15 % of ours here".into(),
            );
        }
        notes
    }
}

/// Those of `all` that were asked for by name: all, if none was.
pub fn among<T: Copy>(all: &[T], name_of: impl Fn(&T) -> &'static str, names: &[String]) -> Result<Vec<T>> {
    for name in names {
        let known = all.iter().map(&name_of).collect::<Vec<_>>();
        ensure!(known.contains(&name.as_str()), "{name:?} is none of: {}", known.join(", "));
    }
    Ok(all.iter().copied().filter(|one| names.is_empty() || names.iter().any(|name| name == name_of(one))).collect())
}

/// What one of a round brought, its raw output kept; none where it failed, which is written down.
pub fn kept<T>(
    options: &Options,
    errors: &mut Vec<String>,
    (round, who): (u32, &str),
    outcome: Result<(T, Raw)>,
) -> Option<T> {
    match outcome {
        Ok((sample, raw)) => {
            for (file, text) in &raw {
                let kept = options.keep(&format!("round-{round:02}-{who}-{file}"), text);
                errors.extend(kept.err().map(|error| format!("{error:#}")));
            }
            Some(sample)
        }
        Err(error) => {
            let line = format!("round {round}, {who}: {error:#}");
            eprintln!("{line}");
            errors.push(line);
            None
        }
    }
}

/// The product over an underlay, attached.
pub fn start(underlay: &Underlay, directory: &str, setup: &Setup) -> Result<Product> {
    let ground = &underlay.ground;
    let directory = ground.files().join(directory);
    std::fs::create_dir(&directory)?;
    let mut product = Product::start_in(&ground.topology, &directory, &ground.pin_root(), setup)?;
    product.wait_healthy()?;
    Ok(product)
}

/// How the gateway's kernel program is attached.
pub fn mode(product: &Product) -> Result<String> {
    let status = product.json(Role::Gateway, &["status"])?;
    let mode = status["xdp"].as_array().and_then(|all| all.first()).unwrap_or(&status["xdp"])["mode"].as_str();
    Ok(mode.unwrap_or("off").to_owned())
}

/// Measures and ends the product; what it said is kept with the rest.
pub fn finish<T>(mut product: Product, work: impl FnOnce() -> Result<(T, Raw)>) -> Result<(T, Raw)> {
    let sample = work();
    let logs = format!("{}\n{}", product.log_tail(Role::Gateway), product.log_tail(Role::Client));
    let (sample, mut raw) = sample.with_context(|| logs.clone())?;
    raw.push(("logs.txt", logs));
    if let Ok(metrics) = product.verb(Role::Gateway, &["metrics"]) {
        raw.push(("gateway-metrics.txt", metrics.1));
    }
    for role in [Role::Client, Role::Gateway] {
        product.stop(role)?;
    }
    Ok((sample, raw))
}

/// Waits until there is a way, then measures.
pub fn through<T>(
    underlay: &Underlay,
    server: &str,
    work: impl FnOnce(&Underlay, IpAddr) -> Result<(T, Raw)>,
) -> Result<(T, Raw)> {
    let server = server.parse().context("address of a bench")?;
    underlay.client().sysctl("ipv4/ping_group_range", "0 0")?;
    ping(&underlay.client(), server, 56, CONNECT_LIMIT).context("no way through")?;
    work(underlay, server)
}

/// Figures of a round by contender; none where it failed.
#[derive(Debug)]
pub struct Samples<T>(BTreeMap<Who, Vec<Option<T>>>);

impl<T> Default for Samples<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Samples<T> {
    fn add(&mut self, who: Who, sample: Option<T>) {
        self.0.entry(who).or_default().push(sample);
    }

    /// One figure of a contender, round by round.
    pub fn series(&self, who: Who, value: impl Fn(&T) -> f64) -> Vec<Option<f64>> {
        self.0.get(&who).into_iter().flatten().map(|sample| sample.as_ref().map(&value)).collect()
    }

    /// The same of several, by name.
    pub fn against(&self, rivals: &[Who], value: impl Fn(&T) -> f64) -> BTreeMap<String, Vec<Option<f64>>> {
        let there = rivals.iter().filter(|who| self.0.contains_key(who));
        there.map(|&who| (who.name().to_owned(), self.series(who, &value))).collect()
    }

    /// All there are.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.values().flatten().flatten()
    }
}
