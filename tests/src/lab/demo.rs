//! Owns playing the acts: the real product in a lab, traffic through it, one fault after the other, and the
//! evidence of each. Never judges (`act`) and never computes numbers (`flow`).

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::act::{self, ACTS, Act, Evidence, Tcp};
use super::clock::{now_ns, sleep_until};
use super::fault::Fault;
use super::flow::{Direction, Trace, WINDOW_NS};
use super::inspect;
use super::mode::Xdp;
use super::process::Role;
use super::report::{self, ActReport, Document, DownloadReport};
use super::stage::{POLL, Stage};
use super::topology::Path;

/// Length of the frozen gateway's sleep.
pub(super) const FREEZE: Duration = Duration::from_secs(2);
/// Download of a whole demo; one act alone downloads as long as it takes.
const WHOLE_DOWNLOAD: u64 = 200_000_000;
/// Acts that are played with a relay, on a stage of their own.
const RELAYED: usize = 1;
/// Rough seconds per act and for the rest, for the estimate.
const ACT_SECONDS: usize = 6;
const FRAME_SECONDS: usize = 5;
/// How often an act is played at most.
const PLAYS_MAX: usize = 3;
/// A machine that does not run a sleeping thread for this long, ms, is not measured on: an outage would be its own. A
/// tenth of the tightest promise; the threads of the lab are late by one or two on a quiet machine.
const STALL_MAX_MS: f64 = 15.0;
const TUN: &str = "jvpn0";

/// What to play and where to put it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names; empty for all.
    pub acts: Vec<String>,
    pub keep: bool,
    pub out: Option<PathBuf>,
    pub xdp: Xdp,
    /// The act in which both paths die and stay dead (`JVPN_BREAK`): its promise must be seen to break.
    pub broken: Option<String>,
}

pub fn run(options: &Options) -> Result<Document> {
    let acts = chosen(&options.acts)?;
    if let Some(broken) = &options.broken {
        act::named(broken).with_context(|| format!("JVPN_BREAK: {}", unknown_act(broken)))?;
    }
    if let Some(out) = &options.out {
        fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    }
    let stages = [false, true].iter().filter(|relayed| acts.iter().any(|act| act.relayed == **relayed)).count();
    let seconds = acts.len() * ACT_SECONDS + stages * FRAME_SECONDS;
    eprintln!("{}, about {seconds} s", report::counted(acts.len() as u64, "act"));
    let (mut reports, mut downloads, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for relayed in [false, true] {
        let acts: Vec<&Act> = acts.iter().copied().filter(|act| act.relayed == relayed).collect();
        if acts.is_empty() {
            continue;
        }
        let mut stage = Stage::set(options, relayed)?;
        stage.dump("before")?;
        for act in &acts {
            eprintln!("{}: {}", act.name, act.what);
            reports.push(stage.play_fairly(act));
        }
        stage.dump("after")?;
        let (download, wrong) = stage.close(acts.len() == ACTS.len() - RELAYED)?;
        downloads.push(download);
        errors.extend(wrong);
    }
    let document = Document::new(options.xdp.key()?, reports, downloads, errors);
    if let Some(out) = &options.out {
        fs::write(out.join("demo.json"), serde_json::to_string_pretty(&document)?)?;
    }
    Ok(document)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Act>> {
    if names.is_empty() {
        return Ok(ACTS.iter().collect());
    }
    names.iter().map(|name| act::named(name).with_context(|| unknown_act(name))).collect()
}

fn unknown_act(name: &str) -> String {
    let known: Vec<&str> = ACTS.iter().map(|act| act.name).collect();
    format!("no act is called {name:?}; there are {}", known.join(", "))
}

impl Stage<'_> {
    /// Plays an act; once more when its promise broke while the machine itself stood still, since that says nothing
    /// about the product.
    fn play_fairly(&mut self, act: &'static Act) -> ActReport {
        let mut again = if self.options.broken.is_none() { PLAYS_MAX - 1 } else { 0 };
        loop {
            let report = self.play(act).unwrap_or_else(|error| ActReport::failed(act, &error));
            if report.pass || again == 0 || report.stall_ms < STALL_MAX_MS {
                return report;
            }
            again -= 1;
            eprintln!(
                "{}: the machine stood still for {:.0} ms, which says nothing: once more",
                act.name, report.stall_ms
            );
        }
    }

    fn play(&mut self, act: &'static Act) -> Result<ActReport> {
        self.prepare(act)?;
        let client = self.lab.topology.client();
        let (session_before, known) = self.session_and_history()?;
        let addresses_before = inspect::addresses(&client, TUN);
        let local = self.download.local;
        let slot_before = self.relay_slot()?;
        let Performed { fault_ns, done, noticed_ms, held } = self.perform(act)?;
        sleep_until(fault_ns + WINDOW_NS + 50_000_000);
        let traces = [Direction::Up, Direction::Down].map(|way| (way, self.flows.trace(way).around(fault_ns)));
        let account = report::account(&traces.each_ref().map(|(_, trace)| trace.clone()), fault_ns);
        let end_ns = fault_ns + WINDOW_NS;
        let recovered_ns = fault_ns + (account.outage_ms * 1e6) as u64;
        let (session_after, mut records) = self.session_and_history()?;
        // Of another session everything is new, and the act is broken.
        let records = if session_after.id == session_before.id { records.split_off(known.len()) } else { records };
        let evidence = Evidence {
            act: act.name.into(),
            fault_ns,
            done,
            session_before,
            session_after,
            addresses_before,
            addresses_after: inspect::addresses(&client, TUN),
            records,
            tcp: Tcp {
                alive: self.download.alive(),
                same_connection: self.server.connections() == 1 && self.server.peer() == Some(local),
                advanced_before: self.download.advanced(fault_ns.saturating_sub(2_000_000_000), fault_ns),
                advanced_after: self.download.advanced(recovered_ns, end_ns),
            },
            noticed_ms,
            relay: slot_before.zip(self.relay_slot()?).map(|(before, after)| [before, after]),
            back: traces.iter().all(|(_, trace)| back(trace, end_ns)),
        };
        for fault in held {
            fault.undo()?;
        }
        if let Some(out) = &self.options.out {
            report::write_act(out, &evidence, &traces)?;
        }
        Ok(ActReport::new(act, &evidence, &account))
    }

    fn perform(&mut self, act: &Act) -> Result<Performed> {
        let mut held = Vec::new();
        if self.options.broken.as_deref() == Some(act.name) {
            for path in Path::BOTH {
                held.push(self.lab.silence_now(path)?);
            }
        }
        let mut noticed_ms = None;
        let mut fault_ns = now_ns();
        let done = match act.name {
            "silent_death" | "relay" => {
                let path = self.active()?;
                fault_ns = now_ns();
                held.push(self.lab.silence_now(path)?);
                self.lab.prove_silent(path)?;
                format!("{} silenced both ways", path.transport())
            }
            "nat_rebind" => {
                // With both paths dead on purpose nobody can see the other port.
                if held.is_empty() {
                    fault_ns = self.lab.nat_forget()?;
                } else {
                    self.lab.nat_forget_now()?;
                }
                "the NAT of path-b forgot everything; the gateway sees another port".into()
            }
            "planned_jump" => {
                let to = self.active()?.other();
                if held.is_empty() {
                    fault_ns = self.jump(to)?;
                } else {
                    // Refused or not: with both paths dead the promise must break either way.
                    let _ = self.product.verb(Role::Client, &["jump", "--to", to.transport()]);
                }
                format!("jvpn-ctl jump --to {}", to.transport())
            }
            "restart" => {
                let pid = self.product.pid(Role::Gateway)?;
                self.product.kill(Role::Gateway)?;
                self.product.start_side(Role::Gateway)?;
                format!("kill -9 {pid}, then serve again")
            }
            "dead_gateway" => {
                let pid = self.product.pid(Role::Gateway)?;
                fault_ns = now_ns();
                let frozen = self.lab.freeze(pid)?;
                noticed_ms = self.wait_noticed(fault_ns)?;
                sleep_until(fault_ns + FREEZE.as_nanos() as u64);
                frozen.undo()?;
                format!("SIGSTOP {pid} for 2 s, then SIGCONT")
            }
            other => bail!("act {other} has no performance"),
        };
        Ok(Performed { fault_ns, done, noticed_ms, held })
    }

    /// Ends the download, then the rest; writes the document.
    fn close(self, whole: bool) -> Result<(DownloadReport, Vec<String>)> {
        let Stage { flows, download, server, mut product, mut lab, options } = self;
        drop(flows);
        while whole && download.alive() && download.bytes() < WHOLE_DOWNLOAD {
            thread::sleep(POLL);
        }
        server.finish();
        let mut result = DownloadReport {
            connections: server.connections(),
            local: download.local.to_string(),
            ..DownloadReport::default()
        };
        match download.finish() {
            Ok(finished) => result.finished = Some(finished),
            Err(error) => result.error = Some(format!("{error:#}")),
        }
        let mut errors = Vec::new();
        if !options.keep {
            for role in [Role::Client, Role::Gateway] {
                if let Err(error) = product.stop(role) {
                    errors.push(format!("{error:#}"));
                }
            }
        }
        if let Some(out) = &options.out {
            for (role, name) in [(Role::Gateway, "gateway.log"), (Role::Client, "client.log")] {
                fs::copy(product.log_file(role), out.join(name)).context("copy a log")?;
            }
        }
        if options.keep {
            lab.keep();
            eprintln!("lab {} stays up; remove it with `cargo xtask clean-lab`", lab.prefix());
            for role in [Role::Gateway, Role::Client] {
                eprintln!("  {}", product.how_to_enter(role));
            }
            product.leave_running();
            return Ok((result, errors));
        }
        drop(product);
        lab.down()?;
        Ok((result, errors))
    }
}

struct Performed {
    fault_ns: u64,
    done: String,
    noticed_ms: Option<f64>,
    /// Faults that last until the window is over.
    held: Vec<Fault>,
}

/// Whether packets arrived in the last half second before `end_ns`.
fn back(trace: &Trace, end_ns: u64) -> bool {
    trace.arrived.iter().any(|arrival| (end_ns - 500_000_000..end_ns).contains(&arrival.at_ns))
}
