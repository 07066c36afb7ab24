//! Described networks for `policy test`: files, and those that ship.
//!
//! Owns the keys of such a file, their ranges, and the shipped texts. What a network does belongs to the core.

use super::load::{self, Reader};
use super::report::{Problem, Report, Source, did_you_mean};
use jvpn_common::client::PathClass;
use jvpn_common::message::Label;
use jvpn_common::scenario::{DURATION_MAX, Direction, FAULTS_MAX, Fault, Kind, PATHS_MAX, Path, Scenario};
use jvpn_common::session::units::{Permille, Unit};
use serde::Deserialize;
use std::path::Path as FilePath;
use std::time::Duration;
use toml::Spanned;

/// The networks that ship: name, what it shows, text.
pub const SHIPPED: &[(&str, &str, &str)] = &[
    ("death", "the active path falls silent and nobody says so", include_str!("scenarios/death.toml")),
    ("flapping", "two links that come and go in turn", include_str!("scenarios/flapping.toml")),
    ("lossy", "a path that loses more and more", include_str!("scenarios/lossy.toml")),
    ("better", "another path becomes better by far", include_str!("scenarios/better.toml")),
    ("jitter", "a path whose delay varies", include_str!("scenarios/jitter.toml")),
    ("rebind", "a NAT that forgets every ten seconds", include_str!("scenarios/rebind.toml")),
    ("blackout", "nothing at all for 45 seconds", include_str!("scenarios/blackout.toml")),
];

/// Shortest time between inner packets: 200 a second each way show every outage.
const TRAFFIC_MIN: Duration = Duration::from_millis(5);
/// Longest delay of a path.
const DELAY_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    duration: Spanned<String>,
    traffic: Option<Spanned<String>>,
    #[serde(default)]
    path: Vec<RawPath>,
    #[serde(default)]
    fault: Vec<RawFault>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPath {
    name: Spanned<String>,
    class: Option<Spanned<String>>,
    metered: Option<bool>,
    delay: Option<Spanned<String>>,
    jitter: Option<Spanned<String>>,
    loss: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    path: Spanned<String>,
    kind: Spanned<String>,
    value: Option<Spanned<String>>,
    direction: Option<Spanned<String>>,
    at: Spanned<String>,
    #[serde(rename = "for")]
    lasts: Option<Spanned<String>>,
    every: Option<Spanned<String>>,
}

/// Reads a file.
///
/// # Errors
/// Everything that is wrong, with its places.
pub fn load(path: &FilePath) -> Result<Scenario, Report> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    parse(&load::read(path)?, name)
}

/// A network that ships.
///
/// # Errors
/// There is none of that name.
pub fn shipped(name: &str) -> Result<Scenario, Report> {
    if let Some((_, _, text)) = SHIPPED.iter().find(|(known, ..)| *known == name) {
        return parse(&Source::new(FilePath::new(name), (*text).to_owned()), name.to_owned());
    }
    let names = || SHIPPED.iter().map(|(name, ..)| *name);
    let problem = Problem::without_place(format!("no scenario that ships is called `{name}`"));
    Err(Report::from(match did_you_mean(name, names()) {
        Some(guess) => problem.hint(format!("did you mean `{guess}`?")),
        None => problem.hint(format!("they are: {}; or give a file", names().collect::<Vec<_>>().join(", "))),
    }))
}

fn parse(source: &Source, name: String) -> Result<Scenario, Report> {
    let raw: RawFile = load::parse(source)?;
    let mut reader = Reader::new(source);
    let scenario = scenario(&mut reader, &raw, name);
    reader.report.into_result(scenario)
}

fn scenario(reader: &mut Reader<'_>, raw: &RawFile, name: String) -> Scenario {
    let second = Duration::from_secs(1);
    let duration = within(reader, "duration", &raw.duration, second, DURATION_MAX);
    let traffic = raw.traffic.as_ref().filter(|text| text.as_ref() != "none");
    let traffic = match (&raw.traffic, traffic) {
        (None, _) => Some(Duration::from_millis(20)),
        (Some(_), None) => None,
        (Some(_), Some(text)) => Some(within(reader, "traffic", text, TRAFFIC_MIN, second)),
    };
    if raw.path.is_empty() || raw.path.len() > PATHS_MAX {
        let title = format!("a network has 1 to {PATHS_MAX} tables [[path]], not {}", raw.path.len());
        reader.wrong(&raw.duration, title, "in this file");
    }
    let paths: Vec<Path> = raw.path.iter().map(|raw| path(reader, raw)).collect();
    for (place, one) in raw.path.iter().enumerate() {
        if raw.path.iter().take(place).any(|other| other.name.as_ref() == one.name.as_ref()) {
            reader.wrong(&one.name, format!("the path `{}` is there twice", one.name.as_ref()), "again here");
        }
    }
    let faults = raw.fault.iter().map(|raw| fault(reader, raw, &paths)).collect();
    let scenario = Scenario { name, duration, traffic, paths, faults };
    if scenario.beginnings() > FAULTS_MAX {
        let title = format!("the faults begin more than {FAULTS_MAX} times");
        reader.wrong(&raw.duration, title, "within this time");
    }
    scenario
}

fn path(reader: &mut Reader<'_>, raw: &RawPath) -> Path {
    let name = reader.name("name", &raw.name);
    if name.len() > jvpn_common::limits::LABEL_MAX {
        reader.wrong(&raw.name, "the path's name is too long", "at most 16 bytes");
    }
    let classes = [("primary", PathClass::Primary), ("secondary", PathClass::Secondary), ("backup", PathClass::Backup)];
    let zero = Duration::ZERO;
    let delay =
        raw.delay.as_ref().map_or(Duration::from_millis(10), |text| within(reader, "delay", text, zero, DELAY_MAX));
    let jitter = raw.jitter.as_ref().map_or(zero, |text| within(reader, "jitter", text, zero, DELAY_MAX));
    let loss = raw.loss.as_ref().map_or(0, |text| share(reader, "loss", text));
    let class = raw.class.as_ref().map_or(PathClass::Primary, |text| one_of(reader, "class", text, &classes));
    Path { name: Label::new(&name), class, metered: raw.metered.unwrap_or(false), delay, jitter, loss }
}

fn fault(reader: &mut Reader<'_>, raw: &RawFault, paths: &[Path]) -> Fault {
    let all = raw.path.as_ref() == "*";
    let meant = |path: &Path| all || path.name.as_str() == raw.path.as_ref();
    let of: Vec<usize> = paths.iter().enumerate().filter(|(_, path)| meant(path)).map(|(place, _)| place).collect();
    if of.is_empty() {
        reader.wrong(&raw.path, format!("no path is called `{}`", raw.path.as_ref()), "unknown; `*` is all of them");
    }
    let millisecond = Duration::from_millis(1);
    let at = within(reader, "at", &raw.at, Duration::ZERO, DURATION_MAX);
    let lasts = raw.lasts.as_ref().map(|text| within(reader, "for", text, millisecond, DURATION_MAX));
    let every = raw.every.as_ref().map(|text| within(reader, "every", text, millisecond * 10, DURATION_MAX));
    let kind = kind(reader, raw);
    if lasts.is_none() && kind != Kind::Rebind {
        reader.wrong(&raw.kind, "this fault lasts, and does not say how long", "wants a key `for`");
    }
    if let (Some(lasts), Some(every), Some(text)) = (lasts, every, &raw.every)
        && lasts >= every
    {
        reader.wrong(text, "`every` and `for` contradict each other: it begins again before it is over", "`every`");
    }
    Fault { paths: of, kind, at, lasts: lasts.unwrap_or_default(), every }
}

fn kind(reader: &mut Reader<'_>, raw: &RawFault) -> Kind {
    let ways = [("both", Direction::Both), ("up", Direction::Up), ("down", Direction::Down)];
    let way = raw.direction.as_ref().map_or(Direction::Both, |text| one_of(reader, "direction", text, &ways));
    let word = raw.kind.as_ref().as_str();
    let wants_value = matches!(word, "loss" | "delay" | "jitter");
    let Some(value) = raw.value.as_ref().filter(|_| wants_value) else {
        if let Some(value) = &raw.value {
            reader.wrong(value, format!("a fault `{word}` has no `value`"), "one too many");
        } else if wants_value {
            reader.wrong(&raw.kind, format!("a fault `{word}` wants a key `value`"), "how much?");
        }
        let plain =
            [("death", Kind::Death(way)), ("link", Kind::Link), ("pause", Kind::Pause), ("rebind", Kind::Rebind)];
        let named = ["loss", "delay", "jitter"].map(|name| (name, Kind::Link));
        return one_of(reader, "kind", &raw.kind, &[&plain[..], &named].concat());
    };
    match word {
        "loss" => Kind::Loss(way, share(reader, "value", value)),
        "delay" => Kind::Delay(within(reader, "value", value, Duration::ZERO, DELAY_MAX)),
        _ => Kind::Jitter(within(reader, "value", value, Duration::ZERO, DELAY_MAX)),
    }
}

fn within(reader: &mut Reader<'_>, key: &str, value: &Spanned<String>, min: Duration, max: Duration) -> Duration {
    match <Duration as Unit>::parse(value.as_ref().trim()) {
        Some(read) if (min..=max).contains(&read) => return read,
        Some(_) => {
            let title = format!("`{key}` must lie between {} and {}", min.show(), max.show());
            reader.wrong(value, title, "outside its range");
        }
        None => reader.wrong(value, format!("`{key}` wants {}", Duration::NAME), "cannot be read"),
    }
    min
}

fn share(reader: &mut Reader<'_>, key: &str, value: &Spanned<String>) -> u16 {
    let read = Permille::parse(value.as_ref().trim()).filter(|share| share.0 <= 1_000);
    if read.is_none() {
        reader.wrong(value, format!("`{key}` wants {}", Permille::NAME), "cannot be read");
    }
    read.unwrap_or_default().0
}

fn one_of<T: Copy>(reader: &mut Reader<'_>, key: &str, value: &Spanned<String>, all: &[(&str, T)]) -> T {
    let found = all.iter().find(|(name, _)| name == value.as_ref());
    if found.is_none() {
        let names = all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        reader.wrong(value, format!("`{key}` is one of: {names}"), "unknown");
    }
    // What is wrong is reported; the value is never used.
    found.or(all.first()).expect("a list of choices has one").1
}

#[cfg(test)]
mod tests;
