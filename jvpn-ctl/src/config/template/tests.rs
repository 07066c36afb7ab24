//! The commented files are read back, and every key the reader knows is explained.

use super::*;
use crate::config::{ClientConfig, GatewayConfig, RelayConfig, XdpMode};
use std::os::unix::fs::PermissionsExt as _;

const KEY: &str = "L+V9o0fNYkMVKNqsX7spBzD/9oSvxM/C7ZCZX1jLO3Q=";
const PRIVATE: &str = "YAnz5TF+lXXJte14tji3zlMNftftLH4Zfp6FjRDuEmU=";

fn gateway_values() -> GatewayValues {
    GatewayValues {
        name: "gw-1".into(),
        private_key_file: "gateway.key".into(),
        interfaces: vec!["eth0".into()],
        addresses: vec!["10.77.0.1/24".into(), "fd77::1/64".into()],
        listen: DEFAULT_PORT,
    }
}

fn client_values(inline: bool) -> ClientValues {
    ClientValues {
        name: "till-17".into(),
        private_key: inline.then(|| Zeroizing::new(PRIVATE.into())),
        preshared_key: inline.then(|| Zeroizing::new(PRIVATE.into())),
        routes: vec!["10.0.0.0/8".into()],
        public_key: KEY.into(),
        endpoints: vec!["198.51.100.7:51821".into()],
    }
}

/// The file with every commented key switched on.
fn switched_on(text: &str) -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with([' ', '#']) => key.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|line| on(line) + "\n").collect()
}

fn written(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("private");
    (dir, path)
}

#[test]
fn a_fresh_gateway_file_loads_and_its_commented_keys_are_the_defaults() {
    let text = gateway(&gateway_values());
    let (_dir, path) = written("gateway.toml", &text);
    let plain = GatewayConfig::load(&path).expect("fine");
    let (_dir, path) = written("gateway.toml", &switched_on(&text));
    let full = GatewayConfig::load(&path).unwrap_or_else(|report| panic!("{report}"));
    let defaults = |config: &GatewayConfig| {
        (
            config.listen,
            config.xdp,
            config.tun.clone(),
            config.masquerade,
            config.max_sessions,
            config.workers,
            config.mtu,
            config.addresses.clone(),
        )
    };
    assert_eq!(defaults(&plain), defaults(&full));
    assert_eq!((plain.peers.len(), full.peers.len()), (0, 1));
    assert!(full.policies.contains_key("counter"));
    let other = gateway(&GatewayValues { listen: 4500, ..gateway_values() });
    let (_dir, path) = written("gateway.toml", &other);
    assert_eq!(GatewayConfig::load(&path).expect("fine").listen, 4500);
}

#[test]
fn a_fresh_relay_file_loads_and_its_commented_keys_are_the_defaults() {
    let text = relay(&RelayValues {
        name: "edge-1".into(),
        private_key_file: "relay.key".into(),
        interfaces: vec!["eth0".into()],
        owner_key: KEY.into(),
        owner_address: "192.0.2.1:51821".into(),
    });
    let load = |text: &str| {
        let (_dir, path) = written("relay.toml", text);
        RelayConfig::load(&path).unwrap_or_else(|report| panic!("{report}"))
    };
    let (plain, full) = (load(&text), load(&switched_on(&text)));
    assert_eq!((plain.listen, plain.xdp, plain.max_sessions), (DEFAULT_PORT, XdpMode::Auto, 4_096));
    assert_eq!((full.listen, full.xdp, full.max_sessions), (plain.listen, plain.xdp, plain.max_sessions));
    assert_eq!(plain.owners[0].control, full.owners[0].control);
    assert_eq!(plain.owners[0].control, "192.0.2.1:51822".parse().expect("an address"));
}

#[test]
fn a_relay_without_an_owner_and_one_owner_twice_are_refused_with_their_place() {
    let head = "[relay]\nname = \"edge\"\nprivate_key_file = \"k\"\ninterfaces = [\"eth0\"]\n";
    let owner = format!("[[owner]]\nname = \"gw\"\npublic_key = \"{KEY}\"\naddress = \"192.0.2.1:51821\"\n");
    for (text, said) in [
        (head.to_owned(), "a relay needs an owner"),
        (format!("{head}{owner}{owner}"), "owner name `gw` is used twice"),
        (format!("{head}{}", owner.replace("51821", "none")), "`address`"),
        (format!("{head}{owner}control = 0\n"), "`control` is outside its range"),
    ] {
        let (_dir, path) = written("relay.toml", &text);
        let report = RelayConfig::load(&path).expect_err("refused").to_string();
        assert!(report.contains(said) && report.contains("relay.toml:"), "{said}: {report}");
    }
}

#[test]
fn a_fresh_client_file_loads_with_its_key_inside_or_in_a_file() {
    let (_dir, path) = written("client.toml", &client(&client_values(true)));
    let config = ClientConfig::load(&path).unwrap_or_else(|report| panic!("{report}"));
    let keys = config.keys().expect("inside");
    assert_eq!(keys.private.to_text().as_str(), PRIVATE);
    assert!(keys.preshared.is_some());
    let text = client(&client_values(false));
    let (dir, path) = written(
        "client.toml",
        &text
            .replace("#[[transport]]", "[[transport]]")
            .replace("#name = \"wifi\"", "name = \"wifi\"")
            .replace("#interface", "interface"),
    );
    let config = ClientConfig::load(&path).unwrap_or_else(|report| panic!("{report}"));
    assert!(
        matches!(config.private_key, crate::config::KeySource::File(file) if file == dir.path().join("client.key"))
    );
    assert_eq!(config.transports.len(), 1);
}

#[test]
fn a_client_file_with_its_key_inside_is_refused_when_others_can_read_it() {
    let (_dir, path) = written("client.toml", &client(&client_values(true)));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("opened up");
    let text = ClientConfig::load(&path).expect_err("refused").to_string();
    assert!(text.contains("has mode 0644") && text.contains("chmod 600") && text.contains("client.toml:8:"), "{text}");
    assert!(!text.contains(PRIVATE), "{text}");
}

#[test]
fn every_key_the_reader_knows_is_in_a_template_and_the_other_way_round() {
    let schemas = [
        (GATEWAY, crate::config::gateway::schema()),
        (RELAY, crate::config::relay::schema()),
        (CLIENT, crate::config::client::schema()),
    ];
    for (template, schema) in schemas {
        let schema = serde_json::to_value(schema).expect("JSON");
        let mut known: Vec<String> = Vec::new();
        collect(&schema, &schema, &mut known);
        known.sort();
        let mut explained: Vec<_> = entries(template).into_iter().map(|entry| entry.key).collect();
        explained.retain(|key| key != "base" && key != "dead_after");
        explained.sort();
        explained.dedup();
        known.dedup();
        assert_eq!(known, explained);
    }
}

/// Names of all keys that hold values, through the tables.
fn collect(root: &serde_json::Value, at: &serde_json::Value, known: &mut Vec<String>) {
    let Some(properties) = at.get("properties").and_then(|properties| properties.as_object()) else { return };
    for (key, value) in properties {
        let target = value.get("$ref").or_else(|| value.pointer("/items/$ref")).and_then(|target| target.as_str());
        match target
            .and_then(|target| root.pointer(target.trim_start_matches('#')))
            .filter(|target| target.get("properties").is_some())
        {
            Some(table) => collect(root, table, known),
            None if value.get("additionalProperties").is_some() => {}
            None => known.push(key.clone()),
        }
    }
}

#[test]
fn the_reference_page_is_what_the_templates_say() {
    crate::cli::snapshot("docs/config.md", &page());
}
