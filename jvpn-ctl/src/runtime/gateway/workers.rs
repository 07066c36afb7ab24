//! The workers of a gateway: a thread each, with a TUN queue and a socket of each family of its own.
//!
//! Owns how many there are, their start, their end, and what they counted together. A session's datagrams come to the worker its
//! locators name, whatever its transport; what the LAN sends it, to any, since any may seal for any. Must never let one be
//! missing without a word: the kernel program drops the data of sessions whose worker is gone.

use super::role::{GatewayRole, SOCKET_V4, SOCKET_V6};
use super::sessions::Sessions;
use super::setup;
use super::sockets::Sockets;
use crate::config::GatewayConfig;
use crate::dataplane::{Shared, WorkerTables};
use crate::runtime::clock;
use crate::tunnel::{Counters, ToController, Tun, TunnelAddresses, UdpPort, Worker, WorkerHandle, WorkerOptions};
use anyhow::Result;
use jvpn_common::abi::WORKERS_MAX;
use jvpn_common::time::Duration;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Processors for each worker: its own thread has one, the kernel's half of the same packets the other.
const PROCESSORS_EACH: usize = 2;

/// All of them.
#[derive(Debug)]
pub(super) struct Workers {
    all: Vec<(WorkerHandle, Arc<Counters>)>,
    ended: Receiver<std::io::Error>,
}

/// How many workers a gateway has: what its file says, else one for every two processors.
pub(super) fn number(config: &GatewayConfig) -> u32 {
    match config.workers {
        0 => for_processors(std::thread::available_parallelism().map_or(1, usize::from)),
        told => told,
    }
}

fn for_processors(processors: usize) -> u32 {
    (processors / PROCESSORS_EACH).clamp(1, WORKERS_MAX) as u32
}

impl Workers {
    /// Starts one for each queue.
    ///
    /// # Errors
    /// When the process has no descriptors or threads left.
    pub(super) fn start(
        config: &GatewayConfig,
        queues: Vec<Tun>,
        (shared, counts_arrivals): (&Arc<Shared>, bool),
        sessions: &Sessions,
        sender: &ToController,
        sockets: &Sockets,
    ) -> Result<Self> {
        let (tell, ended) = channel(queues.len().max(1));
        let mut workers = Self { all: Vec::new(), ended };
        for (place, tun) in queues.into_iter().enumerate() {
            let tables = WorkerTables::new(Arc::clone(shared), clock::boot, counts_arrivals, place as u32);
            let role = GatewayRole::new(tables, sessions.shared(), place);
            let (worker, handle) = Worker::new(role, tun, sender.clone(), options(config))?;
            workers.all.push((handle, worker.counters()));
            spawn(place, worker, tell.clone())?;
        }
        for (any, group) in sockets.groups() {
            anyhow::ensure!(workers.take(any, group), "a worker's queue is full at its start");
        }
        Ok(workers)
    }

    /// How many run.
    pub(super) fn len(&self) -> u32 {
        self.all.len() as u32
    }

    /// Gives each its socket of a family. False: the queue of one was full.
    #[must_use]
    pub(super) fn take(&self, any: IpAddr, group: &[Arc<UdpPort>]) -> bool {
        let id = if any.is_ipv4() { SOCKET_V4 } else { SOCKET_V6 };
        self.all.iter().zip(group).all(|((handle, _), port)| handle.add_socket(id, Arc::clone(port)))
    }

    /// What each counted.
    pub(super) fn each(&self) -> impl Iterator<Item = &Counters> {
        self.all.iter().map(|(_, counters)| &**counters)
    }

    /// What they counted, together.
    pub(super) fn counters(&self) -> Counters {
        Counters::sum(self.each())
    }

    /// Why one ended by itself.
    pub(super) async fn ended(&mut self) -> std::io::Error {
        match self.ended.recv().await {
            Some(error) => error,
            // They were all told to stop.
            None => std::future::pending().await,
        }
    }

    /// For how much longer all of them are alive.
    pub(super) fn alive_for(&self, shared: &Shared) -> Duration {
        (0..self.all.len()).map(|worker| shared.alive_for(worker)).min().unwrap_or_default()
    }

    /// Says that none of them is alive any more.
    pub(super) fn give_up(&self, shared: &Shared) {
        (0..self.all.len()).for_each(|worker| shared.set_alive(worker, Duration::ZERO));
    }

    /// Has them end.
    pub(super) async fn stop(&self) {
        for (handle, _) in &self.all {
            while !handle.stop() {
                tokio::task::yield_now().await;
            }
        }
    }
}

fn options(config: &GatewayConfig) -> WorkerOptions {
    let v4 = config.addresses.iter().find_map(|net| if let IpAddr::V4(v4) = net.addr() { Some(v4) } else { None });
    let v6 = config.addresses.iter().find_map(|net| if let IpAddr::V6(v6) = net.addr() { Some(v6) } else { None });
    WorkerOptions {
        inner_mtu: setup::inner_mtu(config),
        addresses: TunnelAddresses { v4, v6 },
        ..WorkerOptions::default()
    }
}

fn spawn(place: usize, worker: Worker<GatewayRole>, tell: Sender<std::io::Error>) -> std::io::Result<()> {
    std::thread::Builder::new().name(format!("worker-{place}")).spawn(move || {
        if let Err(error) = worker.run() {
            // Nobody listens any more when the gateway is ending too.
            let _ = tell.try_send(error);
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_worker_for_every_two_processors() {
        assert_eq!([1, 2, 3, 4, 8, 32, 64].map(for_processors), [1, 1, 1, 2, 4, 16, 16]);
    }
}
