//! Owns the list of labs on this machine and their removal. Never removes a lab whose owner still runs, nor
//! anything that its registry entry does not name.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::netns::run;
use super::topology::{SPACES, Topology};

/// One file per lab, written before its first namespace exists, so that a killed run can be cleaned.
const DIRECTORY: &str = "/run/jvpn-lab";
const BPFFS: &str = "/sys/fs/bpf";
/// How long processes of a lab get to die after SIGKILL before the lab says which one did not.
const DEATH_LIMIT: Duration = Duration::from_secs(20);

/// What must go when the lab goes.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Entry {
    pub prefix: String,
    /// Files of the run: configuration, state, logs.
    pub files: PathBuf,
    pub owner_pid: u32,
    /// Start time of the owner in clock ticks: tells the owner from a later process with its number.
    pub owner_started: u64,
}

impl Entry {
    pub fn pin_root(&self) -> PathBuf {
        Path::new(BPFFS).join(&self.prefix)
    }

    /// Takes an unused prefix and writes the entry.
    pub fn create() -> Result<Entry> {
        fs::create_dir_all(DIRECTORY).with_context(|| format!("create {DIRECTORY} (needs root)"))?;
        for _ in 0..64 {
            let mut bytes = [0u8; 2];
            fs::File::open("/dev/urandom")
                .and_then(|mut source| std::io::Read::read_exact(&mut source, &mut bytes))
                .context("random lab name")?;
            let prefix = format!("jv{}", hex::encode(bytes));
            let entry = Entry {
                files: std::env::temp_dir().join(format!("jvpn-lab-{prefix}")),
                prefix,
                owner_pid: std::process::id(),
                owner_started: started(std::process::id()).context("own start time")?,
            };
            let text = serde_json::to_string(&entry)?;
            match fs::OpenOptions::new().write(true).create_new(true).open(entry.file()) {
                Ok(mut file) => {
                    std::io::Write::write_all(&mut file, text.as_bytes())?;
                    fs::DirBuilder::new()
                        .create(&entry.files)
                        .with_context(|| format!("create {}", entry.files.display()))?;
                    return Ok(entry);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context("write the registry of labs"),
            }
        }
        anyhow::bail!("no free lab name in 64 tries: run `jvpn-lab clean`")
    }

    fn file(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.prefix)
    }

    pub fn owner_alive(&self) -> bool {
        started(self.owner_pid) == Some(self.owner_started)
    }

    /// Removes processes, namespaces, pins and files; goes on after a failure and reports the first. The entry goes
    /// last, and only when everything else went: what is left can be cleaned again.
    pub fn remove(&self) -> Result<()> {
        let topology = Topology::named(&self.prefix);
        let existing = existing_namespaces();
        let mut outcome = Ok(());
        for short in SPACES {
            let space = topology.space(short);
            if !existing.iter().any(|name| name == space.name()) {
                continue;
            }
            let step = kill_inhabitants(space.name())
                .and_then(|()| run(&["ip", "netns", "del", space.name()], None).map(|_| ()));
            outcome = outcome.and(step);
        }
        outcome = outcome.and(unmount_below(&self.files));
        for directory in [self.pin_root(), self.files.clone()] {
            let step = match fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("remove {}", directory.display()))
                }
                _ => Ok(()),
            };
            outcome = outcome.and(step);
        }
        if outcome.is_ok() {
            match fs::remove_file(self.file()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context("remove the registry entry");
                }
                _ => {}
            }
        }
        outcome
    }
}

/// All labs known on this machine.
pub fn entries() -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    let Ok(directory) = fs::read_dir(DIRECTORY) else {
        return Ok(found);
    };
    for file in directory {
        let path = file?.path();
        let Ok(text) = fs::read_to_string(&path) else {
            continue; // removed by its own run meanwhile
        };
        let entry: Entry = serde_json::from_str(&text)
            .with_context(|| format!("{} is no lab entry: remove it by hand", path.display()))?;
        found.push(entry);
    }
    found.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    Ok(found)
}

/// Removes every lab whose owner is gone, kept ones included, or only those in `names`; returns the prefixes of the
/// removed and of those still in use.
pub fn clean(names: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let (mut removed, mut in_use) = (Vec::new(), Vec::new());
    for entry in entries()? {
        if !names.is_empty() && !names.contains(&entry.prefix) {
            continue;
        }
        if entry.owner_alive() {
            in_use.push(entry.prefix);
        } else {
            entry.remove().with_context(|| format!("clean lab {}", entry.prefix))?;
            removed.push(entry.prefix);
        }
    }
    Ok((removed, in_use))
}

fn existing_namespaces() -> Vec<String> {
    fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Kills what lives in a namespace of the lab: it was started there, and nothing else can enter by accident.
fn kill_inhabitants(space: &str) -> Result<()> {
    let deadline = Instant::now() + DEATH_LIMIT;
    loop {
        let pids: Vec<i32> = run(&["ip", "netns", "pids", space], None)?
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            // Threads of the lab itself never count: `ip netns pids` looks at main threads.
            .filter(|pid| *pid != std::process::id().cast_signed())
            .filter(|pid| !is_zombie(*pid))
            .collect();
        if pids.is_empty() {
            return Ok(());
        }
        for pid in &pids {
            if let Some(pid) = Pid::from_raw(*pid) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        anyhow::ensure!(Instant::now() < deadline, "processes {pids:?} in {space} survive SIGKILL");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A test may have mounted a small disk below the files.
fn unmount_below(files: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| Path::new(point).starts_with(files)) {
        run(&["umount", "-l", point], None)?;
    }
    Ok(())
}

fn is_zombie(pid: i32) -> bool {
    stat_fields(&pid.to_string()).is_none_or(|fields| fields.first().is_some_and(|state| state == "Z"))
}

/// Fields of /proc/PID/stat after the command name, which may hold blanks.
pub(super) fn stat_fields(pid: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn started(pid: u32) -> Option<u64> {
    stat_fields(&pid.to_string())?.get(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_alive_only_with_the_same_start_time() {
        let pid = std::process::id();
        let mut entry = Entry {
            prefix: "jv0000".into(),
            files: "/nonexistent".into(),
            owner_pid: pid,
            owner_started: started(pid).expect("this process has a start time"),
        };
        assert!(entry.owner_alive());
        entry.owner_started += 1;
        assert!(!entry.owner_alive());
    }
}
