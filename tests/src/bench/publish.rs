//! Owns putting the document of a run beside the page of figures, and writing that page anew. Never publishes a run that
//! decides nothing or shows a part only, nor where on a machine it was made.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Options;
use super::document::Document;
use super::page::{self, Parts};

/// Whether a run with these options may be published at all: asked before it begins.
pub fn allowed(options: &Options) -> Result<()> {
    ensure!(!options.quick, "a quick run decides nothing and is not published");
    ensure!(
        options.only.is_empty(),
        "a run of some cells or contenders would take the place of a whole one: without --only"
    );
    Ok(())
}

/// Puts a document into `docs` and writes the page and its charts.
pub fn publish(docs: &Path, document: &Document) -> Result<()> {
    let name = Path::new("bench").join(format!("{}.json", document.bench));
    let document = Document { command: public(&document.command), ..document.clone() };
    let text = serde_json::to_string_pretty(&document)? + "\n";
    page::put(docs, &name, &text)?;
    let pages = Parts::read(docs)
        .and_then(|parts| parts.pages())
        .with_context(|| format!("docs/{} is written, the page is not", name.display()))?;
    page::write(docs, &pages)
}

/// A command as anybody would type it: without where results went, and programs by their names.
fn public(command: &str) -> String {
    let mut words = command.split_whitespace().peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "jvpn-lab" => kept.extend(["cargo", "xtask"]),
            "--report" => drop(words.next()),
            "--publish" | "--json" => {}
            _ if word.starts_with("--report=") => {}
            _ => kept.push(word.rsplit('/').next().unwrap_or(word)),
        }
    }
    kept.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_and_a_part_of_one_are_not_published() {
        assert!(allowed(&Options::default()).is_ok());
        assert!(allowed(&Options { quick: true, ..Options::default() }).is_err());
        assert!(allowed(&Options { only: vec!["silent@base".into()], ..Options::default() }).is_err());
    }

    #[test]
    fn a_command_does_not_say_where_it_was_run() {
        let said = "jvpn-lab bench tunnel --report /tmp/x --rounds 9 --json --wireguard /a/b/wg --publish";
        assert_eq!(public(said), "cargo xtask bench tunnel --rounds 9 --wireguard wg");
        assert_eq!(public("jvpn-lab bench --report=/tmp/x"), "cargo xtask bench");
    }
}
