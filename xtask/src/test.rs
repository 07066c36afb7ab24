//! `cargo xtask test`: owns running the steps of `plan` and the table of seconds at the end.
//! Must never skip: a step that cannot run is a failure with the reason.

mod generic;
mod plan;
mod rows;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::exit::{self, Exit};
use crate::progress::{self, Output};
use crate::setup::Ready;
use crate::{Args, bpf, build, docs, need, paths, run, tidy, tool};

use plan::{Action, Job, Size};

/// A cold run on two cores must end within this, or CI stops being asked.
const BUDGET: Duration = Duration::from_secs(55 * 60);

struct Outcome {
    name: String,
    size: &'static str,
    took: Duration,
    error: Option<String>,
}

pub(crate) fn run(args: Args<'_>) -> anyhow::Result<()> {
    let (size, only) = parse(args)?;
    let manifest = fs::read_to_string(paths::root().join("tests/Cargo.toml")).context("reading tests/Cargo.toml")?;
    let jobs = plan::chosen(plan::all(&plan::declared(&manifest)), only.as_deref())?;
    if only.is_none() {
        rows::forget()?;
    }
    let mut outcomes = Vec::new();
    let mut ready = None;
    for job in &jobs {
        let size_shown = if job.is_sized() { size.name() } else { "-" };
        eprintln!("==> {} [{size_shown}]", job.name());
        let started = Instant::now();
        let result = perform(job, size, &mut ready);
        let error = result.err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            eprintln!("xtask: {}: {error}", job.name());
        }
        let stop = error.is_some() && job.name() == "build";
        outcomes.push(Outcome { name: job.name().to_owned(), size: size_shown, took: started.elapsed(), error });
        if stop {
            break;
        }
    }
    report(&outcomes, jobs.len(), size)
}

fn parse(args: Args<'_>) -> anyhow::Result<(Size, Option<String>)> {
    let (mut size, mut only) = (Size::Ci, None);
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--long" => size = Size::Long,
            "--only" => {
                let name = words.next().ok_or_else(|| Exit::because(exit::USAGE, "--only needs the name of a step"))?;
                only = Some(name.clone());
            }
            other => {
                return Err(Exit::because(exit::USAGE, format!("test takes --long and --only NAME, not `{other}`")));
            }
        }
    }
    Ok((size, only))
}

fn perform(job: &Job, size: Size, ready: &mut Option<Ready>) -> anyhow::Result<()> {
    // With `--only` nothing has been built by an earlier step.
    if job.needs_build() && ready.is_none() {
        *ready = Some(build::everything()?);
    }
    match job {
        Job::Suite { name, guess_s, elevated } => {
            let (words, noted) = (["test", "--test", name], rows::of(name)?);
            progress::run(name, *guess_s, Output::Inherited, || {
                test_command(&words, size, *elevated, std::slice::from_ref(&noted))
            })
        }
        Job::Step(step) => match (&step.action, ready) {
            (Action::Build, _) => Ok(()),
            (Action::Tidy, _) => tidy::check(),
            (Action::Docs, _) => docs::build(),
            (Action::Deny, _) => deny(),
            (Action::Rebuild, _) => rebuild(),
            (Action::Vectors, _) => vectors(),
            (Action::Generic, _) => generic::run(size),
            (Action::Rows, _) => rows::run(),
            (Action::BuildLab, Some(ready)) => bpf::build_lab(ready),
            (Action::BuildLab, None) => bpf::build_lab(&build::everything()?),
            (Action::ClippyEbpf, Some(ready)) => bpf::clippy(ready),
            (Action::ClippyEbpf, None) => bpf::clippy(&build::everything()?),
            (Action::Cargo(commands), _) => progress::run(step.name, step.guess_s, Output::Inherited, || {
                commands.iter().try_for_each(|words| test_command(words, size, false, &[]))
            }),
        },
    }
}

/// The runner's own lines pass through: they name each test and end with `test result:`.
fn test_command(words: &[&str], size: Size, elevated: bool, more: &[(&'static str, String)]) -> anyhow::Result<()> {
    let mut cargo = run::cargo(words);
    let own = [
        ("JVPN_TEST_SIZE", size.name().to_owned()),
        ("PROPTEST_CASES", size.property_cases().to_string()),
        ("JVPN_CTL", paths::binary("jvpn-ctl").display().to_string()),
        // Those that need root share one machine's two cores with namespaces full of processes: one after another.
        ("RUST_TEST_THREADS", if elevated { "1" } else { "2" }.to_owned()),
    ];
    let environment: Vec<_> = own.into_iter().chain(more.iter().cloned()).collect();
    cargo.envs(environment.iter().map(|(name, value)| (name, value)));
    if elevated && !run::is_root() {
        let shown = run::shown(&cargo);
        // Cargo builds as the caller and starts the test through the runner.
        let runner = format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", std::env::consts::ARCH.to_uppercase());
        let mut prefix = run::elevation(&shown)?;
        prefix.extend(environment.iter().map(|(name, value)| format!("{name}={value}")));
        cargo.env(runner, prefix.join(" "));
    }
    run::run(cargo)
}

/// Licences, bans and sources; advisories need a database that a build machine may not reach.
fn deny() -> anyhow::Result<()> {
    tool::ensure_deny()?;
    let mut command = std::process::Command::new(paths::tool(tool::DENY.name));
    command.current_dir(paths::root()).args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]);
    run::run(command)
}

/// What cargo finds fresh it does not write.
fn rebuild() -> anyhow::Result<()> {
    let products = [paths::object(), paths::binary("jvpn-ctl"), paths::binary("jvpn-lab")];
    let written = || products.each_ref().map(|file| fs::metadata(file).and_then(|meta| meta.modified()).ok());
    let before = written();
    build::everything()?;
    for ((file, before), after) in products.iter().zip(before).zip(written()) {
        anyhow::ensure!(before.is_some() && before == after, "a second build wrote {} again", file.display());
    }
    Ok(())
}

/// Python writes them out again and compares; nothing is changed.
fn vectors() -> anyhow::Result<()> {
    let Some(python) = paths::program("python3") else {
        let command = need::apt_command(&["python3"]);
        return Err(Exit::because(exit::MISSING, format!("no python3 for the vectors; run as root:\n  {command}")));
    };
    let mut command = std::process::Command::new(python);
    command.current_dir(paths::root()).args(["tests/vectors/make.py", "--check"]);
    run::run(command)
}

fn report(outcomes: &[Outcome], planned: usize, size: Size) -> anyhow::Result<()> {
    println!("\n{:<14} {:<5} {:<7} {:>8}", "step", "size", "result", "seconds");
    for outcome in outcomes {
        let result = if outcome.error.is_none() { "ok" } else { "FAILED" };
        println!("{:<14} {:<5} {result:<7} {:>8.1}", outcome.name, outcome.size, outcome.took.as_secs_f64());
    }
    let total: Duration = outcomes.iter().map(|outcome| outcome.took).sum();
    println!("{:<14} {:<5} {:<7} {:>8.1}", "total", "", "", total.as_secs_f64());
    let failed: Vec<&str> = outcomes.iter().filter(|o| o.error.is_some()).map(|o| o.name.as_str()).collect();
    if let Some(first) = failed.first() {
        let unrun = planned - outcomes.len();
        let rest = if unrun > 0 { format!(", {unrun} not run") } else { String::new() };
        println!("failed: {}{rest}; one again: cargo xtask test --only {first}", failed.join(", "));
        return Err(Exit::silent(exit::FAILED));
    }
    if size == Size::Ci && total > BUDGET {
        println!("failed: {} s is over the budget of {} s", total.as_secs(), BUDGET.as_secs());
        return Err(Exit::silent(exit::FAILED));
    }
    println!("all {} steps passed", outcomes.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_steps_are_read_in_any_order() {
        let words = ["--only", "unit", "--long"].map(str::to_owned);
        let (size, only) = parse(&words).expect("valid");
        assert!(size == Size::Long && only.as_deref() == Some("unit"));
        assert!(parse(&["--only".to_owned()]).is_err());
    }

    #[test]
    fn one_failure_fails_the_run() {
        let ok = || Outcome { name: "a".to_owned(), size: "-", took: Duration::ZERO, error: None };
        let bad = Outcome { error: Some("x".to_owned()), ..ok() };
        assert!(report(&[ok(), ok()], 2, Size::Ci).is_ok());
        assert!(report(&[ok(), bad], 2, Size::Ci).is_err());
        let late = || [Outcome { took: BUDGET + Duration::from_secs(1), ..ok() }];
        assert!(report(&late(), 1, Size::Ci).is_err());
        assert!(report(&late(), 1, Size::Long).is_ok(), "the budget is that of the short size");
    }
}
