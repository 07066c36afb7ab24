//! Reading a map value of several words that somebody else may be writing.
//!
//! Owns the protocol of `OWNERS` and `HOPS`. The one writer makes the sequence odd, stores the words, makes
//! it even; a reader loads sequence, words, sequence. Equal and even means that the words belong together,
//! anything else that they may not. 0 is an entry nobody ever wrote. Must never return words of two writes.

/// Place of the sequence.
pub const SEQUENCE: usize = 0;

/// The `N` words, the sequence first, or `None` while they are empty or being written. Each call of `load`
/// is one load, none of which may overtake an earlier one.
#[inline(always)]
pub fn read<const N: usize>(load: impl Fn(usize) -> u64) -> Option<[u64; N]> {
    let sequence = load(SEQUENCE);
    if sequence == 0 || sequence & 1 == 1 {
        return None;
    }
    let mut words = [sequence; N];
    let mut at = SEQUENCE + 1;
    while at < N {
        words[at] = load(at);
        at += 1;
    }
    (load(SEQUENCE) == sequence).then_some(words)
}

/// The sequences to store before and after writing, given the one that stands there. Not even a writer that
/// died half way leaves anything that a reader would take for whole.
#[must_use]
pub const fn next(sequence: u64) -> (u64, u64) {
    let odd = sequence | 1;
    let even = odd.wrapping_add(1);
    (odd, if even == 0 { 2 } else { even })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn words_are_read_only_between_two_equal_even_sequences() {
        let read_of = |words: [u64; 3]| read::<3>(|at| words[at]);
        assert_eq!(read_of([2, 7, 8]), Some([2, 7, 8]));
        assert_eq!(read_of([0, 7, 8]), None);
        assert_eq!(read_of([3, 7, 8]), None);
        // A write between any two loads.
        for before in 1..=3 {
            let loads = RefCell::new(0);
            let torn = read::<3>(|at| {
                let load = loads.replace_with(|n| *n + 1);
                if load < before { [2, 7, 8][at] } else { [4, 70, 80][at] }
            });
            assert_eq!(torn, None, "before load {before}");
        }
    }

    #[test]
    fn a_sequence_is_odd_during_a_write_and_never_zero_or_the_old_one_after_it() {
        for sequence in [0, 1, 2, 3, u64::MAX - 1, u64::MAX] {
            let (odd, even) = next(sequence);
            assert!(odd & 1 == 1 && even & 1 == 0 && even != 0 && even != sequence, "{sequence}");
        }
    }
}
