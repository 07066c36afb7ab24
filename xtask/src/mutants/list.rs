//! Owns the list of checks: `tests/mutants.toml`, in the few forms of TOML it uses.
//! Must never accept a line it does not understand: a check that is misspelt would not be tried, and nobody would know.

use crate::exit::{self, Exit};

/// The list, from the root.
pub(super) const FILE: &str = "tests/mutants.toml";
/// The page made of the results.
pub(super) const PAGE: &str = "docs/mutants.md";

/// Checks that are tried together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub name: String,
    /// Names of tests to run, as the test runner filters them.
    pub tests: Vec<String>,
    /// Crates whose tests run as well.
    pub beside: Vec<String>,
    /// Files, each with its functions.
    pub files: Vec<(String, Vec<String>)>,
}

impl Section {
    /// The crate of its files.
    pub(super) fn package(&self) -> &str {
        self.files.first().and_then(|(file, _)| file.split('/').next()).unwrap_or_default()
    }

    pub(super) fn features(&self) -> Option<&'static str> {
        (self.package() == "jvpn-common").then_some("engine,sabotage")
    }
}

/// The whole list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Checks {
    pub sections: Vec<Section>,
    /// Mutants that may survive, each with the reason. A mutant is named without its line.
    reasons: Vec<(String, String)>,
}

impl Checks {
    pub(super) fn read(text: &str) -> anyhow::Result<Self> {
        let mut checks = Self::default();
        let mut survivors = false;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            let wrong = || Exit::because(exit::FAILED, format!("{FILE}:{}: cannot read `{line}`", index + 1));
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                survivors = name == "survivors";
                if !survivors {
                    checks.sections.push(Section { name: name.to_owned(), ..Section::default() });
                }
                continue;
            }
            let (key, value) = line.split_once(" = ").ok_or_else(wrong)?;
            if survivors {
                let (mutant, reason) = quoted(key).zip(quoted(value)).ok_or_else(wrong)?;
                checks.reasons.push((mutant.to_owned(), reason.to_owned()));
                continue;
            }
            let section = checks.sections.last_mut().ok_or_else(wrong)?;
            let values = array(value).filter(|values| !values.is_empty()).ok_or_else(wrong)?;
            match quoted(key) {
                Some(file) => section.files.push((file.to_owned(), values)),
                None if key == "tests" => section.tests = values,
                None if key == "beside" => section.beside = values,
                None => return Err(wrong()),
            }
        }
        Ok(checks)
    }

    /// Why a mutant may survive.
    pub(super) fn reason(&self, mutant: &str) -> Option<&str> {
        let name = without_line(mutant);
        self.reasons.iter().find(|(known, _)| *known == name).map(|(_, reason)| reason.as_str())
    }
}

/// `file:line:column: what` without line and column, which change with every edit above.
fn without_line(mutant: &str) -> String {
    let mut parts = mutant.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(file), Some(_), Some(_), Some(what)) => format!("{file}:{what}"),
        _ => mutant.to_owned(),
    }
}

fn quoted(text: &str) -> Option<&str> {
    text.trim().strip_prefix('"')?.strip_suffix('"').filter(|text| !text.contains('"'))
}

fn array(text: &str) -> Option<Vec<String>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    inner.split(',').map(|value| quoted(value).map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;

    const TEXT: &str = "# why\n[session]\nbeside = [\"other\"]\ntests = [\"session::\"]\n\"jvpn-common/src/a.rs\" = [\"f\", \"g\"]\n\n[survivors]\n\"jvpn-common/src/a.rs: replace < with <= in f\" = \"equal\"\n";

    #[test]
    fn a_section_has_its_tests_files_and_functions() {
        let checks = Checks::read(TEXT).expect("read");
        let [section] = checks.sections.as_slice() else { panic!("one section: {checks:?}") };
        assert_eq!((section.name.as_str(), section.package()), ("session", "jvpn-common"));
        assert_eq!(section.beside, ["other"]);
        assert_eq!(section.files, [("jvpn-common/src/a.rs".to_owned(), vec!["f".to_owned(), "g".to_owned()])]);
        assert_eq!(checks.reason("jvpn-common/src/a.rs:3:14: replace < with <= in f"), Some("equal"));
        assert_eq!(checks.reason("jvpn-common/src/a.rs:3:14: replace < with > in f"), None);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        for line in ["tests = session", "\"a.rs\" = []", "a.rs = [\"f\"]", "nonsense"] {
            let error = Checks::read(&format!("[session]\n{line}\n")).expect_err(line);
            assert!(error.to_string().contains(":2: "), "{error}");
        }
    }

    #[test]
    fn every_check_on_the_list_is_a_function_of_its_file() {
        let text = std::fs::read_to_string(paths::root().join(FILE)).expect("the list");
        let checks = Checks::read(&text).expect("read");
        for section in &checks.sections {
            assert!(!section.tests.is_empty() && !section.files.is_empty(), "{section:?}");
            for (file, functions) in &section.files {
                let code = std::fs::read_to_string(paths::root().join(file)).unwrap_or_default();
                let missing: Vec<&String> =
                    functions.iter().filter(|name| !code.contains(&format!("fn {name}"))).collect();
                assert!(missing.is_empty(), "{file} has no {missing:?}");
            }
        }
    }
}
