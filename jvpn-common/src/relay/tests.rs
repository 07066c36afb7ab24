//! Jumps over relays with the stream cut at every step, against a model of what the maps do with data.
//!
//! Owns the model: an owner with its word, two relays with theirs. Must never look into hub or hold.

use super::*;
use crate::abi::{ActiveWord, Binding, SteeringKeys, mapped};
use crate::gateway::command::Hop;
use crate::ids::{Generation, Incarnation, Locator, OpId, RelayId, SessionId, Slot, TransportIndex, Version};
use crate::mapop::MapOp;
use crate::time::{Duration, Instant};
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

const SLOT: Slot = Slot(3);
const RELAYS: [RelayId; 2] = [RelayId(1), RelayId(2)];
/// What a client's transport uses: the owner itself, or a relay.
const GATEWAYS: [(Hop, SocketAddr); 3] =
    [(Hop::Local, address(1)), (Hop::Relay(RelayId(1)), address(11)), (Hop::Relay(RelayId(2)), address(12))];

const fn address(last: u8) -> SocketAddr {
    SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, last)), 51_821)
}

fn client(last: u8) -> SocketAddr {
    format!("198.51.100.{last}:4000").parse().unwrap()
}

/// One node's maps: what a packet would meet.
#[derive(Clone, Debug, Default)]
struct Maps {
    words: BTreeMap<Slot, ActiveWord>,
    entries: BTreeMap<(Slot, u8), Binding>,
    locators: BTreeMap<Locator, Slot>,
    pending: BTreeSet<Slot>,
}

impl Maps {
    fn apply(&mut self, ops: &[MapOp]) {
        for op in ops {
            match op {
                MapOp::Install { slot, locators, pending, .. } => {
                    assert!(!self.words.contains_key(slot), "a slot is installed once");
                    self.words.insert(*slot, ActiveWord::default());
                    for (_, locator) in locators {
                        assert_eq!(self.locators.insert(*locator, *slot), None, "a locator names one slot");
                    }
                    if *pending {
                        self.pending.insert(*slot);
                    }
                }
                MapOp::AddLocators { slot, locators, .. } => {
                    self.locators.extend(locators.iter().map(|(_, locator)| (*locator, *slot)));
                }
                MapOp::RemoveLocators { locators, .. } => self.locators.retain(|known, _| !locators.contains(known)),
                MapOp::Binding { slot, entry, binding } => {
                    let word = self.words[slot];
                    assert!(*entry != word.active() && *entry != word.draining(), "only the spare entry is written");
                    self.entries.insert((*slot, *entry), *binding);
                }
                MapOp::Activate { slot, word } => {
                    assert_eq!(word.seq(), self.words[slot].seq().wrapping_add(1), "words follow one another");
                    self.words.insert(*slot, *word);
                }
                MapOp::Confirm { slot } => {
                    self.pending.remove(slot);
                }
                MapOp::Free { slot } => {
                    self.words.remove(slot);
                    self.pending.remove(slot);
                    assert!(self.locators.values().all(|known| known != slot), "locators go first");
                }
                MapOp::Drain { .. } | MapOp::Info { .. } => {}
            }
        }
    }

    fn active(&self, slot: Slot) -> Option<Binding> {
        let word = *self.words.get(&slot)?;
        self.entries.get(&(slot, word.active())).copied()
    }

    /// They are what a relay would compare them with.
    fn agree(&self, hold: &Hold) {
        let committed: BTreeMap<Slot, _> = hold.committed().map(|(_, slot, committed)| (slot, committed)).collect();
        assert!(committed.keys().eq(self.words.keys()), "the slots in use");
        for (slot, committed) in committed {
            assert_eq!(
                (committed.word, committed.active, committed.pending),
                (self.words[&slot], self.active(slot), self.pending.contains(&slot))
            );
        }
    }
}

#[derive(Debug)]
struct Relay {
    hold: Hold,
    maps: Maps,
    connected: bool,
}

/// An owner, two relays, and a limit to the frames that still travel before a stream is cut.
struct Net {
    hub: Hub,
    owner: Maps,
    relays: BTreeMap<RelayId, Relay>,
    now: Instant,
    op: u64,
    cut_after: Option<(RelayId, usize)>,
}

impl Net {
    fn new() -> Self {
        let relay = || Relay { hold: Hold::new(4, Generation(0)), maps: Maps::default(), connected: false };
        let mut net = Self {
            hub: Hub::new(true),
            owner: Maps::default(),
            relays: RELAYS.into_iter().map(|id| (id, relay())).collect(),
            now: Instant(1),
            op: 0,
            cut_after: None,
        };
        RELAYS.into_iter().for_each(|relay| net.connect(relay));
        net
    }

    fn connect(&mut self, relay: RelayId) {
        let node = self.relays.get_mut(&relay).unwrap();
        node.connected = true;
        node.hold.begin(0, Incarnation(1));
        let frames = self.hub.connect(relay, &GATEWAYS);
        self.deliver(frames.into_iter().map(|frame| (relay, frame)).collect());
    }

    fn cut(&mut self, relay: RelayId) -> Vec<Settled> {
        self.relays.get_mut(&relay).unwrap().connected = false;
        self.hub.disconnect(relay)
    }

    /// Whether one more frame gets through.
    fn travels(&mut self, relay: RelayId) -> bool {
        match &mut self.cut_after {
            Some((cut, left)) if *cut == relay => {
                if *left == 0 {
                    return false;
                }
                *left -= 1;
                true
            }
            _ => self.relays[&relay].connected,
        }
    }

    /// Frames reach their relays, as bytes; acks come back. Gives what settled.
    fn deliver(&mut self, frames: Frames) -> Vec<Settled> {
        let mut settled = Vec::new();
        for (id, frame) in frames {
            if !self.relays[&id].connected {
                continue;
            }
            if !self.travels(id) {
                settled.extend(self.cut(id));
                continue;
            }
            let frame = ToRelay::from_bytes(&frame.to_bytes()).expect("a frame reads back");
            let relay = self.relays.get_mut(&id).unwrap();
            let (op, change) = match frame {
                ToRelay::Bind { op, slot, held } => {
                    let change = relay.hold.bind((0, slot), *held, |way| Some(u16::from(way.client.is_ipv4())));
                    (op, change)
                }
                ToRelay::Unbind { op, slot } => (op, relay.hold.unbind((0, slot))),
                ToRelay::Complete => {
                    for change in relay.hold.complete(0, self.now) {
                        relay.maps.apply(&change.ops);
                        relay.hold.keep(change);
                        relay.maps.agree(&relay.hold);
                    }
                    continue;
                }
                ToRelay::Welcome(_) | ToRelay::Lease { .. } => continue,
            };
            if let Some(change) = change {
                relay.maps.apply(&change.ops);
                relay.hold.keep(change);
                relay.maps.agree(&relay.hold);
            }
            let ack = ToOwner::Ack { op, done: true };
            assert_eq!(ToOwner::from_bytes(&ack.to_bytes()), Some(ack));
            if !self.travels(id) {
                settled.extend(self.cut(id));
                continue;
            }
            settled.extend(self.hub.ack(id, op, true));
            self.check();
        }
        settled
    }

    /// A commit from its beginning to its end; whether it happened.
    fn commit(&mut self, ops: &[MapOp], answers: &[RelayId]) -> bool {
        self.op += 1;
        let op = OpId(self.op);
        let answers = answers.iter().copied().collect();
        let (begin, frames) = self.hub.begin(op, ops, &answers, &GATEWAYS, self.now);
        let done = match begin {
            Begin::Refused => false,
            Begin::Ready => true,
            Begin::Waiting => {
                let settled = self.deliver(frames);
                self.now = self.now + Duration::from_millis(600);
                let expired = self.hub.expire(self.now);
                let outcomes: Vec<bool> =
                    settled.into_iter().chain(expired).filter(|settled| settled.op == op).map(|one| one.done).collect();
                assert_eq!(outcomes.len(), 1, "every commit settles exactly once");
                outcomes[0]
            }
        };
        if done {
            self.owner.apply(ops);
        }
        self.check();
        let frames = self.hub.finish(op, done, &GATEWAYS);
        self.deliver(frames);
        self.check();
        done
    }

    /// Where data for the session ends up now.
    fn downlink(&self) -> Option<SocketAddr> {
        let binding = self.owner.active(SLOT)?;
        match GATEWAYS[usize::from(binding.gateway)].0 {
            Hop::Local => Some(binding.remote()),
            Hop::Relay(relay) => {
                let maps = &self.relays[&relay].maps;
                maps.words.keys().find_map(|slot| maps.active(*slot)).map(|binding| binding.remote())
            }
        }
    }

    /// From where data is taken: through every node whose active binding it is, if the owner takes it from there.
    fn uplinks(&self) -> BTreeSet<SocketAddr> {
        let Some(bound) = self.owner.active(SLOT) else { return BTreeSet::new() };
        match GATEWAYS[usize::from(bound.gateway)].0 {
            Hop::Local => BTreeSet::from([bound.remote()]),
            Hop::Relay(relay) => {
                let maps = &self.relays[&relay].maps;
                maps.words.keys().filter_map(|slot| maps.active(*slot)).map(|binding| binding.remote()).collect()
            }
        }
    }

    fn check(&self) {
        assert!(self.uplinks().len() <= 1, "two active bindings: {:?}", self.uplinks());
        assert_eq!(self.uplinks(), self.downlink().into_iter().collect(), "both directions go the same way");
    }
}

fn binding(last: u8, gateway: u16, k: u16) -> Binding {
    let remote = client(last);
    Binding { address: mapped(remote.ip()), port: remote.port(), gateway, k, mtu: 1_400, drain_until: 0 }
}

fn install() -> Vec<MapOp> {
    let locators = (0..6).map(|k| (TransportIndex(k), Locator(100 + u64::from(k)))).collect();
    vec![MapOp::Install {
        slot: SLOT,
        generation: Generation(1),
        keys: SteeringKeys { up: [1, 2], down: [3, 4] },
        locators,
        pending: true,
        session: SessionId([7; 16]),
    }]
}

/// What the engine's plan of a jump says.
fn jump(word: &mut ActiveWord, to: Binding) -> Vec<MapOp> {
    let (entry, draining) = (word.spare(), word.active());
    let mut ops = vec![MapOp::Binding { slot: SLOT, entry, binding: to }];
    if draining != 0 {
        ops.push(MapOp::Drain { slot: SLOT, entry: draining, within: Duration::from_millis(200) });
    }
    *word = word.successor(draining, entry);
    ops.push(MapOp::Activate { slot: SLOT, word: *word });
    ops
}

/// A net with the session bound by `from`.
fn bound(from: Binding) -> (Net, ActiveWord) {
    let mut net = Net::new();
    assert!(net.commit(&install(), &RELAYS));
    let mut word = ActiveWord::default();
    let mut ops = jump(&mut word, from);
    ops.push(MapOp::Confirm { slot: SLOT });
    assert!(net.commit(&ops, &[]));
    (net, word)
}

/// The four jumps, and the way back from a relay's client to nothing new.
const JUMPS: [(&str, u16, u16); 5] = [
    ("direct to direct", 0, 0),
    ("a relay to itself", 1, 1),
    ("a relay to direct", 1, 0),
    ("one relay to another", 1, 2),
    ("direct to a relay", 0, 2),
];

#[test]
fn every_jump_moves_the_session_once_and_whole() {
    for (name, from, to) in JUMPS {
        let (mut net, mut word) = bound(binding(1, from, 0));
        assert_eq!(net.downlink(), Some(client(1)), "{name}");
        assert!(net.commit(&jump(&mut word, binding(2, to, 1)), &[]), "{name}");
        assert_eq!(net.downlink(), Some(client(2)), "{name}");
        for (id, relay) in &net.relays {
            let active = relay.maps.words.keys().find_map(|slot| relay.maps.active(*slot));
            assert_eq!(active.is_some(), GATEWAYS[usize::from(to)].0 == Hop::Relay(*id), "{name}: word of {id}");
            assert_eq!(relay.maps.locators.len(), 6, "{name}: probes are answered everywhere");
        }
    }
}

#[test]
fn a_stream_cut_at_any_step_leaves_one_binding_and_nobody_stranded() {
    for (name, from, to) in JUMPS {
        for cut in RELAYS {
            for frames in 0..6 {
                let (mut net, before) = bound(binding(1, from, 0));
                let mut word = before;
                net.cut_after = Some((cut, frames));
                let done = net.commit(&jump(&mut word, binding(2, to, 1)), &[]);
                let expected = if done { client(2) } else { client(1) };
                net.cut_after = None;
                net.connect(cut);
                assert_eq!(net.downlink(), Some(expected), "{name}, {cut} cut after {frames} frames, done: {done}");
                net.check();
                // And it can still move.
                let mut word = if done { word } else { before };
                assert!(net.commit(&jump(&mut word, binding(3, to, 2)), &[]), "{name}");
                assert_eq!(net.downlink(), Some(client(3)), "{name}");
            }
        }
    }
}

#[test]
fn a_jump_needs_the_relay_it_goes_through_and_no_other() {
    let (mut net, word) = bound(binding(1, 0, 0));
    net.cut(RelayId(2));
    assert!(!net.commit(&jump(&mut { word }, binding(2, 2, 1)), &[]), "through the one that is gone");
    assert_eq!(net.downlink(), Some(client(1)));
    assert!(net.commit(&jump(&mut { word }, binding(2, 1, 1)), &[]), "through the other");
    assert_eq!(net.downlink(), Some(client(2)));
}

#[test]
fn without_any_relay_nothing_is_kept_for_one() {
    let held = |any: bool| {
        let mut hub = Hub::new(any);
        let (begin, frames) = hub.begin(OpId(1), &install(), &BTreeSet::new(), &GATEWAYS, Instant(1));
        assert_eq!((begin, frames.len()), (Begin::Ready, 0));
        assert!(hub.finish(OpId(1), true, &GATEWAYS).is_empty());
        hub.connect(RELAYS[0], &GATEWAYS).len()
    };
    assert_eq!((held(true), held(false)), (2, 1), "the session and the end of the list, and only that");
}

#[test]
fn a_refusal_of_the_relay_changes_nothing_anywhere() {
    let (mut net, word) = bound(binding(1, 0, 0));
    let ops = jump(&mut { word }, binding(2, 1, 1));
    let (begin, frames) = net.hub.begin(OpId(99), &ops, &BTreeSet::new(), &GATEWAYS, net.now);
    assert_eq!(begin, Begin::Waiting);
    let [(relay, ToRelay::Bind { op, .. })] = frames.as_slice() else { panic!("one frame") };
    assert_eq!(net.hub.ack(*relay, op + 1, true), None, "another number");
    assert_eq!(net.hub.ack(RelayId(2), *op, true), None, "another relay");
    assert_eq!(net.hub.ack(*relay, *op, false), Some(Settled { op: OpId(99), done: false }));
    let told = net.hub.finish(OpId(99), false, &GATEWAYS);
    assert_eq!(told.len(), 1, "it hears the old picture again");
    net.deliver(told);
    assert_eq!(net.downlink(), Some(client(1)));
    assert!(net.relays[&RelayId(1)].maps.active(Slot(0)).is_none());
}

#[test]
fn what_nobody_acknowledges_fails_in_time_and_only_then() {
    let (mut net, word) = bound(binding(1, 0, 0));
    let ops = jump(&mut { word }, binding(2, 1, 1));
    net.hub.begin(OpId(99), &ops, &BTreeSet::new(), &GATEWAYS, net.now);
    let at = net.hub.wakeup().unwrap();
    assert_eq!(net.hub.expire(Instant(at.0 - 1)), []);
    assert_eq!(net.hub.expire(at), [Settled { op: OpId(99), done: false }]);
    assert_eq!(net.hub.wakeup(), None);
}

#[test]
fn a_freed_session_leaves_every_relay() {
    let (mut net, word) = bound(binding(1, 1, 0));
    let locators = (0..6).map(|k| Locator(100 + k)).collect();
    let ops = [
        MapOp::Activate { slot: SLOT, word: word.successor(0, 0) },
        MapOp::RemoveLocators { slot: SLOT, locators },
        MapOp::Free { slot: SLOT },
    ];
    assert!(net.commit(&ops, &[]));
    for relay in net.relays.values() {
        assert!(relay.maps.words.is_empty() && relay.maps.locators.is_empty() && relay.hold.is_empty());
    }
}

#[test]
fn what_a_new_stream_does_not_name_is_over_and_what_an_earlier_start_left_only_answers_probes() {
    for restarted in [false, true] {
        let (mut net, _) = bound(binding(1, 1, 0));
        net.cut(RelayId(1));
        let relay = net.relays.get_mut(&RelayId(1)).unwrap();
        relay.hold.begin(0, Incarnation(if restarted { 2 } else { 1 }));
        for change in relay.hold.complete(0, Instant(5)) {
            relay.maps.apply(&change.ops);
            relay.hold.keep(change);
            relay.maps.agree(&relay.hold);
        }
        assert_eq!(relay.maps.active(Slot(0)), None, "unbound at once");
        assert_eq!(relay.maps.locators.len(), if restarted { 6 } else { 0 });
        assert!(relay.hold.expired(Instant(5)).is_empty());
        for change in relay.hold.expired(Instant(5) + Duration::from_secs(60)) {
            relay.maps.apply(&change.ops);
            relay.hold.keep(change);
        }
        assert!(relay.maps.locators.is_empty() && relay.hold.is_empty());
    }
}

fn held(n: u8) -> Held {
    Held {
        generation: Generation(1),
        session: SessionId([n; 16]),
        version: Version(1),
        state: 2,
        keys: SteeringKeys::default(),
        pending: false,
        locators: vec![(TransportIndex(0), Locator(u64::from(n)))],
        active: None,
        draining: None,
    }
}

#[test]
fn a_relay_that_is_full_says_so_and_keeps_what_it_has() {
    let mut hold = Hold::new(1, Generation(0));
    let change = hold.bind((0, Slot(1)), held(1), |_| None).unwrap();
    assert!(!hold.is_full());
    hold.keep(change);
    assert!(hold.is_full());
    assert!(hold.bind((1, Slot(1)), held(2), |_| None).is_none(), "another owner's slot of the same number");
    assert_eq!((hold.len(), hold.of_owner(0), hold.of_owner(1)), (1, 1, 0));
}

#[test]
fn the_lowest_free_slot_is_taken_and_a_freed_one_before_a_new_one() {
    let mut hold = Hold::new(3, Generation(0));
    let bind = |hold: &mut Hold, owner: u16, slot: u32| {
        let change = hold.bind((owner, Slot(slot)), held(slot as u8), |_| None)?;
        let at = change.slot;
        assert_eq!(change.owner(), Some(u32::from(owner) + 1));
        hold.keep(change);
        Some(at.0)
    };
    let free = |hold: &mut Hold, owner: u16, slot: u32| {
        let change = hold.unbind((owner, Slot(slot))).unwrap();
        assert_eq!(change.owner(), None);
        hold.keep(change);
    };
    assert_eq!([bind(&mut hold, 0, 9), bind(&mut hold, 1, 9), bind(&mut hold, 0, 8)], [Some(0), Some(1), Some(2)]);
    assert_eq!(bind(&mut hold, 0, 7), None, "full");
    free(&mut hold, 1, 9);
    free(&mut hold, 0, 9);
    assert_eq!((hold.len(), bind(&mut hold, 1, 6)), (1, Some(0)));
    assert_eq!(bind(&mut hold, 1, 6), Some(0), "it has its slot");
    assert!(hold.bind((1, Slot(5)), held(5), |_| None).is_some(), "what is not kept");
    assert_eq!((bind(&mut hold, 1, 4), bind(&mut hold, 1, 3)), (Some(1), None), "takes no slot");
}

#[test]
fn the_number_after_the_last_generation_is_the_first_and_the_next_use_gets_another() {
    let mut hold = Hold::new(1, Generation(0xfffe));
    let used = [0xffff, 1, 2].map(|_| {
        let change = hold.bind((0, Slot(1)), held(1), |_| None).unwrap();
        hold.keep(change);
        // An update of what is held is no new use.
        let again = hold.bind((0, Slot(1)), held(1), |_| None).unwrap();
        hold.keep(again);
        let (_, _, committed) = hold.committed().next().unwrap();
        let change = hold.unbind((0, Slot(1))).unwrap();
        hold.keep(change);
        committed.generation.0
    });
    assert_eq!(used, [0xffff, 1, 2]);
}

#[test]
fn a_session_that_waits_for_its_confirmation_again_is_another_one_to_the_kernel() {
    let mut hold = Hold::new(1, Generation(0));
    let bind = |hold: &mut Hold, pending| {
        let change = hold.bind((0, Slot(1)), Held { pending, ..held(1) }, |_| None).unwrap();
        let ops = change.ops.clone();
        hold.keep(change);
        let [(_, _, committed)] = hold.committed().collect::<Vec<_>>()[..] else { panic!("one slot") };
        assert_eq!(committed.pending, pending);
        (ops, committed.generation)
    };
    let (_, first) = bind(&mut hold, true);
    let (ops, confirmed) = bind(&mut hold, false);
    assert!(ops.contains(&MapOp::Confirm { slot: Slot(0) }) && confirmed == first);
    let (ops, again) = bind(&mut hold, true);
    assert!(ops.iter().any(|op| matches!(op, MapOp::Install { pending: true, .. })) && again != first);
}

#[test]
fn no_frame_reads_from_garbage() {
    let (mut net, _) = bound(binding(1, 1, 0));
    for frame in net.hub.connect(RelayId(1), &GATEWAYS) {
        let bytes = frame.to_bytes();
        for len in 0..bytes.len() {
            assert!(ToRelay::from_bytes(&bytes[..len]).is_none(), "{len} of {}", bytes.len());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(ToRelay::from_bytes(&longer).is_none());
        assert!(bytes.len() <= crate::crypto::link::FRAME_MAX);
    }
    assert!(ToOwner::from_bytes(&[9, 9]).is_none() && ToRelay::from_bytes(&[]).is_none());
}
