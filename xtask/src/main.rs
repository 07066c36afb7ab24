//! The command line of `cargo xtask`: owns the list of verbs and the exit codes.
//! Must never do a verb's work itself, nor grow a dependency: its compile is the first impression of the project.

mod bpf;
mod build;
mod disasm;
mod docs;
mod exit;
mod lab;
mod load;
mod mutants;
mod need;
mod paths;
mod progress;
mod rivals;
mod route;
mod run;
mod setup;
mod test;
mod tidy;
mod tool;

use std::process::ExitCode;

use exit::Exit;

/// What a verb is handed: the words after its name.
type Args<'a> = &'a [String];

struct Verb {
    name: &'static str,
    args: &'static str,
    help: &'static str,
    run: fn(Args<'_>) -> anyhow::Result<()>,
}

/// Order is the order of the help text.
const VERBS: &[Verb] = &[
    Verb {
        name: "setup",
        args: "[--check]",
        help: "install what is missing (root), or say how; --check changes nothing",
        run: setup::run,
    },
    Verb {
        name: "build",
        args: "[--log]",
        help: "kernel program first, then the binaries with it embedded; --log: one that logs each packet",
        run: build::run,
    },
    Verb { name: "load", args: "IFACE [ARGS]", help: "build, then `jvpn-ctl load`", run: load::load },
    Verb { name: "unload", args: "IFACE [ARGS]", help: "build, then `jvpn-ctl unload`", run: load::unload },
    Verb {
        name: "demo",
        args: "[ARGS]",
        help: "two networks, one session, five faults: shows the main job (root)",
        run: lab::demo,
    },
    Verb { name: "clean-lab", args: "", help: "remove what `demo --keep` left (root)", run: lab::clean },
    Verb {
        name: "test",
        args: "[--long] [--only NAME]",
        help: "every test, with a table of seconds; --only lists the names when wrong",
        run: test::run,
    },
    Verb {
        name: "mutants",
        args: "[--shard K/N] [--resume] [--only SECTION] [--page]",
        help: "change the product's checks one by one and see whether a test notices; hours",
        run: mutants::run,
    },
    Verb { name: "bench", args: "[NAME] [ARGS]", help: "measure, interleaved with rivals (root)", run: lab::bench },
    Verb {
        name: "lab",
        args: "[ARGS]",
        help: "single experiments in the lab, such as `lab ping` (root)",
        run: lab::lab,
    },
    Verb { name: "tidy", args: "", help: "check the house rules of docs/style.md", run: tidy::run },
    Verb { name: "docs", args: "", help: "build the API documentation, warnings are errors", run: docs::run },
    Verb {
        name: "disasm",
        args: "",
        help: "print the kernel program's instructions beside its source",
        run: disasm::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn dispatch(args: &[String]) -> anyhow::Result<()> {
    let Some((name, rest)) = args.split_first() else {
        eprint!("{}", help());
        return Err(Exit::silent(exit::USAGE));
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{}", help());
        return Ok(());
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        let hint = nearest(name).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return Err(Exit::because(exit::USAGE, format!("no verb `{name}`{hint}\nall verbs: cargo xtask --help")));
    };
    // Verbs that pass their words on have their own help behind them; set-up must not run first to show it.
    let passes_on = matches!(verb.name, "lab" | "demo" | "bench") && run::binary_exists("jvpn-lab");
    if !passes_on && rest.iter().any(|word| word == "--help" || word == "-h") {
        println!("cargo xtask {} {}\n\n{}", verb.name, verb.args, verb.help);
        return Ok(());
    }
    (verb.run)(rest)
}

/// Refuses words a verb does not know, so that a typing mistake is not silently the default.
fn no_args(verb: &str, args: Args<'_>) -> anyhow::Result<()> {
    match args.first() {
        None => Ok(()),
        Some(word) => {
            Err(Exit::because(exit::USAGE, format!("`{verb}` takes no `{word}`; see cargo xtask {verb} --help")))
        }
    }
}

fn help() -> String {
    let mut text = String::from("cargo xtask VERB: set-up, build, demo and tests of Jumping VPN\n\n");
    for verb in VERBS {
        let head = format!("{} {}", verb.name, verb.args);
        text.push_str(&format!("  {head:<30} {}\n", verb.help));
    }
    text.push_str("\nStart with `cargo xtask demo`. Everything built goes to target/ (or CARGO_TARGET_DIR).\n");
    text.push_str(
        "Exit codes: 0 ok, 1 failed, 2 usage, 7 something or some privilege is missing (the command is printed).\n",
    );
    text
}

/// The verb a mistyped word was probably meant to be.
fn nearest(word: &str) -> Option<&'static str> {
    let (distance, name) = VERBS.iter().map(|verb| (edits(word, verb.name), verb.name)).min()?;
    // Beyond a third of the word, a guess is noise.
    (distance <= word.len().max(3) / 3 + 1).then_some(name)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.bytes().enumerate() {
            let keep = row.get(j).copied().unwrap_or(0) + usize::from(x != y);
            let drop = row.get(j + 1).copied().unwrap_or(0) + 1;
            let add = next.last().copied().unwrap_or(0) + 1;
            next.push(keep.min(drop).min(add));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_verb_finds_its_neighbour() {
        assert_eq!(nearest("biuld"), Some("build"));
        assert_eq!(nearest("set-up"), Some("setup"));
        assert_eq!(nearest("cleanlab"), Some("clean-lab"));
        assert_eq!(nearest("zzzzzzzz"), None);
    }

    #[test]
    fn an_unknown_verb_is_a_usage_error() {
        let error = dispatch(&["tset".to_owned()]).expect_err("no such verb");
        assert_eq!(exit::code(&error), exit::USAGE);
        assert!(error.to_string().contains("did you mean `test`"), "{error}");
    }

    #[test]
    fn every_verb_is_in_the_help() {
        for verb in VERBS {
            assert!(help().contains(verb.name), "{} is missing", verb.name);
        }
    }
}
