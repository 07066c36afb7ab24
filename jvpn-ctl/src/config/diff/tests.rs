//! What a reload shows before it does anything.
//!
//! Owns claims about the comparison of two files. Must never need a daemon.

use super::*;
use std::collections::BTreeSet;

const KEY: &str = "L+V9o0fNYkMVKNqsX7spBzD/9oSvxM/C7ZCZX1jLO3Q=";
const KEY_2: &str = "YAnz5TF+lXXJte14tji3zlMNftftLH4Zfp6FjRDuEmU=";

fn config(lines: &str, rest: &str) -> GatewayConfig {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("gateway.toml");
    let text = format!(
        "[gateway]\nname = \"gw-1\"\nprivate_key_file = \"/etc/gateway.key\"\ninterfaces = [\"eth0\"]\n\
         addresses = [\"10.77.0.1/24\"]\n{lines}\n{rest}"
    );
    std::fs::write(&path, text).expect("written");
    GatewayConfig::load(&path).expect("fine")
}

fn peer(name: &str, key: &str, address: &str, policy: &str) -> String {
    format!("[[peer]]\nname = \"{name}\"\npublic_key = \"{key}\"\naddresses = [\"{address}\"]\npolicy = \"{policy}\"\n")
}

fn lines(old: &GatewayConfig, new: &GatewayConfig) -> Vec<String> {
    let nobody = Emergency::default();
    Diff::between((old, &nobody), (new, &nobody)).lines()
}

#[test]
fn the_same_file_changes_nothing() {
    let one = || config("", &peer("a", KEY, "10.77.0.2/32", "field"));
    assert!(lines(&one(), &one()).is_empty());
}

#[test]
fn every_key_of_the_gateway_needs_another_start_or_is_named_as_taken() {
    let old = config("", "");
    for line in [
        "listen = 1",
        "xdp = \"off\"",
        "tun = \"t0\"",
        "masquerade = false",
        "max_sessions = 7",
        "workers = 3",
        "mtu = 1400",
        "relay_listen = 5",
        "state_dir = \"s\"",
        "run_dir = \"r\"",
        "pin_root = \"p\"",
    ] {
        let key = line.split(' ').next().expect("a key");
        let said = lines(&old, &config(line, ""));
        assert!(said.len() == 1 && said[0].starts_with(&format!("! gateway {key}: ")), "{said:?}");
    }
    assert_eq!(lines(&old, &config("reload = \"strict\"", "")), ["~ gateway reload: \"grace\" → \"strict\""]);
    let mut other = config("", "");
    other.interfaces.push("eth1".to_owned());
    assert!(lines(&old, &other)[0].contains("interfaces: [\"eth0\"] → [\"eth0\", \"eth1\"]"));
}

#[test]
fn peers_come_go_and_change_by_their_key_not_by_their_name() {
    let old = config("", &peer("a", KEY, "10.77.0.2/32", "field"));
    let renamed = config("", &peer("b", KEY, "10.77.0.2/32", "field"));
    assert_eq!(lines(&old, &renamed), ["~ peer b name: \"a\" → \"b\" (at once)"]);
    let another = config("", &peer("a", KEY_2, "10.77.0.2/32", "field"));
    assert_eq!(lines(&old, &another), ["- peer a (its session ends)", "+ peer a"]);
    let moved = config("", &peer("a", KEY, "10.77.0.9/32", "field"));
    let said = lines(&old, &moved);
    assert_eq!(
        said,
        ["~ peer a addresses: [\"10.77.0.2/32\"] → [\"10.77.0.9/32\"] (its session ends, the next one has it)"]
    );
    assert!(ends_session(&old.peers[0], &moved.peers[0]) && !ends_session(&old.peers[0], &renamed.peers[0]));
}

#[test]
fn a_bound_names_its_old_and_new_value_and_the_peers_it_counts_for() {
    let peers = [peer("a", KEY, "10.77.0.2/32", "counter"), peer("b", KEY_2, "10.77.0.3/32", "field")].concat();
    let old = config("", &format!("{peers}[policy.counter]\ndead_after = \"40ms\"\n"));
    let new =
        config("", &format!("{peers}[policy.counter]\ndead_after = \"50ms\"\n[policy.fast]\ncooldown = \"2s\"\n"));
    let said = lines(&old, &new);
    assert_eq!(said, ["~ policy counter dead_after: 40ms → 50ms (a)", "~ policy fast cooldown: 1s → 2s (no peer)"]);
    // Another class for a peer: what it means is said, too.
    let other = config("", &peers.replace("\"field\"", "\"fast\"").replace("counter", "field"));
    let said = lines(&old, &other);
    assert!(said.contains(&"~ policy fast dead_after: 30ms → 20ms (b)".to_owned()), "{said:?}");
    assert!(said.contains(&"~ peer b policy: \"field\" → \"fast\" (its session goes on)".to_owned()), "{said:?}");
}

#[test]
fn an_emergency_is_a_change_of_its_peers_policies_alone() {
    let peers = [peer("a", KEY, "10.77.0.2/32", "field"), peer("b", KEY_2, "10.77.0.3/32", "field")].concat();
    let config = config("", &peers);
    let (nobody, one) =
        (Emergency::default(), Emergency { peers: BTreeSet::from(["b".to_owned()]), ..Emergency::default() });
    let said = Diff::between((&config, &nobody), (&config, &one)).lines();
    assert_eq!(said, ["~ policy field better_switching: allowed → frozen (b)"]);
    let all = Emergency { all: true, ..Emergency::default() };
    let said = Diff::between((&config, &one), (&config, &all)).lines();
    assert_eq!(said, ["~ policy field better_switching: allowed → frozen (a)"]);
}
