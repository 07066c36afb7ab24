//! Paths of the client: one UDP socket a local network.
//!
//! Owns the names of networks and their sockets. The same network that comes back has its old name, so that
//! its locator is used again; another one has a new name.

use super::network::{Candidate, Network};
use crate::config::client::TransportClass;
use crate::tunnel::{SocketId, UdpOptions, UdpPort, WorkerHandle};
use jvpn_common::client::command::{PathClass, PathId, PathUp};
use jvpn_common::session::Label;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Networks whose names are remembered; a train ride meets a few dozen.
const REMEMBERED_MAX: usize = 256;

/// What changed.
#[derive(Debug)]
pub(super) enum Change {
    /// A path can be used, or its properties changed.
    Up(PathUp),
    /// A path is gone.
    Down(PathId),
}

/// A path in use.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) candidate: Candidate,
    pub(super) port: Arc<UdpPort>,
}

/// All paths.
#[derive(Debug, Default)]
pub(super) struct Networks {
    names: BTreeMap<Network, PathId>,
    next: u32,
    paths: BTreeMap<PathId, Path>,
}

impl Networks {
    /// A path in use.
    pub(super) fn path(&self, id: PathId) -> Option<&Path> {
        self.paths.get(&id)
    }

    /// Follows the networks there are; losses come first.
    pub(super) fn update(&mut self, candidates: Vec<Candidate>, worker: &WorkerHandle) -> Vec<Change> {
        let mut changes = Vec::new();
        let gone: Vec<PathId> = self
            .paths
            .iter()
            .filter(|(_, path)| !candidates.iter().any(|candidate| candidate.network == path.candidate.network))
            .map(|(&id, _)| id)
            .collect();
        for id in gone {
            self.paths.remove(&id);
            if !worker.remove_socket(SocketId(id.0)) {
                tracing::warn!(path = id.0, "the worker's queue is full; a dead socket stays with it");
            }
            changes.push(Change::Down(id));
        }
        for candidate in candidates {
            let id = self.name(&candidate.network);
            match self.paths.get_mut(&id) {
                Some(path) if path.candidate == candidate => {}
                Some(path) => {
                    path.candidate = candidate;
                    changes.push(Change::Up(up(id, &path.candidate)));
                }
                None => match open(&candidate) {
                    Ok(port) => {
                        let port = Arc::new(port);
                        if !worker.add_socket(SocketId(id.0), Arc::clone(&port)) {
                            tracing::warn!(path = id.0, "the worker's queue is full; the path is left out");
                            continue;
                        }
                        changes.push(Change::Up(up(id, &candidate)));
                        self.paths.insert(id, Path { candidate, port });
                    }
                    // Seen again at the next change of networks: an address that is not usable yet.
                    Err(error) => {
                        tracing::warn!(%error, interface = candidate.network.interface, "no socket for a path");
                    }
                },
            }
        }
        changes
    }

    fn name(&mut self, network: &Network) -> PathId {
        if let Some(&id) = self.names.get(network) {
            return id;
        }
        if self.names.len() >= REMEMBERED_MAX {
            let paths = &self.paths;
            self.names.retain(|_, id| paths.contains_key(id));
        }
        self.next += 1;
        let id = PathId(self.next);
        self.names.insert(network.clone(), id);
        id
    }

    /// Sends a datagram of the engine; what cannot be sent is lost, as on any network.
    pub(super) fn send(&self, path: PathId, to: SocketAddr, bytes: &[u8]) {
        let Some(path) = self.paths.get(&path) else { return };
        if let Err(error) = path.port.send(to, None, bytes) {
            tracing::debug!(%error, interface = path.candidate.network.interface, "could not send");
        }
    }
}

fn open(candidate: &Candidate) -> std::io::Result<UdpPort> {
    let any = if candidate.network.address.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    };
    let device = Some(candidate.network.interface.clone());
    UdpPort::open(&UdpOptions { device, ..UdpOptions::new(any) })
}

fn up(path: PathId, candidate: &Candidate) -> PathUp {
    PathUp {
        path,
        label: Label::new(&candidate.name),
        class: match candidate.class {
            TransportClass::Primary => PathClass::Primary,
            TransportClass::Secondary => PathClass::Secondary,
            TransportClass::Backup => PathClass::Backup,
            TransportClass::Never => PathClass::Never,
        },
        metered: candidate.metered,
        v6: candidate.network.address.is_ipv6(),
        link_mtu: candidate.mtu,
    }
}
