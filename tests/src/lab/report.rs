//! Owns the demo's document `jvpn.demo/1` and the raw files it can be recomputed from. Never measures.

use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path as FilePath;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::act::{self, Act, Check, Evidence, Promise, judge};
use super::chart::{self, Bar};
use super::flow::{Account, Arrived, Direction, Sent, Trace};
use super::http::Finished;
use super::record;

/// One act in the document. Fields up to `tcp_alive` are the contract; others may be added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActReport {
    pub name: String,
    pub promise: String,
    pub pass: bool,
    pub outage_ms: f64,
    pub lost: u64,
    pub duplicated: u64,
    pub states: Vec<String>,
    pub reasons: Vec<String>,
    pub versions: Vec<u64>,
    pub session_id_before: String,
    pub session_id_after: String,
    pub tcp_alive: bool,
    pub done: String,
    pub sent: u64,
    pub reordered: u64,
    pub transport_before: Option<String>,
    pub transport_after: Option<String>,
    pub noticed_ms: Option<f64>,
    /// How long the machine itself stood still in the window.
    pub stall_ms: f64,
    pub checks: Vec<Check>,
    /// Why the act could not be played to its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl ActReport {
    pub fn new(act: &Act, evidence: &Evidence, account: &Account) -> ActReport {
        let checks = judge(act, evidence, account);
        let (before, after) = (&evidence.session_before, &evidence.session_after);
        ActReport {
            name: act.name.into(),
            promise: act.promise_text.into(),
            pass: checks.iter().all(|check| check.kept),
            outage_ms: (account.outage_ms * 1_000.0).round() / 1_000.0,
            lost: account.lost,
            duplicated: account.duplicated,
            states: record::states(&evidence.records, &before.state),
            reasons: record::reasons(&evidence.records),
            versions: record::versions(&evidence.records),
            session_id_before: before.id.clone(),
            session_id_after: after.id.clone(),
            tcp_alive: evidence.tcp.right(),
            done: evidence.done.clone(),
            sent: account.sent,
            reordered: account.reordered,
            transport_before: before.transport.clone(),
            transport_after: after.transport.clone(),
            noticed_ms: evidence.noticed_ms,
            stall_ms: (account.stall_ms * 1_000.0).round() / 1_000.0,
            checks,
            error: None,
        }
    }

    /// States, reasons and versions in one line.
    fn recorded(&self) -> String {
        if self.versions.is_empty() {
            return format!("no change, {}", self.states.join(" → "));
        }
        let versions: Vec<String> = self.versions.iter().map(u64::to_string).collect();
        let which = if versions.len() == 1 { "version" } else { "versions" };
        format!("{}  ({})  {which} {}", self.states.join(" → "), self.reasons.join(", "), versions.join(", "))
    }

    /// An act that could not be played is a broken one.
    pub fn failed(act: &Act, error: &anyhow::Error) -> ActReport {
        ActReport {
            name: act.name.into(),
            promise: act.promise_text.into(),
            pass: false,
            outage_ms: 0.0,
            lost: 0,
            duplicated: 0,
            states: Vec::new(),
            reasons: Vec::new(),
            versions: Vec::new(),
            session_id_before: String::new(),
            session_id_after: String::new(),
            tcp_alive: false,
            done: act.what.into(),
            sent: 0,
            reordered: 0,
            transport_before: None,
            transport_after: None,
            noticed_ms: None,
            stall_ms: 0.0,
            checks: Vec::new(),
            error: Some(format!("{error:#}")),
        }
    }
}

/// `jvpn.demo/1`.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    pub schema: &'static str,
    pub pass: bool,
    pub xdp: String,
    pub acts: Vec<ActReport>,
    pub download: DownloadReport,
    /// The same of the act with a relay, which has a lab and a download of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_download: Option<DownloadReport>,
    /// What went wrong beside the acts, such as a process that did not end.
    pub errors: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct DownloadReport {
    pub finished: Option<Finished>,
    pub connections: u64,
    pub local: String,
    pub error: Option<String>,
}

impl DownloadReport {
    pub fn right(&self) -> bool {
        self.connections == 1 && self.finished.as_ref().is_some_and(|done| done.sha256_right && done.bytes > 0)
    }
}

impl Document {
    pub fn new(xdp: &str, acts: Vec<ActReport>, downloads: Vec<DownloadReport>, errors: Vec<String>) -> Document {
        let right = !downloads.is_empty() && downloads.iter().all(DownloadReport::right);
        let pass = errors.is_empty() && !acts.is_empty() && acts.iter().all(|act| act.pass) && right;
        let mut downloads = downloads.into_iter();
        let (download, relay_download) = (downloads.next().unwrap_or_default(), downloads.next());
        Document { schema: "jvpn.demo/1", pass, xdp: xdp.into(), acts, download, relay_download, errors }
    }

    /// What a person reads at the end.
    pub fn human(&self) -> String {
        let mut out = String::new();
        for report in &self.acts {
            out.push_str(&format!("\n{}  {}\n", report.name, report.done));
            if let Some(error) = &report.error {
                out.push_str(&format!("  BROKEN  the act could not be played: {error}\n"));
                continue;
            }
            out.push_str(&format!(
                "  outage {:.1} ms, {} of {} packets lost, {} duplicated, {} reordered\n",
                report.outage_ms, report.lost, report.sent, report.duplicated, report.reordered
            ));
            out.push_str(&format!("  record: {}\n", report.recorded()));
            for check in &report.checks {
                let verdict = if check.kept { "kept  " } else { "BROKEN" };
                out.push_str(&format!("  {verdict}  {}: {}\n", check.promise, check.seen));
            }
        }
        let bars: Vec<Bar> = self
            .acts
            .iter()
            .filter(|report| report.error.is_none())
            .map(|report| Bar {
                name: report.name.clone(),
                outage_ms: report.outage_ms,
                limit_ms: act::named(&report.name).and_then(|act| match act.promise {
                    Promise::OutageMs(limit) | Promise::OneStore(limit) => Some(limit),
                    Promise::Seamless | Promise::NoticedMs(_) => None,
                }),
                kept: report.pass,
            })
            .collect();
        out.push_str(&format!("\n{}", chart::draw(&bars)));
        for download in std::iter::once(&self.download).chain(&self.relay_download) {
            match (&download.finished, &download.error) {
                (Some(done), _) => out.push_str(&format!(
                    "\ndownload: {} MB over {}, sha256 {}\n",
                    done.bytes / 1_000_000,
                    counted(download.connections, "TCP connection"),
                    if done.sha256_right { "right" } else { "WRONG" }
                )),
                (None, error) => {
                    out.push_str(&format!("\ndownload: BROKEN {}\n", error.as_deref().unwrap_or("never finished")));
                }
            }
        }
        for error in &self.errors {
            out.push_str(&format!("BROKEN  {error}\n"));
        }
        out.push_str(if self.pass { "every promise kept\n" } else { "A PROMISE WAS BROKEN\n" });
        out
    }
}

/// A number with its thing, in the plural when it is not one.
pub(super) fn counted(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Writes the flows of one act: one line per packet sent and per copy that arrived; an empty last field is a loss.
pub fn write_csv(path: &FilePath, traces: &[(Direction, Trace)]) -> Result<()> {
    let file = fs::File::create(path).with_context(|| format!("write {}", path.display()))?;
    let mut out = BufWriter::new(file);
    writeln!(out, "direction,sequence,sent_ns,arrived_ns")?;
    for (direction, trace) in traces {
        let way = way_name(*direction);
        let came: std::collections::BTreeSet<u64> = trace.arrived.iter().map(|a| a.sequence).collect();
        for Arrived { sequence, sent_ns, at_ns } in &trace.arrived {
            writeln!(out, "{way},{sequence},{sent_ns},{at_ns}")?;
        }
        for Sent { sequence, at_ns } in trace.sent.iter().filter(|s| !came.contains(&s.sequence)) {
            writeln!(out, "{way},{sequence},{at_ns},")?;
        }
    }
    out.flush().context("write the flows")
}

fn way_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
    }
}

/// Reads back what `write_csv` wrote.
pub fn read_csv(path: &FilePath) -> Result<[Trace; 2]> {
    let file = fs::File::open(path).with_context(|| format!("read {}", path.display()))?;
    let mut traces = [Trace::default(), Trace::default()];
    let mut known = [std::collections::BTreeSet::new(), std::collections::BTreeSet::new()];
    for (number, line) in BufReader::new(file).lines().enumerate().skip(1) {
        let line = line?;
        let at = || format!("{}:{}", path.display(), number + 1);
        let fields: Vec<&str> = line.split(',').collect();
        ensure!(fields.len() == 4, "{}: four fields expected", at());
        let way = usize::from(fields[0] == "down");
        let sequence: u64 = fields[1].parse().with_context(at)?;
        let sent_ns: u64 = fields[2].parse().with_context(at)?;
        if known[way].insert(sequence) {
            traces[way].sent.push(Sent { sequence, at_ns: sent_ns });
        }
        if !fields[3].is_empty() {
            traces[way].arrived.push(Arrived { sequence, sent_ns, at_ns: fields[3].parse().with_context(at)? });
        }
    }
    Ok(traces)
}

/// Account of both directions together, as the document shows it.
pub fn account(traces: &[Trace], fault_ns: u64) -> Account {
    traces.iter().map(|trace| trace.account(fault_ns)).fold(Account::default(), Account::join)
}

/// Writes what one act can be recomputed from.
pub fn write_act(directory: &FilePath, evidence: &Evidence, traces: &[(Direction, Trace)]) -> Result<()> {
    write_csv(&directory.join(format!("{}.csv", evidence.act)), traces)?;
    let path = directory.join(format!("{}.evidence.json", evidence.act));
    fs::write(&path, serde_json::to_string_pretty(evidence)?).with_context(|| format!("write {}", path.display()))
}

/// Recomputes an act's report from its raw files alone.
pub fn recompute(directory: &FilePath, name: &str) -> Result<ActReport> {
    let act = act::named(name).with_context(|| format!("no act is called {name}"))?;
    let text = fs::read_to_string(directory.join(format!("{name}.evidence.json")))
        .with_context(|| format!("evidence of {name} in {}", directory.display()))?;
    let evidence: Evidence = serde_json::from_str(&text)?;
    let traces = read_csv(&directory.join(format!("{name}.csv")))?;
    Ok(ActReport::new(act, &evidence, &account(&traces, evidence.fault_ns)))
}

/// Whether the act in `demo.json` of a directory is what its raw files say.
pub fn verify(directory: &FilePath) -> Result<Vec<String>> {
    let text = fs::read_to_string(directory.join("demo.json")).context("read demo.json")?;
    let document: serde_json::Value = serde_json::from_str(&text)?;
    let mut verified = Vec::new();
    for value in document["acts"].as_array().context("demo.json has no acts[]")? {
        let said: ActReport = serde_json::from_value(value.clone())?;
        if said.error.is_none() {
            ensure!(recompute(directory, &said.name)? == said, "{} differs from its raw files", said.name);
            verified.push(said.name);
        }
    }
    Ok(verified)
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
