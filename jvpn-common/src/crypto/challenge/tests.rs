//! Tests of the challenge cookie: bound to all of its challenge, for five seconds.

use super::{Challenge, ChallengeError, ChallengeSecret};
use crate::crypto::test_entropy::Fixed;
use crate::crypto::vectors::cases;
use crate::ids::{Incarnation, SessionId};
use crate::limits::COOKIE_LIFE;
use crate::time::{Duration, Instant};
use core::net::SocketAddr;

fn challenge() -> Challenge {
    Challenge {
        session: SessionId([1; 16]),
        client: "198.51.100.3:1024".parse().unwrap(),
        gateway: "203.0.113.1:51821".parse().unwrap(),
        nonce: 5,
        purpose: 2,
        incarnation: Incarnation(77),
        time: Instant(1_000_000_000),
    }
}

#[test]
fn the_cookie_is_the_one_of_the_second_implementation() {
    for case in cases(include_str!("../../../../tests/vectors/challenge.json")) {
        let challenge = Challenge {
            session: SessionId(case.array("session")),
            client: SocketAddr::new(case.text("client_ip").parse().unwrap(), case.number("client_port")),
            gateway: SocketAddr::new(case.text("gateway_ip").parse().unwrap(), case.number("gateway_port")),
            nonce: case.number("nonce"),
            purpose: case.number("purpose"),
            incarnation: Incarnation(case.number("incarnation")),
            time: Instant(case.number("time")),
        };
        let secret = ChallengeSecret::new(&mut Fixed::new(case.number("secret_seed")));
        assert_eq!(secret.cookie(&challenge), case.array::<16>("cookie"));
    }
}

#[test]
fn a_cookie_proves_its_own_challenge_and_no_other() {
    let secret = ChallengeSecret::new(&mut Fixed::new(1));
    let base = challenge();
    let cookie = secret.cookie(&base);
    let now = base.time + Duration::from_secs(1);
    assert_eq!(secret.verify(&base, &cookie, now), Ok(()));
    let others = [
        Challenge { session: SessionId([2; 16]), ..base },
        Challenge { client: "198.51.100.4:1024".parse().unwrap(), ..base },
        Challenge { client: "198.51.100.3:1025".parse().unwrap(), ..base },
        Challenge { gateway: "203.0.113.2:51821".parse().unwrap(), ..base },
        Challenge { gateway: "203.0.113.1:51822".parse().unwrap(), ..base },
        Challenge { client: base.gateway, gateway: base.client, ..base },
        Challenge { nonce: 6, ..base },
        Challenge { purpose: 3, ..base },
        Challenge { incarnation: Incarnation(78), ..base },
        Challenge { time: Instant(base.time.0 + 1), ..base },
    ];
    for other in others {
        assert_eq!(secret.verify(&other, &cookie, now), Err(ChallengeError::Wrong), "{other:?}");
    }
}

#[test]
fn every_flipped_bit_of_a_cookie_is_refused() {
    let secret = ChallengeSecret::new(&mut Fixed::new(1));
    let base = challenge();
    for bit in 0..128 {
        let mut cookie = secret.cookie(&base);
        cookie[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(secret.verify(&base, &cookie, base.time), Err(ChallengeError::Wrong));
    }
}

#[test]
fn a_cookie_of_another_process_is_refused() {
    let cookie = ChallengeSecret::new(&mut Fixed::new(1)).cookie(&challenge());
    let other = ChallengeSecret::new(&mut Fixed::new(2));
    assert_eq!(other.verify(&challenge(), &cookie, challenge().time), Err(ChallengeError::Wrong));
}

#[test]
fn a_cookie_lives_five_seconds_and_not_a_nanosecond_longer() {
    let secret = ChallengeSecret::new(&mut Fixed::new(1));
    let base = challenge();
    let cookie = secret.cookie(&base);
    assert_eq!(secret.verify(&base, &cookie, base.time), Ok(()), "in the instant it was made");
    assert_eq!(secret.verify(&base, &cookie, base.time + COOKIE_LIFE), Ok(()));
    let late = base.time + COOKIE_LIFE + Duration::from_nanos(1);
    assert_eq!(secret.verify(&base, &cookie, late), Err(ChallengeError::Expired));
    let early = base.time.before(Duration::from_nanos(1));
    assert_eq!(secret.verify(&base, &cookie, early), Err(ChallengeError::Expired));
}
