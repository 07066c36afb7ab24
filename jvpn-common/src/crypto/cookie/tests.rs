//! Tests of mac1, mac2 and the cookie reply.

use super::{CookieError, CookieSecret, MAC_LEN, MACS_LEN, MacKeys, REPLY_LEN};
use crate::crypto::Entropy;
use crate::crypto::test_entropy::Fixed;
use crate::crypto::vectors::cases;
use crate::secret::{PrivateKey, PublicKey};
use core::net::SocketAddr;

fn source() -> SocketAddr {
    "192.0.2.7:51821".parse().unwrap()
}

fn keys() -> MacKeys {
    MacKeys::new(&PrivateKey::generate(&mut Fixed::new(1)).public())
}

fn message() -> Vec<u8> {
    vec![7; 1_200]
}

#[test]
fn macs_and_reply_are_the_ones_of_the_second_implementation() {
    for case in cases(include_str!("../../../../tests/vectors/cookie.json")) {
        let keys = MacKeys::new(&PublicKey::from_bytes(case.array("receiver")).unwrap());
        let mut entropy = Fixed::new(0x70);
        entropy.fill(&mut [0; 32]);
        let secret = CookieSecret::new(&mut entropy);
        let source = SocketAddr::new(case.text("ip").parse().unwrap(), case.number("port"));
        let mut message = [case.bytes("text"), vec![0; MACS_LEN]].concat();
        let mac1 = keys.fill(&mut message, None).unwrap();
        assert_eq!(mac1, case.array::<MAC_LEN>("mac1"));
        let nonce = &mut Fixed::new(case.number("nonce_seed"));
        let reply = secret.reply(&keys, &message, 0x0102_0304, source, nonce).unwrap();
        assert_eq!(reply, case.array::<REPLY_LEN>("reply"));
        let (receiver, cookie) = keys.open_reply(&reply, &mac1).unwrap();
        assert_eq!((receiver, cookie.0), (0x0102_0304, case.array("cookie")));
        keys.fill(&mut message, Some(&cookie));
        assert_eq!(message[message.len() - MAC_LEN..], case.bytes("mac2"));
        assert!(secret.verify_mac2(&message, source));
    }
}

#[test]
fn mac1_holds_for_this_receiver_and_these_bytes_only() {
    let keys = keys();
    let mut message = message();
    keys.fill(&mut message, None);
    assert!(keys.verify_mac1(&message));
    assert!(!MacKeys::new(&PrivateKey::generate(&mut Fixed::new(2)).public()).verify_mac1(&message));
    for at in 0..message.len() - MAC_LEN {
        message[at] ^= 0x80;
        assert!(!keys.verify_mac1(&message), "byte {at}");
        message[at] ^= 0x80;
    }
    assert!(keys.verify_mac1(&message));
}

#[test]
fn a_message_without_room_for_the_macs_has_none() {
    let keys = keys();
    let secret = CookieSecret::new(&mut Fixed::new(3));
    for len in 0..MACS_LEN {
        let mut short = vec![0; len];
        assert_eq!(keys.fill(&mut short, None), None);
        assert!(!keys.verify_mac1(&short));
        assert!(!secret.verify_mac2(&short, source()));
        assert_eq!(secret.reply(&keys, &short, 1, source(), &mut Fixed::new(4)), None);
    }
}

/// A message with the mac2 a fresh cookie allows, and the secret the cookie is of.
fn with_cookie() -> (CookieSecret, Vec<u8>) {
    let (keys, secret, mut message) = (keys(), CookieSecret::new(&mut Fixed::new(3)), message());
    let mac1 = keys.fill(&mut message, None).unwrap();
    assert!(!secret.verify_mac2(&message, source()));
    let reply = secret.reply(&keys, &message, 9, source(), &mut Fixed::new(4)).unwrap();
    let (_, cookie) = keys.open_reply(&reply, &mac1).unwrap();
    keys.fill(&mut message, Some(&cookie));
    assert!(secret.verify_mac2(&message, source()));
    (secret, message)
}

#[test]
fn mac2_holds_for_its_source_only() {
    let (secret, message) = with_cookie();
    assert!(!secret.verify_mac2(&message, "192.0.2.8:51821".parse().unwrap()));
    assert!(!secret.verify_mac2(&message, "192.0.2.7:51822".parse().unwrap()));
    assert!(secret.verify_mac2(&message, "[::ffff:192.0.2.7]:51821".parse().unwrap()));
}

#[test]
fn mac2_holds_for_its_bytes_only() {
    let (secret, mut message) = with_cookie();
    for at in 0..message.len() {
        message[at] ^= 1;
        assert!(!secret.verify_mac2(&message, source()), "byte {at}");
        message[at] ^= 1;
    }
}

#[test]
fn a_cookie_outlives_one_rotation_and_not_two() {
    let (mut secret, message) = with_cookie();
    secret.rotate(&mut Fixed::new(5));
    assert!(secret.verify_mac2(&message, source()));
    secret.rotate(&mut Fixed::new(6));
    assert!(!secret.verify_mac2(&message, source()));
}

#[test]
fn a_cookie_reply_opens_only_whole_for_its_gateway_and_its_message() {
    let (keys, secret, mut message) = (keys(), CookieSecret::new(&mut Fixed::new(3)), message());
    let mac1 = keys.fill(&mut message, None).unwrap();
    let reply = secret.reply(&keys, &message, 9, source(), &mut Fixed::new(4)).unwrap();
    assert!(keys.open_reply(&reply, &mac1).is_ok());
    assert_eq!(keys.open_reply(&reply, &[0; 16]).err(), Some(CookieError::Refused));
    let stranger = MacKeys::new(&PrivateKey::generate(&mut Fixed::new(2)).public());
    assert_eq!(stranger.open_reply(&reply, &mac1).err(), Some(CookieError::Refused));
    assert_eq!(keys.open_reply(&reply[1..], &mac1).err(), Some(CookieError::Format));
    assert_eq!(keys.open_reply(&[], &mac1).err(), Some(CookieError::Format));
    for at in (0..4).chain(8..REPLY_LEN) {
        let mut bad = reply;
        bad[at] ^= 1;
        let wanted = if at < 4 { CookieError::Format } else { CookieError::Refused };
        assert_eq!(keys.open_reply(&bad, &mac1).err(), Some(wanted), "byte {at}");
    }
}

#[test]
fn a_cookie_is_not_printed() {
    let (keys, secret, mut message) = (keys(), CookieSecret::new(&mut Fixed::new(3)), message());
    let mac1 = keys.fill(&mut message, None).unwrap();
    let reply = secret.reply(&keys, &message, 9, source(), &mut Fixed::new(4)).unwrap();
    assert_eq!(format!("{:?}", keys.open_reply(&reply, &mac1).unwrap().1), "Cookie(..)");
    assert!(!format!("{secret:?}").contains('['));
}
