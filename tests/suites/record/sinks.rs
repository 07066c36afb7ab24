//! A sink that stands still under 10,000 transitions a second: it drops, counts, says so, and delays nothing.

use super::life;
use jvpn_common::event::Record;
use jvpn_common::ids::SessionId;
use jvpn_ctl::api::{self, Client, Handle, Request, Socket};
use jvpn_ctl::audit::Audit;
use jvpn_ctl::config::{Role, Syslog, TelemetryConfig};
use jvpn_ctl::observe::fanout::Sink;
use jvpn_ctl::observe::metrics::Exposition;
use jvpn_ctl::observe::sink::Sinks;
use serde_json::Value;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

/// Transitions: three times what a queue and its socket hold, so that a sink that stands still must lose some.
const TRANSITIONS: u64 = 24_000;
/// Transitions that are fed without waiting for anybody; after each of these the healthy sink is waited for, so that only
/// one that stands still can lose something.
const BURST: u64 = 1_000;
/// What must be fed in a second.
const RATE: u64 = 10_000;
/// For anything to happen on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one sink's other side read.
#[derive(Debug, Default)]
struct Seen {
    first: Option<u64>,
    last: u64,
    taken: u64,
    lost: u64,
    notices: u64,
}

impl Seen {
    fn event(&mut self, seq: u64) {
        assert!(
            self.first.is_none() || seq == self.last + 1,
            "{} follows {} and nothing was said of a loss",
            seq,
            self.last
        );
        self.first.get_or_insert(seq);
        (self.last, self.taken) = (seq, self.taken + 1);
    }

    fn dropped(&mut self, count: u64) {
        assert!(count > 0);
        self.last += count;
        (self.lost, self.notices) = (self.lost + count, self.notices + 1);
    }

    /// Everything from the first to the last was either taken or said to be lost.
    fn all(&self) -> u64 {
        self.last - self.first.expect("something came") + 1
    }
}

fn bound(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket
}

/// What follows a name in a datagram, as far as digits go.
fn number(datagram: &[u8], name: &str) -> Option<u64> {
    let text = String::from_utf8_lossy(datagram);
    let rest = &text[text.find(name)? + name.len()..];
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Reads datagrams until the last record; says each number it comes to.
fn read(socket: &UnixDatagram, seq: &str, count: &str, until: u64, tell: Option<&Sender<u64>>) -> Seen {
    let mut seen = Seen::default();
    let mut bytes = vec![0; 64 << 10];
    while seen.last < until {
        let length = socket.recv(&mut bytes).expect("a sink hands on what it has");
        match (number(&bytes[..length], seq), number(&bytes[..length], count)) {
            (Some(seq), _) => seen.event(seq),
            (None, Some(count)) => seen.dropped(count),
            (None, None) => panic!("neither an event nor a loss: {}", String::from_utf8_lossy(&bytes[..length])),
        }
        tell.map(|tell| tell.send(seen.last));
    }
    seen
}

/// The API of a daemon that answers for its metrics only.
fn serve(path: &Path, audit: &Audit) -> JoinHandle<()> {
    let (path, feed) = (path.to_path_buf(), audit.feed());
    spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (requests, mut asked) = tokio::sync::mpsc::channel(api::REQUESTS_MAX);
            let socket = Socket::bind(&path).expect("listens");
            tokio::spawn(api::serve(socket, Handle { requests, feed }));
            // Ends with the question that this stand-in does not answer.
            while let Some(Request::Metrics(reply)) = asked.recv().await {
                drop(reply.send(Exposition::new(Role::Gateway)));
            }
        });
    })
}

/// Follows the stream: stands still after the first line until it is told to go on.
fn follow(path: &Path, first: Sender<()>, go_on: Receiver<()>) -> JoinHandle<Seen> {
    let client = Client::at(path);
    spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut seen = Seen::default();
        let each = |line: &str| {
            let record: Value = serde_json::from_str(line).expect("JSON");
            if record["event"] == "DROPPED" {
                seen.dropped(record["count"].as_u64().expect("how many"));
            } else {
                let is_first = seen.first.is_none();
                seen.event(record["seq"].as_str().expect("text").parse().expect("a number"));
                if is_first {
                    first.send(()).expect("somebody waits");
                    go_on.recv_timeout(PATIENCE).expect("told to go on");
                }
            }
            if seen.last < TRANSITIONS { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
        };
        runtime.block_on(client.lines("/v1/events?follow=true", each)).expect("answered");
        seen
    })
}

/// Writes transitions as a gateway does, one after another; how long each burst took.
fn feed(audit: &Audit, transition: &Record, healthy: &Receiver<u64>, from: u64) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut next = from;
    while next <= TRANSITIONS {
        let begin = Instant::now();
        let end = TRANSITIONS.min(next + BURST - 1);
        for number in next..=end {
            let mut record = transition.clone();
            record.session_id = Some(SessionId(u128::from(number).to_be_bytes()));
            assert_eq!(audit.append(record).expect("written"), number);
        }
        if end + 1 - next == BURST {
            took.push(begin.elapsed());
        }
        while healthy.recv_timeout(PATIENCE).expect("the healthy sink goes on") < end {}
        next = end + 1;
    }
    took
}

#[test]
fn a_sink_that_stands_still_under_ten_thousand_transitions_a_second_delays_nothing_and_says_what_it_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open(dir.path()).expect("opens");
    let [still, healthy, api] = ["journal", "log", "api"].map(|name| dir.path().join(name));
    let (still, healthy, socket) = (bound(&still), bound(&healthy), api);
    let wanted = TelemetryConfig {
        metrics: None,
        journald: Some(dir.path().join("journal")),
        syslog: Some(Syslog::Unix(dir.path().join("log"))),
    };
    let sinks = Sinks::start(&wanted, audit.feed().fan()).expect("starts");
    let (tell, told) = channel();
    let healthy = spawn(move || read(&healthy, " seq=\"", " count=\"", TRANSITIONS, Some(&tell)));
    let served = serve(&socket, &audit);
    while !socket.exists() {
        std::thread::yield_now();
    }
    let (first, came) = channel();
    let (go_on, gone_on) = channel();
    let followed = follow(&socket, first, gone_on);
    let transition = life(1).swap_remove(0);
    assert!(transition.after.is_some(), "a transition");

    // One at a time until the stream has its first; from then on it stands still, as the journal does.
    let mut fed = 0;
    while came.try_recv().is_err() {
        fed = audit.append(transition.clone()).expect("written");
        while told.recv_timeout(PATIENCE).expect("the healthy sink goes on") < fed {}
    }
    assert!(fed < TRANSITIONS / 2, "the stream took {fed} transitions to begin");
    // On a thread of its own: if any of this waited for a sink, it would wait for ever.
    let (done, finished) = channel();
    let feeding = spawn(move || {
        let took = feed(&audit, &transition, &told, fed + 1);
        done.send(()).expect("somebody waits");
        (took, audit)
    });
    finished.recv_timeout(2 * PATIENCE).expect("a sink that stands still held the record up");
    let (mut took, audit) = feeding.join().expect("fed");
    took.sort();
    let middle = took[took.len() / 2];
    println!("{:.0} transitions/s into a record with two sinks that stand still", BURST as f64 / middle.as_secs_f64());
    assert!(
        middle < Duration::from_secs(1) * u32::try_from(BURST).expect("few") / u32::try_from(RATE).expect("few"),
        "{took:?}"
    );

    let feed = audit.feed();
    let fan = feed.fan();
    assert!(fan.dropped(Sink::Api) > 0 && fan.dropped(Sink::Journald) > 0, "they stood still");
    let healthy = healthy.join().expect("read");
    assert_eq!((healthy.taken, healthy.lost, healthy.first), (TRANSITIONS, 0, Some(1)), "in order, and all of it");
    assert_eq!(fan.dropped(Sink::Syslog), 0);

    go_on.send(()).expect("somebody waits");
    let still = read(&still, "\nJVPN_SEQ=", "\nJVPN_COUNT=", TRANSITIONS, None);
    let followed = followed.join().expect("read");
    for (sink, seen) in [(Sink::Journald, still), (Sink::Api, followed)] {
        assert!(seen.notices > 0 && seen.taken + seen.lost == seen.all(), "{sink:?}: {seen:?}");
        assert_eq!((seen.last, seen.lost), (TRANSITIONS, fan.dropped(sink)), "{sink:?}: {seen:?}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = Client::at(&socket);
    let metrics = runtime.block_on(client.text("/v1/metrics")).expect("answered");
    for sink in Sink::ALL {
        let line = format!("jvpn_events_dropped_total{{sink=\"{}\"}} {}\n", sink.name(), fan.dropped(sink));
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    // Its question is the end of the stand-in.
    runtime.block_on(client.text("/v1/status")).expect_err("not answered");
    served.join().expect("ended");
    drop(sinks);
}
