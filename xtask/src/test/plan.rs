//! Owns what `cargo xtask test` consists of: the steps as data, their order, which of them were asked for.
//! Must never run one.

use crate::exit::{self, Exit};

/// Same tests, another amount: the tests read it from `JVPN_TEST_SIZE`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Ci,
    Long,
}

impl Size {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ci => "ci",
            Self::Long => "long",
        }
    }

    /// Cases of a property test that names no number of its own.
    pub(super) fn property_cases(self) -> u32 {
        match self {
            Self::Ci => 256,
            Self::Long => 20_000,
        }
    }
}

pub(super) enum Action {
    /// Set-up and build: what the others stand on.
    Build,
    /// Words for cargo, as the caller.
    Cargo(&'static [&'static [&'static str]]),
    ClippyEbpf,
    /// The kernel program with the features that no release has: suites load it.
    BuildLab,
    Tidy,
    Docs,
    Deny,
    /// The same build again, which must find nothing to do.
    Rebuild,
    /// The committed vectors are those of the second implementation.
    Vectors,
    /// Suites once more, with the kernel program in the stack.
    Generic,
    /// Which rows of the transition table the steps before recorded.
    Rows,
}

pub(super) struct Step {
    pub name: &'static str,
    /// First estimate in seconds, cold, two cores.
    pub guess_s: u64,
    pub action: Action,
    /// Whether `JVPN_TEST_SIZE` means anything to it.
    sized: bool,
    /// Whether it needs the kernel program or the binaries.
    needs_build: bool,
}

const fn step(name: &'static str, guess_s: u64, action: Action) -> Step {
    Step { name, guess_s, action, sized: false, needs_build: false }
}

const fn built(name: &'static str, guess_s: u64, action: Action) -> Step {
    Step { name, guess_s, action, sized: false, needs_build: true }
}

const fn sized(name: &'static str, guess_s: u64, action: Action) -> Step {
    Step { name, guess_s, action, sized: true, needs_build: true }
}

/// Cargo works on the default members, all in one command: packages named apart would resolve other features and
/// build everything again.
const STEPS: &[Step] = &[
    built("build", 400, Action::Build),
    built("rebuild", 5, Action::Rebuild),
    step("fmt", 5, Action::Cargo(&[&["fmt", "--all", "--check"]])),
    step("tidy", 1, Action::Tidy),
    step("clippy", 180, Action::Cargo(&[&["clippy", "--all-targets", "--", "-D", "warnings"]])),
    built("clippy-ebpf", 20, Action::ClippyEbpf),
    built("build-lab", 40, Action::BuildLab),
    step("vectors", 2, Action::Vectors),
    sized(
        "unit",
        240,
        Action::Cargo(&[&["test", "--lib", "--bins", "--test", "pages", "--test", "verbs"], &["test", "--doc"]]),
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
    Suite { name: "sim", guess_s: 300, elevated: false },
    Suite { name: "lifecycle", guess_s: 40, elevated: false },
    Suite { name: "model", guess_s: 20, elevated: false },
    Suite { name: "record", guess_s: 30, elevated: false },
    Suite { name: "steer", guess_s: 60, elevated: true },
    Suite { name: "active", guess_s: 40, elevated: true },
    Suite { name: "dataplane", guess_s: 45, elevated: true },
    Suite { name: "tunnel", guess_s: 60, elevated: true },
    Suite { name: "lab", guess_s: 60, elevated: true },
    Suite { name: "uplink", guess_s: 15, elevated: true },
    Suite { name: "misuse", guess_s: 90, elevated: true },
    Suite { name: "watch", guess_s: 80, elevated: true },
    Suite { name: "trust", guess_s: 120, elevated: true },
    Suite { name: "inspect", guess_s: 20, elevated: true },
    Suite { name: "relay", guess_s: 100, elevated: true },
    Suite { name: "prove", guess_s: 20, elevated: true },
    Suite { name: "crash", guess_s: 60, elevated: true },
    Suite { name: "demo", guess_s: 240, elevated: true },
    Suite { name: "bench", guess_s: 180, elevated: true },
    Suite { name: "kernels", guess_s: 150, elevated: false },
];

/// After the suites.
const LAST: &[Step] = &[
    sized("generic", 360, Action::Generic),
    built("rows", 1, Action::Rows),
    step("docs", 60, Action::Docs),
    step("deny", 200, Action::Deny),
];

pub(super) enum Job {
    Step(&'static Step),
    Suite { name: String, guess_s: u64, elevated: bool },
}

impl Job {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Step(step) => step.name,
            Self::Suite { name, .. } => name,
        }
    }

    pub(super) fn needs_build(&self) -> bool {
        match self {
            Self::Step(step) => step.needs_build,
            Self::Suite { .. } => true,
        }
    }

    pub(super) fn is_sized(&self) -> bool {
        match self {
            Self::Step(step) => step.sized,
            Self::Suite { .. } => true,
        }
    }
}

/// Names of the `[[test]]` targets of a manifest, in its order.
pub(super) fn declared(manifest: &str) -> Vec<String> {
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
pub(super) fn all(declared: &[String]) -> Vec<Job> {
    let known = SUITES.iter().filter(|suite| declared.iter().any(|name| name == suite.name));
    let known =
        known.map(|suite| Job::Suite { name: suite.name.to_owned(), guess_s: suite.guess_s, elevated: suite.elevated });
    let others = declared.iter().filter(|name| SUITES.iter().all(|suite| suite.name != *name));
    let others = others.map(|name| Job::Suite { name: name.clone(), guess_s: 60, elevated: false });
    STEPS.iter().map(Job::Step).chain(known).chain(others).chain(LAST.iter().map(Job::Step)).collect()
}

pub(super) fn chosen(jobs: Vec<Job>, only: Option<&str>) -> anyhow::Result<Vec<Job>> {
    let Some(only) = only else { return Ok(jobs) };
    let names = jobs.iter().map(Job::name).collect::<Vec<_>>().join(" ");
    let chosen: Vec<Job> = jobs.into_iter().filter(|job| job.name() == only).collect();
    if chosen.is_empty() {
        return Err(Exit::because(exit::USAGE, format!("no step `{only}`; steps: {names}")));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declared_suite_is_a_step_even_when_unknown() {
        let manifest =
            "[package]\nname = \"p\"\n[[test]]\nname = \"novel\"\npath = \"x\"\n[[test]]\nname = \"steer\"\n[lints]\n";
        let jobs = all(&declared(manifest));
        let names: Vec<&str> = jobs.iter().map(Job::name).collect();
        assert_eq!(
            names,
            [
                "build",
                "rebuild",
                "fmt",
                "tidy",
                "clippy",
                "clippy-ebpf",
                "build-lab",
                "vectors",
                "unit",
                "steer",
                "novel",
                "generic",
                "rows",
                "docs",
                "deny"
            ]
        );
    }

    #[test]
    fn an_unknown_step_is_refused_with_the_names() {
        let error = chosen(all(&[]), Some("units")).err().expect("no such step");
        assert_eq!(exit::code(&error), exit::USAGE);
        assert!(error.to_string().contains("unit generic rows docs"), "{error}");
    }
}
