//! Owns looking at the machine: which compilers there are and the tools that are built once and pinned.
//! Must never choose between compilers: `route.rs` does.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::exit::{self, Exit};
use crate::progress::{self, Output};
use crate::route::{Compiler, Tools, Version};
use crate::{paths, run};

/// Debian's compiler, by path: rustup's comes first in PATH.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
pub(crate) const BPF: &str = "bpfel-unknown-none";

/// A tool from the registry at exactly one version, so that two machines check and link alike.
pub(crate) struct Pinned {
    pub name: &'static str,
    pub version: &'static str,
    /// Seconds on two cores, for the first estimate.
    pub guess_s: u64,
}

pub(crate) const LINKER: Pinned = Pinned { name: "bpf-linker", version: "0.13.0", guess_s: 60 };
pub(crate) const DENY: Pinned = Pinned { name: "cargo-deny", version: "0.20.2", guess_s: 200 };

pub(crate) const MUTANTS: Pinned = Pinned { name: "cargo-mutants", version: "27.1.0", guess_s: 120 };

/// The LLVM majors the pinned linker can be built against, by its features.
const LINKER_LLVM: &[u32] = &[21, 22, 23];
/// What to ask apt for while no compiler is there to tell: that of `rustc` 1.95 and 1.96.
const LLVM_BEFORE_RUSTC: u32 = 22;

pub(crate) fn probe() -> Tools {
    let sysroot = run::ask(DEBIAN_RUSTC, &["--print", "sysroot"]).unwrap_or_default();
    let nightly_root = run::ask("rustup", &["run", "nightly", "rustc", "--print", "sysroot"]).unwrap_or_default();
    Tools {
        apt: Path::new("/usr/bin/apt-get").is_file(),
        debian: compiler(run::ask(DEBIAN_RUSTC, &["-vV"])),
        debian_core: has_core(&Path::new(&sysroot).join("lib/rustlib").join(BPF).join("lib")),
        nightly: compiler(run::ask("rustup", &["run", "nightly", "rustc", "-vV"])),
        rust_src: Path::new(&nightly_root).join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file(),
    }
}

fn compiler(text: Option<String>) -> Option<Compiler> {
    let text = text?;
    let field = |name: &str| text.lines().find_map(|line| Version::find(line.strip_prefix(name)?));
    Some(Compiler { release: field("release:")?, llvm: field("LLVM version:")? })
}

fn has_core(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else {
        return false;
    };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

/// The LLVM major the linker should be built against for this compiler.
pub(crate) fn llvm_major(compiler: Option<Compiler>) -> u32 {
    let wanted = compiler.map_or(LLVM_BEFORE_RUSTC, |compiler| compiler.llvm.0);
    LINKER_LLVM.iter().copied().find(|&major| major >= wanted).unwrap_or(wanted)
}

/// Where that LLVM lives, and its exact version.
pub(crate) fn llvm(major: u32) -> Option<(PathBuf, Version)> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    let on_path = paths::program("llvm-config");
    let candidates = [Some(debian.join("bin/llvm-config")), on_path];
    candidates.into_iter().flatten().find_map(|config| {
        let version = Version::find(&run::ask(&config, &["--version"])?)?;
        let prefix = run::ask(&config, &["--prefix"])?;
        (version.0 == major).then(|| (PathBuf::from(prefix), version))
    })
}

/// What the linker in target/tools is: its version and the LLVM it was built against.
fn linker_record() -> PathBuf {
    paths::tools().join("bpf-linker.built")
}

fn record_text(llvm: Version) -> String {
    format!("{} {}\nLLVM {llvm}\n", LINKER.name, LINKER.version)
}

/// The linker fits when it is the pinned one and its LLVM is not older than the compiler's.
pub(crate) fn linker_fits(record: &str, rustc_llvm: Version) -> bool {
    let built = record.lines().find_map(|line| Version::find(line.strip_prefix("LLVM ")?));
    let head = format!("{} {}", LINKER.name, LINKER.version);
    record.lines().next() == Some(head.as_str()) && built.is_some_and(|llvm| llvm >= rustc_llvm)
}

pub(crate) fn linker_ready(compiler: Compiler) -> bool {
    let record = fs::read_to_string(linker_record()).unwrap_or_default();
    paths::tool(LINKER.name).is_file() && linker_fits(&record, compiler.llvm)
}

/// Builds the linker against the LLVM found, unless it is there.
pub(crate) fn ensure_linker(compiler: Compiler) -> anyhow::Result<()> {
    if linker_ready(compiler) {
        return Ok(());
    }
    let major = llvm_major(Some(compiler));
    let Some((prefix, version)) = llvm(major) else {
        return Err(Exit::because(
            exit::MISSING,
            format!("no LLVM {major} found; install llvm-{major}-dev and libpolly-{major}-dev"),
        ));
    };
    if version < compiler.llvm {
        return Err(Exit::because(exit::MISSING, older(version, compiler.llvm, major)));
    }
    let feature = format!("llvm-{major}");
    let mut command = install(&LINKER, &["--no-default-features", "--features", &feature]);
    command.env("LLVM_PREFIX", &prefix);
    build(&LINKER, command)?;
    fs::write(linker_record(), record_text(version)).context("recording the linker's LLVM")
}

fn older(found: Version, wanted: Version, major: u32) -> String {
    format!(
        "LLVM {found} is older than the compiler's {wanted}: the linker could not read its bitcode; run as root:\n  \
         apt-get update && apt-get install -y --no-install-recommends llvm-{major}-dev libpolly-{major}-dev"
    )
}

/// Turns the linker's own words for bitcode that is too new into what to do.
pub(crate) fn explain(output: &str, compiler: Compiler) -> Option<String> {
    if !(output.contains("Invalid record") || output.contains("Unknown attribute kind")) {
        return None;
    }
    Some(format!(
        "the linker cannot read this compiler's bitcode (LLVM {}): its own LLVM is older.\n\
         Remove it and let set-up build it again:\n  rm -r {} && cargo xtask setup",
        compiler.llvm,
        run::quoted(&paths::tools().to_string_lossy())
    ))
}

pub(crate) fn ensure_deny() -> anyhow::Result<()> {
    ensure(&DENY)
}

pub(crate) fn ensure_mutants() -> anyhow::Result<()> {
    ensure(&MUTANTS)
}

fn is_ready(tool: &Pinned) -> bool {
    paths::tool(tool.name).is_file() && fs::read_to_string(record(tool)).is_ok_and(|known| known.trim() == tool.version)
}

fn record(tool: &Pinned) -> PathBuf {
    paths::tools().join(format!("{}.built", tool.name))
}

fn ensure(tool: &Pinned) -> anyhow::Result<()> {
    // Run for seconds at most: optimising them would cost minutes.
    ensure_built(tool, &["--debug"])
}

/// One that is measured.
pub(crate) fn ensure_optimised(tool: &Pinned) -> anyhow::Result<()> {
    ensure_built(tool, &[])
}

fn ensure_built(tool: &Pinned, extra: &[&str]) -> anyhow::Result<()> {
    if is_ready(tool) {
        return Ok(());
    }
    build(tool, install(tool, extra))?;
    fs::write(record(tool), tool.version).with_context(|| format!("recording the version of {}", tool.name))
}

fn install(tool: &Pinned, extra: &[&str]) -> std::process::Command {
    let version = format!("={}", tool.version);
    let mut command = run::cargo(&["install", tool.name, "--version", &version, "--locked", "--force"]);
    command.args(extra).arg("--root").arg(paths::tools());
    command.env("CARGO_TARGET_DIR", paths::tools().join("build"));
    command
}

fn build(tool: &Pinned, command: std::process::Command) -> anyhow::Result<()> {
    let title = format!("building {} {}", tool.name, tool.version);
    progress::run(&title, tool.guess_s, Output::Captured, || run::run_quietly(command))?;
    // Hundreds of megabytes nobody needs again.
    let _ = fs::remove_dir_all(paths::tools().join("build"));
    Ok(())
}

/// The command a user would type for the linker, for `setup --check`.
pub(crate) fn linker_command(major: u32) -> String {
    let prefix = llvm(major).map_or_else(|| PathBuf::from(format!("/usr/lib/llvm-{major}")), |(prefix, _)| prefix);
    let feature = format!("llvm-{major}");
    let command = install(&LINKER, &["--no-default-features", "--features", &feature]);
    format!("LLVM_PREFIX={} {}", run::quoted(&prefix.to_string_lossy()), run::shown(&command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linker_with_an_older_llvm_does_not_fit() {
        let built = Version(22, 1, 8);
        assert!(linker_fits(&record_text(built), built));
        assert!(linker_fits(&record_text(built), Version(22, 1, 2)));
        assert!(!linker_fits(&record_text(Version(22, 1, 2)), built));
        assert!(!linker_fits("bpf-linker 0.12.9\nLLVM 22.1.8\n", built), "another version of the linker");
        assert!(!linker_fits("", built));
    }

    #[test]
    fn unreadable_bitcode_is_explained_and_other_errors_are_not() {
        let compiler = Compiler { release: Version(1, 96, 0), llvm: Version(22, 1, 8) };
        let told = explain("error: Invalid record (Producer: LLVM22.1.8)", compiler).expect("explained");
        assert!(told.contains("cargo xtask setup") && told.contains("22.1.8"), "{told}");
        assert_eq!(explain("error: expected `;`", compiler), None);
    }

    #[test]
    fn the_linker_is_built_against_the_first_llvm_that_is_new_enough() {
        let with = |major| Some(Compiler { release: Version(1, 96, 0), llvm: Version(major, 0, 0) });
        assert_eq!(llvm_major(with(22)), 22);
        assert_eq!(llvm_major(with(20)), 21);
        assert_eq!(llvm_major(None), 22);
    }
}
