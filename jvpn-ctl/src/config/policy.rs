//! `[policy.NAME]` tables: which class each builds on and what it changes, with the place of every value.
//!
//! Owns reading the tables and resolving `base`. What a key means, its unit and its range belong to the core.

use super::load::Reader;
use super::report::{Problem, did_you_mean};
use jvpn_common::session::Policy;
use jvpn_common::session::policy::{KEYS, NAME_MAX, PolicyError};
use std::collections::BTreeMap;
use toml::{Spanned, Value};

pub use jvpn_common::session::policy::SHIPPED;

type Table = BTreeMap<Spanned<String>, Spanned<Value>>;

/// The raw `[policy.NAME]` tables.
pub(super) type RawPolicies = BTreeMap<Spanned<String>, Table>;

/// Where the values of a class come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The shipped class it starts from.
    pub base: String,
    /// File, line and column of each key its table sets.
    pub places: BTreeMap<String, String>,
}

impl Origin {
    /// Where the value of a key comes from: its place in a file, the shipped class, or the default of all.
    #[must_use]
    pub fn of(&self, key: &str, policy: &Policy) -> String {
        if let Some(place) = self.places.get(key) {
            return place.clone();
        }
        let value = |policy: &Policy| policy.values().into_iter().find(|(name, _)| *name == key);
        let same = value(policy) == value(&Policy::field());
        if same { "default".to_owned() } else { format!("shipped class {}", self.base) }
    }
}

/// Every class by name, and where its values come from.
pub(super) type Classes = (BTreeMap<String, Policy>, BTreeMap<String, Origin>);

/// Reads the tables, adding the shipped classes that were not changed.
pub(super) fn read(reader: &mut Reader<'_>, raw: &RawPolicies) -> Classes {
    let shipped = SHIPPED.iter().filter_map(|name| Some(((*name).to_owned(), Policy::shipped(name)?)));
    let mut policies: BTreeMap<_, _> = shipped.collect();
    let plain = |name: &String| (name.clone(), Origin { base: name.clone(), places: BTreeMap::new() });
    let mut origins: BTreeMap<_, _> = policies.keys().map(plain).collect();
    for (name, table) in raw {
        let own = reader.name("policy", name);
        if own.len() > NAME_MAX {
            reader.wrong(
                name,
                "the policy's name is too long",
                format!("at most {NAME_MAX} bytes: it travels in messages"),
            );
        }
        let policy = one(reader, &own, table);
        origins.insert(own.clone(), origin(reader, &own, table));
        policies.insert(own, policy);
    }
    (policies, origins)
}

fn origin(reader: &Reader<'_>, own: &str, table: &Table) -> Origin {
    let named = table.get("base").and_then(|base| base.as_ref().as_str());
    let base = named.unwrap_or(if SHIPPED.contains(&own) { own } else { "field" }).to_owned();
    let keys = table.iter().filter(|(key, _)| key.as_ref() != "base");
    let places = keys.map(|(key, _)| (key.as_ref().clone(), reader.source.place(key.span().start)));
    Origin { base, places: places.collect() }
}

fn one(reader: &mut Reader<'_>, own: &str, table: &Table) -> Policy {
    let mut policy = base(reader, own, table);
    own.clone_into(&mut policy.name);
    for (key, value) in table.iter().filter(|(key, _)| key.as_ref() != "base") {
        let Some(text) = text_of(value.as_ref()) else {
            reader.wrong(
                value,
                format!("`{key}` is not a value a policy can have"),
                "write a text, a number, or a list of texts",
            );
            continue;
        };
        if let Err(error) = policy.set(key.as_ref(), &text) {
            let problem = match &error {
                PolicyError::UnknownKey { .. } => {
                    let problem = Problem::at(
                        format!("unknown policy key `{key}`"),
                        reader.source.mark(key.span(), "not a key of a policy"),
                    );
                    match did_you_mean(key.as_ref(), KEYS.iter().map(|key| key.name)) {
                        Some(guess) => problem.hint(format!("did you mean `{guess}`?")),
                        None => problem.hint("docs/config.md lists the keys of a policy"),
                    }
                }
                PolicyError::Unreadable { .. } => {
                    Problem::at(error.to_string(), reader.source.mark(value.span(), "wrong unit"))
                }
                PolicyError::OutOfRange { .. } => {
                    Problem::at(error.to_string(), reader.source.mark(value.span(), "outside its range"))
                }
            };
            reader.report.push(problem);
        }
    }
    contradictions(reader, &policy, table);
    policy
}

fn base(reader: &mut Reader<'_>, own: &str, table: &Table) -> Policy {
    // A table that is called like a shipped class changes that class.
    let default = || Policy::shipped(own).unwrap_or_default();
    let Some(value) = table.get("base") else { return default() };
    let named = value.as_ref().as_str().unwrap_or_default();
    if let Some(policy) = Policy::shipped(named) {
        return policy;
    }
    let problem =
        Problem::at(format!("no shipped policy is called `{named}`"), reader.source.mark(value.span(), "unknown"));
    reader.report.push(match did_you_mean(named, SHIPPED.iter().copied()) {
        Some(guess) => problem.hint(format!("did you mean `{guess}`?")),
        None => problem.hint(format!("a policy can build on: {}", SHIPPED.join(", "))),
    });
    default()
}

/// Two values that exclude each other: both are shown, a default as what it is.
fn contradictions(reader: &mut Reader<'_>, policy: &Policy, table: &Table) {
    let Err(clash) = policy.check() else { return };
    let mut marks = Vec::new();
    let mut defaults = Vec::new();
    for name in [clash.a, clash.b] {
        let shown =
            policy.values().into_iter().find(|(key, _)| *key == name).map(|(_, value)| value).unwrap_or_default();
        match table.get_key_value(name) {
            Some((key, value)) => {
                marks.push(reader.source.mark(key.span().start..value.span().end, format!("`{name}` is {shown}")));
            }
            None => defaults.push(format!("`{name}` is {shown} unless you set it")),
        }
    }
    let mut marks = marks.into_iter();
    let Some(first) = marks.next() else { return };
    let problem = marks.fold(Problem::at(clash.to_string(), first), Problem::and);
    reader.report.push(defaults.into_iter().fold(problem, Problem::hint));
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
