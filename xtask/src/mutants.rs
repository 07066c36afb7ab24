//! `cargo xtask mutants`: changes one operator or result at a time in the functions that are checks, and sees whether a fast
//! suite notices. Owns the runs of cargo-mutants, what they found so far, and the page made of it.
//! Must never change the workspace: the tool works on a copy, and a run may be cut short at any time.

mod list;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::Context as _;

use crate::exit::{self, Exit};
use crate::{Args, paths, run, tool};

use list::{Checks, Section};

/// What became of a mutant, by the file the tool writes it to.
const FATES: [&str; 4] = ["caught", "missed", "timeout", "unviable"];

/// Where results gather, over many runs.
fn place() -> PathBuf {
    paths::target().join("mutants")
}

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    shard: Option<String>,
    resume: bool,
    only: Option<String>,
    /// Nothing is run: the page is made of what is there.
    page: bool,
}

pub(crate) fn run(args: Args<'_>) -> anyhow::Result<()> {
    let wanted = parse(args)?;
    let text = fs::read_to_string(paths::root().join(list::FILE)).with_context(|| format!("reading {}", list::FILE))?;
    let checks = Checks::read(&text)?;
    tool::ensure_mutants()?;
    if !wanted.resume {
        // Another text, other mutants: what was found before says nothing about these.
        let _ = fs::remove_dir_all(place());
    }
    fs::create_dir_all(place()).context("making the directory of results")?;
    let names: Vec<&str> = checks.sections.iter().map(|section| section.name.as_str()).collect();
    if let Some(only) = wanted.only.as_deref().filter(|only| !names.contains(only)) {
        return Err(usage(&format!("no section `{only}`; sections: {}", names.join(" "))));
    }
    for section in &checks.sections {
        gather(section)?;
        if wanted.page || wanted.only.as_ref().is_some_and(|only| *only != section.name) {
            continue;
        }
        mutate(section, &wanted)?;
        gather(section)?;
        report(&checks)?;
    }
    let open = report(&checks)?;
    if open > 0 {
        println!("{open} mutants of checks survive without a reason; see {}", list::PAGE);
        return Err(Exit::silent(exit::FAILED));
    }
    Ok(())
}

fn parse(args: Args<'_>) -> anyhow::Result<Wanted> {
    let mut wanted = Wanted::default();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or_else(|| usage(&format!("{word} needs a value")));
        match word.as_str() {
            "--resume" => wanted.resume = true,
            "--page" => (wanted.page, wanted.resume) = (true, true),
            "--only" => wanted.only = Some(value()?),
            "--shard" => {
                let shard = value()?;
                let numbers = shard.split_once('/').map(|(k, n)| (k.parse::<u32>(), n.parse::<u32>()));
                let valid = matches!(numbers, Some((Ok(k), Ok(n))) if k < n);
                if !valid {
                    return Err(usage(&format!("--shard takes K/N with K from 0 to N - 1, not `{shard}`")));
                }
                wanted.shard = Some(shard);
            }
            other => {
                return Err(usage(&format!(
                    "mutants takes --shard K/N, --resume, --only SECTION and --page, not `{other}`"
                )));
            }
        }
    }
    Ok(wanted)
}

fn usage(text: &str) -> anyhow::Error {
    Exit::because(exit::USAGE, text.to_owned())
}

/// Runs the tool over one section. A run that was cut short goes on where it was: what is caught is not tried again.
fn mutate(section: &Section, wanted: &Wanted) -> anyhow::Result<()> {
    eprintln!("==> mutants of {}", section.name);
    let mut command = Command::new(paths::tool(tool::MUTANTS.name));
    command.current_dir(paths::root());
    command.args(["mutants", "--package", section.package(), "--no-shuffle", "--colors", "never", "--iterate"]);
    // A suite takes seconds; what takes a minute never ends.
    command.args(["--baseline", "skip", "--timeout", "60"]);
    command.arg("--output").arg(place().join(&section.name));
    for (file, functions) in &section.files {
        let name = file.rsplit('/').next().unwrap_or(file).replace('.', "\\.");
        command.args(["--file", file]).arg("--re").arg(format!("{name}:.*\\b({})\\b", functions.join("|")));
    }
    for package in section.beside.iter().map(String::as_str).chain([section.package()]) {
        command.args(["--test-package", package]);
    }
    if let Some(shard) = &wanted.shard {
        command.args(["--shard", shard]);
    }
    if let Some(features) = section.features() {
        command.args(["--features", features]);
    }
    // Built often and run briefly: the other way round from the other tests.
    for quick in ["opt-level=0", "debug=0"] {
        command
            .arg("--cargo-arg=--config")
            .arg(format!("--cargo-arg=profile.dev.package.{}.{quick}", section.package()));
    }
    command.args(["--", "--lib", "--"]).args(&section.tests);
    command.env("CARGO_INCREMENTAL", "1").env("CARGO_TARGET_DIR", place().join("build"));
    let status = command.status().with_context(|| format!("cannot start `{}`", run::shown(&command)))?;
    // 2: some were missed, 3: some took too long. The page says which.
    if matches!(status.code(), Some(0 | 2 | 3)) {
        return Ok(());
    }
    anyhow::bail!("`{}` failed: {status}", run::shown(&command))
}

/// Adds what a run found to what was found before. A mutant keeps its last fate.
fn gather(section: &Section) -> anyhow::Result<()> {
    let mut fates = found(section);
    // The tool puts the results of the run before aside; those of one that was cut short are only there.
    let runs = ["mutants.out.old", "mutants.out"].map(|run| place().join(&section.name).join(run));
    for (run, fate) in runs.iter().flat_map(|run| FATES.map(|fate| (run, fate))) {
        let file = run.join(format!("{fate}.txt"));
        for mutant in fs::read_to_string(file).unwrap_or_default().lines() {
            fates.insert(mutant.to_owned(), fate.to_owned());
        }
    }
    let text: String = fates.iter().map(|(mutant, fate)| format!("{fate}\t{mutant}\n")).collect();
    fs::write(gathered(section), text).context("writing what was found")
}

fn gathered(section: &Section) -> PathBuf {
    place().join(format!("{}.txt", section.name))
}

/// Mutant and fate of everything found in a section.
fn found(section: &Section) -> BTreeMap<String, String> {
    let text = fs::read_to_string(gathered(section)).unwrap_or_default();
    let split = |line: &str| line.split_once('\t').map(|(fate, mutant)| (mutant.to_owned(), fate.to_owned()));
    text.lines().filter_map(split).collect()
}

/// The mutants a section has now: what was found about others, by an older text, says nothing.
fn all(section: &Section) -> BTreeSet<String> {
    let mut command = Command::new(paths::tool(tool::MUTANTS.name));
    command.current_dir(paths::root()).args(["mutants", "--list", "--package", section.package()]);
    for (file, functions) in &section.files {
        let name = file.rsplit('/').next().unwrap_or(file).replace('.', "\\.");
        command.args(["--file", file]).arg("--re").arg(format!("{name}:.*\\b({})\\b", functions.join("|")));
    }
    let lines = |output: Output| String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    command.output().map_or_else(|_| BTreeSet::new(), lines)
}

/// Writes the page; gives the number of survivors without a reason.
fn report(checks: &Checks) -> anyhow::Result<usize> {
    let day = run::ask("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default();
    let commit = run::ask("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_default();
    let mut open = 0;
    let mut table = String::new();
    let mut survivors = String::new();
    for section in &checks.sections {
        let whole = all(section);
        let mut fates = found(section);
        fates.retain(|mutant, _| whole.contains(mutant));
        let count = |fate: &str| fates.values().filter(|known| *known == fate).count();
        let slow = count("timeout");
        table.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            section.name,
            whole.len(),
            fates.len(),
            // One that never ends is noticed by whoever waits.
            count("caught") + slow,
            count("missed"),
            count("unviable"),
            whole.len() - fates.len()
        ));
        for mutant in fates.iter().filter(|(_, fate)| *fate == "missed").map(|(mutant, _)| mutant) {
            let reason = checks.reason(mutant);
            open += usize::from(reason.is_none());
            let reason = reason.unwrap_or("**open**");
            survivors.push_str(&format!("| `{}` | {reason} |\n", mutant.replace('|', "\\|")));
        }
    }
    if survivors.is_empty() {
        survivors = "| none so far | |\n".to_owned();
    }
    let text = format!(
        "{HEAD}\nLast run: {day}, at commit `{commit}`.\n\n{TABLE}{table}\n## Survivors\n\n| mutant | why it survives |\n|---|---|\n{survivors}"
    );
    fs::write(paths::root().join(list::PAGE), text).context("writing the page")?;
    Ok(open)
}

const HEAD: &str = "\
# Mutants

`cargo xtask mutants` changes one operator or one result at a time in the functions listed in `tests/mutants.toml`, the *checks* of
the product, and runs the fast suite of their section. It writes this page. A mutant that no test notices is a missing test,
unless a line in that file says why it is none. Results gather in `target/mutants`; `--resume` goes on, `--shard K/N` does a part,
`--only SECTION` one section, `--page` only writes the page. It is no step of `cargo xtask test`: one mutant costs a build of its crate.
";

const TABLE: &str = "\
| section | mutants | tried | caught | missed | do not compile | not tried yet |
|---|--:|--:|--:|--:|--:|--:|
";

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_shard_is_a_part_of_a_whole() {
        let wanted = parse(&words("--shard 2/8 --resume --only session")).expect("valid");
        let session = Some("session".to_owned());
        assert_eq!(wanted, Wanted { shard: Some("2/8".to_owned()), resume: true, only: session, page: false });
        for wrong in ["--shard 8/8", "--shard 2", "--shard", "--shards 1/2", "--shard -1/2"] {
            let error = parse(&words(wrong)).expect_err(wrong);
            assert_eq!(exit::code(&error), exit::USAGE, "{wrong}");
        }
    }
}
