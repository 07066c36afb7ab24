//! `cargo xtask tidy`: owns reading the tracked text of the workspace and telling where it breaks a house rule.
//! Must never change a file, nor hold a rule itself: these are in `tidy/rules.rs`.

mod rules;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::{Args, VERBS, no_args, paths};

/// One file: its path from the root, with `/`, and its text.
pub(super) struct File {
    pub path: String,
    pub text: String,
    pub executable: bool,
}

/// What a rule may look at besides the file in hand.
pub(super) struct House {
    pub paths: BTreeSet<String>,
    pub verbs: Vec<&'static str>,
}

pub(crate) fn run(args: Args<'_>) -> anyhow::Result<()> {
    no_args("tidy", args)?;
    check()
}

pub(crate) fn check() -> anyhow::Result<()> {
    let (files, house) = read(&paths::root())?;
    let broken = violations(&files, &house);
    if broken.is_empty() {
        eprintln!("tidy: {} files follow the house rules", files.len());
        return Ok(());
    }
    for line in &broken {
        eprintln!("{line}");
    }
    bail!("{} house rules are broken; what they are for: docs/style.md", broken.len())
}

fn violations(files: &[File], house: &House) -> Vec<String> {
    files.iter().flat_map(|file| rules::check(file, house)).collect()
}

fn read(root: &Path) -> anyhow::Result<(Vec<File>, House)> {
    let mut files = Vec::new();
    walk(root, root, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let paths = files.iter().map(|file| file.path.clone()).collect();
    Ok((files, House { paths, verbs: VERBS.iter().map(|verb| verb.name).collect() }))
}

/// Hidden directories with project files; all others belong to tools.
const HIDDEN: &[&str] = &[".ci", ".cargo", ".github"];

fn walk(root: &Path, dir: &Path, files: &mut Vec<File>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let foreign = name.starts_with('.') && !HIDDEN.contains(&name.as_str());
            if !foreign && name != "target" {
                walk(root, &path, files)?;
            }
        } else if kind.is_file() && name != ".git" {
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let executable = entry.metadata()?.permissions().mode() & 0o111 != 0;
            // Pictures and captures have no text to check, but they count as existing.
            let text = String::from_utf8(fs::read(&path)?).unwrap_or_default();
            files.push(File { path: relative, text, executable });
        }
    }
    Ok(())
}
