//! Every refusal of a configuration, with the text, file, line and column a person sees.

use super::*;
use std::path::PathBuf;

const KEY: &str = "L+V9o0fNYkMVKNqsX7spBzD/9oSvxM/C7ZCZX1jLO3Q=";
const KEY_2: &str = "YAnz5TF+lXXJte14tji3zlMNftftLH4Zfp6FjRDuEmU=";

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("inside")).expect("a directory");
        std::fs::write(&path, text).expect("written");
        path
    }
}

fn gateway(lines: &str, rest: &str) -> String {
    format!(
        "[gateway]\nname = \"gw-1\"\nprivate_key_file = \"gateway.key\"\ninterfaces = [\"eth0\"]\naddresses = [\"10.77.0.1/24\", \"fd77::1/64\"]\n{lines}\n{rest}"
    )
}

fn peer(name: &str, key: &str, address: &str) -> String {
    format!("[[peer]]\nname = \"{name}\"\npublic_key = \"{key}\"\naddresses = [\"{address}\"]\n")
}

fn refused(text: &str) -> String {
    let dir = Dir::new();
    let path = dir.file("gateway.toml", text);
    GatewayConfig::load(&path).expect_err("refused").to_string()
}

fn refused_client(text: &str) -> String {
    let dir = Dir::new();
    let path = dir.file("client.toml", text);
    ClientConfig::load(&path).expect_err("refused").to_string()
}

fn client(lines: &str, rest: &str) -> String {
    format!(
        "[client]\nname = \"till-17\"\nprivate_key_file = \"client.key\"\n{lines}\n[gateway]\npublic_key = \"{KEY}\"\nendpoints = [\"198.51.100.7:51821\"]\n{rest}"
    )
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
}

#[test]
fn telemetry_is_off_unless_asked_for_and_metrics_are_for_this_host_only() {
    let head = format!(
        "[client]\nname = \"c\"\nprivate_key_file = \"k\"\n[gateway]\npublic_key = \"{KEY}\"\nendpoints = [\"192.0.2.1:1\"]\n"
    );
    let load = |table: &str| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("client.toml");
        std::fs::write(&path, format!("{head}{table}")).expect("written");
        ClientConfig::load(&path).map(|config| config.telemetry).map_err(|report| report.to_string())
    };
    assert_eq!(load("").expect("fine"), TelemetryConfig::default());
    assert_eq!(load("[telemetry]\n").expect("fine"), TelemetryConfig::default());
    let full = "[telemetry]\nmetrics = \"[::1]:9586\"\njournald = true\nsyslog = \"udp:192.0.2.9:514\"\n";
    let full = load(full).expect("fine");
    assert_eq!(full.metrics, "[::1]:9586".parse().ok());
    assert_eq!(full.journald, Some("/run/systemd/journal/socket".into()));
    assert_eq!(full.syslog, Some(Syslog::Udp("192.0.2.9:514".parse().expect("an address"))));
    let own =
        load("[telemetry]\njournald_socket = \"/a/b\"\nsyslog = \"unix:/dev/log\"\njournald = true\n").expect("fine");
    assert_eq!((own.journald, own.syslog), (Some("/a/b".into()), Some(Syslog::Unix("/dev/log".into()))));
    for (line, said) in [
        ("metrics = \"0.0.0.0:9586\"", "is no loopback address"),
        ("metrics = \"192.0.2.1:9586\"", "is no loopback address"),
        ("metrics = \"[::]:9586\"", "is no loopback address"),
        ("metrics = \"127.0.0.1:0\"", "has no port"),
        ("metrics = \"localhost:9586\"", "`metrics`"),
        ("syslog = \"/dev/log\"", "neither `unix:` nor `udp:`"),
        ("syslog = \"unix:log\"", "begins with `/`"),
        ("syslog = \"udp:192.0.2.9\"", "no address with a port"),
        ("jornald = true", "unknown key `jornald`"),
    ] {
        let report = load(&format!("[telemetry]\n{line}\n")).expect_err("refused");
        assert!(report.contains(said) && report.contains("client.toml:8:"), "{said}: {report}");
    }
}

#[test]
fn a_minimal_gateway_has_the_documented_defaults() {
    let dir = Dir::new();
    let path = dir.file("gateway.toml", &gateway("", ""));
    let config = GatewayConfig::load(&path).expect("fine");
    assert_eq!((config.listen, config.max_sessions, config.mtu), (51821, 4096, 1500));
    assert_eq!((config.tun.as_str(), config.xdp, config.masquerade), ("jvpn0", XdpMode::Auto, true));
    assert_eq!(config.private_key_file, dir.0.path().join("gateway.key"));
    assert!(config.policies.contains_key("field") && config.policies.contains_key("fast"));
}

#[test]
fn peers_come_from_the_file_and_from_the_directory_beside_it() {
    let dir = Dir::new();
    dir.file("peers.d/b.toml", &peer("b", KEY_2, "10.77.0.3/32"));
    dir.file("peers.d/ignored.toml.bak", "not toml");
    let path = dir.file("gateway.toml", &gateway("", &peer("a", KEY, "10.77.0.2/32")));
    let names: Vec<_> = GatewayConfig::load(&path).expect("fine").peers.into_iter().map(|peer| peer.name).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_a_guess() {
    let text = refused(&gateway("lisen = 51821", ""));
    says(&text, &["unknown key `lisen`", "gateway.toml:6:1", "lisen = 51821", "did you mean `listen`?"]);
    let text = refused(&gateway("", "[[peer]]\nname = \"a\"\ncolour = 3\n"));
    says(&text, &["unknown key `colour`", "gateway.toml:9:1", "keys of this table: name, public_key"]);
}

#[test]
fn a_missing_key_names_its_table() {
    let text = refused("[gateway]\nname = \"gw\"\n");
    says(&text, &["missing key `private_key_file`", "gateway.toml:1:1", "[gateway]"]);
}

#[test]
fn a_syntax_error_points_at_its_column() {
    let text = refused("[gateway]\nname = gw\n");
    says(&text, &["error: ", "gateway.toml:2:8", "name = gw"]);
}

#[test]
fn a_wrong_type_points_at_the_value() {
    let text = refused(&gateway("listen = \"51821\"", ""));
    says(&text, &["invalid type: string", "gateway.toml:6:10"]);
    let text = refused(&gateway("xdp = \"fastest\"", ""));
    says(&text, &["unknown variant `fastest`", "gateway.toml:6:7", "native"]);
}

#[test]
fn a_number_outside_its_range_says_the_range() {
    for (line, range) in [
        ("listen = 0", "1 to 65535"),
        ("listen = 70000", "1 to 65535"),
        ("max_sessions = -1", "1 to 1048576"),
        ("workers = 17", "0 to 16"),
        ("mtu = 1280", "1368 to 1500"),
    ] {
        says(&refused(&gateway(line, "")), &["is outside its range", "gateway.toml:6:", line, range]);
    }
}

#[test]
fn an_address_that_is_none_says_how_to_write_it() {
    let text = refused(&gateway("", &peer("a", KEY, "10.77.0.300/32")));
    says(&text, &["`addresses`: invalid IP address", "gateway.toml:10:14", "write it like \"10.77.0.17/32\""]);
}

#[test]
fn a_public_key_of_another_length_is_refused() {
    let text = refused(&gateway("", &peer("a", "c2hvcnQ=", "10.77.0.2/32")));
    says(
        &text,
        &["`public_key`: a key is 32 bytes (44 characters of base64); this one has 5 bytes", "gateway.toml:9:14"],
    );
}

#[test]
fn two_peers_with_one_name_key_or_prefix_name_both_places() {
    let twice = |second: &str| refused(&gateway("", &format!("{}{second}", peer("a", KEY, "10.77.0.2/32"))));
    says(
        &twice(&peer("a", KEY_2, "10.77.0.3/32")),
        &["the peer name `a` is used twice", "first here", "again here", "gateway.toml:12:8"],
    );
    says(&twice(&peer("b", KEY, "10.77.0.3/32")), &["public key", "is used twice", "first here"]);
    says(
        &twice(&peer("b", KEY_2, "10.77.0.2/32")),
        &["10.77.0.2/32 overlaps 10.77.0.2/32", "is taken here", "this one"],
    );
    says(&refused(&gateway("", &peer("a", KEY, "10.77.0.1/32"))), &["overlaps 10.77.0.1/32"]);
}

#[test]
fn a_clash_between_two_files_shows_both_files() {
    let dir = Dir::new();
    dir.file("peers.d/b.toml", &peer("b", KEY_2, "10.77.0.2/32"));
    let path = dir.file("gateway.toml", &gateway("", &peer("a", KEY, "10.77.0.2/32")));
    let text = GatewayConfig::load(&path).expect_err("refused").to_string();
    says(&text, &["peers.d/b.toml:4:14", "gateway.toml:10:14"]);
}

#[test]
fn a_peer_outside_the_gateways_prefixes_shows_both() {
    let text = refused(&gateway("", &peer("a", KEY, "10.78.0.2/32")));
    says(&text, &["10.78.0.2/32 lies outside the gateway's `addresses`", "not inside", "the prefixes peers live in"]);
}

#[test]
fn a_policy_nobody_defined_is_refused_with_a_guess() {
    let text = refused(&gateway("", &format!("{}policy = \"feild\"\n", peer("a", KEY, "10.77.0.2/32"))));
    says(&text, &["no policy is called `feild`", "gateway.toml:11:10"]);
    let text = refused(&gateway("", "[policy.mine]\nbase = \"fats\"\n"));
    says(&text, &["no shipped policy is called `fats`", "gateway.toml:8:8"]);
}

#[test]
fn a_policy_starts_from_its_base_and_changes_what_it_says() {
    let dir = Dir::new();
    let rest = "[policy.mine]\nbase = \"fast\"\ncooldown = \"2s\"\nallowed_transports = [\"primary\", \"backup\"]\nmax_candidates = 2\n[policy.field]\ndead_after = \"40ms\"\n";
    let path = dir.file("gateway.toml", &gateway("", rest));
    let policies = GatewayConfig::load(&path).expect("fine").policies;
    let value = |policy: &str, key: &str| {
        let values = policies.get(policy).expect("there").values();
        values.into_iter().find(|(name, _)| *name == key).expect("a key").1
    };
    assert_eq!(value("mine", "cooldown"), "2s");
    assert_eq!(value("mine", "dead_after"), "20ms");
    assert_eq!(value("mine", "allowed_transports"), "primary, backup");
    assert_eq!(value("mine", "max_candidates"), "2");
    assert_eq!(value("field", "dead_after"), "40ms");
    assert_eq!(value("fast", "dead_after"), "20ms");
}

#[test]
fn a_policy_value_without_its_unit_or_outside_its_range_is_refused_at_its_place() {
    let policy = |line: &str| refused(&gateway("", &format!("[policy.field]\n{line}\n")));
    says(
        &policy("dead_after = 30"),
        &["`dead_after` wants a duration such as", "gateway.toml:8:14", "dead_after = 30", "wrong unit"],
    );
    says(&policy("dead_after = \"30 parsecs\""), &["wrong unit", "gateway.toml:8:14"]);
    says(&policy("dead_after = \"1ms\""), &["`dead_after` must lie between", "outside its range", "gateway.toml:8:14"]);
    says(&policy("loss_threshold = 0.5"), &["not a value a policy can have", "gateway.toml:8:18"]);
    says(
        &policy("dead_aftr = \"30ms\""),
        &["unknown policy key `dead_aftr`", "gateway.toml:8:1", "did you mean `dead_after`?"],
    );
}

#[test]
fn a_contradiction_in_a_policy_names_both_keys_and_their_places() {
    let both = refused(&gateway("", "[policy.field]\nmax_recovery_window = \"20m\"\ntransport_loss_ttl = \"10m\"\n"));
    says(
        &both,
        &[
            "`max_recovery_window` and `transport_loss_ttl` contradict each other",
            "gateway.toml:8:1",
            "max_recovery_window = \"20m\"",
            "transport_loss_ttl = \"10m\"",
            "`transport_loss_ttl` is 10m",
        ],
    );
    let one = refused(&gateway("", "[policy.field]\nmax_recovery_window = \"20m\"\n"));
    says(&one, &["gateway.toml:8:1", "`transport_loss_ttl` is 15m unless you set it"]);
}

#[test]
fn a_client_has_defaults_and_keeps_the_order_of_its_endpoints() {
    let dir = Dir::new();
    let path = dir.file(
        "client.toml",
        &client("routes = [\"0.0.0.0/0\", \"::/0\"]", "[[transport]]\nname = \"wifi\"\ninterface = \"wlan0\"\n"),
    );
    let config = ClientConfig::load(&path).expect("fine");
    assert_eq!(config.tun, "jvpn0");
    assert_eq!(config.routes.len(), 2);
    let wifi = TransportConfig {
        name: "wifi".into(),
        via: Via::Interface("wlan0".into()),
        class: TransportClass::Primary,
        metered: false,
    };
    assert_eq!(config.transports, [wifi]);
    assert!(config.warnings.is_empty());
}

#[test]
fn a_transport_with_interface_and_address_names_both_keys() {
    let text =
        refused_client(&client("", "[[transport]]\nname = \"wifi\"\ninterface = \"wlan0\"\naddress = \"192.0.2.1\"\n"));
    says(&text, &["`interface` and `address` contradict each other", "either this", "or this", "client.toml:10:13"]);
    says(
        &refused_client(&client("", "[[transport]]\nname = \"wifi\"\n")),
        &["needs `interface` or `address`", "client.toml:9:8"],
    );
}

#[test]
fn an_endpoint_without_a_port_says_how_to_write_it() {
    let text = refused_client(&client("", "").replace("198.51.100.7:51821", "198.51.100.7"));
    says(&text, &["`endpoints`:", "client.toml:7:14", "write it like \"198.51.100.7:51821\""]);
}

#[test]
fn lockdown_is_refused_while_nothing_enforces_it() {
    says(&refused_client(&client("lockdown = true", "")), &["`lockdown` is not enforced", "client.toml:4:12"]);
    let dir = Dir::new();
    let path = dir.file("client.toml", &client("lockdown = false\ndns = [\"10.77.0.1\"]", ""));
    assert_eq!(ClientConfig::load(&path).expect("fine").warnings.len(), 1);
}

#[test]
fn a_file_that_is_missing_binary_or_a_directory_is_refused_by_name() {
    let dir = Dir::new();
    let missing = dir.0.path().join("nothing.toml");
    says(
        &GatewayConfig::load(&missing).expect_err("refused").to_string(),
        &["cannot read", "nothing.toml", "No such file"],
    );
    let binary = dir.0.path().join("binary.toml");
    std::fs::write(&binary, [0, 159, 146, 150]).expect("written");
    says(&GatewayConfig::load(&binary).expect_err("refused").to_string(), &["binary.toml: not a text file"]);
    says(&GatewayConfig::load(dir.0.path()).expect_err("refused").to_string(), &["not a file"]);
}
