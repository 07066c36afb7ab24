//! `cargo xtask demo`, `lab`, `bench`, `clean-lab`: owns building first and handing over to `jvpn-lab` as root.
//! Must never know what the lab's words mean.

use crate::exit::{self, Exit};
use crate::{Args, bpf, build, no_args, paths, rivals, run};

const LAB: &str = "jvpn-lab";

pub(crate) fn demo(args: Args<'_>) -> anyhow::Result<()> {
    hand_over(&["demo"], args)
}

/// Whether the words of `bench` run one of these: the one they name, or all without a name.
pub(crate) fn is_among(words: Args<'_>, benches: &[&str]) -> bool {
    let named = words.first().filter(|word| !word.starts_with("--"));
    named.is_none_or(|name| benches.contains(&name.as_str()))
}

/// Some benches load a kernel program that no release has.
pub(crate) fn bench(args: Args<'_>) -> anyhow::Result<()> {
    if is_among(args, &["steer", "jump"]) {
        bpf::build_lab(&build::everything()?)?;
    }
    rivals::ensure(args);
    hand_over(&["bench"], args)
}

pub(crate) fn lab(args: Args<'_>) -> anyhow::Result<()> {
    hand_over(&[], args)
}

/// Whoever cleans up wants it gone, not compiled first: a binary that is there will do.
pub(crate) fn clean(args: Args<'_>) -> anyhow::Result<()> {
    no_args("clean-lab", args)?;
    if run::binary_exists(LAB) {
        return run::become_root(&paths::binary(LAB), &["clean".to_owned()]);
    }
    hand_over(&["clean"], args)
}

fn hand_over(verb: &[&str], args: Args<'_>) -> anyhow::Result<()> {
    build::everything()?;
    if !run::binary_exists(LAB) {
        return Err(Exit::because(exit::FAILED, format!("the build made no {}", paths::binary(LAB).display())));
    }
    let words: Vec<String> = verb.iter().map(|&word| word.to_owned()).chain(args.iter().cloned()).collect();
    run::become_root(&paths::binary(LAB), &words)
}
