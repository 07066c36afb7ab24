//! RESUME, and what comes back after a restart of the gateway.
//!
//! Owns claims about identity that outlives keys and processes. Must never accept a new identity for an old one.

use super::*;
use crate::ids::Generation;
use crate::message::handshake::Outcome;
use crate::message::{Control, HandshakePurpose, Purpose};
use crate::session::{Elapsed, Keys};

fn outcome(client: &Client) -> Outcome {
    client.accepted.as_ref().unwrap().outcome
}

/// The gateway dies and is started again `away` later with what its store has.
fn restarted(old: &World, away: Duration) -> World {
    let mut world = World::with(|config| config.incarnation = Incarnation(8));
    world.now = old.now + away;
    world.engine = Engine::new(Config { incarnation: Incarnation(8), ..config() }, Box::new(Fixed::new(77)), world.now);
    world.versions = old.versions.clone();
    world.store = old.store.clone();
    let mut restored = Vec::new();
    for (place, stored) in old.store.values().enumerate() {
        let core = Session::decode(&stored.core).unwrap();
        let elapsed = Elapsed { then: stored.at, now: world.now, between: world.now.since(stored.at) };
        let version = core.version();
        let slot = Slot(u32::try_from(place).unwrap());
        world.maps.adopt(slot, Generation(1), stored.session);
        restored.push(Restored {
            core: core.restored(elapsed, version, core.next_owner()),
            peer: stored.peer,
            ceiling: stored.ceiling,
            gap: None,
            slots: vec![(slot, Generation(1))],
        });
    }
    world.engine.restore(restored);
    world.run();
    world
}

#[test]
fn a_resume_keeps_id_addresses_and_versions_and_moves_to_a_new_slot() {
    let (mut world, mut client) = attached();
    let (id, slot) = (client.session, world.slot(client.session));
    let addresses = client.accepted.as_ref().unwrap().addresses.clone();
    let purpose = client.resume();
    client.shake(&mut world, purpose).unwrap();
    assert_eq!(outcome(&client), Outcome::Resumed);
    assert_eq!(world.maps.bound(id), Some((origin(10).client, 0)), "message 2 disturbs nothing");
    assert_eq!((client.session, client.version), (id, Version(1)));
    world.pass(ms(40));
    assert_eq!(client.confirm(&mut world), Some(Control::Done));
    assert_eq!((world.state(id), world.version(id)), (Some(State::Attached), 3), "lost, then accepted");
    assert_eq!(world.records.last().unwrap().details["prove_us"], 40_000);
    assert_ne!(world.slot(id), slot);
    assert_eq!(world.maps.slots(), 1, "the old slot is free");
    assert_eq!(client.accepted.as_ref().unwrap().addresses, addresses);
    let ack = client.moved(&mut world, origin(20), 1, Purpose::Lost);
    assert_eq!(ack.nonce, 1, "nonces begin anew with the keys");
}

#[test]
fn an_unconfirmed_resume_expires_and_the_session_never_notices() {
    let (mut world, mut client) = attached();
    let mut twin = client.twin(50, origin(11));
    let first = twin.message1(client.resume(), None);
    assert_eq!(world.deliver(origin(11), &first).len(), 1);
    assert_eq!(world.maps.slots(), 2);
    let report = Control::PathReport(Vec::new());
    assert_eq!(client.ask(&mut world, origin(10), 0, report), Some(Control::Done));
    world.pass(secs(5));
    assert_eq!((world.maps.slots(), world.version(client.session)), (1, 1));
}

#[test]
fn after_a_restart_a_session_waits_unbound_and_resumes_without_a_gap() {
    let (mut old, mut client) = attached();
    client.moved(&mut old, origin(20), 1, Purpose::Lost);
    let id = client.session;
    let mut world = restarted(&old, secs(3));
    assert_eq!((world.state(id), world.version(id)), (Some(State::Recovering), 4));
    assert_eq!(world.records[0].reason, Some(Reason::ControllerRestart));
    let (_, view) = world.engine.sessions().next().unwrap();
    assert_eq!((view.core.keys(), view.slot), (Keys::Stale, None));
    // Old keys are gone: nothing opens under old locators, nothing is answered.
    let request = client.request(Purpose::Lost);
    assert_eq!(client.ask(&mut world, origin(20), 1, Client::asking(request)), None);
    client.at = origin(21);
    let purpose = client.resume();
    client.shake(&mut world, purpose).unwrap();
    assert_ne!(client.accepted.as_ref().unwrap().locators.len(), 0);
    assert_eq!(world.maps.slots(), 2, "the slot of the previous start is kept until then");
    assert_eq!((outcome(&client), client.session), (Outcome::Resumed, id));
    assert_eq!(client.confirm(&mut world), Some(Control::Done));
    assert_eq!((world.state(id), world.version(id)), (Some(State::Attached), 5));
    assert_eq!(world.maps.slots(), 1);
    assert_eq!(world.maps.bound(id), Some((origin(21).client, 0)));
}

#[test]
fn a_timer_that_ran_out_while_the_gateway_was_away_still_fires_and_the_keys_are_stale_all_the_same() {
    let (old, client) = attached();
    let mut gone = restarted(&old, secs(25 * 3_600));
    gone.run();
    assert_eq!((gone.sessions().len(), gone.maps.slots(), gone.store.len()), (0, 0, 0));
    assert_eq!(gone.recorded(Reason::TtlSessionExpired), 2);

    let (mut old, mut client2) = attached();
    old.pass(secs(16));
    assert_eq!(old.state(client.session), Some(State::Recovering));
    let mut world = restarted(&old, secs(40));
    world.pass(secs(1));
    let (_, view) = world.engine.sessions().next().unwrap();
    assert_eq!((view.core.state(), view.core.keys()), (State::Degraded, Keys::Stale));
    assert_eq!(world.recorded(Reason::ControllerRestart), 1);
    let purpose = client2.resume();
    client2.shake(&mut world, purpose).unwrap();
    assert_eq!(client2.confirm(&mut world), Some(Control::Done));
    assert_eq!(world.state(client2.session), Some(State::Attached));
}

#[test]
fn a_restored_session_of_a_removed_peer_ends() {
    let (old, client) = attached();
    let stored = &old.store[&client.session];
    let mut config = config();
    config.peers.remove(&stored.peer);
    let mut world = World::new();
    world.engine = Engine::new(config, Box::new(Fixed::new(77)), old.now);
    (world.versions, world.store) = (old.versions.clone(), old.store.clone());
    let elapsed = Elapsed { then: old.now, now: old.now, between: Duration::ZERO };
    let core = Session::decode(&stored.core).unwrap();
    let core = core.restored(elapsed, core.version(), OwnerEpoch(1));
    let (peer, ceiling) = (stored.peer, stored.ceiling);
    world.engine.restore(vec![Restored { core, peer, ceiling, gap: None, slots: Vec::new() }]);
    world.run();
    assert_eq!((world.sessions().len(), world.store.len()), (0, 0));
    assert_eq!(world.recorded(Reason::PolicyTermination), 2);
}

#[test]
fn resuming_what_is_unknown_gives_a_new_session_and_says_why() {
    let (mut world, mut client) = attached();
    let purpose =
        HandshakePurpose::Resume { session: SessionId([9; 16]), version: Version(4), owner_epoch: OwnerEpoch(1) };
    client.shake(&mut world, purpose).unwrap();
    assert_eq!(outcome(&client), Outcome::New(Some(Reason::SessionNotFound)));
    assert_ne!(client.session, SessionId([9; 16]));
}

#[test]
fn resuming_the_session_of_another_peer_is_an_attempt_at_fixation() {
    let (mut world, victim) = attached();
    let mut thief = Client::new(3, origin(66));
    for _ in 0..3 {
        thief.shake(&mut world, victim.resume()).unwrap();
        assert_eq!(outcome(&thief), Outcome::New(Some(Reason::SessionNotFound)));
        assert_ne!(thief.session, victim.session);
    }
    assert_eq!(world.recorded(Reason::SecSessionFixationAttempt), 1, "at most every ten seconds");
    assert_eq!(thief.confirm(&mut world), Some(Control::Done));
    assert_eq!(world.maps.bound(victim.session), Some((origin(10).client, 0)));
    assert_eq!((world.version(victim.session), world.sessions().len()), (1, 2));
}

#[test]
fn a_client_that_knows_more_than_a_restored_store_raises_it_with_a_named_gap_and_a_new_owner() {
    let (old, mut client) = attached();
    let mut world = restarted(&old, secs(1));
    let (session, owner_epoch) = (client.session, OwnerEpoch(5));
    let purpose = HandshakePurpose::Resume { session, version: Version(100), owner_epoch };
    client.shake(&mut world, purpose).unwrap();
    let accepted = client.accepted.as_ref().unwrap();
    assert_eq!((accepted.version, accepted.owner_epoch), (Version(100), OwnerEpoch(6)), "above what it has seen");
    let before = world.picture();
    let beyond = HandshakePurpose::Resume { session, version: Version(1 << 40), owner_epoch };
    assert_eq!(client.twin(50, origin(11)).shake(&mut world, beyond), Err(Reason::VersionFuture));
    assert_eq!(world.picture(), before);
    assert_eq!(client.confirm(&mut world), Some(Control::Done));
    assert_eq!((world.version(session), owner(&world, session)), (101, OwnerEpoch(6)));
    let told = world.records.iter().find(|record| record.reason == Some(Reason::SecStoreRollback)).unwrap();
    let said = |key: &str| told.details[key].as_str().unwrap().to_owned();
    assert_eq!([said("seen_version"), said("seen_owner_epoch"), said("owner_epoch")], ["100", "5", "6"]);
    assert!(world.records.iter().any(|record| record.event == Event::Gap));
    let ack = client.moved(&mut world, origin(20), 1, Purpose::Lost);
    assert_eq!(ack.owner_epoch, OwnerEpoch(6));
}

/// The owner of a session, as its gateway says.
fn owner(world: &World, id: SessionId) -> OwnerEpoch {
    world.engine.sessions().find(|(known, _)| *known == id).map(|(_, view)| view.core.owner_epoch()).unwrap()
}

#[test]
fn every_start_is_another_owner_and_says_so() {
    let (old, mut client) = attached();
    let mut world = restarted(&restarted(&old, secs(1)), secs(1));
    assert_eq!(owner(&world, client.session), OwnerEpoch(3));
    let told: Vec<_> = world.records.iter().filter_map(|record| record.details.get("owner_epoch")).collect();
    assert_eq!(told, ["3"]);
    let purpose = client.resume();
    client.shake(&mut world, purpose).unwrap();
    assert_eq!(client.confirm(&mut world), Some(Control::Done));
    assert_eq!((owner(&world, client.session), world.recorded(Reason::SecStoreRollback)), (OwnerEpoch(3), 0));
    assert_eq!(client.accepted.as_ref().unwrap().owner_epoch, OwnerEpoch(3));
}

#[test]
fn a_copy_of_a_store_is_noticed_even_when_its_versions_are_not_behind() {
    // Both start from the same store: the second knows every version, and not that there is another owner.
    let (old, mut client) = attached();
    let mut first = restarted(&old, secs(1));
    let purpose = client.resume();
    client.shake(&mut first, purpose).unwrap();
    assert_eq!(client.confirm(&mut first), Some(Control::Done));
    let mut second = restarted(&old, secs(1));
    let purpose = HandshakePurpose::Resume { session: client.session, version: Version(1), owner_epoch: OwnerEpoch(2) };
    client.shake(&mut second, purpose).unwrap();
    assert_eq!((outcome(&client), client.accepted.as_ref().unwrap().owner_epoch), (Outcome::Resumed, OwnerEpoch(3)));
    assert_eq!(client.confirm(&mut second), Some(Control::Done));
    assert_eq!(second.recorded(Reason::SecStoreRollback), 1);
    assert!(second.records.iter().all(|record| record.event != Event::Gap), "no version is missing");
}

/// A gateway that went on with its session while a copy of its store did, too, and the client that comes back from there.
fn forked() -> (World, Client, SessionId) {
    let (mut first, mut client) = attached();
    let mut second = restarted(&first, secs(2));
    client.moved(&mut first, origin(20), 1, Purpose::Lost);
    let purpose = client.resume();
    client.shake(&mut second, purpose).unwrap();
    assert_eq!((outcome(&client), client.confirm(&mut second)), (Outcome::Resumed, Some(Control::Done)));
    assert_eq!((second.recorded(Reason::SecStoreRollback), owner(&second, client.session)), (1, OwnerEpoch(3)));
    client.version = Version(second.version(client.session));
    let id = client.session;
    (first, client, id)
}

#[test]
fn a_gateway_that_is_shown_a_newer_owner_ends_the_session_and_gives_its_client_another_in_one_commit() {
    let (mut first, mut client, id) = forked();
    let mut other = Client::new(3, origin(30));
    other.birth(&mut first);
    let purpose = client.resume();
    client.at = origin(21);
    client.shake(&mut first, purpose).unwrap();
    assert_eq!(outcome(&client), Outcome::New(Some(Reason::OwnershipConflict)));
    assert_ne!(client.session, id);
    assert_eq!(first.state(id), Some(State::Attached), "nobody has confirmed it yet");
    assert_eq!(client.confirm(&mut first), Some(Control::Done));
    assert_eq!((first.state(id), first.state(client.session)), (None, Some(State::Attached)));
    assert_eq!(first.maps.bound(id), None, "its maps are free");
    assert_eq!(first.maps.slots(), 2, "its client's new one, and another peer's");
    let ending = first.records.iter().find(|record| record.to == Some(State::Terminated)).unwrap();
    assert_eq!((ending.session_id, ending.reason), (Some(id), Some(Reason::OwnershipConflict)));
    assert_eq!(ending.input, Some(Written::NewerOwner { epoch: OwnerEpoch(3) }));
    assert!(crate::event::replay(ending, &Policy::field()).is_ok());
    assert_eq!(first.recorded(Reason::SecOwnershipAnomaly), 1);
    assert_eq!(first.recorded(Reason::SessionSuperseded), 0);
    assert!(first.sessions().contains(&other.session), "nobody else's");
    // Whoever asks for it again is told the same.
    let again = HandshakePurpose::Resume { session: id, version: Version(4), owner_epoch: OwnerEpoch(3) };
    client.shake(&mut first, again).unwrap();
    assert_eq!(outcome(&client), Outcome::New(Some(Reason::OwnershipConflict)));
}

#[test]
fn a_message_1_that_shows_a_newer_owner_and_is_not_confirmed_ends_nothing() {
    let (mut first, mut client, id) = forked();
    let claims = client.message1(client.resume(), None);
    let before = first.picture().0;
    assert_eq!(first.deliver(origin(66), &claims).len(), 1);
    first.pass(secs(5));
    assert_eq!((first.picture().0, first.maps.slots()), (before, 1));
    assert_eq!((first.state(id), first.recorded(Reason::OwnershipConflict)), (Some(State::Attached), 0));
}

#[test]
fn a_claim_about_anothers_session_ends_nothing_and_one_about_ones_own_only_that() {
    let (mut world, mut victim) = attached();
    let mut liar = Client::new(3, origin(66));
    liar.birth(&mut world);
    let own = liar.session;
    let lie = |session| HandshakePurpose::Resume { session, version: Version(900), owner_epoch: OwnerEpoch(900) };
    liar.shake(&mut world, lie(victim.session)).unwrap();
    assert_eq!(outcome(&liar), Outcome::New(Some(Reason::SessionNotFound)));
    liar.shake(&mut world, lie(own)).unwrap();
    assert_eq!(liar.confirm(&mut world), Some(Control::Done));
    assert_eq!((world.state(own), world.recorded(Reason::OwnershipConflict)), (None, 2));
    assert_eq!((world.state(victim.session), world.version(victim.session)), (Some(State::Attached), 1));
    let ack = victim.moved(&mut world, origin(20), 1, Purpose::Lost);
    assert_eq!(ack.owner_epoch, OwnerEpoch(1));
}

#[test]
fn a_resume_that_cannot_be_committed_leaves_the_session_as_it_was() {
    let (mut world, mut client) = attached();
    let mut again = client.twin(50, origin(11));
    again.shake(&mut world, client.resume()).unwrap();
    world.failing = 1;
    let Some(Control::Reject(reject)) = again.confirm(&mut world) else { panic!("not refused") };
    assert_eq!(reject.reason, Reason::CommitFailed);
    assert_eq!((world.version(client.session), world.maps.slots()), (1, 1));
    let ack = client.moved(&mut world, origin(20), 1, Purpose::Lost);
    assert_eq!(ack.version, Version(3), "the old keys still serve");
}

#[test]
fn resuming_works_when_there_is_no_room_to_record_births() {
    let (mut world, mut client) = attached();
    world.order(Order::Storage { available: false });
    let purpose = client.resume();
    client.shake(&mut world, purpose).unwrap();
    assert_eq!(client.confirm(&mut world), Some(Control::Done));
}
