//! The start of a client, in the order that makes every failure clean.
//!
//! Owns what is opened and in which order: state directory, record, tunnel device, worker, API.

use super::Client;
use super::network::WATCHED;
use super::paths::Networks;
use super::role::{ClientRole, Sets};
use crate::api::Pages;
use crate::audit::Audit;
use crate::config::Paths;
use crate::config::client::ClientConfig;
use crate::runtime::clock;
use crate::runtime::entropy::System;
use crate::runtime::gateway::setup::suites;
use crate::runtime::netlink::Netlink;
use crate::store::DirLock;
use crate::tunnel::{Tun, TunOptions, TunnelAddresses, Worker, WorkerOptions, to_controller};
use anyhow::Result;
use jvpn_common::client::Engine;
use jvpn_common::client::command::Config;
use jvpn_common::secret::PresharedKey;
use std::sync::Arc;

/// Inner MTU until the gateway says its own: what fits a path of 1,500 over IPv6.
const INNER_MTU: u16 = 1_412;

/// Starts a client and runs it to its end.
pub(super) async fn start(config: ClientConfig, paths: Paths) -> Result<()> {
    let keys = config.keys()?;
    let _lock = DirLock::take(&paths.state_dir)?;
    let (audit, _) = Audit::open(&paths.state_dir)?;
    let audit = Arc::new(audit);
    let engine = Config {
        name: config.name.clone(),
        private_key: keys.private,
        gateway: config.gateway_key,
        psk: keys.preshared.unwrap_or_else(PresharedKey::none),
        endpoints: config.endpoints.clone(),
        suites: suites(),
    };
    let tun = Tun::open(&TunOptions { name: config.tun.clone(), mtu: INNER_MTU, addresses: Vec::new() }).await?;
    let index = tun.index()?;
    let (sender, inbox) = to_controller()?;
    let sets = Sets::new(config.routes.clone());
    let options =
        WorkerOptions { inner_mtu: INNER_MTU, addresses: TunnelAddresses::default(), ..WorkerOptions::default() };
    let (worker, handle) = Worker::new(ClientRole::new(sets.shared()), tun, sender, options)?;
    let counters = worker.counters();
    let (tell, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("worker-0".into()).spawn(move || {
        if let Err(error) = worker.run() {
            // Nobody listens any more when the client is ending too.
            let _ = tell.send(error);
        }
    })?;
    let (pages, asked) = Pages::open(&paths.socket, &config.telemetry, audit.feed())?;
    let mut client = Client {
        engine: Engine::new(engine, Box::new(System), clock::boot()),
        networks: Networks::default(),
        sets,
        worker: handle.clone(),
        counters,
        audit,
        watch: Netlink::watch(&WATCHED)?,
        tun: index,
        session: None,
        received: (0, None),
        started: clock::text(clock::boot()),
        jump: None,
        config,
    };
    tracing::info!(name = client.config.name, tun = client.config.tun, "connecting");
    let result = client.run(inbox, asked, ended).await;
    drop(pages);
    while !handle.stop() {
        tokio::task::yield_now().await;
    }
    result
}
