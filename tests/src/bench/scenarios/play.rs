//! Owns playing a scenario: the lab, the product, two flows, and what happens when. Never judges. A fault that was not in
//! force is an error, not a result.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path as FilePath;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jvpn_common::event::{Record, named, open};
use jvpn_ctl::audit::{self, verify, why};
use jvpn_ctl::runtime::clock;
use serde::Serialize;

use super::plan::{Kind, Plan, Profile, Step, Where};
use crate::bench::stats::quantile;
use crate::lab::bulk;
use crate::lab::clock::{now_ns, sleep_until};
use crate::lab::fault::{Fault, Way};
use crate::lab::flow::{Account, Direction, Flows, Trace};
use crate::lab::process::{Product, Role};
use crate::lab::setup::Setup;
use crate::lab::topology::{INNER_CLIENT_V4, LAN_V4, Path};
use crate::lab::{Lab, hostile};

/// How long after a fault an outage counts as its own.
const WINDOW: Duration = Duration::from_secs(5);
const READY_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Datagrams that are copied before a flood.
const COPIES: usize = 2_000;

/// What was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// When it began and ended, boot time, ns: what the record says of before and afterwards is not of it.
    pub span_ns: (u64, u64),
    /// After each fault, ms.
    pub outages_ms: Vec<f64>,
    /// In the whole run.
    pub longest_ms: f64,
    pub sent: u64,
    pub lost: u64,
    pub duplicated: u64,
    /// How long the machine itself stood still.
    pub stall_ms: f64,
    /// Copies that were sent, and datagrams the gateway counted as refused meanwhile.
    pub copies: u64,
    pub refused: u64,
    /// Requests that a wild client began; inner packets that came and did not come to the others.
    pub requests: u64,
    pub others_lost: u64,
    /// What the flows saw of the network.
    pub network: Network,
    /// What each fault was, as it happened.
    pub events: Vec<String>,
    /// Raw records of the session, or of the one that was meddled with; from their beginning to their end.
    pub records: Vec<Record>,
    /// Of the others.
    pub others: Vec<Record>,
}

impl Seen {
    /// Those of some records that are of the run itself.
    pub fn during(&self, records: &[Record]) -> Vec<Record> {
        records.iter().filter(|record| (self.span_ns.0..self.span_ns.1).contains(&record.at.0)).cloned().collect()
    }
}

/// The network as packets of both flows met it: to hold the lab and the model of the simulation beside each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Network {
    /// What so many ([`SHARES`]) packets took at most, ms.
    pub delay_ms: Vec<f64>,
    /// How often so many packets in a row were lost.
    pub lost_in_a_row: BTreeMap<u64, u64>,
}

/// The shortest time, some percentiles, the longest.
pub const SHARES: [f64; 6] = [0.0, 0.5, 0.9, 0.99, 0.999, 1.0];

impl Network {
    fn of(traces: &[Trace]) -> Network {
        let arrivals = traces.iter().flat_map(|trace| &trace.arrived);
        let mut delays: Vec<f64> = arrivals.map(|one| one.at_ns.saturating_sub(one.sent_ns) as f64 / 1e6).collect();
        delays.sort_by(f64::total_cmp);
        let mut lost_in_a_row = BTreeMap::new();
        for trace in traces {
            let came: BTreeSet<u64> = trace.arrived.iter().map(|one| one.sequence).collect();
            let mut row = 0;
            for sent in &trace.sent {
                if !came.contains(&sent.sequence) {
                    row += 1;
                } else if row > 0 {
                    *lost_in_a_row.entry(std::mem::take(&mut row)).or_default() += 1;
                }
            }
        }
        Network { delay_ms: SHARES.into_iter().filter_map(|share| quantile(&delays, share)).collect(), lost_in_a_row }
    }
}

struct Play<'a> {
    flows: Flows,
    product: Product,
    conditions: Vec<Fault>,
    lab: Lab,
    plan: &'a Plan,
}

/// Plays one that needs the lab with its two paths.
pub(super) fn play(plan: &Plan) -> Result<Seen> {
    let lab = Lab::up()?;
    let mut conditions = Vec::new();
    for path in plan.paths() {
        let Profile { delay, loss, bits_per_s } = plan.profile(path)?;
        conditions.extend(delay.map(|delay| lab.delay(path, delay)).transpose()?);
        conditions.extend(loss.map(|loss| lab.loss(path, loss)).transpose()?);
        conditions.extend(bits_per_s.map(|rate| lab.rate(path, rate)).transpose()?);
    }
    let setup = Setup { policy: plan.policy_lines(), uplinks: plan.paths(), ..Setup::default() };
    let mut product = Product::start(&lab, &setup)?;
    product.wait_healthy()?;
    let (client, lan) = (lab.topology.client(), lab.topology.lan());
    let flows = Flows::start((&client, INNER_CLIENT_V4.parse()?), (&lan, LAN_V4.parse()?))?;
    let stage = Play { flows, product, conditions, lab, plan };
    stage.ready()?;
    let seen = stage.run()?;
    stage.close(seen)
}

impl Play<'_> {
    /// Waits until the session is where the scenario begins, with every other path ready to take it.
    fn ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        let begins = self.plan.begins_on()?;
        loop {
            let status = self.product.json(Role::Client, &["status"])?;
            let session = &status["session"];
            let candidates = session["candidates"].as_array().map(Vec::as_slice).unwrap_or_default();
            let validated = candidates.iter().filter(|one| one["validated"] == true).count();
            let runs = now_ns().saturating_sub(self.flows.last_arrival_ns()) < 50_000_000;
            let ready = session["state"] == "ATTACHED" && validated + 1 == self.plan.paths().len() && runs;
            match begins {
                Some(path) if ready && session["transport"]["name"] != path.transport() => {
                    // Refused or not: it is looked at again.
                    self.product.verb(Role::Client, &["jump", "--to", path.transport()])?;
                }
                _ if ready => return Ok(()),
                _ => {}
            }
            ensure!(Instant::now() < deadline, "it cannot begin: {status}\n{}", self.product.log_tail(Role::Client));
            thread::sleep(POLL);
        }
    }

    fn active(&self) -> Result<Path> {
        let status = self.product.json(Role::Client, &["status"])?;
        let name = status["session"]["transport"]["name"].as_str().context("no transport is in use")?.to_owned();
        Path::of_transport(&name).with_context(|| format!("unknown transport {name:?}"))
    }

    fn refused(&self) -> Result<u64> {
        let status = self.product.json(Role::Gateway, &["status"])?;
        let drops = status["drops"].as_object().context("a status without drops")?;
        Ok(drops.values().filter_map(serde_json::Value::as_u64).sum())
    }

    fn run(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        // What is sent again is copied while nothing is wrong yet.
        let steps = self.plan.steps()?;
        let floods = steps.iter().any(|step| matches!(step.what, Kind::Replay(_)));
        let copies = if floods { hostile::copy(&self.lab.topology, COPIES, READY_LIMIT)? } else { Vec::new() };
        let start_ns = now_ns();
        seen.span_ns.0 = clock::boot().0;
        self.flows.forget_before(start_ns);
        let mut begun = Vec::new();
        let mut over: Vec<(u64, Vec<Fault>)> = Vec::new();
        for step in &steps {
            let at_ns = start_ns + step.at.as_nanos() as u64;
            end_until(&mut over, at_ns)?;
            sleep_until(at_ns);
            let refused = self.refused_before(step)?;
            let before_ns = now_ns();
            let (held, told) = self.begin(step, &copies, &mut seen)?;
            if let Some(refused) = refused {
                seen.refused += self.refused()? - refused;
            }
            seen.events.push(format!("{:.3} s: {told}", (before_ns - start_ns) as f64 / 1e9));
            begun.push(before_ns);
            over.push((at_ns + step.lasts.as_nanos() as u64, held));
        }
        let end_ns = start_ns + self.plan.duration()?.as_nanos() as u64;
        end_until(&mut over, end_ns)?;
        sleep_until(end_ns);
        seen.span_ns.1 = clock::boot().0;
        let traces = Direction::BOTH.map(|way| self.flows.trace(way));
        let account = |from_ns: u64, length: u64| {
            traces.iter().map(|trace| trace.account_within(from_ns, length)).fold(Account::default(), Account::join)
        };
        for at_ns in begun {
            let window = (WINDOW.as_nanos() as u64).min(end_ns.saturating_sub(at_ns));
            seen.outages_ms.push(account(at_ns, window).outage_ms);
        }
        seen.network = Network::of(&traces);
        let whole = account(start_ns, end_ns - start_ns);
        (seen.longest_ms, seen.stall_ms) = (whole.outage_ms, whole.stall_ms);
        (seen.sent, seen.lost, seen.duplicated) = (whole.sent, whole.lost, whole.duplicated);
        Ok(seen)
    }

    fn refused_before(&self, step: &Step) -> Result<Option<u64>> {
        matches!(step.what, Kind::Replay(_)).then(|| self.refused()).transpose()
    }

    /// Begins one fault and proves it; what ends it.
    fn begin(&self, step: &Step, copies: &[hostile::Copied], seen: &mut Seen) -> Result<(Vec<Fault>, String)> {
        let paths = match step.path {
            Where::All => Path::BOTH.to_vec(),
            Where::At(path) => vec![path],
            Where::Active => vec![self.active()?],
        };
        let names = paths.iter().map(|path| path.transport()).collect::<Vec<_>>().join(", ");
        let each = |fault: &dyn Fn(Path) -> Result<Fault>| paths.iter().map(|&path| fault(path)).collect::<Result<_>>();
        match step.what {
            Kind::Death => {
                Ok((each(&|path| self.lab.silence(path, Way::Both))?, format!("{names}: nothing passes any more")))
            }
            Kind::Loss(loss) => Ok((each(&|path| self.lab.loss(path, loss))?, format!("{names}: loses {loss}"))),
            Kind::Rebind => {
                self.lab.nat_forget()?;
                Ok((Vec::new(), format!("{names}: its NAT gives another port")))
            }
            Kind::Pause => Ok((each(&|path| self.lab.pause(path))?, format!("{names}: nothing passes for a while"))),
            Kind::Bulk => {
                let (client, lan) = (self.lab.topology.client(), self.lab.topology.lan());
                Ok((vec![bulk::begin(&client, (&lan, LAN_V4.parse()?))?], "a transfer up begins".into()))
            }
            Kind::Replay(rate) => {
                let sent = hostile::replay(&self.lab.topology, copies, rate, step.lasts)?;
                ensure!(sent > 0, "not one copy left");
                seen.copies += sent;
                Ok((Vec::new(), format!("{sent} copies of the client's datagrams were sent")))
            }
            Kind::Reattach(_) => bail!("a flood of requests is played by a swarm"),
        }
    }

    fn close(self, mut seen: Seen) -> Result<Seen> {
        let Play { flows, mut product, conditions, lab, .. } = self;
        drop(flows);
        for role in [Role::Client, Role::Gateway] {
            product.stop(role)?;
        }
        seen.records = records(&product.state_dir(Role::Gateway))?;
        // The last first: the rate of a slow path is made at a link that its delay brought.
        conditions.into_iter().rev().try_for_each(Fault::undo)?;
        lab.down()?;
        Ok(seen)
    }
}

/// Ends the faults that are over by then, each at its time.
fn end_until(over: &mut Vec<(u64, Vec<Fault>)>, until_ns: u64) -> Result<()> {
    over.sort_by_key(|(at, _)| *at);
    while over.first().is_some_and(|(at, _)| *at <= until_ns) {
        let (at, faults) = over.remove(0);
        sleep_until(at);
        faults.into_iter().try_for_each(Fault::undo)?;
    }
    Ok(())
}

/// Every record of a state directory that is about a session, from a record that verifies and replays.
pub(super) fn records(state: &FilePath) -> Result<Vec<Record>> {
    let dir = audit::dir_of(state);
    let report = verify::verify(&verify::Wanted { segments: verify::segments_of(&dir)?, ..verify::Wanted::default() })?;
    ensure!(report.fault.is_none(), "the record does not verify: {:?}", report.fault);
    let (mut records, mut wrong) = (Vec::new(), None);
    audit::read(&dir, &audit::Filter::default(), |line, _| {
        match named(line.as_bytes()).and_then(|head| open(line, head)) {
            Ok(unsealed) => {
                records.extend(Some(unsealed.record).filter(|record| record.session_id.is_some()));
                ControlFlow::Continue(())
            }
            Err(error) => {
                wrong = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = wrong {
        bail!("a line of the record: {error}");
    }
    let mut sessions: Vec<String> = records.iter().filter_map(|one| one.session_id).map(|id| id.to_string()).collect();
    sessions.sort_unstable();
    sessions.dedup();
    for id in sessions {
        if let Err(error) = why::why(&dir, &id, None) {
            bail!("the record of {id} does not replay: {error}");
        }
    }
    Ok(records)
}
