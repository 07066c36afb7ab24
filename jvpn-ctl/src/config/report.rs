//! Configuration problems that point at the file, line, column and source line, with every key involved.
//!
//! Owns the source texts, the marks in them and how they print. Must never decide whether a value is right.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// One configuration file: where it is and what it says.
#[derive(Clone)]
pub struct Source {
    inner: Arc<Text>,
}

struct Text {
    path: Arc<Path>,
    /// Wiped when the last mark in it is gone: a client's file may hold its key.
    text: Zeroizing<String>,
    /// The same length with secrets blotted out; the only form that is printed.
    shown: String,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.path().display())
    }
}

/// Blots out the value of every line whose key sounds like a secret, mistyped ones included.
fn blotted(text: &str) -> String {
    let secret =
        |key: &str| ["priv", "shared", "psk", "secret"].iter().any(|word| key.contains(word)) && !key.contains("file");
    let blot = |line: &str| match line.split_once('=') {
        Some((key, value)) if secret(&key.to_ascii_lowercase()) => {
            let stars: String =
                value.bytes().map(|byte| if byte.is_ascii_whitespace() { char::from(byte) } else { '*' }).collect();
            format!("{key}={stars}")
        }
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(blot).collect()
}

impl Source {
    /// A text that was read from `path`.
    #[must_use]
    pub fn new(path: &Path, text: String) -> Self {
        let shown = blotted(&text);
        Self { inner: Arc::new(Text { path: path.into(), text: Zeroizing::new(text), shown }) }
    }

    /// The same as [`Self::path`], to be kept by many.
    #[must_use]
    pub fn file(&self) -> Arc<Path> {
        Arc::clone(&self.inner.path)
    }

    /// Where the text comes from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.inner.text
    }

    /// A place in this text.
    #[must_use]
    pub fn mark(&self, span: Range<usize>, label: impl Into<String>) -> Mark {
        Mark { source: self.clone(), span, label: label.into() }
    }

    /// A place in words: file, line and column.
    #[must_use]
    pub fn place(&self, at: usize) -> String {
        let before = self.text().get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        format!("{}:{line}:{column}", self.path().display())
    }

    /// The whole line that starts at, or contains, a byte; what a missing key points at.
    #[must_use]
    pub fn line_of(&self, at: usize) -> Range<usize> {
        let text = self.text();
        let at = at.min(text.len());
        let start = text.get(..at).and_then(|head| head.rfind('\n')).map_or(0, |newline| newline + 1);
        let end = text.get(start..).and_then(|tail| tail.find('\n')).map_or(text.len(), |length| start + length);
        start..end
    }

    fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

/// A key or value that takes part in a problem.
#[derive(Clone, Debug)]
pub struct Mark {
    source: Source,
    span: Range<usize>,
    label: String,
}

/// One thing that is wrong: what, where, and what to do about it.
#[derive(Clone, Debug)]
pub struct Problem {
    title: String,
    marks: Vec<Mark>,
    hints: Vec<String>,
}

impl Problem {
    /// A problem at one place.
    #[must_use]
    pub fn at(title: impl Into<String>, mark: Mark) -> Self {
        Self { title: title.into(), marks: vec![mark], hints: Vec::new() }
    }

    /// A problem without a place in a text, such as a file that cannot be read.
    #[must_use]
    pub fn without_place(title: impl Into<String>) -> Self {
        Self { title: title.into(), marks: Vec::new(), hints: Vec::new() }
    }

    /// The other side of a contradiction.
    #[must_use]
    pub fn and(mut self, mark: Mark) -> Self {
        self.marks.push(mark);
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut group = Group::with_title(Level::ERROR.primary_title(self.title.as_str()));
        let mut seen: Vec<&Source> = Vec::new();
        for (index, mark) in self.marks.iter().enumerate() {
            if seen.iter().any(|source| source.same_as(&mark.source)) {
                continue;
            }
            seen.push(&mark.source);
            let mut snippet =
                Snippet::source(mark.source.inner.shown.as_str()).path(mark.source.path().display().to_string());
            for (other, place) in self.marks.iter().enumerate().skip(index) {
                if !place.source.same_as(&mark.source) {
                    continue;
                }
                let kind = if other == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
                snippet = snippet.annotation(kind.span(place.span.clone()).label(place.label.as_str()));
            }
            group = group.element(snippet);
        }
        for hint in &self.hints {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        renderer.render(&[group])
    }
}

/// Everything that is wrong with a configuration, in the order of the files.
#[derive(Clone, Debug, Default)]
pub struct Report {
    problems: Vec<Problem>,
}

impl Report {
    /// Adds one problem.
    pub fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Adds what another file got wrong.
    pub fn extend(&mut self, other: Self) {
        self.problems.extend(other.problems);
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// The value if nothing is wrong, else the report.
    ///
    /// # Errors
    /// The report itself.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// The report as text for a terminal, coloured or not.
    #[must_use]
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let parts: Vec<_> = self.problems.iter().map(|problem| problem.render(&renderer)).collect();
        parts.join("\n\n")
    }
}

impl From<Problem> for Report {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// The candidate a mistyped word most likely meant.
#[must_use]
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the word may be wrong: more, and the guess is noise.
    let bound = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace) between two words.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut next = vec![index + 1];
        for ((to, diagonal), above) in right.iter().zip(&row).zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or(0);
            next.push((diagonal + usize::from(from != *to)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contradiction_names_file_line_column_and_both_keys() {
        let source = Source::new(Path::new("gateway.toml"), "a = 1\nb = 2\n".into());
        let problem = Problem::at("a is below b", source.mark(0..5, "this")).and(source.mark(6..11, "and this"));
        let text = Report::from(problem.hint("raise a")).to_string();
        for part in ["error: a is below b", "gateway.toml:1:1", "a = 1", "b = 2", "this", "and this", "help: raise a"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_secret_is_never_shown_even_under_a_mistyped_key() {
        for key in ["private_key", "privat_key", "preshared_key ", "psk"] {
            let source = Source::new(Path::new("client.toml"), format!("{key} = \"c2VjcmV0\"\nb = 2\n"));
            let text = Report::from(Problem::at("wrong", source.mark(0..3, "here"))).to_string();
            assert!(!text.contains("c2VjcmV0") && text.contains(key.trim()), "{text}");
        }
        let source = Source::new(Path::new("c"), "private_key_file = \"k\"\n".into());
        assert!(Report::from(Problem::at("wrong", source.mark(0..3, "here"))).to_string().contains("\"k\""));
    }

    #[test]
    fn a_near_miss_is_guessed_and_a_far_one_is_not() {
        assert_eq!(did_you_mean("interfces", ["interfaces", "listen"]), Some("interfaces"));
        assert_eq!(did_you_mean("colour", ["interfaces", "listen"]), None);
    }
}
