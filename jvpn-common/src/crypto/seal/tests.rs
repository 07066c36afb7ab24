//! Tests of sealing and opening: every nonce once, every refusal, every limit.

#![expect(clippy::disallowed_types, reason = "two threads write down what they sealed")]

use super::{
    Aead, ChaCha, NonceBytes, OpenError, OpeningKey, SealError, SealingKey, control_opener, control_sealer, nonce,
};
use crate::crypto::suite::{Limits, Suite};
use crate::crypto::vectors::cases;
use crate::limits::{HEADER_LEN, TAG_LEN};
use crate::replay::{ReplayError, TRANSPORTS_MAX};
use crate::secret::Secret;
use crate::wire::Header;
use std::collections::BTreeSet;
use std::sync::Mutex;

fn key(byte: u8) -> Secret<32> {
    Secret::take(&mut [byte; 32])
}

fn header(counter: u64) -> [u8; HEADER_LEN] {
    Header { kind: 5, epoch: 1, flags: 0, tag: 7, locator: 8, counter }.to_bytes()
}

fn split(datagram: &[u8]) -> ([u8; HEADER_LEN], Vec<u8>) {
    let (head, body) = datagram.split_first_chunk::<HEADER_LEN>().unwrap();
    (*head, body.to_vec())
}

/// Writes down every nonce that reaches the AEAD.
struct Recorder {
    inner: ChaCha,
    seen: Mutex<Vec<NonceBytes>>,
}

impl Recorder {
    fn new() -> Self {
        Self { inner: ChaCha::new(key(1)), seen: Mutex::default() }
    }
}

impl Aead for Recorder {
    fn seal_in_place(&self, nonce: &NonceBytes, aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        self.seen.lock().unwrap().push(*nonce);
        self.inner.seal_in_place(nonce, aad, text)
    }

    fn open_in_place(&self, nonce: &NonceBytes, aad: &[u8], sealed: &mut [u8]) -> Option<usize> {
        self.inner.open_in_place(nonce, aad, sealed)
    }
}

const SMALL: Limits = Limits { rekey_after: 4, reject_after: 6, failures: 2 };

#[test]
fn a_sealed_message_is_the_one_of_the_second_implementation() {
    for case in cases(include_str!("../../../../tests/vectors/control.json")) {
        let (k, counter): (u16, u64) = (case.number("k"), case.number("counter"));
        let sealer = control_sealer(Secret::take(&mut case.array("key")));
        if counter > 0 {
            let skipped = sealer.reserve(k, u32::try_from(counter).unwrap()).unwrap();
            assert_eq!(skipped.left(), counter);
        }
        let head = |counter| {
            let (epoch, flags, tag, locator) = (3, 1, 0xdead_beef, 0x0123_4567_89ab_cdef);
            Header { kind: 5, epoch, flags, tag, locator, counter }.to_bytes()
        };
        let datagram = sealer.seal(k, head, &case.bytes("text")).unwrap();
        assert_eq!(datagram, case.bytes("datagram"));
        let opener = control_opener(Secret::take(&mut case.array("key")));
        let (head, mut body) = split(&datagram);
        let len = opener.open(k, &head, &mut body).unwrap();
        assert_eq!(body[..len], case.bytes("text"));
    }
}

#[test]
fn two_threads_sealing_a_million_packets_never_share_a_nonce() {
    const EACH: u32 = 500_000;
    let sealer = SealingKey::new(Recorder::new(), Suite::Aes256Gcm.limits());
    std::thread::scope(|scope| {
        for thread in 0..2_u32 {
            let sealer = &sealer;
            scope.spawn(move || {
                let mut left = EACH;
                while left > 0 {
                    let batch = (1 + (left + thread) % 64).min(left);
                    let k = u16::try_from(left % 3).unwrap();
                    let mut reservation = sealer.reserve(k, batch).unwrap();
                    while reservation.seal_next(header, &mut [0; 8]).is_some() {}
                    left -= batch;
                }
            });
        }
    });
    let mut seen = std::mem::take(&mut *sealer.aead().seen.lock().unwrap());
    assert_eq!(seen.len(), 2 * EACH as usize);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 2 * EACH as usize);
    assert_eq!(sealer.sealed(), u64::from(2 * EACH));
}

#[test]
fn each_transport_counts_from_zero_and_goes_on_where_it_was() {
    let sealer = control_sealer(key(1));
    let counter = |k| Header::from_bytes(&split(&sealer.seal(k, header, b"x").unwrap()).0).counter;
    assert_eq!([counter(0), counter(0), counter(5), counter(0), counter(5)], [0, 1, 0, 2, 1]);
    assert_eq!((sealer.next_counter(0), sealer.next_counter(5), sealer.next_counter(9)), (3, 2, 0));
}

#[test]
fn a_nonce_names_transport_and_counter() {
    assert_eq!(nonce(0x0102, 3), [2, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    assert_ne!(nonce(1, 0), nonce(0, 1));
}

#[test]
fn an_unused_reservation_is_lost_and_never_given_again() {
    let sealer = SealingKey::new(Recorder::new(), Suite::Aes256Gcm.limits());
    assert_eq!(sealer.reserve(0, 10).unwrap().left(), 10);
    let mut reservation = sealer.reserve(0, 2).unwrap();
    let mut counters = Vec::new();
    let mut note = |counter| {
        counters.push(counter);
        header(counter)
    };
    assert!(reservation.seal_next(&mut note, &mut []).is_some());
    assert!(reservation.seal_next(&mut note, &mut []).is_some());
    assert!(reservation.seal_next(&mut note, &mut []).is_none());
    assert_eq!(counters, [10, 11]);
}

#[test]
fn a_spent_key_seals_nothing_more_on_any_transport() {
    let sealer = SealingKey::new(ChaCha::new(key(1)), &SMALL);
    assert!(sealer.reserve(0, 3).is_ok());
    assert!(!sealer.rekey_due());
    assert!(sealer.reserve(1, 1).is_ok());
    assert!(sealer.rekey_due());
    assert_eq!(sealer.reserve(0, 3).err(), Some(SealError::Spent), "a batch beyond the limit takes nothing");
    assert_eq!(sealer.sealed(), 4);
    assert!(sealer.reserve(2, 2).is_ok());
    assert_eq!(sealer.seal(0, header, b"x").err(), Some(SealError::Spent));
    assert_eq!(sealer.seal(3, header, b"x").err(), Some(SealError::Spent));
    assert_eq!(sealer.sealed(), 6);
}

#[test]
fn a_key_counts_as_spent_before_a_batch_finds_nothing_left() {
    const LIMITS: Limits = Limits { rekey_after: 10, reject_after: 2_000, failures: 3 };
    let sealer = SealingKey::new(ChaCha::new(key(1)), &LIMITS);
    assert!(sealer.reserve(0, 976).is_ok() && !sealer.spent());
    assert!(sealer.reserve(0, 1).is_ok() && sealer.spent());
    assert_eq!(sealer.reserve(0, 1_024).err(), Some(SealError::Spent));
}

#[test]
fn a_transport_given_up_by_the_sealer_never_starts_again() {
    let sealer = SealingKey::new(ChaCha::new(key(1)), Suite::Aes256Gcm.limits());
    for k in 0..=TRANSPORTS_MAX as u16 {
        assert!(sealer.reserve(k, 1).is_ok());
    }
    assert_eq!(sealer.reserve(0, 1).err(), Some(SealError::Retired));
    assert!(sealer.reserve(1, 1).is_ok());
    assert_eq!(sealer.next_counter(1), 2);
    assert_eq!(sealer.sealed(), TRANSPORTS_MAX as u64 + 2, "a refused reservation is not counted");
}

#[test]
fn a_replayed_datagram_is_refused_before_the_aead() {
    let (sealer, opener) = (control_sealer(key(1)), control_opener(key(1)));
    let (head, body) = split(&sealer.seal(0, header, b"once").unwrap());
    assert_eq!(opener.open(0, &head, &mut body.clone()), Ok(4));
    assert_eq!(opener.open(0, &head, &mut body.clone()), Err(OpenError::Replay(ReplayError::Replayed)));
    let garbage = &mut vec![0; body.len()];
    assert_eq!(opener.open(0, &head, garbage), Err(OpenError::Replay(ReplayError::Replayed)));
    assert_eq!((opener.opened(), opener.failed()), (1, 0));
}

#[test]
fn every_flipped_byte_is_refused_and_uses_nothing_up() {
    let (sealer, mut opener) = (control_sealer(key(1)), control_opener(key(1)));
    let datagram = sealer.seal(0, header, b"some text").unwrap();
    for at in 0..datagram.len() {
        let mut bad = datagram.clone();
        bad[at] ^= 1;
        let (head, mut body) = split(&bad);
        assert_eq!(opener.open(0, &head, &mut body), Err(OpenError::Forged), "byte {at}");
        let (head, mut body) = split(&bad);
        assert_eq!(opener.open_exclusive(0, &head, &mut body), Err(OpenError::Forged), "byte {at}");
    }
    assert_eq!((opener.opened(), opener.failed()), (0, 2 * datagram.len() as u64));
    assert_eq!(opener.highest(0), None);
    let (head, mut body) = split(&datagram);
    assert_eq!(opener.open(0, &head, &mut body), Ok(9));
    assert_eq!(&body[..9], b"some text");
}

#[test]
fn every_truncation_is_refused() {
    let (sealer, opener) = (control_sealer(key(1)), control_opener(key(1)));
    let (head, body) = split(&sealer.seal(0, header, b"some text").unwrap());
    for len in 0..body.len() {
        let wanted = if len < TAG_LEN { OpenError::Length } else { OpenError::Forged };
        assert_eq!(opener.open(0, &head, &mut body.clone()[..len]), Err(wanted), "{len} bytes");
    }
}

#[test]
fn a_datagram_opens_only_under_its_key_and_transport() {
    let sealer = control_sealer(key(1));
    let (head, body) = split(&sealer.seal(2, header, b"text").unwrap());
    assert_eq!(control_opener(key(2)).open(2, &head, &mut body.clone()), Err(OpenError::Forged));
    assert_eq!(control_opener(key(1)).open(3, &head, &mut body.clone()), Err(OpenError::Forged));
    assert_eq!(control_opener(key(1)).open(2, &head, &mut body.clone()), Ok(4));
}

#[test]
fn opening_alone_and_opening_shared_use_the_same_window() {
    let (sealer, mut opener) = (control_sealer(key(1)), control_opener(key(1)));
    let (head, body) = split(&sealer.seal(0, header, b"text").unwrap());
    assert_eq!(opener.open_exclusive(0, &head, &mut body.clone()), Ok(4));
    assert_eq!(opener.open(0, &head, &mut body.clone()), Err(OpenError::Replay(ReplayError::Replayed)));
    assert_eq!(opener.open_exclusive(0, &head, &mut body.clone()), Err(OpenError::Replay(ReplayError::Replayed)));
}

#[test]
fn of_twins_opened_by_two_threads_exactly_one_is_accepted() {
    let (sealer, opener) = (control_sealer(key(1)), control_opener(key(1)));
    let datagrams: Vec<_> = (0..2_000).map(|_| split(&sealer.seal(0, header, b"twin").unwrap())).collect();
    let accepted: usize = std::thread::scope(|scope| {
        let run = || datagrams.iter().filter(|(head, body)| opener.open(0, head, &mut body.clone()).is_ok()).count();
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(accepted, datagrams.len());
}

#[test]
fn too_many_failed_opens_ask_for_a_rekey() {
    let opener = OpeningKey::new(ChaCha::new(key(1)), &SMALL);
    assert!(!opener.rekey_due());
    for counter in 0..2 {
        assert_eq!(opener.open(0, &header(counter), &mut [0; 16]), Err(OpenError::Forged));
    }
    assert!(opener.rekey_due());
}

#[test]
fn keys_in_use_are_not_printed() {
    let sealer = control_sealer(key(0xab));
    let opener = control_opener(key(0xab));
    let printed = format!("{sealer:?} {opener:?} {:?} {:?}", sealer.reserve(0, 1).unwrap(), ChaCha::new(key(0xab)));
    assert!(!printed.contains("171") && !printed.contains("ab"), "{printed}");
}

#[test]
fn counters_of_one_key_are_distinct_over_many_transports() {
    let sealer = SealingKey::new(Recorder::new(), Suite::Aes256Gcm.limits());
    for round in 0..50 {
        let _ = sealer.seal(round % 20, header, b"x");
        let _ = sealer.seal(round, header, b"x");
    }
    let seen = sealer.aead().seen.lock().unwrap();
    let distinct: BTreeSet<&NonceBytes> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len());
}
