//! The program as people and scripts run it: files written, exit codes, what stands on which stream.
//!
//! Owns no daemon of its own beyond what one test starts. Must never need a network, a kernel program or root beyond
//! its own directory.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Host(tempfile::TempDir);

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jvpn-ctl"));
        command.args(words).current_dir(self.0.path()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("JVPN_CONFIG", self.at("etc/gateway.toml")).env("JVPN_RUN_DIR", self.at("run"));
        command.env("JVPN_STATE_DIR", self.at("state")).env("JVPN_PIN_ROOT", self.at("pins"));
        command
    }

    fn run(&self, words: &[&str]) -> Said {
        said(self.command(words).output().expect("runs"))
    }

    fn gateway(&self) -> Said {
        let said = self.run(&["init", "gateway", "--name", "gw-1", "--interface", "eth0"]);
        assert_eq!(said.code, 0, "{}", said.err);
        said
    }

    fn replace(&self, file: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.at(file)).expect("there");
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(self.at(file), text.replace(from, to)).expect("written");
    }
}

fn said(output: Output) -> Said {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code().expect("no signal"), out: text(output.stdout), err: text(output.stderr) }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
}

#[test]
fn init_writes_private_files_that_check_finds_fine_and_never_overwrites() {
    let host = Host::new();
    let said = host.gateway();
    assert_eq!(said.out.trim().len(), 44, "the public key alone is data");
    assert_eq!((mode(&host.at("etc/gateway.toml")), mode(&host.at("etc/gateway.key"))), (0o640, 0o600));
    assert_eq!(host.run(&["check"]).code, 0);
    let before = std::fs::read(host.at("etc/gateway.toml")).expect("there");
    let again = host.run(&["init", "gateway"]);
    assert_eq!(again.code, 2);
    says(&again.err, &["exists already; nothing was changed"]);
    assert_eq!(std::fs::read(host.at("etc/gateway.toml")).expect("there"), before);
}

#[test]
fn a_fresh_client_is_refused_only_where_somebody_must_fill_in() {
    let host = Host::new();
    let file = host.at("client.toml");
    let init = host.run(&["--config", "client.toml", "init", "client", "--name", "till"]);
    assert_eq!((init.code, mode(&file), mode(&host.at("client.key"))), (0, 0o600, 0o600));
    let check = host.run(&["check", "client.toml"]);
    assert_eq!(check.code, 2);
    says(&check.err, &["`public_key`:", "client.toml:", "the gateway's public key goes here"]);
}

#[test]
fn peer_add_hands_out_one_private_file_and_rm_takes_the_peer_away() {
    let host = Host::new();
    host.gateway();
    let add = host.run(&["peer", "add", "till-17", "--psk", "--endpoint", "198.51.100.7:51821", "--out", "till.toml"]);
    assert_eq!(add.code, 0, "{}", add.err);
    let client = std::fs::read_to_string(host.at("till.toml")).expect("there");
    says(
        &client,
        &["name = \"till-17\"", "\nprivate_key = \"", "\npreshared_key = \"", "endpoints = [\"198.51.100.7:51821\"]"],
    );
    assert_eq!(mode(&host.at("till.toml")), 0o600);
    assert_eq!(mode(&host.at("etc/peers.d/till-17.psk")), 0o600);
    let secret = client
        .lines()
        .find_map(|line| line.strip_prefix("private_key = "))
        .expect("a key")
        .trim_matches('"')
        .to_owned();
    for text in [&add.out, &add.err, &std::fs::read_to_string(host.at("etc/peers.d/till-17.toml")).expect("there")] {
        assert!(!text.contains(&secret), "the client's key stands nowhere else");
    }
    assert_eq!(host.run(&["check", "till.toml"]).code, 0);
    let list = host.run(&["peer", "list", "--json"]);
    says(&list.out, &["{\"schema\":\"jvpn.peers/1\"", "\"name\":\"till-17\"", "10.77.0.2/32", "fd77::2/128"]);
    let twice = host.run(&["peer", "add", "till-17", "--stdout"]);
    assert_eq!(twice.code, 2);
    let miss = host.run(&["peer", "rm", "till-71"]);
    assert_eq!(miss.code, 4);
    says(&miss.err, &["did you mean `till-17`?"]);
    assert_eq!(host.run(&["peer", "rm", "till-17"]).code, 0);
    assert!(!host.at("etc/peers.d/till-17.toml").exists() && !host.at("etc/peers.d/till-17.psk").exists());
}

#[test]
fn a_peer_that_would_break_the_configuration_leaves_nothing() {
    let host = Host::new();
    host.gateway();
    let add = host.run(&[
        "peer",
        "add",
        "a",
        "--address",
        "10.99.0.1/32",
        "--psk",
        "--endpoint",
        "198.51.100.7:1",
        "--stdout",
    ]);
    assert_eq!(add.code, 2);
    says(&add.err, &["lies outside the gateway's `addresses`"]);
    assert_eq!(add.out, "", "no key was handed out");
    assert_eq!(std::fs::read_dir(host.at("etc/peers.d")).expect("there").count(), 0);
    let nowhere = host.run(&["peer", "add", "a"]);
    assert_eq!(nowhere.code, 2, "where the key goes must be said");
}

#[test]
fn check_points_at_the_place_and_exits_with_2() {
    let host = Host::new();
    host.gateway();
    host.replace("etc/gateway.toml", "#listen", "lisen");
    let said = host.run(&["check"]);
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    says(&said.err, &["unknown key `lisen`", "etc/gateway.toml:10:1", "lisen = 51821", "did you mean `listen`?"]);
}

#[test]
fn a_key_file_that_is_exposed_missing_or_binary_is_refused_by_check_and_serve() {
    let host = Host::new();
    host.gateway();
    let key = host.at("etc/gateway.key");
    let refused = |parts: &[&str]| {
        for verb in ["check", "serve"] {
            let said = host.run(&[verb]);
            assert_eq!(said.code, 2, "{verb}: {}", said.err);
            says(&said.err, parts);
        }
    };
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("opened up");
    refused(&["gateway.key has mode 0644: only its owner may have access", "chmod 600"]);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("private");
    std::fs::write(&key, [0xff; 32]).expect("written");
    refused(&["gateway.key: a key is 44 characters of base64"]);
    std::fs::remove_file(&key).expect("removed");
    refused(&["gateway.key does not exist", "jvpn-ctl genkey"]);
}

#[test]
fn a_second_serve_on_one_state_directory_names_the_holder() {
    let host = Host::new();
    host.gateway();
    let _store = jvpn_ctl::store::Store::open(&host.at("state")).expect("the first");
    let said = host.run(&["serve"]);
    assert_eq!(said.code, 1, "{}", said.err);
    says(&said.err, &[&format!("state is in use by process {}", std::process::id()), "--state-dir"]);
}

#[test]
fn a_torn_store_is_an_error_that_names_the_file() {
    let host = Host::new();
    host.gateway();
    std::fs::create_dir(host.at("state")).expect("a directory");
    std::fs::write(host.at("state/state.redb"), b"torn".repeat(3_000)).expect("written");
    let said = host.run(&["serve"]);
    assert_eq!(said.code, 1, "{}", said.err);
    says(&said.err, &["state.redb"]);
    assert!(!said.err.contains("panicked"), "{}", said.err);
}

#[test]
fn without_a_daemon_every_asking_verb_exits_with_3_and_says_how_to_start_it() {
    let host = Host::new();
    for verb in [
        &["status"][..],
        &["sessions"],
        &["paths"],
        &["events"],
        &["jump", "--to", "wifi"],
        &["terminate", "a1"],
        &["reload"],
        &["policy", "show"],
        &["policy", "show", "till"],
        &["policy", "emergency", "on", "--all"],
    ] {
        let said = host.run(verb);
        assert_eq!((said.code, said.out.as_str()), (3, ""), "{verb:?}");
        says(&said.err, &["no jvpn-ctl is running", "jvpn-ctl serve"]);
    }
}

#[test]
fn data_stands_on_standard_output_and_no_colour_without_a_terminal() {
    let host = Host::new();
    let key = host.run(&["genkey"]);
    assert_eq!((key.code, key.err.as_str(), key.out.len()), (0, "", 45));
    let explain = host.run(&["explain", "nat"]);
    assert_eq!(explain.code, 4);
    let loss = host.run(&["explain", "loss", "--json"]);
    says(&loss.out, &["{\"schema\":\"jvpn.explain/1\"", "\"code\":\"LOSS\""]);
    for text in [explain.err, host.run(&["explain"]).out] {
        assert!(!text.contains('\x1b'), "{text}");
    }
    let coloured = host.run(&["--color", "always", "explain", "nat"]);
    assert!(coloured.err.contains('\x1b'));
    assert_eq!(host.run(&["nonsense"]).code, 2);
    assert_eq!(host.run(&["--version"]).code, 0);
}

#[test]
fn pubkey_reads_standard_input_and_never_repeats_it() {
    use std::io::Write as _;
    let host = Host::new();
    let ask = |text: &str| {
        let mut command = host.command(&["pubkey"]);
        let piped = std::process::Stdio::piped;
        let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().expect("runs");
        child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
        said(child.wait_with_output().expect("ends"))
    };
    let good = ask("YAnz5TF+lXXJte14tji3zlMNftftLH4Zfp6FjRDuEmU=\n");
    assert_eq!((good.code, good.out.trim().len()), (0, 44));
    let bad = ask("c2VjcmV0\n");
    assert_eq!((bad.code, bad.out.as_str()), (2, ""));
    assert!(!bad.err.contains("c2VjcmV0"), "{}", bad.err);
}

#[test]
fn a_peer_whose_file_cannot_be_handed_out_leaves_nothing() {
    let host = Host::new();
    host.gateway();
    let words = ["peer", "add", "a", "--psk", "--endpoint", "198.51.100.7:1", "--out", "no/such/directory/a.toml"];
    let add = host.run(&words);
    assert_eq!(add.code, 1, "{}", add.err);
    assert_eq!(std::fs::read_dir(host.at("etc/peers.d")).expect("there").count(), 0);
}

#[test]
fn every_verb_explains_itself() {
    let host = Host::new();
    let verbs: [&[&str]; 32] = [
        &["reload"],
        &["policy"],
        &["policy", "show"],
        &["policy", "list"],
        &["policy", "test"],
        &["policy", "emergency"],
        &["init"],
        &["genkey"],
        &["pubkey"],
        &["genpsk"],
        &["peer"],
        &["peer", "add"],
        &["peer", "rm"],
        &["peer", "list"],
        &["check"],
        &["load"],
        &["unload"],
        &["serve"],
        &["connect"],
        &["status"],
        &["sessions"],
        &["paths"],
        &["jump"],
        &["terminate"],
        &["events"],
        &["explain"],
        &["cleanup"],
        &["completions"],
        &["man"],
        &["sessions", "00", "history"],
        &["init", "gateway"],
        &["init", "client"],
    ];
    for words in verbs {
        let said = host.run(&[words, &["--help"]].concat());
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}");
        says(&said.out, &["Usage: jvpn-ctl", "--json", "Print help"]);
    }
    let root = host.run(&["--help"]);
    says(&root.out, &["Exit codes: 0 ok, 1 failed, 2 usage", "7 privilege missing"]);
}

#[test]
fn completions_and_manual_pages_name_every_verb() {
    let host = Host::new();
    for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef jvpn-ctl"), ("fish", "complete -c jvpn-ctl")] {
        let said = host.run(&["completions", shell]);
        assert_eq!(said.code, 0, "{}", said.err);
        says(&said.out, &[mark, "terminate", "cleanup", "explain"]);
    }
    let page = host.run(&["man"]);
    assert_eq!(page.code, 0);
    says(&page.out, &[".TH", "jvpn\\-ctl"]);
    assert_eq!(host.run(&["man", "--out", "pages"]).code, 0);
    for name in ["jvpn-ctl.1", "jvpn-ctl-serve.1", "jvpn-ctl-peer-add.1", "jvpn-ctl-events.1"] {
        assert!(host.at("pages").join(name).exists(), "{name}");
    }
}

#[test]
fn colour_is_for_terminals_and_no_color_wins_there_too() {
    let host = Host::new();
    let on_a_terminal = |environment: &[(&str, &str)], words: &str| {
        let mut command = Command::new("script");
        let program = env!("CARGO_BIN_EXE_jvpn-ctl");
        command.args(["-qec", &format!("{program} {words}"), "/dev/null"]).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("TERM", "xterm").envs(environment.iter().copied());
        command.env("JVPN_RUN_DIR", host.at("run")).stdin(std::process::Stdio::null());
        String::from_utf8(command.output().expect("script runs").stdout).expect("text")
    };
    assert!(on_a_terminal(&[], "status").contains('\x1b'));
    assert!(!on_a_terminal(&[("NO_COLOR", "1")], "status").contains('\x1b'));
    assert!(!on_a_terminal(&[], "--color never status").contains('\x1b'));
}

#[test]
fn policy_show_names_the_place_of_every_value_also_without_a_gateway() {
    let host = Host::new();
    host.gateway();
    let add = ["peer", "add", "till", "--endpoint", "198.51.100.7:51821", "--policy", "counter", "--stdout"];
    let missing = host.run(&add);
    assert_eq!(missing.code, 2, "{}", missing.err);
    host.replace(
        "etc/gateway.toml",
        "#[policy.counter]",
        "[policy.counter]\nbase = \"metered\"\ndead_after = \"45ms\"",
    );
    let added = host.run(&add);
    assert_eq!(added.code, 0, "{}", added.err);
    let shown = host.run(&["policy", "show", "till"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    says(&shown.err, &["no gateway is running"]);
    let line = |key: &str| shown.out.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
    let words = |key: &str| line(key).split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    says(&words("dead_after"), &["dead_after 45ms ", "etc/gateway.toml:"]);
    assert_eq!(words("probe_interval"), "probe_interval 100ms shipped class metered");
    assert_eq!(words("session_ttl"), "session_ttl 1d default");
    let json = host.run(&["policy", "show", "till", "--json"]);
    says(&json.out, &["{\"schema\":\"jvpn.policy/1\"", "\"policy\":\"counter\"", "\"policy_version\":"]);
    let miss = host.run(&["policy", "show", "tilll"]);
    assert_eq!((miss.code, miss.out.as_str()), (4, ""));
    says(&miss.err, &["did you mean `till`?"]);
    let list = host.run(&["policy", "list"]);
    says(&list.out, &["counter", "metered", "dead_after 45ms", "till"]);
}

#[test]
fn what_policy_and_reload_cannot_mean_is_refused_before_anybody_is_asked() {
    let host = Host::new();
    for (words, says_so) in [
        (&["reload", "--mode", "soon"][..], "--mode"),
        (&["policy", "emergency", "on"], "PEER"),
        (&["policy", "emergency", "on", "till", "--all"], "--all"),
        (&["policy", "emergency", "maybe", "till"], "maybe"),
        (&["policy", "show", "a/b"], "is no id, name"),
        (&["policy", "test", "--scenario", "deth"], "did you mean `death`?"),
        (&["policy", "test"], "--scenario"),
        (&["policy", "test", "--scenario", "death", "--class", "field", "--peer", "till"], "--peer"),
    ] {
        let said = host.run(words);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{words:?}: {}", said.err);
        says(&said.err, &[says_so]);
    }
    let class = host.run(&["policy", "test", "--scenario", "death", "--class", "nope"]);
    assert_eq!(class.code, 4);
    says(&class.err, &["no policy is called `nope`", "only shipped classes"]);
    assert_eq!(host.run(&["policy", "test", "--scenario", "death", "--peer", "till"]).code, 4);
}

#[test]
fn policy_test_plays_the_same_seed_the_same_way_and_tells_one_class_from_another() {
    let host = Host::new();
    let play = |more: &[&str]| host.run(&[&["policy", "test", "--scenario", "net.toml"], more].concat());
    let net = "duration = \"20s\"\n[[path]]\nname = \"wifi\"\n[[path]]\nname = \"lte\"\ndelay = \"30ms\"\n\
               [[fault]]\npath = \"wifi\"\nkind = \"death\"\nat = \"8s\"\nfor = \"10s\"\n";
    std::fs::write(host.at("net.toml"), net).expect("written");
    let once = play(&["--json"]);
    assert_eq!(once.code, 0, "{}", once.err);
    says(&once.out, &["{\"schema\":\"jvpn.policy-test/1\"", "\"seed\":1", "\"verdict\":\"kept\"", "REATTACH_ACCEPT"]);
    let run = &serde_json::from_str::<serde_json::Value>(&once.out).expect("JSON")["runs"][0];
    for way in ["control_up", "control_down"] {
        let [datagrams, bytes] = [0, 1].map(|at| run[way][at].as_u64().expect("a number"));
        assert!(datagrams > 20 && bytes > 100 * datagrams, "{way}: {datagrams} of {bytes} bytes");
    }
    assert_eq!(play(&["--json"]).out, once.out);
    let table = play(&["--compare", "metered"]);
    says(&table.out, &["policy", "verdict", "field", "metered", "kept"]);
    let told = play(&["--class", "fast"]).out;
    says(&told, &["seed 1", "wifi: nothing passes any more", "HANDSHAKE_OK", "policy fast (version", " kB of its own"]);
    std::fs::write(host.at("net.toml"), net.replace("8s", "8x")).expect("written");
    let wrong = play(&[]);
    assert_eq!((wrong.code, wrong.out.as_str()), (2, ""));
    says(&wrong.err, &["net.toml:10:6", "`at` wants a duration"]);
}
