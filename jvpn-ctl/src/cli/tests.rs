//! The pages made from the command line, and verbs that need no daemon.

use super::*;
use std::fmt::Write as _;

/// docs/cli.md: the help of every verb.
fn page() -> String {
    let mut page = String::from(
        "# Command line\n\nGenerated from the program's own help; a test keeps it so.\n\n\
         Data goes to standard output, talk to standard error; colour only on a terminal (`NO_COLOR`, `--color`). Every reading verb\n\
         takes `--json`; the forms are in `docs/schemas`. Ids may be shortened as long as they fit one session only.\n",
    );
    let mut command = command().term_width(100);
    command.build();
    section(&mut command, "jvpn-ctl", &mut page);
    page
}

fn section(command: &mut clap::Command, name: &str, page: &mut String) {
    let help = command.render_help().to_string();
    let help: Vec<_> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    for verb in command.get_subcommands_mut() {
        let name = format!("{name} {}", verb.get_name());
        section(verb, &name, page);
    }
}

#[test]
fn the_reference_page_is_what_the_program_says() {
    snapshot("docs/cli.md", &page());
}

#[test]
fn the_committed_schemas_are_those_of_the_answers() {
    let others = crate::inspect::schemas().into_iter().chain([
        trace::schema(),
        audit::schema(),
        why::schema(),
        policy::schema(),
        crate::observe::metrics::schema(),
    ]);
    for (name, schema) in crate::api::model::schemas().into_iter().chain(others) {
        let text = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
        snapshot(&format!("docs/schemas/{}.json", name.trim_start_matches("jvpn.").replace('/', "-")), &text);
    }
}

#[test]
fn the_command_line_contradicts_itself_nowhere() {
    command().debug_assert();
}

#[test]
fn every_kind_of_failure_has_the_documented_exit_code() {
    use Kind::{Failed, NoDaemon, NotFound, Privilege, Refused, Unhealthy, Usage};
    let codes = [Failed, Usage, NoDaemon, NotFound, Refused, Unhealthy, Privilege].map(Kind::code);
    assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_word_that_could_escape_its_page_is_refused() {
    assert!(in_page("a1b2").is_ok() && in_page("2026-01-02T03:04:05Z").is_ok());
    for word in ["", "a/b", "a b", "a?b", "a%2f", "ä", &"a".repeat(65)] {
        assert_eq!(in_page(word).expect_err("refused").kind, Kind::Usage, "{word}");
    }
}
