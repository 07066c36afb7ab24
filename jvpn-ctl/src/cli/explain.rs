//! `explain`: what a reason code means.
//!
//! Owns only the printing; the texts are the core's. Must never explain a code that does not exist.

use super::error::{CliError, Kind};
use super::{Context, output};
use crate::config::report::did_you_mean;
use jvpn_common::reason::Reason;

/// Explain a reason code: meaning, usual cause, what to do
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The code, as events and refusals show it; without one all are listed
    code: Option<String>,
}

#[derive(Debug, serde::Serialize)]
struct Explained {
    code: &'static str,
    number: u16,
    class: String,
    meaning: &'static str,
    advice: &'static str,
}

fn explained(code: Reason) -> Explained {
    let class = format!("{:?}", code.class()).to_lowercase();
    Explained { code: code.name(), number: code as u16, class, meaning: code.meaning(), advice: code.advice() }
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let Some(text) = args.code else { return list(context) };
    let wanted = text.to_ascii_uppercase().replace('-', "_");
    let Ok(code) = wanted.parse::<Reason>() else {
        let error = CliError::new(Kind::NotFound, format!("no reason code is called `{text}`"));
        return Err(match did_you_mean(&wanted, Reason::ALL.iter().map(|code| code.name())) {
            Some(guess) => error.hint(format!("did you mean `{guess}`?")),
            None => error.hint("`jvpn-ctl explain` lists them"),
        });
    };
    let code = explained(code);
    if context.json {
        return output::document("jvpn.explain/1", serde_json::json!({ "codes": [code] }));
    }
    output::data(&format!("{} ({}, {})\n  {}\n  {}", code.code, code.number, code.class, code.meaning, code.advice))
}

fn list(context: &Context) -> Result<(), CliError> {
    let codes: Vec<_> = Reason::ALL.iter().copied().map(explained).collect();
    if context.json {
        return output::document("jvpn.explain/1", serde_json::json!({ "codes": codes }));
    }
    let rows = codes.into_iter().map(|code| [code.code.to_owned(), code.class, code.meaning.to_owned()]);
    output::data(&output::table(["code", "class", "meaning"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_is_explained_whole_and_by_a_name_and_number_of_its_own() {
        let sentence = |text: &str| text.len() > 8 && text.ends_with('.') && text.contains(' ');
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for code in Reason::ALL.iter().copied().map(explained) {
            assert!(sentence(code.meaning), "{}: {}", code.code, code.meaning);
            assert!(sentence(code.advice) && code.advice != code.meaning, "{}: {}", code.code, code.advice);
            assert!(names.insert(code.code) && numbers.insert(code.number), "{}", code.code);
            let context = Context { places: crate::config::Places::default(), socket: None, json: false };
            let typed = code.code.to_lowercase().replace('_', "-");
            run(Args { code: Some(typed) }, &context).expect("explained however it is typed");
        }
        assert_eq!(names.len(), Reason::ALL.len());
        // What a stream or a refusal may show beside reasons is not one.
        assert!("STATE_CHANGE".parse::<Reason>().is_err());
    }
}
