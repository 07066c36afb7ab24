//! Owns the cargo commands of the kernel program: flags, compiler and target directory of each route.
//! Must never build anything for the host.

use std::env::consts::ARCH;
use std::process::Command;

use anyhow::bail;

use crate::progress::{self, Output};
use crate::route::Route;
use crate::setup::Ready;
use crate::{paths, run, tool};

const PACKAGE: &str = "jvpn-ebpf";

/// Compiler flags. `--btf` makes bpf-linker keep the types that `bpftool map dump` prints.
fn flags() -> String {
    let linker = format!("-Clinker={}", paths::tool(tool::LINKER.name).display());
    let arch = format!("--cfg=bpf_target_arch=\"{ARCH}\"");
    ["-Cdebuginfo=2", "-Clink-arg=--btf", &linker, &arch].join("\x1f")
}

fn command(route: Route, verb: &str) -> Command {
    let words = [verb, "--package", PACKAGE, "--target", tool::BPF];
    let mut command = match route {
        Route::Debian => {
            let mut command = run::cargo(&words);
            // Debian's stable compiler, with the unstable features aya-ebpf asks for.
            command.env("RUSTC", tool::DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            command
        }
        Route::Nightly => {
            let mut command = run::cargo_of("nightly", &words);
            command.args(["-Z", "build-std=core"]).env_remove("RUSTC");
            command
        }
    };
    command.env("CARGO_ENCODED_RUSTFLAGS", flags()).env_remove("RUSTFLAGS");
    command
}

/// Builds the object at `paths::object()`.
pub(crate) fn build(ready: &Ready) -> anyhow::Result<()> {
    let mut cargo = command(ready.route, "build");
    cargo.args(["--profile", "ebpf", "--target-dir"]).arg(paths::ebpf());
    finish(ready, cargo)
}

/// Builds the object at `paths::object_lab()`: a line of log for each packet, and programs that are measured. In a
/// directory of its own, so that no release is made of it.
pub(crate) fn build_lab(ready: &Ready) -> anyhow::Result<()> {
    let mut cargo = command(ready.route, "build");
    cargo.args(["--profile", "ebpf", "--all-features", "--target-dir"]).arg(paths::ebpf_lab());
    finish(ready, cargo)
}

fn finish(ready: &Ready, cargo: Command) -> anyhow::Result<()> {
    let (ok, text) = progress::run("building the kernel program", 25, Output::Inherited, || run::run_reading(cargo))?;
    if !ok {
        match tool::explain(&text, ready.compiler) {
            Some(fix) => bail!("{fix}"),
            None => bail!("the kernel program does not build; the compiler's words are above"),
        }
    }
    Ok(())
}

/// Clippy over the kernel program and the shared crate as the kernel sees it.
pub(crate) fn clippy(ready: &Ready) -> anyhow::Result<()> {
    let mut cargo = match ready.route {
        Route::Debian => {
            let mut cargo = command(ready.route, "check");
            // What `cargo clippy` sets: it would take rustup's driver, which does not fit this compiler.
            cargo.env("RUSTC_WORKSPACE_WRAPPER", "/usr/bin/clippy-driver");
            cargo.env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
            cargo
        }
        Route::Nightly => command(ready.route, "clippy"),
    };
    // The build's own profile and directory: its proc macros are compiled there already, and cargo
    // keeps what a wrapper made apart from what it did not.
    cargo.args(["--profile", "ebpf", "--all-features", "--target-dir"]).arg(paths::ebpf());
    if ready.route == Route::Nightly {
        cargo.args(["--", "-Dwarnings"]);
    }
    progress::run("clippy on the kernel program", 20, Output::Inherited, || run::run(cargo))
}
