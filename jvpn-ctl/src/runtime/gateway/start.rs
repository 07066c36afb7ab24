//! The start of a gateway, in the order that makes every failure clean.
//!
//! Owns what is opened and in which order: store (locks the state directory), record, maps, TUN, sockets,
//! worker, sessions of the earlier start, API. Everything is undone by dropping it.

use super::commit::Executor;
use super::compute::Compute;
use super::keeper::Keeper;
use super::relays::Relays;
use super::reload::Told;
use super::restore::{Known, Left, recorded};
use super::sessions::Sessions;
use super::sockets::{GoneSockets, Sockets};
use super::watch::{LOOK_EVERY, Watch};
use super::workers::{self, Workers};
use super::{Gateway, Ready, setup};
use crate::api::Pages;
use crate::audit::{self, Audit};
use crate::config::{Emergency, GatewayConfig, GatewayKeys, Paths};
use crate::dataplane::attach::Program;
use crate::runtime::clock;
use crate::runtime::entropy::System;
use crate::runtime::firewall::{self, Firewall};
use crate::runtime::node::Node;
use crate::runtime::reconcile::Reconcile;
use crate::store::{Change, Store};
use crate::tunnel::{Tun, TunOptions, to_controller};
use anyhow::{Context, Result};
use jvpn_common::event::Record;
use jvpn_common::gateway::{Config, Engine, Restored};
use jvpn_common::ids::{Incarnation, OwnerEpoch};
use jvpn_common::mapop::MapOp;
use jvpn_common::secret::PublicKey;
use jvpn_common::session::Policy;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    // Each peer's is in the engine; of ten thousand peers a list would stay as long as the process.
    drop(policies);
    let key = Arc::clone(&engine_config.private_key);
    let (name, mtu, addresses) = (config.tun.clone(), setup::inner_mtu(&config), config.addresses.clone());
    let queues = Tun::open_queues(&TunOptions { name, mtu, addresses }, workers::number(&config)).await?;
    firewall::enable_forwarding()?;
    let _firewall = Firewall::apply(&config.tun, &config.addresses, config.masquerade)?;
    let node = node(&config, &paths);
    let [v4, v6] = node.sockets()?;
    let sockets = Sockets { v4, v6, trailers: Arc::default() };
    // From here on clients are told to resume: what they send waits in the sockets until the workers read.
    let (mut plane, interfaces) = node.plane()?;
    plane.configure(&node.settings(incarnation, owner_epoch));
    let adopted = plane.adopt()?;
    let (boot_id, keeper) = keeper(&store)?;
    let stored = store.load_all()?;
    let known = Known {
        recorded: recorded(&audit::dir_of(&paths.state_dir), &stored)?,
        stored,
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
    let maps = (plane.shared(), interfaces.is_empty());
    let workers = Workers::start(&config, queues, maps, &sessions, &sender, &sockets)?;
    let mut engine = Engine::new(engine_config, Box::new(System), clock::boot());
    engine.restore(restored);
    let (pages, asked) = Pages::open(&paths.socket, &config.telemetry, audit.feed())?;
    let relays = Relays::start(&config, &key, (incarnation, owner_epoch), Arc::clone(&sockets.trailers))?;
    let executor = Executor { plane, keeper, audit, sessions, sockets, complained: None };
    let mut gateway = Gateway {
        started: clock::text(clock::boot()),
        workers,
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
        watch: Watch::default(),
        reconcile: Reconcile::every(LOOK_EVERY),
        jumps: Vec::new(),
        told,
    };
    tracing::info!(name = gateway.config.name, port = gateway.config.listen, incarnation = incarnation.0, "serving");
    let result = gateway.run(inbox, asked).await;
    drop(pages);
    gateway.workers.stop().await;
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
    let (port, max_sessions, workers) = (*port, *max_sessions, workers::number(config));
    Node { program: Program::Gateway, port, interfaces, xdp: *xdp, max_sessions, workers, paths }
}

fn keeper(store: &Arc<Store>) -> Result<(String, Keeper)> {
    let boot_id = clock::boot_id().context("/proc is needed")?;
    let keeper = Keeper::start(Arc::clone(store), boot_id.clone())?;
    Ok((boot_id, keeper))
}
