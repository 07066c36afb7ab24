//! The start of a gateway, in the order that makes every failure clean.
//!
//! Owns what is opened and in which order: store (locks the state directory), record, maps, TUN, sockets,
//! worker, sessions of the earlier start, API. Everything is undone by dropping it.

use super::commit::Executor;
use super::compute::Compute;
use super::keeper::Keeper;
use super::relays::Relays;
use super::reload::Told;
use super::restore::{Known, Left};
use super::role::{GatewayRole, SOCKET_V4, SOCKET_V6};
use super::sessions::Sessions;
use super::sockets::{GoneSockets, Sockets};
use super::watch::{LOOK_EVERY, Watch};
use super::{Gateway, Ready, setup};
use crate::api::Pages;
use crate::audit::{self, Audit};
use crate::config::{Emergency, GatewayConfig, GatewayKeys, Paths};
use crate::dataplane::WorkerTables;
use crate::dataplane::attach::Program;
use crate::runtime::clock;
use crate::runtime::entropy::System;
use crate::runtime::firewall::{self, Firewall};
use crate::runtime::node::Node;
use crate::runtime::reconcile::Reconcile;
use crate::store::{Change, Store};
use crate::tunnel::{
    Counters, ToController, Tun, TunOptions, TunnelAddresses, Worker, WorkerHandle, WorkerOptions, to_controller,
};
use anyhow::{Context, Result};
use jvpn_common::event::Record;
use jvpn_common::gateway::{Config, Engine, Restored};
use jvpn_common::ids::{Incarnation, OwnerEpoch};
use jvpn_common::mapop::MapOp;
use jvpn_common::secret::PublicKey;
use jvpn_common::session::Policy;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Policies by peer.
type Policies = BTreeMap<PublicKey, Arc<Policy>>;

/// Starts a gateway and runs it to its end.
pub(super) async fn start(config: GatewayConfig, paths: Paths, detach_on_exit: bool) -> Result<()> {
    let keys = config.keys()?;
    let store = Arc::new(Store::open(&paths.state_dir)?);
    let (audit, recovered) = Audit::open(&paths.state_dir).map(|(audit, recovered)| (Arc::new(audit), recovered))?;
    let (incarnation, owner_epoch) = (store.next_incarnation()?, store.owner_epoch()?);
    let (engine_config, policies, told) = told(&config, &paths, keys, (incarnation, owner_epoch))?;
    audit.append_all(setup::policy_records(&config.name, policies.values()))?;
    let key = Arc::clone(&engine_config.private_key);
    let (name, mtu, addresses) = (config.tun.clone(), setup::inner_mtu(&config), config.addresses.clone());
    let tun = Tun::open(&TunOptions { name, mtu, addresses }).await?;
    firewall::enable_forwarding()?;
    let _firewall = Firewall::apply(&config.tun, &config.addresses, config.masquerade)?;
    let node = node(&config, &paths);
    let (v4, v6) = node.sockets()?;
    let sockets = Sockets { v4: Some(v4), v6, trailers: Arc::default() };
    // From here on clients are told to resume: what they send waits in the sockets until the worker reads.
    let (mut plane, interfaces) = node.plane()?;
    plane.configure(&node.settings(incarnation, owner_epoch));
    let adopted = plane.adopt()?;
    let (boot_id, keeper) = keeper(&store, policies)?;
    let known = Known {
        stored: store.load_all()?,
        remembered: audit::remembered(&audit::dir_of(&paths.state_dir))?,
        recovered: &recovered,
        adopted,
        boot_id: &boot_id,
        owner_epoch,
    };
    let Left { sessions: restored, orphans, over } = known.left();
    audit.append_all(of_gone_peers(&config.name, &engine_config, &restored))?;
    store.apply(&over.into_iter().map(Change::Remove).collect::<Vec<_>>())?;
    orphans.iter().try_for_each(|orphan| plane.apply(&MapOp::Free { slot: orphan.slot }).map(drop))?;
    let (sender, inbox) = to_controller()?;
    let sessions = Sessions::default();
    let tables = WorkerTables::new(Arc::clone(plane.shared()), clock::boot, interfaces.is_empty(), 0);
    let role = GatewayRole::new(tables, sessions.shared(), 0);
    let (worker, counters, ended) = worker(&config, role, tun, sender, &sockets)?;
    let mut engine = Engine::new(engine_config, Box::new(System), clock::boot());
    engine.restore(restored);
    let (pages, asked) = Pages::open(&paths.socket, &config.telemetry, audit.feed())?;
    let relays = Relays::start(&config, &key, (incarnation, owner_epoch), Arc::clone(&sockets.trailers))?;
    let executor = Executor { plane, keeper, audit, sessions, sockets, complained: None };
    let mut gateway = Gateway {
        started: clock::text(clock::boot()),
        worker: worker.clone(),
        gone: GoneSockets::default(),
        detach: detach_on_exit.then(|| node.detach()),
        config,
        paths,
        incarnation,
        owner_epoch,
        engine,
        executor,
        ready: Ready::default(),
        compute: Compute::start()?,
        interfaces,
        relays,
        counters,
        watch: Watch::default(),
        reconcile: Reconcile::every(LOOK_EVERY),
        jumps: Vec::new(),
        told,
    };
    tracing::info!(name = gateway.config.name, port = gateway.config.listen, incarnation = incarnation.0, "serving");
    let result = gateway.run(inbox, asked, ended).await;
    drop(pages);
    while !worker.stop() {
        tokio::task::yield_now().await;
    }
    result
}

/// The text of the defaults, where a session's peer is gone: it ends under them, and that must replay.
fn of_gone_peers(node: &str, config: &Config, restored: &[Restored]) -> Vec<Record> {
    let gone = restored.iter().any(|session| !config.peers.contains_key(&session.peer));
    setup::policy_records(node, gone.then(|| Arc::new(Policy::field())).iter())
}

/// What the engine is told, files and emergencies together.
fn told(
    config: &GatewayConfig,
    paths: &Paths,
    keys: GatewayKeys,
    start: (Incarnation, OwnerEpoch),
) -> Result<(Config, Policies, Told)> {
    let emergency = Emergency::load(&paths.state_dir)?;
    if emergency != Emergency::default() {
        tracing::warn!(all = emergency.all, peers = ?emergency.peers, "under emergency since before this start");
    }
    let engine = setup::engine(config, &emergency, keys, start);
    let policies = setup::policies(config, &emergency);
    let told = Told::new(emergency, engine.private_key.public(), &policies);
    Ok((engine, policies, told))
}

fn node<'a>(config: &'a GatewayConfig, paths: &'a Paths) -> Node<'a> {
    let GatewayConfig { listen: port, interfaces, xdp, max_sessions, .. } = config;
    Node { program: Program::Gateway, port: *port, interfaces, xdp: *xdp, max_sessions: *max_sessions, paths }
}

fn keeper(store: &Arc<Store>, policies: Policies) -> Result<(String, Keeper)> {
    let boot_id = clock::boot_id().context("/proc is needed")?;
    let keeper = Keeper::start(Arc::clone(store), boot_id.clone(), policies)?;
    Ok((boot_id, keeper))
}

fn worker(
    config: &GatewayConfig,
    role: GatewayRole,
    tun: Tun,
    sender: ToController,
    sockets: &Sockets,
) -> Result<(WorkerHandle, Arc<Counters>, oneshot::Receiver<std::io::Error>)> {
    let v4 = config.addresses.iter().find_map(|net| if let IpAddr::V4(v4) = net.addr() { Some(v4) } else { None });
    let v6 = config.addresses.iter().find_map(|net| if let IpAddr::V6(v6) = net.addr() { Some(v6) } else { None });
    let options = WorkerOptions {
        inner_mtu: setup::inner_mtu(config),
        addresses: TunnelAddresses { v4, v6 },
        ..WorkerOptions::default()
    };
    let (worker, handle) = Worker::new(role, tun, sender, options)?;
    for (id, port) in [(SOCKET_V4, &sockets.v4), (SOCKET_V6, &sockets.v6)] {
        if let Some(port) = port {
            anyhow::ensure!(handle.add_socket(id, Arc::clone(port)), "the worker's queue is full at its start");
        }
    }
    let counters = worker.counters();
    let (tell, ended) = oneshot::channel();
    std::thread::Builder::new().name("worker-0".into()).spawn(move || {
        if let Err(error) = worker.run() {
            // Nobody listens any more when the gateway is ending too.
            let _ = tell.send(error);
        }
    })?;
    Ok((handle, counters, ended))
}
