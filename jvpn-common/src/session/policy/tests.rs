//! Tests of policy: what may be written, what contradicts itself, what a client gets.
//!
//! Owns no product code. Must never rely on a default without naming it.

use super::*;
use proptest::prelude::*;

#[test]
fn every_default_lies_in_its_range_and_reads_back_from_its_text() {
    for name in SHIPPED.iter().copied() {
        let policy = Policy::shipped(name).expect("a shipped class");
        policy.check().expect("no contradiction");
        assert_eq!(Policy::from_text(&policy.text()), Some(policy.clone()));
        assert_eq!(Policy::decode(&policy.encode()), Some(policy));
    }
    assert_eq!(Policy::shipped("nope"), None);
    assert_eq!(Policy::field().values().len(), KEYS.len());
}

#[test]
fn values_are_read_in_their_units() {
    let mut policy = Policy::field();
    policy.set("dead_after", "30ms").expect("a duration");
    policy.set("session_ttl", "2 h").expect("a duration");
    policy.set("improvement", "2.5 %").expect("a share");
    policy.set("max_candidates", "2").expect("a count");
    policy.set("allowed_transports", "backup,primary").expect("a set");
    policy.set("audit", "strict").expect("a choice");
    assert_eq!((policy.dead_after, policy.session_ttl), (ms(30), secs(7_200)));
    assert_eq!((policy.improvement, policy.max_candidates), (Permille(25), 2));
    assert!(policy.allows(TransportClass::Backup) && !policy.allows(TransportClass::Secondary));
    assert_eq!(policy.audit, Audit::Strict);
}

#[test]
fn a_wrong_value_is_refused_naming_what_was_expected_and_changes_nothing() {
    let mut policy = Policy::field();
    for (key, text, says) in [
        ("dead_after", "30", "wants a duration"),
        ("dead_after", "ms", "wants a duration"),
        ("dead_after", "-3ms", "wants a duration"),
        ("dead_after", "99999999999999999999s", "wants a duration"),
        ("dead_after", "1ms", "between 5ms and 10s"),
        ("dead_after", "11s", "between 5ms and 10s"),
        ("improvement", "20", "wants a share"),
        ("improvement", "+1 %", "wants a share"),
        ("improvement", "0.55 %", "wants a share"),
        ("improvement", "101 %", "between 0 % and 100 %"),
        ("max_candidates", "5", "between 1 and 4"),
        ("max_candidates", "+1", "wants a count"),
        ("max_candidates", "", "wants a count"),
        ("allowed_transports", "", "wants one or more of"),
        ("allowed_transports", "wifi", "wants one or more of"),
        ("audit", "maybe", "wants relaxed or strict"),
        ("dead_afte", "1s", "the nearest is `dead_after`"),
    ] {
        let error = policy.set(key, text).expect_err("must be refused").to_string();
        assert!(error.contains(says), "{key} = {text}: {error}");
    }
    assert_eq!(policy, Policy::field());
}

#[test]
fn a_contradiction_names_both_keys() {
    for (key, text, a, b) in [
        ("session_ttl", "10m", "transport_loss_ttl", "session_ttl"),
        ("max_recovery_window", "20m", "max_recovery_window", "transport_loss_ttl"),
        ("loss_floor", "4 %", "loss_floor", "loss_threshold"),
        ("standby_interval", "100ms", "probe_interval", "standby_interval"),
        ("volatile_max", "1s", "stability_window", "volatile_max"),
        ("degraded_stability_window", "2s", "stability_window", "degraded_stability_window"),
        ("cooldown", "20s", "cooldown", "degraded_stability_window"),
        ("dead_after", "6s", "gateway_dead_after", "dead_after"),
        ("volatility_hold", "60s", "volatility_hold", "volatile_max"),
    ] {
        let mut policy = Policy::field();
        policy.probe_interval = if key == "standby_interval" { ms(200) } else { policy.probe_interval };
        policy.volatile_max = if key == "volatility_hold" { secs(59) } else { policy.volatile_max };
        policy.set(key, text).expect("in range");
        let found = policy.check().expect_err("must contradict");
        assert_eq!((found.a, found.b), (a, b), "{key} = {text}");
        assert_eq!(Policy::decode(&policy.encode()), None, "a snapshot that contradicts itself was read");
    }
}

#[test]
fn the_largest_snapshot_fits() {
    let mut policy = Policy { name: "n".repeat(NAME_MAX), ..Policy::field() };
    for key in KEYS {
        policy.set(key.name, &(key.max)()).expect("the end of the range");
    }
    assert!(policy.encode().len() <= 300, "{}", policy.encode().len());
}

#[test]
fn a_cut_or_longer_snapshot_is_no_policy() {
    let bytes = Policy::field().encode();
    for len in 0..bytes.len() {
        assert_eq!(Policy::decode(&bytes[..len]), None, "cut at {len}");
    }
    assert_eq!(Policy::decode(&[bytes.as_slice(), &[0]].concat()), None);
}

proptest! {
    #[test]
    fn a_snapshot_has_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..200_usize, with: u8) {
        if let Some(policy) = Policy::decode(&bytes) {
            prop_assert_eq!(policy.encode(), bytes);
        }
        let mut changed = Policy::field().encode();
        if let Some(byte) = changed.get_mut(at) {
            *byte = with;
        }
        if let Some(policy) = Policy::decode(&changed) {
            prop_assert_eq!(policy.encode(), changed);
        }
    }
}
