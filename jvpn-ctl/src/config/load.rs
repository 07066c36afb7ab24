//! From a file to a typed raw table: reading, unknown keys with a guess, and values with their places.
//!
//! Owns what every configuration file has in common. Must never know what a key means.

use super::report::{Problem, Report, Source, did_you_mean};
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::Spanned;

/// Largest configuration file that is read: 16 MiB hold a hundred thousand peers; more is not a configuration.
const FILE_MAX: u64 = 16 << 20;

/// Reads a configuration file as text.
pub(super) fn read(path: &Path) -> Result<Source, Report> {
    let fail =
        |cause: &dyn Display| Report::from(Problem::without_place(format!("cannot read {}: {cause}", path.display())));
    let meta = std::fs::metadata(path).map_err(|error| fail(&error))?;
    if !meta.is_file() {
        return Err(fail(&"not a file"));
    }
    if meta.len() > FILE_MAX {
        return Err(fail(&format!("{} bytes; a configuration has at most {FILE_MAX}", meta.len())));
    }
    let bytes = std::fs::read(path).map_err(|error| fail(&error))?;
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(Source::new(path, text)),
        _ => Err(fail(&"not a text file")),
    }
}

/// Parses a text into a raw table; the first syntax error or unknown key ends it.
pub(super) fn parse<T: DeserializeOwned>(source: &Source) -> Result<T, Report> {
    toml::from_str(source.text()).map_err(|error| from_toml(source, &error).into())
}

fn from_toml(source: &Source, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let message = error.message().trim();
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field") {
        let unknown = names.first().copied().unwrap_or_default();
        let known: Vec<&str> = names.iter().skip(1).copied().collect();
        let problem = Problem::at(format!("unknown key `{unknown}`"), source.mark(span, "not a key of this table"));
        return match did_you_mean(unknown, known.iter().copied()) {
            Some(guess) => problem.hint(format!("did you mean `{guess}`?")),
            None => problem.hint(format!("keys of this table: {}", known.join(", "))),
        };
    }
    if let Some(missing) = message.strip_prefix("missing field ") {
        let line = source.line_of(span.start);
        return Problem::at(format!("missing key {missing}"), source.mark(line, "in this table"));
    }
    let mut lines = message.lines();
    let title = lines.next().unwrap_or("not TOML").to_owned();
    let rest: Vec<_> = lines.map(str::to_owned).collect();
    rest.into_iter().fold(Problem::at(title, source.mark(span, "")), Problem::hint)
}

/// Collects problems while raw values become typed ones.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) source: &'a Source,
    pub(super) report: Report,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, report: Report::default() }
    }

    /// A problem at a value.
    pub(super) fn wrong<T>(&mut self, value: &Spanned<T>, title: impl Into<String>, label: impl Into<String>) {
        self.report.push(Problem::at(title, self.source.mark(value.span(), label)));
    }

    /// Parses a text value; on failure reports it and gives `None`.
    pub(super) fn parsed<T>(&mut self, key: &str, value: &Spanned<String>, example: &str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        match value.as_ref().parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.report.push(
                    Problem::at(format!("`{key}`: {error}"), self.source.mark(value.span(), "cannot be read"))
                        .hint(format!("write it like {example}")),
                );
                None
            }
        }
    }

    /// Parses each text of a list.
    pub(super) fn all<T>(&mut self, key: &str, values: &[Spanned<String>], example: &str) -> Vec<Spanned<T>>
    where
        T: FromStr<Err: Display>,
    {
        let parse = |value: &Spanned<String>| Some(Spanned::new(value.span(), self.parsed(key, value, example)?));
        values.iter().filter_map(parse).collect()
    }

    /// Checks that a number lies in its range.
    pub(super) fn within(&mut self, key: &str, value: &Spanned<i64>, range: std::ops::RangeInclusive<u32>) -> u32 {
        match u32::try_from(*value.as_ref()) {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let title = format!("`{key}` is outside its range");
                self.wrong(value, title, format!("must be {} to {}", range.start(), range.end()));
                *range.start()
            }
        }
    }

    /// A name that becomes a file name, a label and part of a socket's name.
    pub(super) fn name(&mut self, key: &str, value: &Spanned<String>) -> String {
        if let Err(cause) = check_name(value.as_ref()) {
            self.wrong(value, format!("`{key}` {cause}"), "not a name");
        }
        value.as_ref().clone()
    }

    /// An interface name as the kernel takes it.
    pub(super) fn interface(&mut self, key: &str, value: &Spanned<String>) -> String {
        let text = value.as_ref();
        let fine =
            !text.is_empty() && text.len() <= 15 && !text.contains(['/', ':']) && !text.contains(char::is_whitespace);
        if !fine || text == "." || text == ".." {
            self.wrong(value, format!("`{key}` is no interface name"), "1 to 15 bytes without `/`, `:` and spaces");
        }
        text.clone()
    }

    /// A path; a relative one is meant relative to the configuration file.
    pub(super) fn path(&self, value: &Spanned<String>) -> PathBuf {
        let base = self.source.path().parent().unwrap_or_else(|| Path::new(""));
        base.join(value.as_ref())
    }
}

/// Longest name of a node, peer or transport in bytes: it becomes part of file and socket names.
pub(crate) const NAME_MAX: usize = 64;

/// Whether a text can be the name of a peer, gateway, transport or policy.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(format!("must have 1 to {NAME_MAX} characters"));
    }
    if !name.chars().all(fine) || name.starts_with(['.', '-']) {
        return Err("must consist of letters, digits, `-`, `_` and `.`, and start with a letter or digit".into());
    }
    Ok(())
}
