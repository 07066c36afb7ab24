//! Owns a registered set of namespaces that somebody else wires, with files and pins. Never leaves them behind: it
//! goes like a lab, by drop, signal or `clean`.

use std::path::{Path as FilePath, PathBuf};

use anyhow::{Context, Result};

use super::netns::{Netns, run};
use super::registry::Entry;
use super::topology::Topology;
use super::{live, mount_bpffs, remove, require_root, steady};

/// A lab's name, files and some of its namespaces, without the lab's wiring.
#[derive(Debug)]
pub struct Ground {
    entry: Entry,
    pub topology: Topology,
}

impl Ground {
    /// Makes the namespaces of these short names (of `topology::SPACES`), loopback up.
    pub fn take(spaces: &[&str]) -> Result<Ground> {
        require_root()?;
        mount_bpffs()?;
        let _steady = steady();
        let entry = Entry::create()?;
        live().push(entry.clone());
        let ground = Ground { topology: Topology::named(&entry.prefix), entry };
        for short in spaces {
            let space: Netns = ground.topology.space(short);
            run(&["ip", "netns", "add", space.name()], None)
                .and_then(|_| space.ip("link set lo up\n"))
                .with_context(|| format!("make namespace {}", space.name()))?;
        }
        Ok(ground)
    }

    pub fn prefix(&self) -> &str {
        &self.entry.prefix
    }

    pub fn files(&self) -> &FilePath {
        &self.entry.files
    }

    pub fn pin_root(&self) -> PathBuf {
        self.entry.pin_root()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.entry) {
            eprintln!("{} is not fully removed: {error:#}; run `jvpn-lab clean`", self.entry.prefix);
        }
    }
}
