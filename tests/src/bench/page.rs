//! The page of figures, `docs/benchmarks.md`: owns how it is put together from committed runs, from what is asked for and
//! from the prose beside them. Never measures, never leaves out a bench or a promise because nothing is known of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::BENCHES;
use super::document::{Document, SCHEMA, Verdict};
use asked::{Asked, Standing};
use said::Said;

pub mod asked;
pub mod drawn;
pub mod said;
pub mod table;

const HEAD: &str = "# Benchmarks

<!-- Generated from docs/bench: the documents of runs, `limits.toml`, `bench/method.md` and `bench/notes.md`. After a change:
JVPN_BLESS=1 cargo test -p jvpn-tests --lib bench::page -->

What is asked of each bench, how it is measured, what the committed runs say, and what is known beside them. A run is made
and put here by `cargo xtask bench NAME --publish`.
";
const NO_RUN: &str = "not measured in a committed run";

/// Everything the page is made of.
#[derive(Debug, Default)]
pub struct Parts {
    pub method: String,
    pub notes: String,
    pub said: Said,
    /// By bench.
    pub documents: BTreeMap<String, Document>,
}

/// What is generated: files and what is in them, relative to `docs`.
pub type Pages = BTreeMap<PathBuf, String>;

/// `docs` of the sources this was built from.
pub fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

impl Parts {
    /// What is committed in `docs`.
    pub fn read(docs: &Path) -> Result<Parts> {
        let directory = docs.join("bench");
        let mut documents = BTreeMap::new();
        for entry in fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))? {
            let file = entry?.path();
            if file.extension().is_some_and(|kind| kind == "json") {
                let document: Document = serde_json::from_str(&read(&file)?)
                    .with_context(|| format!("{} is no document", file.display()))?;
                let named = file.file_stem().is_some_and(|stem| *stem == *document.bench);
                ensure!(named, "{} is a document of bench {:?}", file.display(), document.bench);
                ensure!(document.schema == SCHEMA, "{} has schema {:?}", file.display(), document.schema);
                documents.insert(document.bench.clone(), document);
            }
        }
        let limits = directory.join("limits.toml");
        Ok(Parts {
            method: read(&docs.join("bench/method.md"))?,
            notes: read(&docs.join("bench/notes.md"))?,
            said: toml::from_str(&read(&limits)?).with_context(|| format!("{} is not read", limits.display()))?,
            documents,
        })
    }

    /// The page and its charts.
    ///
    /// # Errors
    /// When a run is of no bench that there is, when a must fails and nothing is said of what limits it, or when something is
    /// said of a metric that no bench has.
    pub fn pages(&self) -> Result<Pages> {
        for name in self.documents.keys() {
            ensure!(BENCHES.iter().any(|bench| bench.name == name), "there is a run of {name:?}, which is no bench");
        }
        self.said.check(&self.documents)?;
        let mut pages = Pages::new();
        for (name, document) in &self.documents {
            pages.extend(drawn::chart(document).map(|chart| (chart_of(name), chart)));
        }
        let text = [
            HEAD.to_owned(),
            self.asked(),
            self.runs(),
            within(&self.method),
            self.figures(&pages),
            within(&self.notes),
        ];
        pages.insert("benchmarks.md".into(), text.join("\n"));
        Ok(pages)
    }

    /// Everything that is asked for, and what became of it.
    fn asked(&self) -> String {
        let all: Vec<(Asked, Standing)> = asked::all()
            .into_iter()
            .map(|asked| {
                let standing = asked.standing(&self.documents);
                (asked, standing)
            })
            .collect();
        let count = |wanted: &dyn Fn(Standing) -> bool| all.iter().filter(|(_, standing)| wanted(*standing)).count();
        let judged = |verdict| count(&|standing| standing == Standing::Judged(verdict));
        let mut text = format!(
            "## What is asked\n\n{} promises: {} hold, {} fail, {} have too few rounds to say, {} are {NO_RUN}",
            all.len(),
            judged(Verdict::Holds),
            judged(Verdict::Fails),
            judged(Verdict::TooFewRounds),
            judged(Verdict::NotMeasured) + count(&|standing| standing == Standing::NoRun),
        );
        let others: [(usize, &str); 2] = [
            (count(&|standing| matches!(standing, Standing::Aimed(_))), "have a goal alone"),
            (count(&|standing| standing == Standing::Changed), "were judged by another bound"),
        ];
        for (number, what) in others.into_iter().filter(|(number, _)| *number > 0) {
            let _ = write!(text, ", {number} {what}");
        }
        text.push_str(
            ".\n\nA bound is a ratio of ours to a rival (× its name) or in units; a goal is what is aimed at, a must is what has to hold.\n\n\
             | bench | metric | unit | goal | must | measured | verdict |\n|---|---|---|--:|--:|--:|---|\n",
        );
        for (asked, standing) in &all {
            let _ = writeln!(text, "{}", asked.row(*standing, &self.documents));
        }
        text
    }

    /// Which runs there are, and of which benches there is none.
    fn runs(&self) -> String {
        let mut text = String::from(
            "## Committed runs\n\n| bench | day | version | rounds | disturbed |\n|---|---|---|--:|--:|\n",
        );
        for bench in &BENCHES {
            let name = bench.name;
            let Some(document) = self.documents.get(name) else {
                let _ = writeln!(text, "| `{name}` | {NO_RUN} | | | |");
                continue;
            };
            let rounds = document.results.iter().map(|metric| metric.rounds).max().unwrap_or(0);
            let day = document.day.as_deref().unwrap_or("unknown");
            let disturbed = document.disturbed().count();
            let _ = writeln!(text, "| [`{name}`](#{name}) | {day} | {} | {rounds} | {disturbed} |", document.version);
        }
        text
    }

    /// Every committed run: chart, table, what limits, conditions.
    fn figures(&self, charts: &Pages) -> String {
        let mut text = String::from("## Figures of committed runs\n\n");
        if self.documents.is_empty() {
            text.push_str("There is none yet.\n");
        }
        for bench in &BENCHES {
            let Some(document) = self.documents.get(bench.name) else { continue };
            let _ = writeln!(text, "### {}\n", bench.name);
            let chart = chart_of(bench.name);
            if charts.contains_key(&chart) {
                let _ = writeln!(text, "![What `{}` measured]({})\n", bench.name, chart.display());
            }
            let _ = writeln!(text, "{}\n{}", table::rows(document), table::conditions(document).trim_end());
            let _ = writeln!(text, "{}", self.said.of(bench.name, ""));
        }
        let mut others = BENCHES.iter().filter(|bench| !self.documents.contains_key(bench.name)).peekable();
        if others.peek().is_some() {
            let _ = writeln!(text, "### Without a committed run\n");
        }
        for bench in others {
            let _ = writeln!(text, "- `{}`: {NO_RUN}.", bench.name);
            text.push_str(&self.said.of(bench.name, "  "));
        }
        text
    }
}

fn chart_of(bench: &str) -> PathBuf {
    PathBuf::from(format!("bench/{bench}.svg"))
}

/// Prose that lies one directory below the page it is included in.
fn within(text: &str) -> String {
    text.replace("](../", "](")
}

/// Writes what is generated, and takes away charts of runs that are gone.
pub fn write(docs: &Path, pages: &Pages) -> Result<()> {
    for chart in stale(docs, pages)? {
        fs::remove_file(docs.join(&chart)).with_context(|| format!("remove {}", chart.display()))?;
    }
    pages.iter().try_for_each(|(name, text)| put(docs, name, text))
}

/// Writes a file as the owner of `docs`, who is not root where root only measures.
pub fn put(docs: &Path, name: &Path, text: &str) -> Result<()> {
    let (file, owner) = (docs.join(name), fs::metadata(docs)?);
    fs::write(&file, text)
        .and_then(|()| chown(&file, Some(owner.uid()), Some(owner.gid())))
        .with_context(|| format!("write {}", file.display()))
}

/// Says what of `docs` is not what is generated.
pub fn check(docs: &Path, pages: &Pages) -> Result<()> {
    for (name, text) in pages {
        let found = fs::read_to_string(docs.join(name)).unwrap_or_default();
        if found != *text {
            let line = found.lines().zip(text.lines()).take_while(|(a, b)| a == b).count() + 1;
            bail!("docs/{} is not what docs/bench says (first difference in line {line})", name.display());
        }
    }
    let stale = stale(docs, pages)?;
    ensure!(stale.is_empty(), "charts without a run: {stale:?}");
    Ok(())
}

/// Charts that lie there and are not generated.
fn stale(docs: &Path, pages: &Pages) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(docs.join("bench"))? {
        names.push(Path::new("bench").join(entry?.file_name()));
    }
    names.retain(|name| name.extension().is_some_and(|kind| kind == "svg") && !pages.contains_key(name));
    Ok(names)
}

#[cfg(test)]
#[path = "page/tests.rs"]
mod tests;
