//! The text is read back by a strict little parser that shares nothing with its writer.

use super::super::Telemetry;
use super::*;
use crate::api::model::Problem;
use crate::dataplane::memory::Memory;
use jvpn_common::event::{Context, Record};
use jvpn_common::ids::{OwnerEpoch, SessionId};
use jvpn_common::session::{Birth, Ender, Input, Policy, Session, State};
use jvpn_common::time::Instant;
use std::collections::BTreeSet;

/// A family as the text shows it.
#[derive(Debug, Default)]
struct Read {
    help: String,
    kind: String,
    unit: Option<String>,
    /// Name, labels, number.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

fn is_name(text: &str) -> bool {
    let start = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(start) && text.chars().all(|c| start(c) || c.is_ascii_digit())
}

/// `name="value",…}` up to the brace, and what follows it.
fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut found = BTreeMap::new();
    let mut rest = text;
    loop {
        let (name, value) = rest.split_once("=\"").expect("a label has a quoted value");
        assert!(is_name(name), "{name}");
        let (mut unescaped, mut chars) = (String::new(), value.char_indices());
        let end = loop {
            match chars.next().expect("a value ends") {
                (at, '"') => break at + 1,
                (_, '\\') => unescaped.push(match chars.next().expect("an escaped character").1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("\\{c} is no escape"),
                }),
                (_, c) => unescaped.push(c),
            }
        };
        assert!(found.insert(name.to_owned(), unescaped).is_none(), "{name} twice");
        rest = &value[end..];
        match rest.split_at(1) {
            (",", more) => rest = more,
            ("}", more) => return (found, more),
            (other, _) => panic!("{other:?} after a label"),
        }
    }
}

/// OpenMetrics 1.0, as strictly as this program writes it.
fn parse(text: &str) -> BTreeMap<String, Read> {
    let body = text.strip_suffix("# EOF\n").expect("ends with `# EOF` and a line feed");
    assert!(!body.contains("# EOF") && !body.contains('\r') && !body.contains("\n\n"));
    let mut families: BTreeMap<String, Read> = BTreeMap::new();
    let mut current = String::new();
    for line in body.lines() {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (what, name, rest) =
                (words.next().expect("what"), words.next().expect("a name"), words.next().expect("more"));
            assert!(is_name(name), "{name}");
            if name != current {
                assert!(!families.contains_key(name), "{name} is in two places");
                name.clone_into(&mut current);
            }
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.samples.is_empty(), "what {name} is stands before its samples");
            match what {
                "HELP" => assert!(std::mem::replace(&mut family.help, rest.to_owned()).is_empty()),
                "TYPE" => assert!(std::mem::replace(&mut family.kind, rest.to_owned()).is_empty()),
                "UNIT" => {
                    assert!(name.ends_with(&format!("_{rest}")), "{name} does not end in its unit {rest}");
                    assert!(family.unit.replace(rest.to_owned()).is_none());
                }
                other => panic!("{other}"),
            }
            continue;
        }
        let (name, labels, number) = match line.split_once('{') {
            Some((name, rest)) => {
                let (labels, rest) = labels(rest);
                (name, labels, rest.strip_prefix(' ').expect("one space"))
            }
            None => line.split_once(' ').map(|(name, number)| (name, BTreeMap::new(), number)).expect("a number"),
        };
        assert!(!number.contains(' '), "neither a time nor an example was written: {line}");
        let number: f64 = number.parse().expect("a number");
        let family = families.get_mut(&current).expect("told before");
        let ending = name.strip_prefix(&current).unwrap_or_else(|| panic!("{name} is among {current}"));
        let endings: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("no type {other}"),
        };
        assert!(endings.contains(&ending), "{name} in a {}", family.kind);
        assert!(family.kind == "gauge" || number >= 0.0, "{line}");
        assert!(family.kind != "info" || number == 1.0, "{line}");
        let again = family.samples.iter().any(|(known, with, _)| known == name && *with == labels);
        assert!(!again, "twice: {line}");
        family.samples.push((name.to_owned(), labels, number));
    }
    families
}

/// Buckets go up, end at +Inf, and that is the count.
fn check_histogram(family: &Read, name: &str) {
    let mut of: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
    for (sample, labels, number) in family.samples.iter().filter(|(sample, ..)| sample.ends_with("_bucket")) {
        let mut labels = labels.clone();
        let bound = labels.remove("le").unwrap_or_else(|| panic!("{sample} without le"));
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a bound") };
        of.entry(labels).or_default().push((bound, *number));
    }
    for (labels, buckets) in of {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{buckets:?}");
        let last = buckets.last().expect("some");
        assert_eq!(last.0, f64::INFINITY);
        let number = |ending: &str| {
            let name = format!("{name}{ending}");
            let found = family.samples.iter().find(|(sample, with, _)| *sample == name && *with == labels);
            found.unwrap_or_else(|| panic!("{name} {labels:?}")).2
        };
        assert_eq!(number("_count"), last.1);
        assert!(number("_sum") >= 0.0);
    }
}

fn status(role: Role) -> Status {
    Status {
        role,
        name: "gw".into(),
        version: "0".into(),
        pid: 1,
        started: String::new(),
        healthy: false,
        problems: vec![Problem { problem: "a".into(), fix: "b".into() }],
        xdp: None,
        interfaces: vec![Xdp { iface: "eth0".into(), mode: "generic".into(), prog_id: 7 }],
        drops: BTreeMap::new(),
        sessions: BTreeMap::new(),
        session: None,
        incarnation: None,
        emergencies: Vec::new(),
    }
}

/// What a daemon of this role would say, every family with a sample.
fn full(role: Role, telemetry: &Telemetry) -> Exposition {
    let mut to = Exposition::new(role);
    to.status(&status(role));
    telemetry.expose(&mut to);
    if role != Role::Relay {
        to.worker(&Counters::default());
    }
    if role != Role::Client {
        to.verdicts(&Memory::new(4));
    }
    let filled: Vec<_> = to.samples.keys().copied().collect();
    for &metric in Metric::ALL.iter().filter(|metric| metric.is_of(role) && !filled.contains(metric)) {
        let labels = vec!["a \"b\"\\\n"; metric.labels().len()];
        match metric.kind() {
            Kind::Counter => to.count(metric, &labels, 3),
            Kind::Histogram => to.add(metric, &labels, Value::Lengths(Box::default())),
            Kind::Gauge | Kind::Info => to.number(metric, &labels, 3),
        }
    }
    to
}

/// A session whose handshake was abandoned: one transition.
fn live(telemetry: &Telemetry, number: u8) {
    let policy = Policy::field();
    let at = Instant(u64::from(number) * 1_000_000_000);
    let context = Context { ts: "2026-01-02T03:04:05Z", at, node: "gw", seq: 0, peer: "till" };
    let born = Birth { id: SessionId([number; 16]), peer: [9; 32], owner_epoch: OwnerEpoch(1) };
    let end = Session::born(born, &policy, at).step(&Input::Terminate { by: Ender::Operator }, &policy, at);
    let end = end.expect("a life may end");
    for transition in &end.transitions {
        telemetry.told(&Record::transition(&context, transition), "");
    }
}

#[test]
fn every_family_of_every_role_reads_back_strictly_and_is_the_one_of_the_table() {
    for role in [Role::Gateway, Role::Relay, Role::Client] {
        let telemetry = Telemetry::default();
        live(&telemetry, 1);
        let families = parse(&full(role, &telemetry).text());
        let of_role: Vec<_> = Metric::ALL.iter().filter(|metric| metric.is_of(role)).collect();
        let names: BTreeSet<_> = of_role.iter().map(|metric| metric.name()).collect();
        assert_eq!(families.keys().map(String::as_str).collect::<BTreeSet<_>>(), names);
        for metric in of_role {
            let read = &families[metric.name()];
            assert_eq!((read.kind.as_str(), read.unit.as_deref().unwrap_or("")), (metric.kind().name(), metric.unit()));
            assert_eq!(read.help, metric.help());
            assert!(!read.samples.is_empty(), "{} has no sample", metric.name());
            for (_, labels, _) in &read.samples {
                let own: BTreeSet<_> = labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
                assert_eq!(own, metric.labels().iter().copied().collect(), "{}", metric.name());
            }
            if metric.kind() == Kind::Histogram {
                check_histogram(read, metric.name());
            }
        }
    }
}

#[test]
fn what_could_end_a_label_is_escaped() {
    let mut to = Exposition::new(Role::Gateway);
    to.count(Metric::ControllerDrops, &["a \"b\"\\\nc"], 1);
    let text = to.text();
    assert!(text.contains(r#"jvpn_controller_drops_total{reason="a \"b\"\\\nc"} 1"#), "{text}");
    let read = parse(&text);
    assert_eq!(read["jvpn_controller_drops"].samples[0].1["reason"], "a \"b\"\\\nc");
}

#[test]
fn transitions_move_the_counters_and_each_is_counted_once() {
    let telemetry = Telemetry::default();
    let count = |telemetry: &Telemetry| {
        let mut to = Exposition::new(Role::Gateway);
        telemetry.expose(&mut to);
        let families = parse(&to.text());
        let sum = |name: &str| families[name].samples.iter().map(|(.., number)| number).sum::<f64>();
        (sum("jvpn_transitions"), sum("jvpn_events"), families["jvpn_transitions"].samples.clone())
    };
    assert_eq!(count(&telemetry), (0.0, 0.0, Vec::new()));
    for number in 1..=3 {
        live(&telemetry, number);
        let (transitions, events, samples) = count(&telemetry);
        assert_eq!((transitions, events), (f64::from(number), f64::from(number)));
        let [(_, labels, _)] = samples.as_slice() else { panic!("one way: {samples:?}") };
        let values: Vec<_> = ["from", "to", "reason"].map(|label| labels[label].as_str()).to_vec();
        assert_eq!(values, ["BIRTH", State::Terminated.name(), "HANDSHAKE_FAIL"]);
    }
}

#[test]
fn the_document_says_what_the_text_says() {
    let telemetry = Telemetry::default();
    live(&telemetry, 1);
    let all = full(Role::Gateway, &telemetry);
    let (document, families) = (all.document(), parse(&all.text()));
    assert_eq!(document.families.len(), families.len());
    for family in &document.families {
        let read = &families[&family.name];
        assert_eq!((&family.r#type, family.unit.as_str()), (&read.kind, read.unit.as_deref().unwrap_or("")));
        let numbers = read.samples.iter().filter(|(name, ..)| !name.ends_with("_bucket") && !name.ends_with("_count"));
        let numbers: Vec<_> = numbers.map(|(_, labels, number)| (labels, *number)).collect();
        let ours: Vec<_> = family.samples.iter().map(|view| (&view.labels, view.value)).collect();
        assert_eq!(numbers, ours, "{}", family.name);
    }
}

#[test]
fn no_metric_has_a_label_of_which_there_are_as_many_as_clients() {
    for metric in Metric::ALL {
        for label in metric.labels() {
            assert!(
                !["session", "session_id", "peer", "node", "address", "remote", "label"].contains(label),
                "{metric:?}"
            );
        }
        assert!(metric.help().ends_with('.') && !metric.help().contains(['\\', '\n']), "{metric:?}");
        assert!(is_name(metric.name()) && (metric.unit().is_empty() || metric.name().ends_with(metric.unit())));
    }
}
