//! Tests of the handshake: the transcript of the second implementation, and every way to be refused.

use super::{Initiator, NoiseError, OVERHEAD_1, OVERHEAD_2, Responder, Split, ephemeral};
use crate::crypto::EpochKeys;
use crate::crypto::test_entropy::Fixed;
use crate::crypto::vectors::cases;
use crate::secret::{PresharedKey, PrivateKey};
use proptest::prelude::*;

struct Pair {
    client: PrivateKey,
    gateway: PrivateKey,
    psk: PresharedKey,
}

fn pair() -> Pair {
    Pair {
        client: PrivateKey::generate(&mut Fixed::new(1)),
        gateway: PrivateKey::generate(&mut Fixed::new(2)),
        psk: PresharedKey::generate(&mut Fixed::new(3)),
    }
}

impl Pair {
    fn initiator(&self) -> Initiator {
        Initiator::new(&self.client, &self.gateway.public(), &self.psk, &mut Fixed::new(4)).unwrap()
    }

    fn read1(&self, message: &[u8]) -> Result<Responder, NoiseError> {
        Responder::read1(&self.gateway, message, &mut Fixed::new(5)).map(|(_, _, responder)| responder)
    }
}

fn same(a: &Split, b: &Split) -> bool {
    a.hash == b.hash && a.k1.same(&b.k1) && a.k2.same(&b.k2)
}

#[test]
fn the_transcript_is_the_one_of_the_second_implementation() {
    for case in cases(include_str!("../../../../tests/vectors/handshake.json")) {
        let client = PrivateKey::generate(&mut Fixed::new(case.number("seed_initiator")));
        let gateway = PrivateKey::generate(&mut Fixed::new(case.number("seed_responder")));
        let psk = PresharedKey::generate(&mut Fixed::new(case.number("seed_psk")));
        assert_eq!(client.public().as_bytes(), &case.array("initiator_public"));
        assert_eq!(gateway.public().as_bytes(), &case.array("responder_public"));
        let entropy = &mut Fixed::new(case.number("seed_ephemeral_initiator"));
        let mut initiator = Initiator::new(&client, &gateway.public(), &psk, entropy).unwrap();
        let message1 = initiator.message1(&case.bytes("payload1")).unwrap();
        assert_eq!(message1, case.bytes("message1"));
        let entropy = &mut Fixed::new(case.number("seed_ephemeral_responder"));
        let (remote, payload1, responder) = Responder::read1(&gateway, &message1, entropy).unwrap();
        assert_eq!((remote, payload1), (client.public(), case.bytes("payload1")));
        let (message2, theirs) = responder.answer(&psk, &case.bytes("payload2")).unwrap();
        assert_eq!(message2, case.bytes("message2"));
        let (payload2, ours) = initiator.read2(&message2).unwrap();
        assert_eq!(payload2, case.bytes("payload2"));
        assert!(same(&ours, &theirs));
        assert_eq!(ours.hash, case.array("hash"));
        assert_eq!((ours.k1.expose(), ours.k2.expose()), (&case.array("k1"), &case.array("k2")));
        let keys = EpochKeys::derive(ours);
        assert_eq!(keys.data.up.expose(), &case.array("data up"));
        assert_eq!(keys.steering.down.expose(), &case.array("steering down"));
    }
}

#[test]
fn messages_are_as_long_as_promised() {
    let pair = pair();
    let message1 = pair.initiator().message1(&[1; 100]).unwrap();
    assert_eq!(message1.len(), 100 + OVERHEAD_1);
    let (message2, _) = pair.read1(&message1).unwrap().answer(&pair.psk, &[2; 50]).unwrap();
    assert_eq!(message2.len(), 50 + OVERHEAD_2);
}

#[test]
fn a_repeated_message_1_shows_the_same_ephemeral_and_another_handshake_another() {
    let pair = pair();
    let message1 = pair.initiator().message1(b"one").unwrap();
    let other = Initiator::new(&pair.client, &pair.gateway.public(), &pair.psk, &mut Fixed::new(9))
        .unwrap()
        .message1(b"one")
        .unwrap();
    assert_eq!(ephemeral(&message1), message1[..32].try_into().ok().as_ref());
    assert_ne!(ephemeral(&message1), ephemeral(&other));
    assert_eq!(ephemeral(&message1[..31]), None);
}

#[test]
fn another_gateways_message_1_does_not_open() {
    let pair = pair();
    let message1 = pair.initiator().message1(b"hello").unwrap();
    let stranger = PrivateKey::generate(&mut Fixed::new(8));
    assert_eq!(Responder::read1(&stranger, &message1, &mut Fixed::new(5)).err(), Some(NoiseError::Refused));
}

#[test]
fn a_wrong_preshared_key_does_not_open_and_the_right_one_still_does() {
    let pair = pair();
    let mut initiator = pair.initiator();
    let message1 = initiator.message1(b"hello").unwrap();
    let (wrong, _) = pair.read1(&message1).unwrap().answer(&PresharedKey::none(), b"welcome").unwrap();
    assert_eq!(initiator.read2(&wrong).err(), Some(NoiseError::Refused));
    let (right, theirs) = pair.read1(&message1).unwrap().answer(&pair.psk, b"welcome").unwrap();
    let (payload, ours) = initiator.read2(&right).unwrap();
    assert_eq!(payload, b"welcome");
    assert!(same(&ours, &theirs));
}

#[test]
fn every_flipped_byte_of_message_1_is_refused() {
    let pair = pair();
    let message1 = pair.initiator().message1(b"hello").unwrap();
    for at in 0..message1.len() {
        let mut bad = message1.clone();
        bad[at] ^= 1;
        assert!(pair.read1(&bad).is_err(), "byte {at}");
    }
    assert!(pair.read1(&message1).is_ok());
}

#[test]
fn every_flipped_byte_of_message_2_is_refused_and_advances_nothing() {
    let pair = pair();
    let mut initiator = pair.initiator();
    let message1 = initiator.message1(b"hello").unwrap();
    let (message2, theirs) = pair.read1(&message1).unwrap().answer(&pair.psk, b"welcome").unwrap();
    for at in 0..message2.len() {
        let mut bad = message2.clone();
        bad[at] ^= 1;
        assert!(initiator.read2(&bad).is_err(), "byte {at}");
    }
    let (_, ours) = initiator.read2(&message2).unwrap();
    assert!(same(&ours, &theirs));
}

#[test]
fn every_truncation_is_refused_and_advances_nothing() {
    let pair = pair();
    let mut initiator = pair.initiator();
    let message1 = initiator.message1(b"hello").unwrap();
    for len in 0..message1.len() {
        assert!(pair.read1(&message1[..len]).is_err(), "{len} bytes");
    }
    let (message2, _) = pair.read1(&message1).unwrap().answer(&pair.psk, b"welcome").unwrap();
    for len in 0..message2.len() {
        assert!(initiator.read2(&message2[..len]).is_err(), "{len} bytes");
    }
    assert!(initiator.read2(&message2).is_ok());
}

#[test]
fn a_message_longer_than_a_datagram_is_refused() {
    let pair = pair();
    assert_eq!(pair.read1(&[0; 1_501]).err(), Some(NoiseError::Length));
    assert_eq!(pair.initiator().message1(&[0; 1_500]).err(), Some(NoiseError::Length));
}

#[test]
fn a_weak_ephemeral_key_is_refused_as_one() {
    let pair = pair();
    let mut initiator = pair.initiator();
    let mut message1 = initiator.message1(b"hello").unwrap();
    let mut message2 = pair.read1(&message1).unwrap().answer(&pair.psk, b"welcome").unwrap().0;
    for weak in [[0; 32], [0xff; 32]] {
        message1[..32].copy_from_slice(&weak);
        assert_eq!(pair.read1(&message1).err(), Some(NoiseError::WeakKey));
        message2[..32].copy_from_slice(&weak);
        assert_eq!(initiator.read2(&message2).err(), Some(NoiseError::WeakKey));
    }
}

#[test]
fn steps_out_of_order_are_refused() {
    let pair = pair();
    let mut initiator = pair.initiator();
    assert_eq!(initiator.read2(&[0; 100]).err(), Some(NoiseError::Order));
    let message1 = initiator.message1(b"hello").unwrap();
    assert_eq!(initiator.message1(b"again").err(), Some(NoiseError::Order));
    let (message2, _) = pair.read1(&message1).unwrap().answer(&pair.psk, b"welcome").unwrap();
    assert!(initiator.read2(&message2).is_ok());
    assert_eq!(initiator.read2(&message2).err(), Some(NoiseError::Order));
}

#[test]
fn a_replayed_message_1_gives_a_new_handshake_that_only_its_sender_can_finish() {
    let pair = pair();
    let mut initiator = pair.initiator();
    let message1 = initiator.message1(b"hello").unwrap();
    let answer = |seed| {
        let (_, _, responder) = Responder::read1(&pair.gateway, &message1, &mut Fixed::new(seed)).unwrap();
        responder.answer(&pair.psk, b"welcome").unwrap()
    };
    let (first, second) = (answer(5), answer(6));
    assert_ne!(first.0, second.0);
    assert!(!same(&first.1, &second.1));
    let (_, ours) = initiator.read2(&second.0).unwrap();
    assert!(same(&ours, &second.1));
}

proptest! {
    #[test]
    fn garbage_never_panics_and_never_advances(garbage in proptest::collection::vec(any::<u8>(), 0..1_600)) {
        let pair = pair();
        prop_assert!(pair.read1(&garbage).is_err());
        let mut initiator = pair.initiator();
        let message1 = initiator.message1(b"hello").unwrap();
        prop_assert!(initiator.read2(&garbage).is_err());
        let (message2, theirs) = pair.read1(&message1).unwrap().answer(&pair.psk, b"welcome").unwrap();
        let (_, ours) = initiator.read2(&message2).unwrap();
        prop_assert!(same(&ours, &theirs));
    }
}
