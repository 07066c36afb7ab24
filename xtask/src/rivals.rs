//! Owns getting the programs that benches compare with: built once into target/tools, or a package of the system.
//! Must never stop a bench: a rival that cannot be had is said so, and the bench reports it as missing.

use std::process::Command;

use crate::progress::{self, Output};
use crate::tool::{self, Pinned};
use crate::{need, paths, run};

/// Benches with rivals among the contenders.
const BENCHES: [&str; 5] = ["tunnel", "cpu", "pps", "latency", "outage"];
/// Built from the registry: each with the file that its crate makes.
const CRATES: [(Pinned, &str); 2] = [
    (Pinned { name: "gotatun-cli", version: "0.10.2", guess_s: 200 }, "gotatun"),
    (Pinned { name: "boringtun-cli", version: "0.7.1", guess_s: 120 }, "boringtun-cli"),
];
/// Debian's, each with a program of its name.
const PACKAGES: [&str; 3] = ["wireguard-go", "openvpn", "nebula"];

/// Whether the words of `bench` name one that has rivals, and more than its shape is wanted.
fn wanted(words: &[String]) -> bool {
    let quick = words.iter().any(|word| word == "--quick");
    !quick && crate::lab::is_among(words, &BENCHES)
}

/// Gets what is missing, if the words of `bench` ask for it.
pub(crate) fn ensure(words: &[String]) {
    if !wanted(words) {
        return;
    }
    for (rival, file) in &CRATES {
        if paths::tool(file).is_file() || paths::program(file).is_some() {
            continue;
        }
        if let Err(error) = tool::ensure_optimised(rival) {
            eprintln!("{} {} cannot be built: {error:#}", rival.name, rival.version);
        }
    }
    let missing: Vec<&str> = PACKAGES.into_iter().filter(|name| paths::program(name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let (names, command) = (missing.join(" "), need::apt_command(&missing));
    if !run::is_root() {
        eprintln!("missing: {names}; run:\n  sudo sh -c {}", run::quoted(&command));
        return;
    }
    let mut install = Command::new("sh");
    install.args(["-c", &command]);
    let done = progress::run("installing rivals", 30, Output::Captured, || run::run_quietly(install));
    if let Err(error) = done {
        eprintln!("{names} cannot be installed: {error:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_are_got_for_benches_that_have_some_and_not_for_their_shape() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for yes in ["", "tunnel", "cpu", "pps --rounds 3", "--json"] {
            assert!(wanted(&words(yes)), "{yes}");
        }
        for no in ["steer", "tunnel --quick", "--quick", "verify --json"] {
            assert!(!wanted(&words(no)), "{no}");
        }
    }
}
