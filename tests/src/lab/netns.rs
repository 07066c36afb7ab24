//! Owns entering network namespaces and running the set-up tools in them. Never opens a mount namespace:
//! `ip netns exec` and `ip -n` remount /sys and would hide the pinned maps, so a process gets only the network changed.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A named network namespace made with `ip netns add`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    name: String,
}

impl Netns {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file whose descriptor names the namespace; what `nsenter --net=` wants.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `work` on a thread of its own inside this namespace. Sockets and child processes made there stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.join()?;
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread, for good. Only for threads that end in this namespace.
    pub fn join(&self) -> Result<()> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("open namespace {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter namespace {}", self.name))
    }

    /// Runs a tool inside, with `input` on its stdin; returns its stdout.
    pub fn run(&self, argv: &[&str], input: Option<&str>) -> Result<String> {
        self.enter(|| run(argv, input)).with_context(|| format!("in namespace {}", self.name))
    }

    /// One nftables transaction.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        self.run(&["nft", "-f", "-"], Some(ruleset)).map(|_| ())
    }

    /// Many `ip` commands, one a line.
    pub fn ip(&self, batch: &str) -> Result<()> {
        self.run(&["ip", "-batch", "-"], Some(batch)).map(|_| ())
    }

    /// Sets one key below /proc/sys/net, which shows the namespace of the thread that opens it.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| {
            let path = Path::new("/proc/sys/net").join(key);
            std::fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
        })
    }
}

/// Runs a tool in the namespace of the calling thread; the error carries what the tool said.
pub fn run(argv: &[&str], input: Option<&str>) -> Result<String> {
    let (program, arguments) = argv.split_first().context("empty command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program}; `cargo xtask setup` installs what a lab needs"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A tool that refuses early closes its stdin; its own message is the better error.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let of = input.map(|text| format!("\ninput was:\n{text}")).unwrap_or_default();
        bail!("{} failed: {}{of}", argv.join(" "), stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
