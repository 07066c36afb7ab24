//! `/v1/events`: the record as lines, then what is added to it, for as long as somebody reads.
//!
//! Owns the filter in the query and the notice about lines a slow reader missed: it stands where they would. Must never hold
//! the writer up.

use super::server::{Failure, Shared};
use crate::audit::{self, Filter};
use crate::observe::fanout::{Reader, Sink, Taken};
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::Value;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Bytes of old lines handed over in one answer; a reader of more reads the files.
const PAST_MAX: usize = 64 << 20;

/// What is asked for.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(super) struct EventsQuery {
    #[serde(default)]
    follow: bool,
    since: Option<String>,
    until: Option<String>,
    session: Option<String>,
    peer: Option<String>,
    reason: Option<String>,
    severity: Option<String>,
    first: Option<usize>,
}

pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Failure> {
    let filter = filter(&shared, &query).await?;
    // Subscribed before the files are read, so that no line falls between; the number tells copies apart.
    let live = query.follow.then(|| shared.handle.feed.subscribe(Sink::Api)).transpose();
    let live = live.map_err(|error| Failure::busy(error.to_string()))?;
    let dir = shared.handle.feed.dir().to_path_buf();
    let first = query.first.unwrap_or(usize::MAX);
    // Following without a start means from now on.
    let skip_past = query.follow && query.since.is_none() && query.first.is_none();
    let past_filter = filter.clone();
    let read =
        tokio::task::spawn_blocking(
            move || if skip_past { Ok(Past::default()) } else { past(&dir, &past_filter, first) },
        );
    let past = read
        .await
        .map_err(|error| Failure::broken(error.to_string()))?
        .map_err(|error| Failure::broken(error.to_string()))?;
    let left = first.saturating_sub(past.count);
    let live = live.filter(|_| left > 0);
    let state = Follow { past: Some(past.bytes), last: past.last, live, filter, left };
    let lines = stream::unfold(state, |mut state| async move { Some((state.next().await?, state)) });
    let body = Body::from_stream(lines_ok(lines));
    Ok(([("content-type", "application/x-ndjson")], body).into_response())
}

fn lines_ok(
    lines: impl stream::Stream<Item = Bytes>,
) -> impl stream::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    use futures_util::StreamExt as _;
    lines.map(Ok)
}

async fn filter(shared: &Shared, query: &EventsQuery) -> Result<Filter, Failure> {
    let session = match &query.session {
        Some(prefix) => Some(shared.resolve(prefix).await?.0),
        None => None,
    };
    let reason = query.reason.as_deref().map(str::parse).transpose();
    let reason = reason.map_err(|_| Failure::bad("no such reason code; `jvpn-ctl explain` lists them"))?;
    let since = query.since.as_deref().map(super::parse_since).transpose().map_err(Failure::bad)?;
    let until = query.until.as_deref().map(super::parse_since).transpose().map_err(Failure::bad)?;
    let severity = query.severity.as_deref().map(str::parse).transpose();
    let severity =
        severity.map_err(|_| Failure::bad("no such severity: informational, low, medium, high, critical"))?;
    Ok(Filter { session, peer: query.peer.clone(), reason, since, until, severity })
}

#[derive(Default)]
struct Past {
    bytes: Vec<u8>,
    count: usize,
    last: u64,
}

fn past(dir: &std::path::Path, filter: &Filter, first: usize) -> Result<Past, audit::AuditError> {
    let mut past = Past::default();
    if first == 0 {
        return Ok(past);
    }
    audit::read(dir, filter, |line, record| {
        past.bytes.extend_from_slice(line.as_bytes());
        past.bytes.push(b'\n');
        past.count += 1;
        past.last = number(&record);
        let full = past.count >= first || past.bytes.len() >= PAST_MAX;
        if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(past)
}

fn number(record: &Value) -> u64 {
    record.get("seq").and_then(Value::as_str).and_then(|seq| seq.parse().ok()).unwrap_or(0)
}

struct Follow {
    past: Option<Vec<u8>>,
    last: u64,
    live: Option<Reader>,
    filter: Filter,
    left: usize,
}

impl Follow {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(past) = self.past.take().filter(|past| !past.is_empty()) {
            return Some(past.into());
        }
        loop {
            if self.left == 0 {
                return None;
            }
            let live = self.live.as_ref()?;
            let line = match live.take().await {
                Taken::Line(line) => line,
                Taken::Lost(count) => {
                    let missed = serde_json::json!({ "event": "DROPPED", "count": count });
                    return Some(format!("{missed}\n").into());
                }
            };
            if let Some(record) = self.filter.accepts(&line)
                && number(&record) > self.last
            {
                live.sent();
                self.left -= 1;
                return Some(format!("{line}\n").into());
            }
        }
    }
}
