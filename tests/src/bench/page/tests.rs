//! The page of figures, from runs made by hand and from those that are committed. Never measures.

use super::*;
use crate::bench::document::{Contender, LIMIT, Machine, Metric};
use crate::bench::stats::summary;

/// A run of `verify` whose rounds gave `rates`, beside a rival that nobody asks for.
fn run(rates: &[f64], rival: Vec<Option<f64>>) -> Document {
    let asked = (BENCHES.iter().find(|bench| bench.name == "verify").unwrap().unmeasured)().remove(0);
    let limit = asked.rivals[LIMIT].unwrap();
    let bounds = vec![(LIMIT, asked.goal[LIMIT], asked.must[LIMIT])].leak();
    let wanted = crate::bench::document::Wanted {
        metric: "records_per_s",
        unit: "records a second",
        better: asked.better,
        bounds,
    };
    let ours = rates.iter().copied().map(Some).collect();
    let metric = Metric::limited(&wanted, ours, [("rival".to_owned(), rival)].into(), Some(limit));
    Document {
        schema: SCHEMA.into(),
        bench: "verify".into(),
        day: Some("2026-01-02".into()),
        machine: Machine { processors: 2, memory_mib: 4_096, ..Machine::default() },
        kernel: "6.1".into(),
        version: "0.1.0".into(),
        command: "cargo xtask bench verify".into(),
        policy: "none".into(),
        contenders: vec![Contender::new("ours", "the verb"), Contender::new("rival", "not installed")],
        results: vec![metric],
        notes: vec!["a note".into()],
        errors: vec!["round 1, rival: it broke\nits log".into()],
    }
}

fn parts(documents: Vec<Document>) -> Parts {
    let documents = documents.into_iter().map(|document| (document.bench.clone(), document)).collect();
    Parts { method: "## How\n".into(), notes: "## Notes\n[a](../a)\n".into(), documents, ..Parts::default() }
}

fn said(text: &str) -> Said {
    toml::from_str(text).unwrap()
}

fn text(parts: &Parts) -> String {
    parts.pages().unwrap()[Path::new("benchmarks.md")].clone()
}

fn line_of<'a>(text: &'a str, with: &str) -> &'a str {
    text.lines().find(|line| line.contains(with)).unwrap_or_else(|| panic!("no line has {with:?}:\n{text}"))
}

#[test]
fn the_committed_page_and_charts_are_what_the_committed_runs_say() {
    let pages = Parts::read(&docs()).unwrap().pages().unwrap();
    if std::env::var_os("JVPN_BLESS").is_some_and(|value| value == "1") {
        write(&docs(), &pages).unwrap();
    }
    if let Err(error) = check(&docs(), &pages) {
        panic!("{error:#}; read the change, then run\n    JVPN_BLESS=1 cargo test -p jvpn-tests --lib bench::page");
    }
}

#[test]
fn without_a_run_every_promise_and_every_bench_is_there_as_not_measured() {
    let text = text(&parts(Vec::new()));
    for bench in &BENCHES {
        assert!(text.contains(&format!("| `{}` | {NO_RUN} |", bench.name)), "{}", bench.name);
    }
    let all = asked::all();
    assert!(text.contains(&format!("{} promises: 0 hold, 0 fail, 0 have too few rounds to say", all.len())), "{text}");
    for (metric, unit) in
        [("`inner_tcp_gbps`", "× gotatun"), ("`outage_ms silent@base`", "ms"), ("`pass_hot_ns`", "ns")]
    {
        assert!(text.lines().any(|line| line.contains(metric) && line.contains(unit)), "{metric} {unit}");
    }
    assert!(line_of(&text, "`outage_ms silent@base`").ends_with("| ≤ 60 | ≤ 100 | – | not measured |"));
    assert!(line_of(&text, "`lost planned_jump@base`").contains("| ≤ 0 |"));
    assert!(line_of(&text, "`store_to_steer_us`").contains("| ≤ 1 |  | – |"), "a goal without a must");
    assert!(text.ends_with("## Notes\n[a](a)\n"), "prose is included as it is, its links seen from the page");
}

#[test]
fn a_run_that_keeps_its_must_says_so_with_its_conditions() {
    let mut document = run(&[800_000.0; 9], vec![Some(400_000.0); 9]);
    document.machine.stolen_in_rounds = vec![0.0, 0.0, 0.051];
    let parts = parts(vec![document]);
    let text = text(&parts);
    assert!(
        line_of(&text, "| verify | `records_per_s`").ends_with("| 800,000 (800,000–800,000) | holds, goal reached |")
    );
    assert!(text.contains("1 hold, 0 fail"));
    assert!(text.contains("| rival | 400,000 | 2.00 (2.00–2.00) |"), "{text}");
    assert!(text.contains("rounds disturbed by the host of this machine: round 3 (5.1 % of it)"), "{text}");
    for said in ["cargo xtask bench verify", "2026-01-02", "version 0.1.0", "Linux 6.1", "a note", "it broke […]"] {
        assert!(text.contains(said), "{said}");
    }
    let pages = parts.pages().unwrap();
    assert!(pages[Path::new("bench/verify.svg")].contains(">rival<"));
    assert!(!line_of(&text, "| [`verify`](#verify)").contains(NO_RUN));
}

#[test]
fn a_contender_that_is_missing_or_failed_is_shown() {
    let nobody = text(&parts(vec![run(&[800_000.0; 9], vec![None; 9])]));
    assert!(line_of(&nobody, "- rival:").ends_with("(**no figure: missing or failed in every round**)"));
    assert!(nobody.contains("| rival | – | – |"), "{nobody}");
    let mut once = vec![Some(1.0); 9];
    once[4] = None;
    let text_of_once = text(&parts(vec![run(&[800_000.0; 9], once)]));
    assert!(line_of(&text_of_once, "- rival:").ends_with("(**no figure in 1 of 9 rounds**)"));
    let mut unnamed = run(&[800_000.0; 9], vec![None; 9]);
    unnamed.contenders.pop();
    assert!(text(&parts(vec![unnamed])).contains("- rival: **not among the contenders of this run**"));
}

#[test]
fn a_must_that_fails_needs_a_sentence_and_a_sentence_needs_a_metric() {
    let mut parts = parts(vec![run(&[100_000.0; 9], Vec::new())]);
    let error = parts.pages().unwrap_err().to_string();
    assert!(error.contains("records_per_s") && error.contains("[limits.verify]"), "{error}");
    parts.said = said("[losses.verify]\nrecords_per_s = \"it is slow\"");
    assert!(parts.pages().is_err(), "at what we lose is not what limits");
    parts.said = said("[limits.verify]\nrecords_per_s = \"the disk\"");
    let page = text(&parts);
    assert!(page.contains("What limits `records_per_s`: the disk"), "{page}");
    assert!(line_of(&page, "| verify | `records_per_s`").ends_with("| **fails** |"));
    for nothing in ["[limits.verify]\nrecords = \"x\"", "[losses.speed]\nrecords_per_s = \"x\""] {
        parts.documents.clear();
        parts.said = said(nothing);
        assert!(parts.pages().unwrap_err().to_string().contains("which no bench has"), "{nothing}");
    }
}

#[test]
fn a_run_judged_by_another_bound_says_nothing_of_the_one_that_holds_now() {
    let mut document = run(&[800_000.0; 9], Vec::new());
    document.results[0].must.insert(LIMIT.into(), 0.5);
    let text = text(&parts(vec![document]));
    assert!(line_of(&text, "| verify | `records_per_s`").ends_with("| judged by another bound |"));
    assert!(text.contains("0 hold") && text.contains(", 1 were judged by another bound."), "{text}");
}

#[test]
fn a_goal_without_a_must_is_reached_or_missed() {
    for (took, verdict) in [(0.9, "goal reached"), (1.8, "goal missed")] {
        let mut document = run(&[0.0], Vec::new());
        document.bench = "jump".into();
        let asked = (BENCHES.iter().find(|bench| bench.name == "jump").unwrap().unmeasured)().remove(0);
        let ratios = [(LIMIT.to_owned(), Some(took))].into();
        document.results = vec![Metric { ours: Some(took), ratios, ..asked }];
        let text = text(&parts(vec![document]));
        assert!(line_of(&text, "| jump | `store_to_steer_us`").ends_with(&format!("| {verdict} |")), "{took}");
        assert!(text.contains(", 1 have a goal alone."), "{text}");
    }
}

#[test]
fn a_tail_is_shown_with_its_far_end_and_drawn_on_a_range() {
    let mut document = run(&[0.0], Vec::new());
    document.bench = "outage".into();
    let ours: Vec<Option<f64>> = (1..=40).map(|ms| Some(f64::from(ms))).collect();
    let cell = (BENCHES.iter().find(|bench| bench.name == "outage").unwrap().unmeasured)().remove(0);
    let all = summary(&ours.iter().copied().flatten().collect::<Vec<_>>()).unwrap();
    let mut metric = Metric { ours: Some(all.median), rounds: 40, ..cell };
    metric.samples.insert("ours".into(), ours);
    document.results = vec![metric.judged_at(0.99, Some(100.0))];
    let parts = parts(vec![document]);
    let text = text(&parts);
    assert!(text.contains(", p99 39.6, max 40.0"), "{text}");
    assert!(line_of(&text, "| outage | `outage_ms silent@base`").ends_with("| 39.6 | holds, goal reached |"));
    assert!(parts.pages().unwrap()[Path::new("bench/outage.svg")].contains("outage_ms silent@base"));
}

#[test]
fn documents_are_read_back_as_they_were_written_and_foreign_ones_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let bench = directory.path().join("bench");
    fs::create_dir(&bench).unwrap();
    for (name, text) in [("bench/method.md", "m\n"), ("bench/notes.md", "n\n")] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    fs::write(bench.join("limits.toml"), "").unwrap();
    let document = run(&[800_000.5; 9], vec![None; 9]);
    crate::bench::publish::publish(directory.path(), &document).unwrap();
    let read = Parts::read(directory.path()).unwrap();
    assert_eq!(
        serde_json::to_value(&read.documents["verify"]).unwrap(),
        serde_json::to_value(&document).unwrap(),
        "what a page is made of is what was measured"
    );
    check(directory.path(), &read.pages().unwrap()).unwrap();
    let mut old = serde_json::to_value(&document).unwrap();
    old.as_object_mut().unwrap().remove("day");
    fs::write(bench.join("verify.json"), old.to_string()).unwrap();
    let undated = Parts::read(directory.path()).unwrap();
    assert!(text(&undated).contains(", day unknown, version 0.1.0"), "a document of before is read, too");
    fs::write(bench.join("gone.svg"), "").unwrap();
    assert!(check(directory.path(), &read.pages().unwrap()).is_err(), "a chart of no run");
    fs::rename(bench.join("verify.json"), bench.join("pps.json")).unwrap();
    assert!(Parts::read(directory.path()).is_err(), "a run of another bench");
}

#[test]
fn a_run_without_its_sentence_is_kept_and_the_page_is_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("bench")).unwrap();
    for name in ["bench/method.md", "bench/notes.md", "bench/limits.toml"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    let slow = run(&[100_000.0; 9], Vec::new());
    let error = crate::bench::publish::publish(directory.path(), &slow).unwrap_err();
    assert!(format!("{error:#}").contains("bench/verify.json is written, the page is not"), "{error:#}");
    assert!(directory.path().join("bench/verify.json").is_file());
    assert!(!directory.path().join("benchmarks.md").exists());
}

#[test]
fn numbers_have_three_digits_that_count_and_thousands_apart() {
    let told = [0.0, 0.00123, 0.4, 1.0, 9.999, 65.46, 99.97, 123.4, 1_234.0, 800_000.4, -4_567.0].map(table::number);
    let wanted = ["0", "0.0012", "0.400", "1.00", "10.0", "65.5", "100", "123", "1,234", "800,000", "-4,567"];
    assert_eq!(told, wanted);
}
