//! Owns the house rules that a text search can check; each says what to do and where to read more.
//! Must never read the disk: a rule sees one file and the list of all.

use super::source::{code_only, has_word, product_lines, word_at};
use super::{File, House};

/// Lines of product code in a file. More is two concepts.
const FILE_LINES: usize = 400;
/// Lines of inline tests; 150 is the habit, the rest is room for the last test.
const TEST_LINES: usize = 180;

/// Where `unsafe` may stand. A new entry needs a reason in the review.
const UNSAFE: &[&str] = &[
    "jvpn-ebpf/src/frame.rs",
    "jvpn-ebpf/src/tables.rs",
    "jvpn-ctl/src/dataplane/active.rs",
    "jvpn-ctl/src/tunnel/sys.rs",
    "jvpn-ctl/src/runtime/sys.rs",
    "tests/src/lab/sys.rs",
];

/// What the core must not name: each would let it look at the world.
const WORLD: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::io",
    "HashMap",
    "HashSet",
    "thread_rng",
    "OsRng",
    "getrandom",
    "f32",
    "f64",
];

/// The only files that may be executable.
const EXECUTABLE: &[&str] = &[".ci/run"];

/// Where crates may come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Every broken rule of one file, as `path:line: what to do`.
pub(super) fn check(file: &File, house: &House) -> Vec<String> {
    let mut broken = Broken { path: &file.path, lines: Vec::new() };
    if file.path.ends_with(".rs") {
        let code = code_only(&file.text);
        on_top(file, &mut broken);
        sizes(file, &mut broken);
        unfinished(file, &code, &mut broken);
        unsafety(file, &code, &mut broken);
        names(&code, &mut broken);
        waiting(file, &code, &mut broken);
        purity(file, &code, &mut broken);
    }
    if file.executable && !EXECUTABLE.contains(&file.path.as_str()) {
        broken.push(0, "is executable; only .ci/run is (chmod -x)");
    }
    private_places(file, &mut broken);
    sources(file, &mut broken);
    pages(file, house, &mut broken);
    verbs(file, house, &mut broken);
    broken.lines
}

struct Broken<'a> {
    path: &'a str,
    lines: Vec<String>,
}

impl Broken<'_> {
    /// `index` counts from 0.
    fn push(&mut self, index: usize, what: impl AsRef<str>) {
        self.lines.push(format!("{}:{}: {} (docs/style.md)", self.path, index + 1, what.as_ref()));
    }
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/")
}

fn on_top(file: &File, broken: &mut Broken<'_>) {
    let first = file.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // What a file of tests owns is said by its name.
    let enough = if is_test(&file.path) { 1 } else { 20 };
    if first.strip_prefix("//! ").is_none_or(|words| words.len() < enough) {
        broken.push(0, "begins with `//!`: what it owns and what it must never do");
    }
}

fn sizes(file: &File, broken: &mut Broken<'_>) {
    if is_test(&file.path) {
        return;
    }
    let product = product_lines(&file.text);
    if product > FILE_LINES {
        broken.push(
            FILE_LINES,
            format!("has {product} lines of product code, at most {FILE_LINES}: split it by concept"),
        );
    }
    let tests = file.text.lines().count() - product;
    if tests > TEST_LINES {
        broken
            .push(product, format!("has {tests} lines of inline tests: move them to a file `tests.rs` of the module"));
    }
}

fn unfinished(file: &File, code: &str, broken: &mut Broken<'_>) {
    let macros = [concat!("to", "do!"), concat!("unimple", "mented!")];
    for (index, line) in code.lines().enumerate() {
        if macros.iter().any(|name| line.contains(name)) || line.contains(concat!("#[ig", "nore")) {
            broken.push(index, "leaves something for later: finish it or take it out");
        }
    }
    let marks = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];
    for (index, line) in file.text.lines().enumerate() {
        if marks.iter().any(|mark| has_word(line, mark)) {
            broken.push(index, "marks something unfinished: finish it, or say why it is as it is");
        }
    }
}

fn unsafety(file: &File, code: &str, broken: &mut Broken<'_>) {
    if UNSAFE.contains(&file.path.as_str()) {
        return;
    }
    for (index, line) in code.lines().enumerate() {
        // `#[unsafe(no_mangle)]` is an attribute's spelling, not an unsafe operation.
        if word_at(line, "unsafe").is_some_and(|rest| !rest.starts_with('(')) {
            broken.push(index, "uses unsafe outside the listed files (the list: xtask/src/tidy/rules.rs)");
        }
    }
}

fn names(code: &str, broken: &mut Broken<'_>) {
    for (index, line) in code.lines().enumerate() {
        if line.contains("fn get_") {
            broken.push(index, "says `get_`: name what it returns");
        }
    }
}

fn waiting(file: &File, code: &str, broken: &mut Broken<'_>) {
    // The lab waits for real networks; unit tests have none.
    if file.path.starts_with("tests/") {
        return;
    }
    let tests_from = if is_test(&file.path) { 0 } else { product_lines(&file.text) };
    for (index, line) in code.lines().enumerate().skip(tests_from) {
        if line.contains("thread::sleep") || line.contains("time::sleep") {
            broken.push(index, "sleeps in a unit test: wait for the event itself");
        }
    }
}

fn purity(file: &File, code: &str, broken: &mut Broken<'_>) {
    if !file.path.starts_with("jvpn-common/src/") || is_test(&file.path) {
        return;
    }
    for (index, line) in code.lines().enumerate().take(product_lines(&file.text)) {
        if let Some(name) = WORLD.iter().find(|name| has_word(line, name)) {
            broken.push(index, format!("names `{name}`: the core is pure, hand it in or let it leave as a command"));
        }
    }
}

/// Paths of one person's machine have no business in a project.
fn private_places(file: &File, broken: &mut Broken<'_>) {
    let places = [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("shared/", "design")];
    for (index, line) in file.text.lines().enumerate() {
        let absolute = |place: &&&str| {
            line.match_indices(**place).any(|(at, _)| {
                let before = line.get(..at).and_then(|text| text.chars().next_back());
                !before.is_some_and(|c| c.is_alphanumeric() || "._-}".contains(c))
            })
        };
        if let Some(place) = places.iter().find(absolute) {
            broken.push(index, format!("names the private place `{place}`"));
        }
    }
}

fn sources(file: &File, broken: &mut Broken<'_>) {
    let lock = file.path == "Cargo.lock";
    let config = file.path.starts_with(".cargo/");
    for (index, line) in file.text.lines().enumerate() {
        let foreign_lock =
            lock && line.strip_prefix("source = ").is_some_and(|text| text.trim_matches('"') != REGISTRY);
        let foreign_config = config && (line.starts_with("[source") || line.starts_with("[registr"));
        if foreign_lock || foreign_config {
            broken.push(index, "takes crates from somewhere else than the default registry");
        }
    }
}

/// A page named anywhere has to exist: beside the file that names it, at the root, or in docs/.
fn pages(file: &File, house: &House, broken: &mut Broken<'_>) {
    if file.path.starts_with("xtask/src/tidy") || file.path == "Cargo.lock" {
        return;
    }
    let here = file.path.rsplit_once('/').map_or("", |(dir, _)| dir);
    for (index, line) in file.text.lines().enumerate() {
        for name in mentioned_pages(line) {
            let places = [join(here, name), name.trim_start_matches("./").to_owned(), format!("docs/{name}")];
            let exists = places.iter().any(|place| house.paths.contains(place));
            if !exists && !line.contains("://") {
                broken.push(index, format!("names the page `{name}`, which does not exist"));
            }
        }
    }
}

fn mentioned_pages(line: &str) -> Vec<&str> {
    let in_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let words = line.split(|c: char| !in_path(c)).map(|word| word.trim_end_matches('.'));
    words
        .filter(|word| word.strip_suffix(".md").is_some_and(|stem| !stem.is_empty() && !stem.ends_with(['.', '/'])))
        .collect()
}

/// `a/b` and `../c` make `a/c`.
fn join(dir: &str, path: &str) -> String {
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// `cargo xtask` verbs in pages and messages must be verbs.
fn verbs(file: &File, house: &House, broken: &mut Broken<'_>) {
    for (index, line) in file.text.lines().enumerate() {
        for (at, call) in line.match_indices("cargo xtask ") {
            let rest = line.get(at + call.len()..).unwrap_or_default();
            let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '-')).unwrap_or(rest.len());
            let word = rest.get(..end).unwrap_or_default();
            if !word.is_empty() && !word.starts_with('-') && !house.verbs.contains(&word) {
                broken.push(index, format!("names `cargo xtask {word}`, which is no verb"));
            }
        }
    }
}
