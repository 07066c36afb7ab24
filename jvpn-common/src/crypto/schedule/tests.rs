//! Tests of the key schedule: published vectors, and that the secret is the split and not the hash.

use super::EpochKeys;
use crate::crypto::noise::Split;
use crate::crypto::vectors::cases;
use crate::secret::Secret;

fn split(hash: [u8; 32], mut k1: [u8; 32], mut k2: [u8; 32]) -> Split {
    Split { hash, k1: Secret::take(&mut k1), k2: Secret::take(&mut k2) }
}

fn all(keys: &EpochKeys) -> Vec<Vec<u8>> {
    let EpochKeys { data, control, steering } = keys;
    let long = [&data.up, &data.down, &control.up, &control.down].map(|key| key.expose().to_vec());
    let short = [&steering.up, &steering.down].map(|key| key.expose().to_vec());
    long.into_iter().chain(short).collect()
}

#[test]
fn the_keys_are_the_ones_of_the_second_implementation() {
    for case in cases(include_str!("../../../../tests/vectors/schedule.json")) {
        let keys = EpochKeys::derive(split(case.array("hash"), case.array("k1"), case.array("k2")));
        let labels = ["data up", "data down", "control up", "control down", "steering up", "steering down"];
        assert_eq!(all(&keys), labels.map(|label| case.bytes(label)));
    }
}

#[test]
fn another_split_with_the_same_transcript_gives_other_keys() {
    let base = all(&EpochKeys::derive(split([1; 32], [2; 32], [3; 32])));
    for other in [split([1; 32], [9; 32], [3; 32]), split([1; 32], [2; 32], [9; 32])] {
        let other = all(&EpochKeys::derive(other));
        assert!(base.iter().zip(&other).all(|(a, b)| a != b));
    }
}

#[test]
fn another_transcript_with_the_same_split_gives_other_keys() {
    let base = all(&EpochKeys::derive(split([1; 32], [2; 32], [3; 32])));
    let other = all(&EpochKeys::derive(split([7; 32], [2; 32], [3; 32])));
    assert!(base.iter().zip(&other).all(|(a, b)| a != b));
}

#[test]
fn no_two_outputs_share_their_first_sixteen_bytes() {
    let keys = all(&EpochKeys::derive(split([1; 32], [2; 32], [3; 32])));
    let fronts: std::collections::BTreeSet<&[u8]> = keys.iter().map(|key| &key[..16]).collect();
    assert_eq!(fronts.len(), 6);
}

#[test]
fn steering_words_are_the_keys_bytes_in_little_endian() {
    let keys = EpochKeys::derive(split([1; 32], [2; 32], [3; 32]));
    let words = keys.steering_words();
    let bytes = [words.up[0].to_le_bytes(), words.up[1].to_le_bytes()].concat();
    assert_eq!(bytes, keys.steering.up.expose());
    assert_ne!(words.up, words.down);
}
