//! `cargo xtask test`: owns the list of steps, their order, and the table of seconds at the end.
//! Must never skip: a step that cannot run is a failure with the reason.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::exit::{self, Exit};
use crate::progress::{self, Output};
use crate::setup::Ready;
use crate::{Args, bpf, build, docs, paths, run, tidy, tool};

/// A cold run on two cores must end within this, or CI stops being asked.
const BUDGET: Duration = Duration::from_secs(55 * 60);

/// Same tests, another amount: the tests read it from `JVPN_TEST_SIZE`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Ci,
    Long,
}

impl Size {
    fn name(self) -> &'static str {
        match self {
            Self::Ci => "ci",
            Self::Long => "long",
        }
    }
}

enum Action {
    /// Set-up and build: what the others stand on.
    Build,
    /// Words for cargo, as the caller.
    Cargo(&'static [&'static [&'static str]]),
    ClippyEbpf,
    Tidy,
    Docs,
    Deny,
}

struct Step {
    name: &'static str,
    /// First estimate in seconds, cold, two cores.
    guess_s: u64,
    action: Action,
    /// Whether `JVPN_TEST_SIZE` means anything to it.
    sized: bool,
    /// Whether it needs the kernel program or the binaries.
    needs_build: bool,
}

const fn step(name: &'static str, guess_s: u64, action: Action) -> Step {
    Step {
        name,
        guess_s,
        action,
        sized: false,
        needs_build: false,
    }
}

const fn built(name: &'static str, guess_s: u64, action: Action) -> Step {
    Step {
        name,
        guess_s,
        action,
        sized: false,
        needs_build: true,
    }
}

const fn sized(name: &'static str, guess_s: u64, action: Action) -> Step {
    Step {
        name,
        guess_s,
        action,
        sized: true,
        needs_build: true,
    }
}

/// Cargo works on the default members, all in one command: packages named apart would resolve other features and
/// build everything again.
const STEPS: &[Step] = &[
    built("build", 400, Action::Build),
    step("fmt", 5, Action::Cargo(&[&["fmt", "--all", "--check"]])),
    step("tidy", 1, Action::Tidy),
    step(
        "clippy",
        180,
        Action::Cargo(&[&["clippy", "--all-targets", "--", "-D", "warnings"]]),
    ),
    built("clippy-ebpf", 20, Action::ClippyEbpf),
    sized(
        "unit",
        240,
        Action::Cargo(&[&["test", "--lib", "--bins"], &["test", "--doc"]]),
    ),
];

/// What is known of a test target of `tests/Cargo.toml`. One that is not listed runs too, as the caller, at the end.
struct Suite {
    name: &'static str,
    guess_s: u64,
    /// Runs as root; builds never do.
    elevated: bool,
}

const SUITES: &[Suite] = &[
    Suite {
        name: "simulation",
        guess_s: 300,
        elevated: false,
    },
    Suite {
        name: "steer",
        guess_s: 60,
        elevated: false,
    },
    Suite {
        name: "kernel",
        guess_s: 60,
        elevated: true,
    },
    Suite {
        name: "storage",
        guess_s: 60,
        elevated: false,
    },
    Suite {
        name: "cli",
        guess_s: 30,
        elevated: false,
    },
    Suite {
        name: "lab",
        guess_s: 600,
        elevated: true,
    },
];

/// After the suites.
const LAST: &[Step] = &[
    step("docs", 60, Action::Docs),
    step("deny", 200, Action::Deny),
];

enum Job {
    Step(&'static Step),
    Suite {
        name: String,
        guess_s: u64,
        elevated: bool,
    },
}

impl Job {
    fn name(&self) -> &str {
        match self {
            Self::Step(step) => step.name,
            Self::Suite { name, .. } => name,
        }
    }

    fn needs_build(&self) -> bool {
        match self {
            Self::Step(step) => step.needs_build,
            Self::Suite { .. } => true,
        }
    }

    fn is_sized(&self) -> bool {
        match self {
            Self::Step(step) => step.sized,
            Self::Suite { .. } => true,
        }
    }
}

struct Outcome {
    name: String,
    size: &'static str,
    took: Duration,
    error: Option<String>,
}

pub(crate) fn run(args: Args<'_>) -> anyhow::Result<()> {
    let (size, only) = parse(args)?;
    let manifest = fs::read_to_string(paths::root().join("tests/Cargo.toml"))
        .context("reading tests/Cargo.toml")?;
    let jobs = chosen(all(&declared(&manifest)), only.as_deref())?;
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
        outcomes.push(Outcome {
            name: job.name().to_owned(),
            size: size_shown,
            took: started.elapsed(),
            error,
        });
        if stop {
            break;
        }
    }
    report(&outcomes, jobs.len())
}

fn parse(args: Args<'_>) -> anyhow::Result<(Size, Option<String>)> {
    let (mut size, mut only) = (Size::Ci, None);
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--long" => size = Size::Long,
            "--only" => {
                let name = words
                    .next()
                    .ok_or_else(|| Exit::new(exit::USAGE, "--only needs the name of a step"))?;
                only = Some(name.clone());
            }
            other => {
                return Err(Exit::new(
                    exit::USAGE,
                    format!("test takes --long and --only NAME, not `{other}`"),
                ));
            }
        }
    }
    Ok((size, only))
}

/// Names of the `[[test]]` targets of a manifest, in its order.
fn declared(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[[test]]";
        } else if let (true, Some((key, value))) = (inside, line.split_once('='))
            && key.trim() == "name"
        {
            names.push(value.trim().trim_matches('"').to_owned());
        }
    }
    names
}

/// Every step in order: declared suites as far as they exist, known ones first.
fn all(declared: &[String]) -> Vec<Job> {
    let known = SUITES
        .iter()
        .filter(|suite| declared.iter().any(|name| name == suite.name));
    let known = known.map(|suite| Job::Suite {
        name: suite.name.to_owned(),
        guess_s: suite.guess_s,
        elevated: suite.elevated,
    });
    let others = declared
        .iter()
        .filter(|name| SUITES.iter().all(|suite| suite.name != *name));
    let others = others.map(|name| Job::Suite {
        name: name.clone(),
        guess_s: 60,
        elevated: false,
    });
    STEPS
        .iter()
        .map(Job::Step)
        .chain(known)
        .chain(others)
        .chain(LAST.iter().map(Job::Step))
        .collect()
}

fn chosen(jobs: Vec<Job>, only: Option<&str>) -> anyhow::Result<Vec<Job>> {
    let Some(only) = only else { return Ok(jobs) };
    let names = jobs.iter().map(Job::name).collect::<Vec<_>>().join(" ");
    let chosen: Vec<Job> = jobs.into_iter().filter(|job| job.name() == only).collect();
    if chosen.is_empty() {
        return Err(Exit::new(
            exit::USAGE,
            format!("no step `{only}`; steps: {names}"),
        ));
    }
    Ok(chosen)
}

fn perform(job: &Job, size: Size, ready: &mut Option<Ready>) -> anyhow::Result<()> {
    // With `--only` nothing has been built by an earlier step.
    if job.needs_build() && ready.is_none() {
        *ready = Some(build::everything()?);
    }
    match job {
        Job::Suite {
            name,
            guess_s,
            elevated,
        } => {
            let words = ["test", "--test", name];
            progress::run(name, *guess_s, Output::Inherited, || {
                test_command(&words, size, *elevated)
            })
        }
        Job::Step(step) => match (&step.action, ready) {
            (Action::Build, _) => Ok(()),
            (Action::Tidy, _) => tidy::check(),
            (Action::Docs, _) => docs::build(),
            (Action::Deny, _) => deny(),
            (Action::ClippyEbpf, Some(ready)) => bpf::clippy(ready),
            (Action::ClippyEbpf, None) => bpf::clippy(&build::everything()?),
            (Action::Cargo(commands), _) => {
                progress::run(step.name, step.guess_s, Output::Inherited, || {
                    commands
                        .iter()
                        .try_for_each(|words| test_command(words, size, false))
                })
            }
        },
    }
}

/// The runner's own lines pass through: they name each test and end with `test result:`.
fn test_command(words: &[&str], size: Size, elevated: bool) -> anyhow::Result<()> {
    let mut cargo = run::cargo(words);
    cargo
        .env("JVPN_TEST_SIZE", size.name())
        .env("JVPN_BIN_DIR", paths::target().join("release"));
    if elevated && !run::is_root() {
        let shown = run::shown(&cargo);
        // Cargo builds as the caller and starts the test through the runner.
        let runner = format!(
            "CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER",
            std::env::consts::ARCH.to_uppercase()
        );
        let mut prefix = run::elevation(&shown)?;
        prefix.extend([
            format!("JVPN_TEST_SIZE={}", size.name()),
            format!("JVPN_BIN_DIR={}", paths::binary("").display()),
        ]);
        cargo.env(runner, prefix.join(" "));
    }
    run::run(cargo)
}

/// Licences, bans and sources; advisories need a database that a build machine may not reach.
fn deny() -> anyhow::Result<()> {
    tool::ensure_deny()?;
    let mut command = std::process::Command::new(paths::tool(tool::DENY.name));
    command.current_dir(paths::root()).args([
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ]);
    run::run(command)
}

fn report(outcomes: &[Outcome], planned: usize) -> anyhow::Result<()> {
    println!(
        "\n{:<14} {:<5} {:<7} {:>8}",
        "step", "size", "result", "seconds"
    );
    for outcome in outcomes {
        let result = if outcome.error.is_none() {
            "ok"
        } else {
            "FAILED"
        };
        println!(
            "{:<14} {:<5} {result:<7} {:>8.1}",
            outcome.name,
            outcome.size,
            outcome.took.as_secs_f64()
        );
    }
    let total: Duration = outcomes.iter().map(|outcome| outcome.took).sum();
    println!(
        "{:<14} {:<5} {:<7} {:>8.1}",
        "total",
        "",
        "",
        total.as_secs_f64()
    );
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|o| o.error.is_some())
        .map(|o| o.name.as_str())
        .collect();
    if let Some(first) = failed.first() {
        let unrun = planned - outcomes.len();
        let rest = if unrun > 0 {
            format!(", {unrun} not run")
        } else {
            String::new()
        };
        println!(
            "failed: {}{rest}; one again: cargo xtask test --only {first}",
            failed.join(", ")
        );
        return Err(Exit::silent(exit::FAILED));
    }
    if total > BUDGET {
        println!(
            "failed: {} s is over the budget of {} s",
            total.as_secs(),
            BUDGET.as_secs()
        );
        return Err(Exit::silent(exit::FAILED));
    }
    println!("all {} steps passed", outcomes.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declared_suite_is_a_step_even_when_unknown() {
        let manifest = "[package]\nname = \"p\"\n[[test]]\nname = \"novel\"\npath = \"x\"\n[[test]]\nname = \"steer\"\n[lints]\n";
        let jobs = all(&declared(manifest));
        let names: Vec<&str> = jobs.iter().map(Job::name).collect();
        assert_eq!(
            names,
            [
                "build",
                "fmt",
                "tidy",
                "clippy",
                "clippy-ebpf",
                "unit",
                "steer",
                "novel",
                "docs",
                "deny"
            ]
        );
    }

    #[test]
    fn an_unknown_step_is_refused_with_the_names() {
        let error = chosen(all(&[]), Some("units")).err().expect("no such step");
        assert_eq!(exit::code(&error), exit::USAGE);
        assert!(error.to_string().contains("unit docs"), "{error}");
    }

    #[test]
    fn sizes_and_steps_are_read_in_any_order() {
        let words = ["--only", "unit", "--long"].map(str::to_owned);
        let (size, only) = parse(&words).expect("valid");
        assert!(size == Size::Long && only.as_deref() == Some("unit"));
        assert!(parse(&["--only".to_owned()]).is_err());
    }

    #[test]
    fn one_failure_fails_the_run() {
        let ok = || Outcome {
            name: "a".to_owned(),
            size: "-",
            took: Duration::ZERO,
            error: None,
        };
        let bad = Outcome {
            error: Some("x".to_owned()),
            ..ok()
        };
        assert!(report(&[ok(), ok()], 2).is_ok());
        assert!(report(&[ok(), bad], 2).is_err());
        assert!(
            report(
                &[Outcome {
                    took: BUDGET + Duration::from_secs(1),
                    ..ok()
                }],
                1
            )
            .is_err()
        );
    }
}
