//! What a client's worker does with a datagram, and where it sends an inner packet.
//!
//! Owns the snapshot of key sets, locators and the transport in use. The controller replaces it, the worker
//! reads it once a turn. Must never choose a transport.

use crate::tunnel::{DataKey, Inbound, Inner, KeySet, Origin, Role, Route, SessionData, SocketId};
use ipnet::IpNet;
use jvpn_common::abi::SteeringKeys;
use jvpn_common::client::command::{DataKeys, SetId, Transport};
use jvpn_common::ids::{Epoch, Locator, SessionId, TransportIndex};
use jvpn_common::tag::steering_tag;
use jvpn_common::time::{Duration, Instant};
use jvpn_common::wire::header::{FLAG_DOWN, FLAGS_RESERVED, Header, Kind};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// One key set of the session.
#[derive(Clone, Debug)]
pub struct Set {
    /// Keys, windows and counters.
    pub data: Arc<SessionData>,
    /// Steering keys.
    pub steering: SteeringKeys,
    /// Its locators.
    pub locators: BTreeMap<TransportIndex, Locator>,
}

/// What the worker reads.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Key sets in use.
    pub sets: BTreeMap<SetId, Set>,
    by_locator: BTreeMap<Locator, (SetId, TransportIndex)>,
    /// Where inner packets go.
    pub active: Option<Transport>,
    /// Whether inner packets wait for a transport.
    pub hold: bool,
}

/// The snapshot in force.
#[derive(Debug, Default)]
pub struct Shared {
    snapshot: RwLock<Arc<Snapshot>>,
    /// Data datagrams that named no locator of ours or had a wrong tag.
    pub refused: AtomicU64,
}

impl Shared {
    /// The snapshot now.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The controller's side.
#[derive(Debug, Default)]
pub struct Sets {
    now: Snapshot,
    shared: Arc<Shared>,
    allowed: Vec<IpNet>,
}

/// A name for a set's data, unique while the process lives.
fn name(set: SetId) -> SessionId {
    SessionId(u128::from(set.0).to_be_bytes())
}

impl Sets {
    /// Without any. `allowed` are the inner sources the gateway may send from.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed, ..Self::default() }
    }

    /// For the worker.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// The picture now.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot {
        &self.now
    }

    /// Name of the data of a set, for pings.
    #[must_use]
    pub fn ping_name(set: SetId) -> SessionId {
        name(set)
    }

    /// Adds and removes locators; the first of a set makes it.
    pub fn locators(
        &mut self,
        set: SetId,
        steering: SteeringKeys,
        add: Vec<(TransportIndex, Locator)>,
        remove: &[TransportIndex],
    ) {
        let entry = self.now.sets.entry(set).or_insert_with(|| Set {
            data: Arc::new(SessionData::new(name(set), self.allowed.clone())),
            steering,
            locators: BTreeMap::new(),
        });
        entry.locators.retain(|k, _| !remove.contains(k));
        entry.locators.extend(add);
        self.publish();
    }

    /// Opens under these keys from now on.
    pub fn install(&mut self, keys: DataKeys, now: Instant) {
        let DataKeys { set, epoch, suite, up, down } = keys;
        let Some(entry) = self.now.sets.get(&set) else { return };
        let key = Some(Arc::new(DataKey::new(suite, epoch, up, down, now)));
        entry.data.change_keys(|keys| match keys.current {
            None => keys.current = key,
            Some(_) => keys.next = key,
        });
    }

    /// Sends inner packets this way from now on.
    pub fn use_transport(&mut self, transport: Transport) {
        if let Some(entry) = self.now.sets.get(&transport.set) {
            entry.data.change_keys(|keys| keys.promote(transport.epoch));
        }
        self.now.active = Some(transport);
        self.now.hold = false;
        self.publish();
    }

    /// Inner packets wait.
    pub fn hold(&mut self) {
        self.now.hold = true;
        self.publish();
    }

    /// Wipes the keys of one epoch.
    pub fn wipe(&mut self, set: SetId, epoch: Epoch) {
        if let Some(entry) = self.now.sets.get(&set) {
            entry.data.change_keys(|keys| {
                for key in [&mut keys.previous, &mut keys.current, &mut keys.next] {
                    if key.as_ref().is_some_and(|key| key.epoch() == epoch) {
                        *key = None;
                    }
                }
            });
        }
    }

    /// Wipes a set.
    pub fn forget(&mut self, set: SetId) {
        if let Some(entry) = self.now.sets.remove(&set) {
            entry.data.change_keys(|keys| *keys = KeySet::default());
        }
        if self.now.active.is_some_and(|active| active.set == set) {
            self.now.active = None;
        }
        self.publish();
    }

    /// The session is over: there is nothing to wait for.
    pub fn end(&mut self) {
        self.now.hold = false;
        self.publish();
    }

    fn publish(&mut self) {
        let sets = &self.now.sets;
        self.now.by_locator = sets
            .iter()
            .flat_map(|(&id, set)| set.locators.iter().map(move |(&k, &locator)| (locator, (id, k))))
            .collect();
        *self.shared.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(self.now.clone());
    }
}

/// The client's side of a worker.
#[derive(Debug)]
pub struct ClientRole {
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
}

impl ClientRole {
    /// A role over the controller's sets.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        let snapshot = shared.load();
        Self { shared, snapshot }
    }

    fn data(&self, datagram: &[u8]) -> Option<(SetId, TransportIndex)> {
        let (header, _) = Header::parse(datagram)?;
        let &(set, k) = self.snapshot.by_locator.get(&Locator(header.locator))?;
        let key = self.snapshot.sets.get(&set)?.steering.down;
        let Header { kind, epoch, flags, tag, counter, .. } = header;
        let right = steering_tag(key, counter, kind, epoch, flags, k.0, None) == tag;
        (right && flags & (FLAGS_RESERVED | FLAG_DOWN) == FLAG_DOWN).then_some((set, k))
    }

    /// None while the transport in use is lost: nothing is sent there, answers to pings included.
    fn route(&self) -> Option<Route<'_>> {
        if self.snapshot.hold {
            return None;
        }
        let active = self.snapshot.active.as_ref()?;
        let set = self.snapshot.sets.get(&active.set)?;
        Some(Route {
            session: &set.data,
            locator: active.locator,
            k: active.k.0,
            steering: set.steering.up,
            socket: SocketId(active.path.0),
            remote: active.to,
            local: None,
            path_mtu: active.mtu,
        })
    }
}

impl Role for ClientRole {
    const DIRECTION: u16 = 0;

    fn begin(&mut self, _now: Instant, _waited: Duration) {
        self.snapshot = self.shared.load();
    }

    fn inbound(&mut self, _origin: &Origin, datagram: &mut [u8]) -> Inbound<'_> {
        match datagram.first().copied().and_then(Kind::from_byte) {
            Some(Kind::Data) => match self.data(datagram) {
                Some((set, k)) => match self.snapshot.sets.get(&set) {
                    Some(set) => Inbound::Open { session: &set.data, k: k.0 },
                    None => Inbound::Drop,
                },
                None => {
                    self.shared.refused.fetch_add(1, Relaxed);
                    Inbound::Drop
                }
            },
            Some(Kind::Response | Kind::CookieReply | Kind::Control | Kind::Echo | Kind::Notice) => Inbound::Control,
            Some(Kind::Initiation | Kind::Probe) | None => Inbound::Drop,
        }
    }

    fn outbound(&mut self, _inner: &Inner) -> Option<Route<'_>> {
        self.route()
    }

    fn route_of(&mut self, session: SessionId) -> Option<Route<'_>> {
        self.route().filter(|route| route.session.id() == session)
    }

    fn holds(&self) -> bool {
        self.snapshot.hold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jvpn_common::client::command::PathId;
    use jvpn_common::crypto::Suite;
    use jvpn_common::secret::Secret;

    const SET: SetId = SetId(1);

    fn transport() -> Transport {
        let (path, to, epoch) = (PathId(1), "192.0.2.1:51821".parse().unwrap(), Epoch(1));
        Transport { path, to, set: SET, epoch, k: TransportIndex(0), locator: Locator(7), mtu: 1_500 }
    }

    /// The controller's side with one set, and the worker's side of it.
    fn carrying() -> (Sets, ClientRole) {
        let mut sets = Sets::new(Vec::new());
        sets.locators(SET, SteeringKeys::default(), vec![(TransportIndex(0), Locator(7))], &[]);
        let secret = || Secret::take(&mut [1; 32]);
        let (epoch, suite) = (Epoch(1), Suite::Aes256Gcm);
        sets.install(DataKeys { set: SET, epoch, suite, up: secret(), down: secret() }, Instant(0));
        sets.use_transport(transport());
        let role = ClientRole::new(sets.shared());
        (sets, role)
    }

    fn routes(role: &mut ClientRole) -> (bool, bool) {
        role.begin(Instant(0), Duration::ZERO);
        let ping = role.route_of(name(SET)).is_some();
        (role.route().is_some(), ping)
    }

    #[test]
    fn a_lost_transport_is_no_way_for_packets_or_pings_until_the_next_one() {
        let (mut sets, mut role) = carrying();
        assert_eq!((role.holds(), routes(&mut role)), (false, (true, true)));
        sets.hold();
        assert_eq!(routes(&mut role), (false, false));
        assert!(role.holds());
        sets.use_transport(transport());
        assert_eq!(routes(&mut role), (true, true));
        assert!(!role.holds());
    }

    #[test]
    fn packets_wait_through_a_change_of_keys_and_not_beyond_the_session() {
        let (mut sets, mut role) = carrying();
        sets.hold();
        sets.forget(SET);
        assert_eq!(routes(&mut role), (false, false));
        assert!(role.holds(), "a resume forgets the old keys before it names the new transport");
        sets.end();
        assert_eq!(routes(&mut role), (false, false));
        assert!(!role.holds());
    }
}
