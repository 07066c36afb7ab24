//! Owns running the real product in a lab: its files, its two processes, its logs and what its verbs answer. Never
//! reaches into the product in any other way.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::mode::{self, Xdp};
use super::netns::Netns;
use super::setup::{Pair, Setup, write_private};
use super::topology::{GATEWAY_INTERFACE, Topology};
use super::{Lab, steady};
use crate::rows;

/// Start of both processes and the first session; debug builds load a large object.
const HEALTHY_LIMIT: Duration = Duration::from_secs(60);
/// Orderly end of a process after SIGTERM, on a machine that does other things as well.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// A verb talks to a local socket, and a jump waits 5 s for its outcome. One that hangs (a frozen gateway) must not stop
/// the lab.
const VERB_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(40);
const GATEWAY_FILE: &str = "gateway.toml";
/// Lines of a log shown with a failure.
const TAIL: usize = 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Gateway,
    Client,
    /// The relay of this number, from 0.
    Relay(usize),
    /// Where there are two owners: the second.
    OtherGateway,
    /// Its client.
    OtherClient,
}

#[derive(Debug)]
struct Side {
    space: Netns,
    directory: PathBuf,
    pin_root: PathBuf,
    verb: &'static str,
    file: &'static str,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

/// Gateways, clients and relays of the real product, running in a lab. Dropping it kills all.
#[derive(Debug)]
pub struct Product {
    binary: PathBuf,
    gateways: Vec<Side>,
    clients: Vec<Side>,
    relays: Vec<Side>,
    xdp: Xdp,
}

/// `JVPN_CTL`, or the binary beside this one (or above, for a test in `deps`).
pub fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("JVPN_CTL") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "JVPN_CTL names {}, which is no file", path.display());
        return Ok(path);
    }
    let own = std::env::current_exe().context("own path")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("jvpn-ctl"))
        .find(|path| path.is_file())
        .with_context(|| format!("no jvpn-ctl beside {}: run cargo build -p jvpn-ctl", own.display()))
}

impl Product {
    /// Writes keys and configuration and starts all sides; `wait_healthy` says when they work.
    pub fn start(lab: &Lab, setup: &Setup) -> Result<Product> {
        Self::start_in(&lab.topology, lab.files(), &lab.pin_root(), setup)
    }

    /// The same between any two namespaces that are named and addressed as the lab's are.
    pub fn start_in(topology: &Topology, files: &FilePath, pin_root: &FilePath, setup: &Setup) -> Result<Product> {
        let binary = setup.binary.clone().map_or_else(find_binary, Ok)?;
        let side = |space: Netns, name: &str, verb, file| -> Result<Side> {
            let directory = files.join(name);
            fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
            Ok(Side {
                space,
                directory,
                pin_root: pin_root.join(name),
                verb,
                file,
                environment: setup.environment.clone(),
                child: None,
            })
        };
        let numbered = |name: &str, owner| if owner == 0 { name.to_owned() } else { format!("{name}-{}", owner + 1) };
        let mut product = Product {
            binary,
            gateways: (0..setup.owners)
                .map(|owner| side(topology.gateway_of(owner), &numbered("gateway", owner), "serve", GATEWAY_FILE))
                .collect::<Result<_>>()?,
            clients: (0..setup.owners)
                .map(|owner| side(topology.client_of(owner), &numbered("client", owner), "connect", "client.toml"))
                .collect::<Result<_>>()?,
            relays: (0..setup.relays)
                .map(|number| side(topology.relay(number), &format!("relay-{}", number + 1), "serve", "relay.toml"))
                .collect::<Result<_>>()?,
            xdp: setup.xdp,
        };
        fs::create_dir_all(pin_root).context("create the pin directory")?;
        let keys = |sides: &[Side]| sides.iter().map(|side| product.keys(&side.directory)).collect::<Result<Vec<_>>>();
        let (gateways, clients, relays) = (keys(&product.gateways)?, keys(&product.clients)?, keys(&product.relays)?);
        for (number, relay) in product.relays.iter().enumerate() {
            setup.write_relay(number, &relay.directory, &gateways)?;
        }
        for owner in 0..setup.owners {
            let gateway = (product.gateways[owner].directory.as_path(), gateways[owner].as_str());
            let client = (product.clients[owner].directory.as_path(), clients[owner].as_str());
            setup.write(&Pair { owner, gateway, client }, &relays)?;
        }
        for role in product.roles() {
            product.start_side(role)?;
        }
        Ok(product)
    }

    /// Every side there is, clients last.
    fn roles(&self) -> Vec<Role> {
        let gateways = [Role::Gateway, Role::OtherGateway].into_iter().take(self.gateways.len());
        let clients = [Role::Client, Role::OtherClient].into_iter().take(self.clients.len());
        gateways.chain((0..self.relays.len()).map(Role::Relay)).chain(clients).collect()
    }

    /// Makes a private key file and returns the public key.
    fn keys(&self, directory: &FilePath) -> Result<String> {
        let private = self.tool(&["genkey"], "")?;
        write_private(&directory.join("key"), &private)?;
        Ok(self.tool(&["pubkey"], &private)?.trim().to_owned())
    }

    fn tool(&self, arguments: &[&str], input: &str) -> Result<String> {
        let binary = self.binary.to_str().context("the path of jvpn-ctl is not UTF-8")?;
        let argv: Vec<&str> = std::iter::once(binary).chain(arguments.iter().copied()).collect();
        super::netns::run(&argv, Some(input))
    }

    fn side(&self, role: Role) -> &Side {
        match role {
            Role::Gateway => &self.gateways[0],
            Role::Client => &self.clients[0],
            Role::Relay(number) => &self.relays[number],
            Role::OtherGateway => &self.gateways[1],
            Role::OtherClient => &self.clients[1],
        }
    }

    fn side_mut(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Gateway => &mut self.gateways[0],
            Role::Client => &mut self.clients[0],
            Role::Relay(number) => &mut self.relays[number],
            Role::OtherGateway => &mut self.gateways[1],
            Role::OtherClient => &mut self.clients[1],
        }
    }

    /// Starts one side; its log is appended to, so a restart reads in one piece.
    pub fn start_side(&mut self, role: Role) -> Result<()> {
        let binary = self.binary.clone();
        let side = self.side_mut(role);
        ensure!(side.child.is_none(), "{} runs already", side.verb);
        let log = OpenOptions::new().create(true).append(true).open(side.log())?;
        let errors = log.try_clone()?;
        let mut command = side.command(&binary);
        command.arg(side.verb);
        // Its own group: Ctrl-C reaches the lab alone, which then removes everything in order.
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let _steady = steady();
        let child = side.space.enter(move || command.spawn().context("start jvpn-ctl"))?;
        side.child = Some(child);
        Ok(())
    }

    /// Which program is started from now on.
    pub fn use_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    pub fn pid(&self, role: Role) -> Result<u32> {
        let side = self.side(role);
        side.child.as_ref().map(Child::id).with_context(|| format!("{} is not running", side.verb))
    }

    /// SIGKILL, as a crash would be.
    pub fn kill(&mut self, role: Role) -> Result<()> {
        let mut child = self.side_mut(role).child.take().context("nothing to kill")?;
        child.kill().context("kill -9")?;
        child.wait().context("wait for a killed process")?;
        Ok(())
    }

    /// Ends one side in order (SIGTERM) and returns its exit code; kills it when it does not end.
    pub fn stop(&mut self, role: Role) -> Result<Option<i32>> {
        let Some(mut child) = self.side_mut(role).child.take() else {
            return Ok(None);
        };
        let pid = Pid::from_raw(child.id().cast_signed()).context("process id")?;
        kill_process(pid, Signal::TERM).context("SIGTERM")?;
        let status = wait_limited(&mut child, STOP_LIMIT)?;
        if status.is_none() {
            child.kill()?;
            child.wait()?;
            bail!("{} did not end within {STOP_LIMIT:?} of SIGTERM\n{}", self.side(role).verb, self.log_tail(role));
        }
        Ok(status.and_then(|status| status.code()))
    }

    /// Waits for one side to end by itself and returns its exit code.
    pub fn wait_end(&mut self, role: Role, limit: Duration) -> Result<Option<i32>> {
        let mut child = self.side_mut(role).child.take().context("it does not run")?;
        let Some(status) = wait_limited(&mut child, limit)? else {
            self.side_mut(role).child = Some(child);
            bail!("{} does not end within {limit:?}\n{}", self.side(role).verb, self.log_tail(role));
        };
        Ok(status.code())
    }

    pub fn log_tail(&self, role: Role) -> String {
        let side = self.side(role);
        let text = fs::read_to_string(side.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        format!("--- end of the log of {} ---\n{tail}\n---", side.verb)
    }

    /// Its store and record.
    pub fn state_dir(&self, role: Role) -> PathBuf {
        self.side(role).state()
    }

    pub fn log_file(&self, role: Role) -> PathBuf {
        self.side(role).log()
    }

    /// Environment and binary for a person who wants to type verbs against this side.
    pub fn how_to_enter(&self, role: Role) -> String {
        let side = self.side(role);
        let environment: Vec<String> =
            side.paths().iter().map(|(key, value)| format!("{key}={}", value.display())).collect();
        format!(
            "env {} nsenter --net={} {} status",
            environment.join(" "),
            side.space.path().display(),
            self.binary.display()
        )
    }

    /// Runs a verb against one side and returns its exit code, stdout and stderr.
    pub fn verb(&self, role: Role, arguments: &[&str]) -> Result<(i32, String, String)> {
        let side = self.side(role);
        let mut command = side.command(&self.binary);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = side.space.enter(move || command.spawn().context("run jvpn-ctl"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let out = thread::spawn(move || stdout.map(std::io::read_to_string));
        let err = thread::spawn(move || stderr.map(std::io::read_to_string));
        let status = wait_limited(&mut child, VERB_LIMIT)?;
        if status.is_none() {
            child.kill()?;
            child.wait()?;
        }
        let text = |reader: thread::JoinHandle<Option<std::io::Result<String>>>| {
            reader.join().ok().flatten().and_then(Result::ok).unwrap_or_default()
        };
        let (out, err) = (text(out), text(err));
        let status = status.with_context(|| format!("jvpn-ctl {} hung for {VERB_LIMIT:?}", arguments.join(" ")))?;
        Ok((status.code().unwrap_or(-1), out, err))
    }

    /// A reading verb's document. An unhealthy `status` exits with 6 and still prints one.
    pub fn json(&self, role: Role, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.push("--json");
        let (code, out, err) = self.verb(role, &all)?;
        serde_json::from_str(&out)
            .with_context(|| format!("jvpn-ctl {} exited with {code} and no JSON: {}", all.join(" "), err.trim()))
    }

    /// Waits until all sides call themselves healthy, and checks that the program sits as was asked for.
    pub fn wait_healthy(&mut self) -> Result<()> {
        let deadline = Instant::now() + HEALTHY_LIMIT;
        for role in self.roles() {
            loop {
                let status = self.json(role, &["status"]);
                if let Some(status) = status.as_ref().ok().filter(|status| status["healthy"] == Value::Bool(true)) {
                    if self.side(role).verb == "serve" {
                        mode::prove(self.xdp, &self.side(role).space, GATEWAY_INTERFACE, status)?;
                    }
                    break;
                }
                let ended = self.side_mut(role).child.as_mut().map(Child::try_wait).transpose()?.flatten();
                let says = status.map_or_else(|error| format!("{error:#}"), |s| s.to_string());
                let late = Instant::now() >= deadline;
                ensure!(
                    ended.is_none() && !late,
                    "{role:?} is not healthy{}: {says}\n{}\n{}",
                    ended.map(|status| format!(", it ended with {status}")).unwrap_or_default(),
                    self.log_tail(Role::Gateway),
                    self.log_tail(Role::Client),
                );
                thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

impl Side {
    fn config(&self) -> PathBuf {
        self.directory.join(self.file)
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn paths(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("JVPN_CONFIG", self.config()),
            ("JVPN_STATE_DIR", self.state()),
            ("JVPN_RUN_DIR", self.directory.join("run")),
            ("JVPN_PIN_ROOT", self.pin_root.clone()),
        ]
    }

    fn command(&self, binary: &FilePath) -> Command {
        let mut command = Command::new(binary);
        command.envs(self.paths()).envs(self.environment.iter().cloned()).env("NO_COLOR", "1");
        command
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.file == GATEWAY_FILE
            && let Err(error) = rows::note_record(&self.state())
        {
            eprintln!("rows of {}: {error:#}", self.directory.display());
        }
    }
}

impl Product {
    /// Gives both processes up to whoever removes the lab.
    pub fn leave_running(mut self) {
        let Self { gateways, clients, relays, .. } = &mut self;
        gateways.iter_mut().chain(clients).chain(relays).for_each(|side| side.child = None);
    }
}

fn wait_limited(child: &mut Child, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(2));
    }
}
