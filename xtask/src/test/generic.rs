//! The step `generic`: owns which suites run once more with the kernel program in the stack instead of the driver, and
//! what is left out of them. Must never pass when the program was in fact somewhere else.

use std::fs;

use anyhow::Context as _;

use super::plan::Size;
use super::{rows, test_command};
use crate::paths;
use crate::progress::{self, Output};

/// A suite, and the tests left out of it by a part of their names.
struct Again {
    suite: &'static str,
    guess_s: u64,
    without: &'static [&'static str],
}

/// Those that put the program on an interface. The others never do: `steer`, `active` and `inspect` run it by
/// `BPF_PROG_TEST_RUN`, which knows no mode, `tunnel` and `lab` run without it; `kernels` says itself in which mode.
/// Left out are tests that state their own modes, touch no interface, or are about files, the client, policy or what lies in the
/// maps: those would run a second time as they are.
const AGAIN: &[Again] = &[
    Again { suite: "dataplane", guess_s: 15, without: &["in_memory::", "in_the_kernel::", "restart::"] },
    Again { suite: "uplink", guess_s: 10, without: &["a_nat_that"] },
    Again {
        suite: "misuse",
        guess_s: 60,
        without: &[
            "full_disk",
            "tunnel_device",
            "pins_of_another",
            "second_serve",
            "killed_client",
            "reading_verb",
            "policies_are_reloaded",
            "an_emergency",
        ],
    },
    Again { suite: "watch", guess_s: 50, without: &["on_a_relay"] },
    Again { suite: "trust", guess_s: 80, without: &[] },
    Again { suite: "relay", guess_s: 75, without: &["in_every_mode"] },
    Again { suite: "demo", guess_s: 70, without: &["in_both_families", "with_xdp_detached", "without_xdp"] },
];

/// The switch of the lab, `tests/src/lab/mode.rs`.
const SWITCH: &str = "JVPN_LAB_XDP";
/// The file to which the lab adds what the kernel says, one line an interface.
const SEEN: &str = "JVPN_LAB_XDP_SEEN";
const MODE: &str = "generic";

pub(super) fn run(size: Size) -> anyhow::Result<()> {
    let seen = paths::target().join("tmp/generic-seen");
    fs::create_dir_all(paths::target().join("tmp")).context("a place for what was seen")?;
    let environment = [(SWITCH, MODE.to_owned()), (SEEN, seen.display().to_string()), rows::of(MODE)?];
    let mut failed = Vec::new();
    for Again { suite, guess_s, without } in AGAIN {
        forget(&seen)?;
        let mut words = vec!["test", "--test", suite, "--"];
        words.extend(without.iter().flat_map(|part| ["--skip", part]));
        let name = format!("{suite}, {MODE}");
        let result =
            progress::run(&name, *guess_s, Output::Inherited, || test_command(&words, size, true, &environment))
                .and_then(|()| judge(&fs::read_to_string(&seen).unwrap_or_default()));
        if let Err(error) = result {
            eprintln!("xtask: {name}: {error:#}");
            failed.push(*suite);
        }
    }
    forget(&seen)?;
    anyhow::ensure!(failed.is_empty(), "in {MODE} mode: {}", failed.join(", "));
    Ok(())
}

/// What was seen may be root's; the directory is not.
fn forget(seen: &std::path::Path) -> anyhow::Result<()> {
    match fs::remove_file(seen) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("forget what was seen"),
        _ => Ok(()),
    }
}

/// A suite counts only when the program was attached, and each time as the switch said.
fn judge(seen: &str) -> anyhow::Result<()> {
    let other = seen.lines().find(|line| line.split(' ').next() != Some(MODE));
    anyhow::ensure!(!seen.is_empty(), "no program was seen on any interface: the switch reached nobody");
    anyhow::ensure!(other.is_none(), "seen was also: {}", other.unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_seen_or_another_mode_fails_the_step() {
        assert!(judge("generic wan jv0-gw\ngeneric wan jv0-r1\n").is_ok());
        for seen in ["", "native wan jv0-gw\n", "generic wan jv0-gw\noff wan jv0-gw\n"] {
            assert!(judge(seen).is_err(), "{seen:?}");
        }
    }

    #[test]
    fn every_suite_that_runs_again_is_one_that_runs_at_all() {
        let manifest = fs::read_to_string(paths::root().join("tests/Cargo.toml")).expect("a manifest");
        let declared = super::super::plan::declared(&manifest);
        for Again { suite, .. } in AGAIN {
            assert!(declared.iter().any(|name| name == suite), "{suite}");
        }
    }
}
