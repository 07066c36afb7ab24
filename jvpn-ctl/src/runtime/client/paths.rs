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
    /// A network has no socket: it could not be opened, or was lost.
    incomplete: bool,
}

impl Networks {
    /// A path in use.
    pub(super) fn path(&self, id: PathId) -> Option<&Path> {
        self.paths.get(&id)
    }

    /// Follows the networks there are; losses come first.
    pub(super) fn update(&mut self, candidates: Vec<Candidate>, worker: &WorkerHandle) -> Vec<Change> {
        let mut changes = Vec::new();
        self.incomplete = false;
        let gone: Vec<PathId> = self
            .paths
            .iter()
            .filter(|(_, path)| !candidates.iter().any(|candidate| path.is_through(candidate)))
            .map(|(&id, _)| id)
            .collect();
        for id in gone {
            self.remove(id, worker);
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
                // Tried again soon: an address that is not usable yet.
                None => match self.add(id, candidate, worker) {
                    Some(up) => changes.push(Change::Up(up)),
                    None => self.incomplete = true,
                },
            }
        }
        changes
    }

    /// Opens the socket of a path.
    fn add(&mut self, id: PathId, candidate: Candidate, worker: &WorkerHandle) -> Option<PathUp> {
        let port = match open(&candidate) {
            Ok(port) => Arc::new(port),
            Err(error) => {
                tracing::warn!(%error, interface = candidate.network.interface, "no socket for a path");
                return None;
            }
        };
        if !worker.add_socket(SocketId(id.0), Arc::clone(&port)) {
            tracing::warn!(path = id.0, "the worker's queue is full; the path is left out");
            return None;
        }
        let up = up(id, &candidate);
        self.paths.insert(id, Path { candidate, port });
        Some(up)
    }

    /// Opens another port on the network of a path; a path of its own.
    pub(super) fn open_beside(&mut self, first: PathId, worker: &WorkerHandle) -> Option<PathUp> {
        let candidate = self.paths.get(&first)?.candidate.clone();
        self.next += 1;
        let up = self.add(PathId(self.next), candidate, worker)?;
        Some(PathUp { beside: Some(first), ..up })
    }

    /// Closes a port. The network keeps the name of the one that is left.
    pub(super) fn close(&mut self, id: PathId, worker: &WorkerHandle) {
        let Some(path) = self.remove(id, worker) else { return };
        let left = self.paths.iter().find(|(_, other)| other.candidate.network == path.candidate.network);
        if let (Some((&left, _)), Some(name)) = (left, self.names.get_mut(&path.candidate.network)) {
            *name = left;
        }
    }

    fn remove(&mut self, id: PathId, worker: &WorkerHandle) -> Option<Path> {
        let path = self.paths.remove(&id)?;
        if !worker.remove_socket(SocketId(id.0)) {
            tracing::warn!(path = id.0, "the worker's queue is full; a dead socket stays with it");
        }
        Some(path)
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

    /// Whether a network has no socket that could have one.
    pub(super) const fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// A socket carries nothing any more: its path is gone until the next look opens another. False: it was
    /// replaced before.
    pub(super) fn lost(&mut self, id: PathId, port: &Arc<UdpPort>, worker: &WorkerHandle) -> bool {
        let Some(path) = self.paths.get(&id).filter(|path| Arc::ptr_eq(&path.port, port)) else { return false };
        tracing::warn!(interface = path.candidate.network.interface, "a socket carries nothing any more");
        self.incomplete = true;
        self.remove(id, worker).is_some()
    }

    /// Sends a datagram of the engine; what cannot be sent is lost, as on any network. Gives a socket that will
    /// never send again.
    pub(super) fn send(&self, path: PathId, to: SocketAddr, bytes: &[u8]) -> Option<Arc<UdpPort>> {
        let path = self.paths.get(&path)?;
        let error = path.port.send(to, None, bytes).err()?;
        tracing::debug!(%error, interface = path.candidate.network.interface, "could not send");
        path.port.is_gone(&error).then(|| Arc::clone(&path.port))
    }
}

impl Path {
    /// Whether this is the path through a network, and its socket that of the interface there is now: a socket stays
    /// with the interface it was opened on, whatever gets the same name later.
    fn is_through(&self, candidate: &Candidate) -> bool {
        let own = &self.candidate;
        own.network == candidate.network && own.index == candidate.index
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
        endpoint: candidate.network.endpoint,
        beside: None,
        link_mtu: candidate.mtu,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(index: u32) -> Candidate {
        let network =
            Network { interface: "lo".into(), address: Ipv4Addr::LOCALHOST.into(), via: None, endpoint: None };
        Candidate { network, index, name: "lo".into(), class: TransportClass::Primary, metered: false, mtu: 1_500 }
    }

    /// Networks with one path, its name and its socket.
    fn one(worker: &WorkerHandle) -> (Networks, PathId, Arc<UdpPort>) {
        let mut networks = Networks::default();
        let [Change::Up(up)] = networks.update(vec![loopback(1)], worker)[..] else { panic!("one path") };
        let port = Arc::clone(&networks.path(up.path).unwrap().port);
        (networks, up.path, port)
    }

    fn is_bounce(changes: &[Change], id: PathId) -> bool {
        matches!(changes, [Change::Down(down), Change::Up(up)] if *down == id && up.path == id)
    }

    #[test]
    fn an_interface_made_anew_under_its_old_name_gets_another_socket_and_keeps_the_paths_name() {
        let (worker, _inbox) = WorkerHandle::deaf();
        let (mut networks, id, port) = one(&worker);
        assert!(networks.update(vec![loopback(1)], &worker).is_empty(), "nothing changed");
        assert!(Arc::ptr_eq(&networks.path(id).unwrap().port, &port));
        assert!(is_bounce(&networks.update(vec![loopback(2)], &worker), id));
        assert!(!Arc::ptr_eq(&networks.path(id).unwrap().port, &port));
    }

    #[test]
    fn a_lost_socket_is_opened_again_at_the_next_look_and_an_old_one_moves_nothing() {
        let (worker, _inbox) = WorkerHandle::deaf();
        let (mut networks, id, port) = one(&worker);
        assert!(!networks.is_incomplete());
        assert!(networks.lost(id, &port, &worker) && networks.path(id).is_none());
        assert!(networks.is_incomplete(), "whoever looks at the clock looks at the networks, too");
        let changes = networks.update(vec![loopback(1)], &worker);
        assert!(matches!(&changes[..], [Change::Up(up)] if up.path == id));
        assert!(!networks.is_incomplete());
        assert!(!networks.lost(id, &port, &worker), "a word about the socket before this one came late");
        assert!(networks.path(id).is_some());
    }

    #[test]
    fn a_second_port_is_a_path_of_the_same_network_and_takes_its_name_when_the_first_closes() {
        let (worker, _inbox) = WorkerHandle::deaf();
        let (mut networks, first, port) = one(&worker);
        let up = networks.open_beside(first, &worker).unwrap();
        assert_eq!((up.beside, up.label), (Some(first), Label::new("lo")));
        let second = Arc::clone(&networks.path(up.path).unwrap().port);
        assert_ne!(second.local_addr().unwrap().port(), port.local_addr().unwrap().port());
        assert!(networks.update(vec![loopback(1)], &worker).is_empty(), "two ports of one network");
        networks.close(first, &worker);
        assert!(networks.path(first).is_none() && networks.update(vec![loopback(1)], &worker).is_empty());
        assert!(is_bounce(&networks.update(vec![loopback(2)], &worker), up.path), "the network's name is the second's");
        assert!(networks.open_beside(first, &worker).is_none(), "beside what is closed there is nothing");
    }

    #[test]
    fn a_network_without_a_socket_is_tried_again() {
        let (worker, _inbox) = WorkerHandle::deaf();
        let mut networks = Networks::default();
        let mut nowhere = loopback(1);
        nowhere.network.interface = "no-such-link".into();
        assert!(networks.update(vec![nowhere], &worker).is_empty());
        assert!(networks.is_incomplete());
    }
}
