//! The gateway of a swarm: its files, its process, what its verbs answer.
//!
//! Owns one `serve` with as many peers as the swarm has members. Must never reach into it in any other way than its
//! users can: files, signals, verbs.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jvpn_common::secret::{PrivateKey, PublicKey};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab::netns::{Netns, run};
use crate::lab::process::find_binary;

/// The inner network: the gateway is its first address, members follow from .1.1 on.
const INNER: &str = "10.80.0.1/16";
/// Slots of a gateway with so many members.
#[must_use]
pub fn slots(members: usize) -> usize {
    SLOTS_OF_A_MEMBER * members + SLOTS_MIN
}

/// Slots for each member: one it has, and one of the start before.
const SLOTS_OF_A_MEMBER: usize = 2;
/// Slots beside them, for handshakes that nobody confirms: the product's own default.
const SLOTS_MIN: usize = 4_096;
/// Between two looks at a process or its socket.
const POLL: Duration = Duration::from_millis(2);

/// How the gateway is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// `xdp` of the file: native, generic, off.
    pub xdp: &'static str,
    /// 0: what it takes by itself.
    pub workers: u32,
    /// Interface the swarm arrives on.
    pub interface: &'static str,
    pub port: u16,
    /// Lines of the members' policy.
    pub policy: Vec<String>,
    pub environment: Vec<(String, String)>,
}

/// A gateway that runs, or can.
#[derive(Debug)]
pub struct Host {
    binary: PathBuf,
    space: Netns,
    directory: PathBuf,
    pin_root: PathBuf,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    /// Its identity.
    pub key: PublicKey,
}

impl Host {
    /// Writes its files below `directory`, which is made.
    pub fn prepare(
        space: Netns,
        directory: PathBuf,
        pin_root: PathBuf,
        members: &[PrivateKey],
        options: &Options,
    ) -> Result<Host> {
        let binary = find_binary()?;
        fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
        let tool = |words: &[&str], input| run(&[&[text(&binary)], words].concat(), input);
        let private = tool(&["genkey"], None)?;
        private_file(&directory.join("key"), &private)?;
        let key = tool(&["pubkey"], Some(&private))?;
        let key = key.trim().parse().map_err(|error| anyhow::anyhow!("what pubkey printed: {error}"))?;
        let Options { xdp, workers, interface, port, policy, environment } = options;
        let mut file = format!(
            "[gateway]\nname = \"gw-swarm\"\nprivate_key_file = \"{}\"\nlisten = {port}\ninterfaces = [\"{interface}\"]\n\
             xdp = \"{xdp}\"\nworkers = {workers}\ntun = \"jvpn0\"\naddresses = [\"{INNER}\"]\nmasquerade = false\nmax_sessions = {}\n",
            directory.join("key").display(),
            slots(members.len()),
        );
        for (number, member) in members.iter().enumerate() {
            let address = inner(number);
            write!(
                file,
                "\n[[peer]]\nname = \"member-{number}\"\npublic_key = \"{}\"\naddresses = [\"{address}/32\"]\n\
                 policy = \"swarm\"\n",
                member.public()
            )?;
        }
        writeln!(file, "\n[policy.swarm]\n{}", policy.join("\n"))?;
        private_file(&directory.join("gateway.toml"), &file)?;
        let environment = environment.clone();
        Ok(Host { binary, space, directory, pin_root, environment, child: None, key })
    }

    /// Its store and record.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// The last lines of it.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Which program is started from now on.
    pub fn use_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words).env("JVPN_CONFIG", self.directory.join("gateway.toml"));
        command.env("JVPN_STATE_DIR", self.state()).env("JVPN_RUN_DIR", self.directory.join("run"));
        command.env("JVPN_PIN_ROOT", &self.pin_root).env("NO_COLOR", "1").env("RUST_BACKTRACE", "1");
        command.envs(self.environment.iter().map(|(key, value)| (key, value))).stdin(Stdio::null());
        command
    }

    /// Starts it, `wrapped` in another program if there is one (`unshare …`).
    pub fn start_in(&mut self, wrapped: &[&str]) -> Result<()> {
        ensure!(self.child.is_none(), "it runs already");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log"))?;
        let errors = log.try_clone()?;
        let mut command = self.command(&["serve"]);
        if let Some((first, rest)) = wrapped.split_first() {
            let mut outer = Command::new(first);
            outer.args(rest).arg(&self.binary).arg("serve").stdin(Stdio::null());
            outer.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
            command = outer;
        }
        command.stdout(log).stderr(errors).process_group(0);
        self.child = Some(self.space.enter(move || command.spawn().context("start jvpn-ctl"))?);
        Ok(())
    }

    pub fn start(&mut self) -> Result<()> {
        self.start_in(&[])
    }

    /// Waits until its API answers: the controller is up. When that was.
    pub fn wait_up(&mut self, limit: Duration) -> Result<jvpn_common::time::Instant> {
        let deadline = Instant::now() + limit;
        let socket = self.directory.join("run").join("gateway.sock");
        loop {
            if UnixStream::connect(&socket).is_ok() {
                return Ok(jvpn_ctl::runtime::clock::boot());
            }
            if let Some(status) = self.ended()? {
                bail!("it ended with {status}\n{}", self.log_tail());
            }
            ensure!(Instant::now() < deadline, "it is not up after {limit:?}\n{}", self.log_tail());
            std::thread::sleep(POLL);
        }
    }

    /// Its exit, if it ended by itself.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.as_mut().context("it was not started")?.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Waits until it ends by itself or answers; its exit code in the first case.
    pub fn settle(&mut self, limit: Duration) -> Result<Option<i32>> {
        let deadline = Instant::now() + limit;
        let socket = self.directory.join("run").join("gateway.sock");
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status.code().unwrap_or(-1)));
            }
            if UnixStream::connect(&socket).is_ok() {
                return Ok(None);
            }
            ensure!(Instant::now() < deadline, "neither up nor over after {limit:?}\n{}", self.log_tail());
            std::thread::sleep(POLL);
        }
    }

    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid().context("it does not run")?.cast_signed()).context("a process")?;
        Ok(kill_process(pid, signal)?)
    }

    /// SIGKILL, as a crash would be.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("nothing to kill")?;
        child.kill().context("kill -9")?;
        child.wait().context("wait for a killed process")?;
        Ok(())
    }

    /// SIGTERM, and its exit code.
    pub fn stop(&mut self, limit: Duration) -> Result<Option<i32>> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status.code());
            }
            std::thread::sleep(POLL);
        }
        bail!("it does not end within {limit:?} of SIGTERM\n{}", self.log_tail())
    }

    /// Runs a verb: exit code, standard output, standard error.
    pub fn verb(&self, words: &[&str]) -> Result<(i32, String, String)> {
        let mut command = self.command(words);
        let output = self.space.enter(move || command.output().context("run jvpn-ctl"))?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code().unwrap_or(-1), said(&output.stdout), said(&output.stderr)))
    }

    /// A reading verb's document.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let (code, out, said) = self.verb(&[words, &["--json"]].concat())?;
        serde_json::from_str(&out).with_context(|| format!("{words:?} exited with {code} and no JSON: {said}"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Inner address of a member.
#[must_use]
pub fn inner(member: usize) -> std::net::Ipv4Addr {
    let number = 257 + u32::try_from(member).unwrap_or(0);
    std::net::Ipv4Addr::from_bits(std::net::Ipv4Addr::new(10, 80, 0, 0).to_bits() + number)
}

fn private_file(path: &Path, content: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("write {}", path.display()))?;
    Ok(std::io::Write::write_all(&mut file, content.as_bytes())?)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}
