//! `cargo xtask setup`: owns bringing a fresh machine to where everything builds and runs.
//! Must never change anything under `--check`, nor elevate by itself: package managers belong to root.

use std::process::Command;

use crate::exit::{self, Exit};
use crate::need::{self, Need};
use crate::progress::{self, Output};
use crate::route::{self, Compiler, Route, Tools};
use crate::{Args, run, tool};

/// What later steps need to know of the machine.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub route: Route,
    pub compiler: Compiler,
}

pub(crate) fn run(args: Args<'_>) -> anyhow::Result<()> {
    match args {
        [] => {
            ensure()?;
            eprintln!("ready: nothing is missing");
            Ok(())
        }
        [word] if word == "--check" => check(),
        _ => Err(Exit::because(exit::USAGE, "setup takes only --check")),
    }
}

/// Installs what is missing; says which route was chosen.
pub(crate) fn ensure() -> anyhow::Result<Ready> {
    let mut tools = tool::probe();
    let missing = missing_packages(&tools);
    if !missing.is_empty() {
        install(&missing, tools.apt)?;
        tools = tool::probe();
    }
    let mut route = route::choose(&tools);
    // The compiler just installed may have told which LLVM it wants.
    let rest = missing_packages(&tools);
    if !rest.is_empty() {
        install(&rest, tools.apt)?;
        tools = tool::probe();
        route = route::choose(&tools);
    }
    eprintln!("{}", route::line(&tools, route));
    let compiler = match (route, route::compiler(&tools, route)) {
        (Route::Nightly, _) if !tools.rust_src => {
            return Err(Exit::because(exit::MISSING, nightly_fix()));
        }
        (_, Some(compiler)) => compiler,
        (_, None) => return Err(Exit::because(exit::MISSING, nightly_fix())),
    };
    tool::ensure_linker(compiler)?;
    Ok(Ready { route, compiler })
}

fn nightly_fix() -> String {
    "no compiler for the kernel program; run:\n  rustup toolchain install nightly --component rust-src clippy"
        .to_owned()
}

fn missing_packages(tools: &Tools) -> Vec<Need> {
    let route = route::choose(tools);
    let compiler = route::compiler(tools, route);
    let rustc = tools.debian.is_some_and(|found| found.release >= route::OLDEST);
    let needs = need::all(route, tool::llvm_major(compiler), need::names_here(), rustc, tools.debian_core);
    needs.into_iter().filter(|need| !need.is_met()).collect()
}

fn command_for(missing: &[Need], root: bool) -> String {
    let packages: Vec<&str> = missing.iter().map(|need| need.package.as_str()).collect();
    let command = need::apt_command(&packages);
    if root { command } else { format!("sudo sh -c {}", run::quoted(&command)) }
}

fn install(missing: &[Need], apt: bool) -> anyhow::Result<()> {
    tell(missing);
    if !apt {
        return Err(Exit::because(
            exit::MISSING,
            "install the above with this system's package manager (names are Debian's)",
        ));
    }
    if !run::is_root() {
        return Err(Exit::because(
            exit::MISSING,
            format!("packages are missing; run:\n  {}", command_for(missing, false)),
        ));
    }
    let mut command = Command::new("sh");
    command.args(["-c", &command_for(missing, true)]);
    progress::run("installing packages", 60, Output::Captured, || run::run_quietly(command))
}

fn tell(missing: &[Need]) {
    for need in missing {
        eprintln!("missing: {} ({})", need.package, need.what);
    }
}

/// Says what `ensure` would do.
fn check() -> anyhow::Result<()> {
    let tools = tool::probe();
    let route = route::choose(&tools);
    let compiler = route::compiler(&tools, route);
    println!("{}", route::line(&tools, route));
    let mut commands = Vec::new();
    let missing = missing_packages(&tools);
    for need in &missing {
        println!("missing: {} ({})", need.package, need.what);
    }
    if !missing.is_empty() {
        commands.push(command_for(&missing, run::is_root()));
    }
    if route == Route::Nightly && !(tools.nightly.is_some() && tools.rust_src) {
        println!("missing: nightly with rust-src");
        commands.push("rustup toolchain install nightly --component rust-src clippy".to_owned());
    }
    if !compiler.is_some_and(tool::linker_ready) {
        println!("missing: {} {} (built into target/tools)", tool::LINKER.name, tool::LINKER.version);
        commands.push(tool::linker_command(tool::llvm_major(compiler)));
    }
    if commands.is_empty() {
        println!("nothing is missing");
        return Ok(());
    }
    println!(
        "to get all of it: cargo xtask setup{}; it runs:",
        if run::is_root() { "" } else { " (packages need root)" }
    );
    for command in commands {
        println!("  {command}");
    }
    Err(Exit::silent(exit::MISSING))
}
