//! `cargo xtask build`: owns the order: tools, kernel program, binaries with it embedded.
//! Must never run as anyone but the caller.

use crate::progress::{self, Output};
use crate::setup::{self, Ready};
use crate::{Args, bpf, no_args, paths, run};

pub(crate) fn run(args: Args<'_>) -> anyhow::Result<()> {
    if let [word] = args
        && word == "--log"
    {
        return logging();
    }
    no_args("build", args)?;
    everything()?;
    eprintln!("built: {} and {}", paths::object().display(), paths::binary("jvpn-ctl").display());
    Ok(())
}

/// The binaries with a kernel program that writes a line for each packet. The next build without it is a release again.
fn logging() -> anyhow::Result<()> {
    let ready = setup::ensure()?;
    bpf::build_lab(&ready)?;
    let mut cargo = run::cargo(&["build", "--release", "--package", "jvpn-ctl"]);
    cargo.env("JVPN_EBPF_OBJECT", paths::object_lab());
    progress::run("building the binaries", 240, Output::Inherited, || run::run(cargo))?;
    let binary = paths::binary("jvpn-ctl");
    eprintln!("built: {0} with logging\nnext: {0} load IFACE && {0} trace --live IFACE", binary.display());
    Ok(())
}

/// Set-up and build; what ran before costs a second.
pub(crate) fn everything() -> anyhow::Result<Ready> {
    let ready = setup::ensure()?;
    bpf::build(&ready)?;
    let mut cargo = run::cargo(&["build", "--release", "--package", "jvpn-ctl", "--package", "jvpn-tests"]);
    // Without the bugs that the tests put in.
    cargo.arg("--no-default-features");
    // The object may have been named by hand for another build; this one takes what was just built.
    cargo.env_remove("JVPN_EBPF_OBJECT");
    progress::run("building the binaries", 240, Output::Inherited, || run::run(cargo))?;
    let version = std::process::Command::new(paths::binary("jvpn-ctl")).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    anyhow::ensure!(
        version.contains("features: none"),
        "a release has no feature of the lab, but this one:\n{version}"
    );
    Ok(ready)
}
