//! Owns playing the acts: the real product in a lab, traffic through it, one fault after the other, and the
//! evidence of each. Never judges (`act`) and never computes numbers (`flow`).

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Lab;
use super::act::{self, ACTS, Act, Evidence, Tcp};
use super::clock::{now_ns, sleep_until};
use super::fault::Fault;
use super::flow::{Direction, Flows, Trace, WINDOW_NS};
use super::http::{Download, Server};
use super::inspect;
use super::process::{Product, Role, Setup};
use super::record::{self, Record, Session};
use super::report::{self, ActReport, Document, DownloadReport};
use super::topology::{INNER_CLIENT_V4, LAN_V4, Path};

/// Length of the frozen gateway's sleep.
const FREEZE: Duration = Duration::from_secs(2);
/// Until traffic runs, paths are validated and a jump is allowed: standby paths are checked every 5 s.
const SETTLE_LIMIT: Duration = Duration::from_secs(15);
/// Longer than the cooldown of the default policy.
const AFTER_JUMP: Duration = Duration::from_millis(1_500);
const POLL: Duration = Duration::from_millis(50);
/// Download of a whole demo; one act alone downloads as long as it takes.
const WHOLE_DOWNLOAD: u64 = 200_000_000;
/// Rough seconds per act and for the rest, for the estimate.
const ACT_SECONDS: usize = 8;
const FRAME_SECONDS: usize = 6;
const TUN: &str = "jvpn0";

/// What to play and where to put it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names; empty for all.
    pub acts: Vec<String>,
    pub keep: bool,
    pub out: Option<PathBuf>,
    pub xdp: String,
    /// The act in which both paths die and stay dead (`JVPN_BREAK`): its promise must be seen to break.
    pub broken: Option<String>,
}

/// Fields drop in this order: traffic, product, lab.
struct Stage<'a> {
    flows: Flows,
    download: Download,
    server: Server,
    product: Product,
    lab: Lab,
    options: &'a Options,
}

pub fn run(options: &Options) -> Result<Document> {
    let acts = chosen(&options.acts)?;
    if let Some(broken) = &options.broken {
        act::named(broken).with_context(|| format!("JVPN_BREAK: {}", unknown_act(broken)))?;
    }
    if let Some(out) = &options.out {
        fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    }
    eprintln!(
        "{} act(s), about {} s",
        acts.len(),
        acts.len() * ACT_SECONDS + FRAME_SECONDS
    );
    let mut stage = Stage::set(options)?;
    stage.dump("before")?;
    let mut reports = Vec::new();
    for act in &acts {
        eprintln!("{}: {}", act.name, act.what);
        reports.push(
            stage
                .play(act)
                .unwrap_or_else(|error| ActReport::failed(act, &error)),
        );
    }
    stage.dump("after")?;
    stage.close(reports, acts.len() == ACTS.len())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Act>> {
    if names.is_empty() {
        return Ok(ACTS.iter().collect());
    }
    names
        .iter()
        .map(|name| act::named(name).with_context(|| unknown_act(name)))
        .collect()
}

fn unknown_act(name: &str) -> String {
    let known: Vec<&str> = ACTS.iter().map(|act| act.name).collect();
    format!("no act is called {name:?}; there are {}", known.join(", "))
}

impl<'a> Stage<'a> {
    fn set(options: &'a Options) -> Result<Stage<'a>> {
        let lab = Lab::up()?;
        eprintln!("lab {} is up", lab.prefix());
        let mut product = Product::start(
            &lab,
            &Setup {
                xdp: options.xdp.clone(),
                ..Setup::default()
            },
        )?;
        product.wait_healthy()?;
        let (client, lan) = (lab.topology.client(), lab.topology.lan());
        let (inner, host): (IpAddr, IpAddr) = (INNER_CLIENT_V4.parse()?, LAN_V4.parse()?);
        let flows = Flows::start((&client, inner), (&lan, host))?;
        let server = Server::start(&lan, host)?;
        let download = Download::start(&client, server.address)
            .with_context(|| format!("through the tunnel\n{}", product.log_tail(Role::Gateway)))?;
        let stage = Stage {
            flows,
            download,
            server,
            product,
            lab,
            options,
        };
        stage.settle().context("traffic through the new tunnel")?;
        eprintln!("session up, traffic runs");
        Ok(stage)
    }

    /// Waits until both flows and the download run.
    fn settle(&self) -> Result<()> {
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

    fn session(&self) -> Result<Session> {
        record::live_session(&self.product.json(Role::Gateway, &["sessions"])?)
    }

    fn history(&self, id: &str) -> Result<Vec<Record>> {
        record::history(
            &self
                .product
                .json(Role::Gateway, &["sessions", id, "history"])?,
        )
    }

    fn active(&self) -> Result<Path> {
        let session = self.session()?;
        let name = session
            .transport
            .context("the session has no active transport")?;
        Path::of_transport(&name).with_context(|| format!("unknown transport {name:?}"))
    }

    /// Asks for a jump until it is granted; returns the instant before the request that was.
    fn jump(&self, to: Path) -> Result<u64> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let at_ns = now_ns();
            let (code, out, err) = self
                .product
                .verb(Role::Client, &["jump", "--to", to.transport()])?;
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
    fn prepare(&self, act: &Act) -> Result<()> {
        self.settle()?;
        if let Some(wanted) = act.starts_on
            && self.active()? != wanted
        {
            self.jump(wanted)
                .context("bring the session to where the act starts")?;
            thread::sleep(AFTER_JUMP);
            ensure!(
                self.active()? == wanted,
                "the session did not move to {}",
                wanted.transport()
            );
            self.settle()?;
        }
        Ok(())
    }

    fn play(&mut self, act: &'static Act) -> Result<ActReport> {
        self.prepare(act)?;
        let client = self.lab.topology.client();
        let session_before = self.session()?;
        let known = self.history(&session_before.id)?.len();
        let addresses_before = inspect::addresses(&client, TUN);
        let local = self.download.local;
        let Performed {
            fault_ns,
            done,
            noticed_ms,
            held,
        } = self.perform(act)?;
        sleep_until(fault_ns + WINDOW_NS + 50_000_000);
        let traces = [Direction::Up, Direction::Down]
            .map(|way| (way, self.flows.trace(way).around(fault_ns)));
        let account = report::account(&traces.each_ref().map(|(_, trace)| trace.clone()), fault_ns);
        let end_ns = fault_ns + WINDOW_NS;
        let recovered_ns = fault_ns + (account.outage_ms * 1e6) as u64;
        let session_after = self.session()?;
        let records = self.history(&session_before.id)?.split_off(known);
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
                same_connection: self.server.connections() == 1
                    && self.server.peer() == Some(local),
                advanced_before: self
                    .download
                    .advanced(fault_ns.saturating_sub(2_000_000_000), fault_ns),
                advanced_after: self.download.advanced(recovered_ns, end_ns),
            },
            noticed_ms,
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
            "silent_death" => {
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
                    let _ = self
                        .product
                        .verb(Role::Client, &["jump", "--to", to.transport()]);
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
        Ok(Performed {
            fault_ns,
            done,
            noticed_ms,
            held,
        })
    }

    /// Time until the client's status names the frozen gateway, watched until shortly before it thaws.
    fn wait_noticed(&self, since_ns: u64) -> Result<Option<f64>> {
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

    fn dump(&self, when: &str) -> Result<()> {
        let Some(out) = &self.options.out else {
            return Ok(());
        };
        let file = out.join(format!("bpftool-{when}.txt"));
        inspect::bpftool(&self.lab.topology.gateway(), &self.lab.pin_root(), &file)?;
        if when == "after"
            && let Ok(session) = self.session()
        {
            for (role, name) in [(Role::Gateway, "gateway"), (Role::Client, "client")] {
                // A client that keeps no history of its own is not an error of the demo.
                if let Ok(history) = self
                    .product
                    .json(role, &["sessions", &session.id, "history"])
                {
                    fs::write(out.join(format!("{name}-record.json")), history.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// Ends the download, then the rest; writes the document.
    fn close(self, reports: Vec<ActReport>, whole: bool) -> Result<Document> {
        let Stage {
            flows,
            download,
            server,
            mut product,
            mut lab,
            options,
        } = self;
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
        let document = Document::new(&options.xdp, reports, result);
        if let Some(out) = &options.out {
            fs::write(
                out.join("demo.json"),
                serde_json::to_string_pretty(&document)?,
            )?;
            for (role, name) in [(Role::Gateway, "gateway.log"), (Role::Client, "client.log")] {
                fs::copy(product.log_file(role), out.join(name)).context("copy a log")?;
            }
        }
        if options.keep {
            lab.keep();
            eprintln!(
                "lab {} stays up; remove it with `cargo xtask clean-lab`",
                lab.prefix()
            );
            for role in [Role::Gateway, Role::Client] {
                eprintln!("  {}", product.how_to_enter(role));
            }
            product.leave_running();
            return Ok(document);
        }
        for role in [Role::Client, Role::Gateway] {
            product.stop(role)?;
        }
        lab.down()?;
        Ok(document)
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
    trace
        .arrived
        .iter()
        .any(|arrival| (end_ns - 500_000_000..end_ns).contains(&arrival.at_ns))
}
