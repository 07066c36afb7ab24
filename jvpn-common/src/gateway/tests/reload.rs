//! Policies that change under live sessions: when they count, what the record says, what the client is told.
//!
//! Owns claims about [`Engine::reload`]. Must never read the policy in force but through what is decided under it.

use super::*;
use crate::event::replay;
use crate::gateway::Mode;
use crate::message::{Control, HandshakePurpose, Message, Purpose};
use crate::secret::PublicKey;
use crate::session::policy::BetterSwitching;

fn text(change: impl Fn(&mut Policy)) -> Policy {
    let mut policy = Policy::field();
    change(&mut policy);
    policy.versioned()
}

fn old() -> Policy {
    text(|_| {})
}

/// A loss TTL of a second, and a window that fits.
fn short() -> Policy {
    text(|policy| {
        policy.set("transport_loss_ttl", "2s").unwrap();
        policy.set("max_recovery_window", "1s").unwrap();
    })
}

fn frozen() -> Policy {
    text(|policy| policy.better_switching = BetterSwitching::Frozen)
}

fn peers(policy: &Policy) -> BTreeMap<PublicKey, Peer> {
    let mut peers = config().peers;
    peers.values_mut().for_each(|peer| peer.policy = Arc::new(policy.clone()));
    peers
}

fn reload(world: &mut World, policy: &Policy, mode: Mode) -> Vec<Datagram> {
    world.engine.reload(peers(policy), mode, "uid 0");
    world.run();
    std::mem::take(&mut world.out)
}

fn attached() -> (World, Client) {
    attached_in(World::with(|config| config.peers = peers(&old())))
}

/// What the records of changes say: policy version, mode, changed keys.
fn events(world: &World) -> Vec<(u32, String, String)> {
    let events = world.records.iter().filter(|record| record.event == Event::PolicyEvent);
    let said = |record: &Record| {
        let mode = record.details["mode"].as_str().unwrap().to_owned();
        (record.policy_version.0, mode, record.details["changed"].to_string())
    };
    events.map(said).collect()
}

/// Every transition of the record replays under the policy it names.
fn all_replay(world: &World, policies: &[&Policy]) -> Vec<u32> {
    let transitions = world.records.iter().filter(|record| record.input.is_some() && record.after.is_some());
    let under = |record: &Record| {
        let policy = policies.iter().find(|policy| policy.version == record.policy_version).expect("a known text");
        replay(record, policy).unwrap_or_else(|mismatch| panic!("{mismatch}: {record:?}"));
        record.policy_version.0
    };
    transitions.map(under).collect()
}

fn snapshot(client: &mut Client, sent: &[Datagram]) -> (u64, Policy) {
    assert_eq!(sent.len(), 1, "one snapshot");
    let Message { id, body: Control::PolicyUpdate(bytes) } = client.open(&sent[0]) else { panic!("no snapshot") };
    (id, Policy::decode(&bytes).unwrap())
}

#[test]
fn a_strict_reload_counts_at_once_moves_nothing_and_is_told_until_it_is_acknowledged() {
    let (mut world, mut client) = attached();
    let before = (world.picture(), world.commits);
    let lost = reload(&mut world, &short(), Mode::Strict);
    assert_eq!((world.picture(), world.commits), before, "a record, no transition");
    let changed = r#"{"max_recovery_window":"30s → 1s","transport_loss_ttl":"15m → 2s"}"#;
    assert_eq!(events(&world), [(short().version.0, "strict".to_owned(), changed.to_owned())]);
    assert_eq!(lost.len(), 1);
    let sent = world.pass(ms(400));
    let (id, told) = snapshot(&mut client, &sent);
    assert_eq!(told, short());
    let bytes = client.sealed(0, id, Control::Done);
    assert_eq!(world.deliver(origin(10), &bytes), []);
    assert_eq!((world.engine.unacknowledged(), reload(&mut world, &short(), Mode::Strict)), (0, Vec::new()));
    assert_eq!(events(&world).len(), 1, "the same text again is no change");
    world.pass(secs(30));
    assert_eq!(world.state(client.session), None, "silence, and the short TTL");
    assert_eq!(all_replay(&world, &[&old(), &short()])[1..], [short().version.0; 3]);
}

#[test]
fn what_is_overdue_under_the_new_bounds_ends_with_a_strict_reload_and_not_with_grace() {
    for mode in [Mode::Strict, Mode::Grace] {
        let (mut world, client) = attached();
        world.pass(secs(20));
        assert_eq!(world.state(client.session), Some(State::Recovering));
        reload(&mut world, &short(), mode);
        world.pass(ms(1));
        let ended = world.state(client.session).is_none();
        assert_eq!(ended, mode == Mode::Strict, "{mode}");
        all_replay(&world, &[&old(), &short()]);
    }
}

#[test]
fn grace_decides_the_next_transition_under_the_old_text_and_those_after_it_under_the_new_one() {
    let (mut world, mut client) = attached();
    assert_eq!(reload(&mut world, &short(), Mode::Grace), []);
    assert_eq!(events(&world)[0].1, "grace");
    let request = client.request(Purpose::BetterQuality);
    let challenge = client.ask(&mut world, origin(20), 1, Client::asking(request)).unwrap();
    let proof = client.seal(1, Client::proof(request, &challenge));
    let sent = world.deliver(origin(20), &proof);
    assert!(matches!(client.open(&sent[0]).body, Control::Ack(_)), "the answer comes first");
    assert_eq!(snapshot(&mut client, &sent[1..]).1, short());
    world.pass(secs(30));
    assert_eq!(world.state(client.session), None, "lost and over under the new text");
    let versions = all_replay(&world, &[&old(), &short()]);
    let (o, n) = (old().version.0, short().version.0);
    assert_eq!(versions, [o, o, n, n, n], "birth and jump, then loss, window, end");
}

#[test]
fn grace_that_is_taken_back_leaves_nothing_and_a_strict_reload_ends_the_wait() {
    let (mut world, mut client) = attached();
    reload(&mut world, &short(), Mode::Grace);
    reload(&mut world, &old(), Mode::Grace);
    client.moved(&mut world, origin(20), 1, Purpose::BetterQuality);
    assert_eq!((world.engine.unacknowledged(), events(&world).len()), (0, 2));
    reload(&mut world, &short(), Mode::Grace);
    let sent = reload(&mut world, &short(), Mode::Strict);
    assert_eq!(snapshot(&mut client, &sent).1, short());
    let modes: Vec<String> = events(&world).into_iter().map(|event| event.1).collect();
    assert_eq!(modes, ["grace", "grace", "grace", "strict"]);
}

#[test]
fn a_client_that_was_offered_another_text_is_told_once_it_is_confirmed() {
    let mut world = World::with(|config| config.peers = peers(&old()));
    let mut client = Client::new(2, origin(10));
    client.shake(&mut world, HandshakePurpose::Birth).unwrap();
    assert_eq!(Policy::decode(&client.accepted.as_ref().unwrap().policy), Some(old()));
    assert_eq!(reload(&mut world, &short(), Mode::Grace), [], "there is no session yet");
    let confirm = client.confirmation();
    let bytes = client.seal(0, confirm);
    let sent = world.deliver(origin(10), &bytes);
    assert_eq!((sent.len(), client.open(&sent[0]).body), (2, Control::Done));
    assert_eq!(snapshot(&mut client, &sent[1..]).1, short());
    assert_eq!(all_replay(&world, &[&short()]), [short().version.0], "its first transition is decided under the new");
}

#[test]
fn a_snapshot_that_was_given_up_is_told_with_the_next_report() {
    let (mut world, mut client) = attached();
    reload(&mut world, &short(), Mode::Strict);
    for _ in 0..6 {
        world.pass(secs(4));
        let validate = client.request(Purpose::Validate);
        client.ask(&mut world, origin(10), 0, Client::asking(validate));
        world.out.clear();
    }
    assert_eq!(world.engine.unacknowledged(), 0, "given up");
    let bytes = client.seal(0, Control::PathReport(Vec::new()));
    let sent = world.deliver(origin(10), &bytes);
    assert_eq!(snapshot(&mut client, &sent[..1]).1, short());
    assert_eq!(world.engine.unacknowledged(), 1);
}

#[test]
fn frozen_switching_refuses_every_better_by_name_and_never_strands_a_session() {
    let (mut world, mut client) = attached();
    reload(&mut world, &frozen(), Mode::Strict);
    let before = world.picture();
    for purpose in [Purpose::BetterQuality, Purpose::BetterOperator] {
        let refused = client.refused(&mut world, origin(20), 1, purpose);
        let said = (refused.reason, refused.detail);
        assert_eq!(said, (Reason::TransportSwitchDenied, Some(Reason::SwitchingFrozen)), "{purpose:?}");
    }
    assert_eq!(world.picture(), before);
    let denied = world.records.iter().filter(|record| record.event == Event::TransportSwitchDenied);
    assert_eq!(denied.count(), 2, "each refusal is recorded");
    client.moved(&mut world, origin(11), 0, Purpose::Rebind);
    client.moved(&mut world, origin(20), 1, Purpose::Lost);
    reload(&mut world, &old(), Mode::Strict);
    world.pass(secs(2));
    client.moved(&mut world, origin(11), 0, Purpose::BetterOperator);
    all_replay(&world, &[&old(), &frozen()]);
}

#[test]
fn a_removed_peers_session_ends_under_the_policy_it_had() {
    let (mut world, client) = attached();
    let mut left = peers(&short());
    left.remove(&key(2).public());
    world.engine.reload(left, Mode::Strict, "uid 0");
    world.run();
    assert_eq!(world.state(client.session), None);
    assert_eq!(all_replay(&world, &[&old()]).last(), Some(&old().version.0));
    assert_eq!(world.records.iter().rev().find_map(|record| record.reason), Some(Reason::PolicyTermination));
}
