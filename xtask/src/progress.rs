//! Owns what the user sees while something takes long: an estimate, elapsed time, the duration at the end.
//! Must never write to stdout: that is for results. Estimates are the last measured durations on this machine.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::paths;

/// Below this nothing is said: a line for a blink is noise.
const QUIET: Duration = Duration::from_millis(1_200);
/// How often a log without a terminal is told that work goes on. Shorter floods CI logs, longer looks like a hang.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How often a counter on a terminal moves.
const COUNTER: Duration = Duration::from_secs(1);

/// What the work prints by itself, which decides what may be printed between.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Nothing: a terminal gets a counter on one line.
    Captured,
    /// Its own lines: only the estimate is added, and without a terminal a line now and then.
    Inherited,
}

/// Runs `work`, telling about it if it takes long.
pub(crate) fn run<T>(
    name: &str,
    guess_s: u64,
    output: Output,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let estimate = remembered(name).unwrap_or(guess_s);
    let started = Instant::now();
    let (stop, stopped) = mpsc::channel::<()>();
    let title = name.to_owned();
    let ticker = thread::spawn(move || tick(&title, estimate, output, started, &stopped));
    let result = work();
    drop(stop);
    let spoke = ticker.join().unwrap_or(false);
    let took = started.elapsed();
    if spoke {
        let verb = if result.is_ok() { "done" } else { "failed" };
        eprintln!("{}   {name}: {verb} in {:.1} s", clear(output), took.as_secs_f64());
    }
    // A run that found nothing to do says nothing about the next one that does.
    if result.is_ok() && took > Duration::from_secs(2) {
        remember(name, took.as_secs());
    }
    result
}

/// Returns whether anything was printed.
fn tick(name: &str, estimate: u64, output: Output, started: Instant, stopped: &mpsc::Receiver<()>) -> bool {
    if stopped.recv_timeout(QUIET) != Err(RecvTimeoutError::Timeout) {
        return false;
    }
    eprintln!("   {name}: about {}", human(estimate));
    let terminal = std::io::stderr().is_terminal();
    let pause = if terminal { COUNTER } else { HEARTBEAT };
    while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let elapsed = started.elapsed().as_secs();
        match (terminal, output) {
            (true, Output::Captured) => {
                eprint!("\r   {name}: {} of about {} ", human(elapsed), human(estimate));
                // A counter that cannot be written is no reason to stop the work.
                let _ = std::io::stderr().flush();
            }
            (true, Output::Inherited) => {}
            (false, _) => eprintln!("   {name}: {} of about {}", human(elapsed), human(estimate)),
        }
    }
    true
}

fn clear(output: Output) -> &'static str {
    if output == Output::Captured && std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" }
}

fn human(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds} s"),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

fn store() -> std::path::PathBuf {
    paths::target().join("xtask-durations")
}

fn remembered(name: &str) -> Option<u64> {
    lookup(&fs::read_to_string(store()).ok()?, name)
}

fn lookup(text: &str, name: &str) -> Option<u64> {
    text.lines().filter_map(|line| line.split_once('\t')).find(|(key, _)| *key == name)?.1.parse().ok()
}

fn updated(text: &str, name: &str, seconds: u64) -> String {
    let others = text.lines().filter(|line| line.split_once('\t').is_some_and(|(key, _)| key != name));
    let mut lines: Vec<String> = others.map(str::to_owned).collect();
    lines.push(format!("{name}\t{seconds}\n"));
    lines.join("\n")
}

/// Best effort: a lost estimate costs nothing.
fn remember(name: &str, seconds: u64) {
    let old = fs::read_to_string(store()).unwrap_or_default();
    let _ = fs::write(store(), updated(&old, name, seconds));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_replaced_and_the_others_stay() {
        let one = updated("", "build", 40);
        let two = updated(&one, "test", 7);
        let three = updated(&two, "build", 3);
        assert_eq!(lookup(&two, "build"), Some(40));
        assert_eq!(lookup(&three, "build"), Some(3));
        assert_eq!(lookup(&three, "test"), Some(7));
        assert_eq!(lookup(&three, "lab"), None);
    }

    #[test]
    fn long_times_are_minutes() {
        assert_eq!(human(99), "99 s");
        assert_eq!(human(125), "2 min 05 s");
    }
}
