//! Owns what a figure must carry: machine, kernel, command. Never anything that names a person, host or address.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::document::{Document, Machine, SCHEMA};
use super::ticks::Ticks;
use crate::lab::netns::run;
use crate::lab::process::find_binary;

/// Looked at before each round, to say how quiet the machine was.
const QUIET_LOOK: Duration = Duration::from_millis(300);

/// The machine as it is now.
pub fn describe() -> Result<Machine> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let load = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    let kib: u64 = field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
    Ok(Machine {
        processor: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
        processors: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        memory_mib: kib / 1_024,
        load_1min: load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
        busy_before_rounds: Vec::new(),
        stolen_in_rounds: Vec::new(),
    })
}

/// A machine that is watched from round to round.
#[derive(Debug)]
pub struct Watched {
    machine: Machine,
    since: Option<Ticks>,
}

impl Watched {
    pub fn begin() -> Result<Watched> {
        Ok(Watched { machine: describe()?, since: None })
    }

    /// A round begins, and the one before it ended: looks how quiet the machine is.
    pub fn round(&mut self) -> Result<()> {
        self.ended()?;
        let before = Ticks::read()?;
        std::thread::sleep(QUIET_LOOK);
        let now = Ticks::read()?;
        self.machine.busy_before_rounds.push(now.busy_since(before));
        self.since = Some(now);
        Ok(())
    }

    /// The last round ended.
    pub fn end(mut self) -> Result<Machine> {
        self.ended()?;
        Ok(self.machine)
    }

    fn ended(&mut self) -> Result<()> {
        if let Some(since) = self.since.take() {
            self.machine.stolen_in_rounds.push(Ticks::read()?.stolen_since(since));
        }
        Ok(())
    }
}

/// What the product that is measured says it is, in a line.
pub fn product_version() -> Result<String> {
    let binary = find_binary()?;
    let said = run(&[binary.to_str().context("the path of jvpn-ctl is not UTF-8")?, "--version"], None)?;
    Ok(said.lines().collect::<Vec<_>>().join("; "))
}

pub fn kernel() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?.trim().to_owned())
}

/// A document about one program without a session's policy, as this build and machine are now; nothing measured.
pub fn program_alone(bench: &str) -> Result<Document> {
    Ok(Document {
        schema: SCHEMA.into(),
        bench: bench.into(),
        day: Some(run(&["date", "-u", "+%F"], None)?.trim().to_owned()),
        machine: describe()?,
        kernel: kernel()?,
        version: env!("CARGO_PKG_VERSION").into(),
        command: command(),
        policy: "none: the program alone".into(),
        contenders: Vec::new(),
        results: Vec::new(),
        notes: Vec::new(),
        errors: Vec::new(),
    })
}

/// Memory of a process that is its own, in bytes: neither files nor the kernel's maps, which it shares with the kernel and
/// which count there.
///
/// # Errors
/// When there is none with this number.
pub fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let kib = field(&status, "RssAnon").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    Ok(kib.context("no RssAnon")? * 1_024)
}

/// The command line as it could be typed again; the program by its name, not where it lies.
pub fn command() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default().to_owned();
    std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ")
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_of_a_name_counts() {
        let text = "processor : 0\nmodel name\t: A CPU @ 2 GHz\nmodel name : other\n";
        assert_eq!(field(text, "model name"), Some("A CPU @ 2 GHz"));
        assert_eq!(field(text, "model"), None);
    }
}
