//! Every bench in its shortest form: it works, and its document says what was measured and what could not be had.
//!
//! Owns no figure and judges none: so few rounds decide nothing. Must never pass when ours was not measured.

use std::time::Instant;

use jvpn_tests::bench::{self, Options};
use serde_json::Value;

/// What a bench left behind, or what is wrong with it.
fn shape(name: &str) -> Result<String, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let options = Options { quick: true, report: Some(directory.path().to_owned()), ..Options::default() };
    let document = bench::run(name, &options).map_err(|error| format!("{error:#}"))?;
    // A rival may be missing, and nothing else.
    let wrong: Vec<&String> = document.errors.iter().filter(|error| !error.contains("is not installed")).collect();
    if !wrong.is_empty() {
        return Err(format!("{wrong:?}"));
    }
    if let Some(metric) = document.results.iter().find(|metric| metric.ours.is_none()) {
        return Err(format!("{} was not measured", metric.metric));
    }
    let read = |file| std::fs::read_to_string(directory.path().join(file)).map_err(|error| format!("{file}: {error}"));
    let json: Value = serde_json::from_str(&read("document.json")?).map_err(|error| error.to_string())?;
    let said = |field: &str| json[field].as_str().is_some_and(|text| !text.is_empty());
    let whole = json["schema"] == bench::document::SCHEMA && json["bench"] == name;
    if !whole || !["day", "kernel", "version", "command", "policy"].into_iter().all(said) {
        return Err(format!("the document does not say where it is from: {json}"));
    }
    let figures = json["results"].as_array().map_or(0, Vec::len);
    let (summary, table) = (read("summary.txt")?, read("table.txt")?);
    let listed =
        document.results.iter().all(|metric| summary.contains(&metric.metric) && table.contains(&metric.metric));
    if figures == 0 || !listed || !document.pass() {
        return Err(format!("{figures} figures, and this for people:\n{summary}"));
    }
    Ok(format!("{figures} figures, {} contenders", document.contenders.len()))
}

#[test]
fn every_bench_works_and_its_document_is_whole() {
    let mut wrong = Vec::new();
    for name in bench::NAMES {
        let begun = Instant::now();
        let outcome = shape(name);
        println!("{name:<10} {:>5.1} s  {}", begun.elapsed().as_secs_f64(), outcome.as_deref().unwrap_or("WRONG"));
        wrong.extend(outcome.err().map(|why| format!("{name}: {why}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_bench_that_is_not_there_is_named_beside_those_that_are() {
    let error = bench::run("speed", &Options::default()).expect_err("no such bench").to_string();
    assert!(error.contains("\"speed\"") && bench::NAMES.iter().all(|name| error.contains(name)), "{error}");
}
