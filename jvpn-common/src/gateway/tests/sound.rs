//! What ends a session that nothing on the wire ends: a broken invariant, another owner, the end of the
//! process before it was confirmed.
//!
//! Owns claims about inputs that only a bug, another gateway or an operator can cause.

use super::*;
use crate::gateway::Mode;
use crate::message::{Control, HandshakePurpose, Purpose};
use crate::sabotage::{Bug, Sabotage};
use crate::session::transition::{On, TABLE};

fn rows(world: &World, on: On) -> u64 {
    let rows = world.engine.view().rows;
    rows.iter().filter(|(row, _)| TABLE[**row].on == on).map(|(_, count)| count).sum()
}

#[test]
fn a_broken_invariant_ends_that_session_alone_is_recorded_and_its_client_is_told() {
    let (mut world, mut client) = attached();
    let mut other = Client::new(3, origin(30));
    other.birth(&mut world);
    let before = world.picture().0.into_iter().find(|(id, _)| *id == other.session);
    world.broken = true;
    world.engine.sabotage(Sabotage::with(Bug::ForgetsIdentity));
    let request = client.request(Purpose::Lost);
    let cookie = client.ask(&mut world, origin(20), 1, Client::asking(request)).unwrap();
    let proof = client.seal(1, Client::proof(request, &cookie));
    let answered = world.deliver(origin(20), &proof);
    assert_eq!(answered, [], "no ACK for what did not happen");
    let told = std::mem::take(&mut world.told);
    assert_eq!((told.len(), told[0].origin), (1, origin(10)), "where it was bound");
    assert_eq!(client.open(&told[0]).body, Control::Terminate { reason: Reason::FatalProtocolError });
    assert_eq!(world.sessions(), [other.session], "never the gateway");
    assert_eq!(world.picture().0.into_iter().find(|(id, _)| *id == other.session), before);
    let ending = world.records.iter().find(|record| record.reason == Some(Reason::FatalProtocolError)).unwrap();
    assert_eq!(ending.input, Some(Written::InvariantBroken { which: 1 }));
    assert!(crate::event::replay(ending, &Policy::field()).is_ok());
    assert_eq!(rows(&world, On::Broken), 1);
}

#[test]
fn without_a_broken_invariant_nothing_ends() {
    let (mut world, mut client) = attached();
    client.moved(&mut world, origin(20), 1, Purpose::Lost);
    world.pass(secs(14));
    assert_eq!((world.recorded(Reason::FatalProtocolError), rows(&world, On::Broken)), (0, 0));
}

#[test]
fn a_broken_invariant_comes_before_a_timer_that_is_due() {
    let (mut world, client) = attached();
    world.broken = true;
    world.engine.sabotage(Sabotage::with(Bug::ForgetsIdentity));
    world.pass(secs(16));
    assert_eq!((world.state(client.session), world.recorded(Reason::FatalProtocolError)), (None, 2));
}

#[test]
fn a_newer_owner_ends_the_session_here_and_an_older_one_nothing() {
    let (mut world, client) = attached();
    let owner = |world: &mut World, epoch| {
        let input = crate::session::Input::NewerOwner { epoch: OwnerEpoch(epoch) };
        let taken = world.engine.inject(world.now, client.session, &input);
        world.run();
        taken
    };
    assert!(!owner(&mut world, 1));
    assert_eq!(world.state(client.session), Some(State::Attached));
    assert!(owner(&mut world, 2));
    assert_eq!((world.sessions().len(), world.recorded(Reason::OwnershipConflict)), (0, 3), "refused, ended");
    assert_eq!((world.maps.slots(), rows(&world, On::NewerOwner)), (0, 1));
}

#[test]
fn a_handshake_nobody_confirmed_ends_with_the_process_and_leaves_nothing() {
    let (mut world, client) = attached();
    let mut other = Client::new(3, origin(30));
    other.shake(&mut world, HandshakePurpose::Birth).unwrap();
    world.order(Order::GoingAway);
    assert_eq!((rows(&world, On::Abandon), world.engine.view().pending, world.maps.slots()), (1, 0, 1));
    assert_eq!(other.confirm(&mut world), None);
    assert_eq!(world.sessions(), [client.session]);
}

#[test]
fn a_peer_that_is_removed_loses_its_unconfirmed_handshake_too() {
    let (mut world, client) = attached();
    let mut other = Client::new(3, origin(30));
    other.shake(&mut world, HandshakePurpose::Birth).unwrap();
    let mut peers = config().peers;
    peers.remove(&key(3).public());
    world.engine.reload(peers, Mode::Grace, "test");
    world.run();
    assert_eq!(other.confirm(&mut world), None, "a removed peer gets no session");
    assert_eq!((rows(&world, On::Abandon), world.sessions()), (1, vec![client.session]));

    // Removed while its CONFIRM was being committed: born, and ended at once.
    let (mut world, _) = attached();
    let mut other = Client::new(3, origin(30));
    other.shake(&mut world, HandshakePurpose::Birth).unwrap();
    world.holding = true;
    other.confirm(&mut world);
    let mut peers = config().peers;
    peers.remove(&key(3).public());
    world.engine.reload(peers, Mode::Grace, "test");
    world.finish();
    assert_eq!((world.state(other.session), world.recorded(Reason::PolicyTermination)), (None, 2));
}
