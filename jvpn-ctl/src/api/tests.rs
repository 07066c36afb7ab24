//! Questions over a real socket, answered by a stand-in for the event loop.

use super::model::{Envelope, Jumped, OneSession, Session, Sessions, Terminated};
use super::*;
use crate::audit::Audit;
use crate::config::Role;
use crate::observe::metrics::{Exposition, Metrics};
use crate::observe::table::Metric;
use jvpn_common::event::{Context, Event, Record};
use jvpn_common::ids::SessionId;
use jvpn_common::reason::Reason;
use jvpn_common::session::account::Bound;
use std::path::PathBuf;
use tokio::sync::mpsc;

fn session(id: &str) -> Session {
    Session {
        session_id: id.repeat(16),
        peer: "till-17".into(),
        state: "ATTACHED".into(),
        reason: Some("HANDSHAKE_OK".into()),
        state_version: 1,
        transport: None,
        candidates: Vec::new(),
        addresses: vec!["10.77.0.17/32".into()],
        created: "2026-01-02T03:04:05Z".into(),
        switches: 0,
        rx_bytes: 1,
        tx_bytes: 2,
        policy: "field".into(),
        conditions: Vec::new(),
    }
}

/// Sessions as an event loop gives them, which in this one are two at a time.
fn page_behind(after: Option<SessionId>) -> Vec<Session> {
    let all = ["a1", "a2", "b0"].map(session).into_iter();
    all.filter(|session| after.is_none_or(|after| session.session_id > after.to_string())).take(2).collect()
}

/// Answers as an event loop would; a jump to `lte` is refused, one to anything else is made.
async fn stand_in(mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        match request {
            Request::Sessions { after, reply } => drop(reply.send(page_behind(after))),
            Request::Jump { session, to, dry_run, reply, .. } => {
                let denied = Refused::Denied {
                    reason: Reason::TransportSwitchDenied,
                    detail: Some(Reason::CooldownActive),
                    text: "the last switch was 0.3 s ago; cooldown is 1 s".into(),
                };
                let id = session.unwrap_or_default().to_string();
                let jumped = Jumped {
                    session_id: id,
                    from: None,
                    to: to.clone(),
                    state_version: Some(2),
                    took_ms: None,
                    dry_run,
                };
                drop(reply.send(if to == "lte" { Err(denied) } else { Ok(jumped) }));
            }
            Request::Terminate { session, why, dry_run, reply, .. } => {
                let reason = why.code().name().into();
                drop(reply.send(Ok(Terminated {
                    session_id: session.to_string(),
                    reason,
                    state_version: Some(3),
                    dry_run,
                })));
            }
            Request::Status(reply) => drop(reply),
            Request::Metrics(reply) => {
                let mut all = Exposition::new(Role::Gateway);
                all.number(Metric::Pending, &[], 3);
                drop(reply.send(all));
            }
            Request::Paths(reply) => drop(reply.send(Vec::new())),
            Request::Standing { reply, .. } => {
                let bound = Bound {
                    name: "cooldown",
                    observed: "0.300s".into(),
                    relation: "at least",
                    limit: "1s".into(),
                    holds: false,
                };
                drop(reply.send(vec![(&bound).into()]));
            }
            Request::Reload { reply, .. } => drop(reply.send(Err(Refused::Invalid("line 3".into())))),
            Request::Policy { reply, .. } => drop(reply.send(Err(Refused::NotFound("no".into())))),
            Request::Emergency(_, reply) => drop(reply.send(Err(Refused::Conflict("all are".into())))),
            Request::ReloadPeers { reply, .. } => drop(reply.send(Err(Refused::Failed("no".into())))),
        }
    }
}

struct Daemon {
    client: Client,
    audit: Audit,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

fn daemon() -> Daemon {
    daemon_with(|requests| drop(tokio::spawn(stand_in(requests))))
}

fn daemon_with(answers: impl FnOnce(mpsc::Receiver<Request>)) -> Daemon {
    let dir = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open(&dir.path().join("state")).expect("opens");
    let path = dir.path().join("run/gateway.sock");
    let socket = Socket::bind(&path).expect("listens");
    let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
    answers(receiver);
    tokio::spawn(serve(socket, Handle { requests, feed: audit.feed() }));
    let client = Client::find(&dir.path().join("run")).expect("the only one");
    Daemon { client, audit, socket: path, _dir: dir }
}

fn record(id: u8) -> Record {
    let context =
        Context { ts: "2026-01-02T03:04:05.000000006Z", at: Default::default(), node: "gw", seq: 0, peer: "p" };
    let mut record = Record::plain(&context, Event::SecurityEvent);
    record.session_id = Some(SessionId([id; 16]));
    record
}

fn refused(error: ClientError) -> (u16, model::ErrorBody) {
    match error {
        ClientError::Refused { status, body } => (status.as_u16(), body),
        other => panic!("not a refusal: {other}"),
    }
}

#[tokio::test]
async fn a_session_is_found_by_a_prefix_that_fits_one_only() {
    let daemon = daemon();
    let all: Envelope<Sessions> = daemon.client.get("/v1/sessions").await.expect("answered");
    assert_eq!((all.schema.as_str(), all.body.sessions.len()), ("jvpn.sessions/1", 3));
    let one: Envelope<OneSession> = daemon.client.get("/v1/sessions/b").await.expect("answered");
    assert_eq!(
        (one.body.bounds[0].text.as_str(), one.body.bounds[0].holds),
        ("cooldown: 0.300s is not at least 1s", false)
    );
    assert_eq!(one.body.session, session("b0"));
    let whole: Envelope<OneSession> =
        daemon.client.get(&format!("/v1/sessions/{}", "a2".repeat(16))).await.expect("answered");
    assert_eq!(whole.body.session, session("a2"));
    let (status, body) = refused(daemon.client.get::<Envelope<OneSession>>("/v1/sessions/a").await.expect_err("two"));
    assert_eq!(status, 400);
    assert!(body.error.contains("is short for"), "{}", body.error);
    let none = async |id: &str| {
        let page = format!("/v1/sessions/{id}");
        let (status, body) = refused(daemon.client.get::<Envelope<OneSession>>(&page).await.expect_err("none"));
        assert_eq!(status, 404);
        body.error
    };
    assert_eq!(none("cccc").await, "no session starts with `cccc`");
    assert_eq!(none("b1b0").await, "no session starts with `b1b0`; did you mean `b0b0b0b0`?");
}

#[tokio::test]
async fn the_list_of_sessions_comes_in_pages_and_reads_as_one() {
    let daemon = daemon();
    let sessions = ["a1", "a2", "b0"].map(session).to_vec();
    let whole = serde_json::to_string(&Envelope::from(Sessions { sessions })).expect("text");
    assert_eq!(daemon.client.text("/v1/sessions").await.expect("answered"), whole);

    let nobody = daemon_with(|mut requests| {
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let Request::Sessions { reply, .. } = request else { continue };
                drop(reply.send(Vec::new()));
            }
        });
    });
    let empty: Envelope<Sessions> = nobody.client.get("/v1/sessions").await.expect("answered");
    assert_eq!(empty.body.sessions, []);
}

#[tokio::test]
async fn a_list_whose_next_page_nobody_answers_breaks_off_and_is_an_error() {
    let daemon = daemon_with(|mut requests| {
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                if let Request::Sessions { after: None, reply } = request {
                    drop(reply.send(page_behind(None)));
                }
            }
        });
    });
    let broken = daemon.client.text("/v1/sessions").await.expect_err("half a list");
    assert!(matches!(broken, ClientError::Broken { .. }), "{broken}");
}

#[tokio::test]
async fn a_refused_jump_carries_the_reason_and_the_bound() {
    let daemon = daemon();
    let error = daemon.client.post::<Envelope<Jumped>>("/v1/jump?session=b0&to=lte").await.expect_err("refused");
    let (status, body) = refused(error);
    assert_eq!(
        (status, body.reason.as_deref(), body.detail.as_deref()),
        (409, Some("TRANSPORT_SWITCH_DENIED"), Some("COOLDOWN_ACTIVE"))
    );
    let jumped: Envelope<Jumped> = daemon.client.post("/v1/jump?session=b0&to=wifi").await.expect("made");
    assert_eq!(jumped.body.session_id, "b0".repeat(16));
}

#[tokio::test]
async fn a_request_nobody_answers_is_an_error_and_not_silence() {
    let daemon = daemon();
    let (status, body) = refused(daemon.client.get::<serde_json::Value>("/v1/status").await.expect_err("dropped"));
    assert_eq!((status, body.error.as_str()), (500, "the daemon gave no answer"));
    let (status, _) = refused(daemon.client.get::<serde_json::Value>("/v1/nothing").await.expect_err("no page"));
    assert_eq!(status, 404);
}

#[tokio::test]
async fn events_are_what_is_in_the_record_and_then_what_is_added() {
    let daemon = daemon();
    daemon.audit.append(record(1)).expect("written");
    daemon.audit.append(record(2)).expect("written");
    let mut lines = Vec::new();
    let id = SessionId([2; 16]);
    let page = format!("/v1/events?session={id}");
    let collect = |line: &str| {
        lines.push(line.to_owned());
        Ok(())
    };
    daemon.client.lines(&page, collect).await.expect("answered");
    assert_eq!(lines.len(), 1);
    let mut followed = Vec::new();
    let audit = &daemon.audit;
    let follow = |line: &str| {
        followed.push(line.to_owned());
        audit.append(record(3)).expect("written");
        Ok(())
    };
    daemon.client.lines("/v1/events?follow=true&first=4", follow).await.expect("ends after four");
    assert_eq!(followed.len(), 4);
    assert!(followed[2].contains("\"seq\":\"3\"") && followed[3].contains("\"seq\":\"4\""));
    let (status, _) =
        refused(daemon.client.get::<serde_json::Value>("/v1/events?reason=NOPE").await.expect_err("no code"));
    assert_eq!(status, 400);
}

/// An answer as it travels.
async fn raw(address: std::net::SocketAddr, page: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("answered");
    let question = format!("GET {page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    answer
}

#[tokio::test]
async fn metrics_are_on_the_socket_and_over_tcp_which_has_nothing_else() {
    let daemon = daemon();
    daemon.audit.append(record(1)).expect("written");
    let text = daemon.client.text("/v1/metrics").await.expect("answered");
    for line in ["jvpn_handshakes_pending 3.0", "jvpn_record_sequence 1.0", "jvpn_events_dropped_total{sink=\"api\"} 0"]
    {
        assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
    }
    assert!(text.contains("jvpn_events_total{event=\"SECURITY_EVENT\",reason=\"\"} 1\n") && text.ends_with("# EOF\n"));
    let document: Envelope<Metrics> = daemon.client.get("/v1/metrics?form=json").await.expect("answered");
    assert_eq!(document.schema, "jvpn.metrics/1");
    let listener = metrics::bind("127.0.0.1:0".parse().expect("an address")).expect("free");
    let address = listener.local_addr().expect("an address");
    let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
    tokio::spawn(stand_in(receiver));
    tokio::spawn(metrics::serve(listener, Handle { requests, feed: daemon.audit.feed() }));
    for page in ["/metrics", "/v1/metrics"] {
        let answer = raw(address, page).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("# EOF\n"), "{answer}");
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
        assert!(answer.to_ascii_lowercase().contains(kind), "{answer}");
    }
    for page in ["/v1/status", "/v1/sessions", "/v1/events", "/"] {
        assert!(raw(address, page).await.starts_with("HTTP/1.1 404 "), "{page}");
    }
}

#[tokio::test]
async fn without_a_daemon_the_error_says_where_it_was_looked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(matches!(Client::find(dir.path()), Err(ClientError::NoDaemon(_))));
    assert!(matches!(Client::find(&dir.path().join("none")), Err(ClientError::NoDaemon(_))));
    let _one = Socket::bind(&dir.path().join("gateway.sock")).expect("listens");
    let _two = Socket::bind(&dir.path().join("client-a.sock")).expect("listens");
    let several = Client::find(dir.path()).expect_err("two").to_string();
    assert!(several.contains("client-a.sock") && several.contains("gateway.sock"), "{several}");
    let daemon = daemon();
    assert!(daemon.socket.exists());
}
