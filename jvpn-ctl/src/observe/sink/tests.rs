//! Real datagram sockets of the tests' own, that come, stand still and go.

use super::super::fanout::QUEUE_MAX;
use super::super::journald::tests::read;
use super::*;

fn line(number: usize) -> String {
    format!(
        r#"{{"ts":"2026-01-02T03:04:05Z","seq":"{number}","event":"STATE_CHANGE","session_id":"ab","state_version":"{number}"}}"#
    )
}

fn wanted(journald: Option<PathBuf>, syslog: Option<Syslog>) -> TelemetryConfig {
    TelemetryConfig { metrics: None, journald, syslog }
}

fn bound(path: &std::path::Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("bound");
    // A test that hangs says where; nothing here takes a second.
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    socket
}

/// Fields of the next entry.
fn entry(socket: &UnixDatagram) -> Vec<(String, String)> {
    let mut bytes = [0; 16 << 10];
    let count = socket.recv(&mut bytes).expect("an entry");
    read(&bytes[..count])
}

fn field<'a>(entry: &'a [(String, String)], name: &str) -> Option<&'a str> {
    entry.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn a_journal_that_comes_late_and_goes_gets_every_event_while_it_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    let fan = Arc::<FanOut>::default();
    let _sinks = Sinks::start(&wanted(Some(path.clone()), None), &fan).expect("starts");
    fan.offer(&line(1));
    let first = bound(&path);
    assert_eq!(field(&entry(&first), "JVPN_SEQ"), Some("1"));
    fan.offer(&line(2));
    assert_eq!(field(&entry(&first), "JVPN_SEQ"), Some("2"));
    drop(first);
    std::fs::remove_file(&path).expect("gone");
    fan.offer(&line(3));
    fan.offer(&line(4));
    let second = bound(&path);
    assert_eq!(field(&entry(&second), "JVPN_SEQ"), Some("3"));
    assert_eq!(field(&entry(&second), "JVPN_SEQ"), Some("4"));
    assert_eq!(fan.dropped(Sink::Journald), 0);
}

#[test]
fn a_journal_that_stands_still_is_told_how_many_it_missed_where_they_are_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    let still = bound(&path);
    let fan = Arc::<FanOut>::default();
    let _sinks = Sinks::start(&wanted(Some(path), None), &fan).expect("starts");
    let offered = 3 * QUEUE_MAX;
    for number in 1..=offered {
        fan.offer(&line(number));
    }
    // More than the queue and the socket hold.
    assert!(fan.dropped(Sink::Journald) > 0);
    let (mut next, mut lost, mut taken) = (1, 0, 0);
    while next <= offered {
        let entry = entry(&still);
        if field(&entry, "JVPN_EVENT") == Some("DROPPED") {
            let count: usize = field(&entry, "JVPN_COUNT").expect("says how many").parse().expect("a number");
            (next, lost) = (next + count, lost + count);
        } else {
            assert_eq!(field(&entry, "JVPN_SEQ"), Some(next.to_string().as_str()), "nothing is missing unsaid");
            (next, taken) = (next + 1, taken + 1);
        }
    }
    assert_eq!((taken + lost, lost as u64), (offered, fan.dropped(Sink::Journald)));
}

#[test]
fn syslog_arrives_over_udp_and_over_a_socket_of_the_host() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let (unix, udp) = (bound(&path), UdpSocket::bind("127.0.0.1:0").expect("bound"));
    udp.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let at = udp.local_addr().expect("an address");
    let fan = Arc::<FanOut>::default();
    let both =
        [Syslog::Unix(path), Syslog::Udp(at)].map(|to| Sinks::start(&wanted(None, Some(to)), &fan).expect("starts"));
    fan.offer(&line(7));
    let mut bytes = [0; 4_096];
    for received in [unix.recv(&mut bytes).expect("over the socket"), udp.recv(&mut bytes.clone()).expect("over UDP")] {
        let text = String::from_utf8_lossy(&bytes[..received]);
        assert!(text.starts_with("<30>1 2026-01-02T03:04:05.000000Z "), "{text}");
        assert!(
            text.contains(" STATE_CHANGE [jvpn@32473 event=\"STATE_CHANGE\" seq=\"7\" session_id=\"ab\""),
            "{text}"
        );
    }
    drop(both);
    assert_eq!((fan.sent(Sink::Syslog), fan.dropped(Sink::Syslog)), (2, 0));
}

#[test]
fn what_is_queued_at_the_end_is_handed_on_and_a_side_that_stands_still_delays_no_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let (quick, still) = (dir.path().join("quick"), dir.path().join("still"));
    let (open, full) = (bound(&quick), bound(&still));
    let fan = Arc::<FanOut>::default();
    let sinks = Sinks::start(&wanted(Some(still), Some(Syslog::Unix(quick))), &fan).expect("starts");
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 4_096];
        (0..2_000).map(|_| open.recv(&mut bytes).expect("a message")).filter(|count| *count > 0).count()
    });
    for number in 1..=2_000 {
        fan.offer(&line(number));
    }
    // Closing waits for no journal. That of syslog takes, so that it may wait for it at most as long as it takes.
    while fan.sent(Sink::Syslog) < 2_000 {
        std::thread::yield_now();
    }
    drop(sinks);
    assert_eq!(reader.join().expect("ends"), 2_000);
    drop(full);
    fan.offer(&line(0));
    assert_eq!(fan.dropped(Sink::Journald), 0, "a thread that ended left no queue behind");
}
