//! `[policy.NAME]` tables: which class each builds on and what it changes, with the place of every value.
//!
//! Owns reading the tables and resolving `base`. What a key means, its unit and its range belong to the core.

use super::load::{Reader, check_name};
use super::report::{Problem, did_you_mean};
use std::collections::BTreeMap;
use toml::{Spanned, Value};

/// The classes every gateway has without configuring them.
pub const SHIPPED: &[&str] = &["field", "fast", "metered"];

/// The raw `[policy.NAME]` tables.
pub(super) type RawPolicies = BTreeMap<Spanned<String>, BTreeMap<Spanned<String>, Spanned<Value>>>;

/// One class: its base and what it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyText {
    /// Name of the class.
    pub name: String,
    /// The class whose values it starts from.
    pub base: String,
    /// What it changes, key by key, as text.
    pub keys: BTreeMap<String, String>,
}

/// Reads the tables, adding the shipped classes that were not changed.
pub(super) fn read(reader: &mut Reader<'_>, raw: &RawPolicies) -> BTreeMap<String, PolicyText> {
    let mut policies = BTreeMap::new();
    for &name in SHIPPED {
        policies.insert(name.to_owned(), PolicyText { name: name.into(), base: name.into(), keys: BTreeMap::new() });
    }
    for (name, table) in raw {
        if let Err(cause) = check_name(name.as_ref()) {
            reader.wrong(name, format!("the policy's name {cause}"), "not a name");
            continue;
        }
        let policy = one(reader, name, table);
        policies.insert(policy.name.clone(), policy);
    }
    policies
}

fn one(reader: &mut Reader<'_>, name: &Spanned<String>, table: &BTreeMap<Spanned<String>, Spanned<Value>>) -> PolicyText {
    let own = name.as_ref().as_str();
    let mut base = if SHIPPED.contains(&own) { own } else { "field" }.to_owned();
    let mut keys = BTreeMap::new();
    for (key, value) in table {
        let Some(text) = text_of(value.as_ref()) else {
            reader.wrong(value, format!("`{key}` is not a value a policy can have"), "write a text, a number, or a list of texts");
            continue;
        };
        if key.as_ref() == "base" {
            if !SHIPPED.contains(&text.as_str()) {
                let problem = Problem::at(format!("no shipped policy is called `{text}`"), reader.source.mark(value.span(), "unknown"));
                reader.report.push(match did_you_mean(&text, SHIPPED.iter().copied()) {
                    Some(guess) => problem.hint(format!("did you mean `{guess}`?")),
                    None => problem.hint(format!("a policy can build on: {}", SHIPPED.join(", "))),
                });
            }
            base = text;
        } else {
            keys.insert(key.as_ref().clone(), text);
        }
    }
    PolicyText { name: own.to_owned(), base, keys }
}

/// The text of a value: the core reads all of them as text, so that a unit is never lost.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Array(items) => items.iter().map(text_of).collect::<Option<Vec<_>>>().map(|texts| texts.join(",")),
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}
