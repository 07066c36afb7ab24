//! `/v1/sessions`: all of them, asked for a page at a time, so that a hundred thousand neither hold the event loop up nor
//! stand in memory at once.
//!
//! Owns the pages, and which session the start of an id means. Must never give a session twice: pages follow the order of
//! ids. What is born or ends between two of them may be in the list or not.

use super::model::{Envelope, Session, Sessions};
use super::request::Request;
use super::server::{Failure, Shared};
use crate::audit;
use crate::config::report::did_you_mean;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, StreamExt as _};
use jvpn_common::ids::SessionId;
use std::io::Error;
use std::sync::Arc;

/// Sessions that are described at a time: about a millisecond in which no session can move.
pub(crate) const PAGE: usize = 256;

/// The list, written as the model says it is.
pub(super) async fn sessions(State(shared): State<Arc<Shared>>) -> Result<Response, Failure> {
    let frame = serde_json::to_string(&Envelope::from(Sessions { sessions: Vec::new() })).map_err(broken)?;
    let (head, tail) = frame.split_at(frame.len().saturating_sub("]}".len()));
    // The first one before anything is answered: a daemon that is too busy says so with its status.
    let (page, next) = shared.page(None).await?;
    let first = format!("{head}{}", joined(&page)?);
    let more = stream::try_unfold((shared, next), |(shared, next)| async move {
        let Some(after) = next else { return Ok(None) };
        let (page, next) = shared.page(Some(after)).await.map_err(Failure::into_error)?;
        let text = joined(&page).map_err(Failure::into_error)?;
        Ok::<_, Error>((!page.is_empty()).then(|| (Bytes::from(format!(",{text}")), (shared, next))))
    });
    let one = |text: String| stream::iter([Ok(Bytes::from(text))]);
    let body = Body::from_stream(one(first).chain(more).chain(one(tail.to_owned())));
    Ok(([("content-type", "application/json")], body).into_response())
}

fn joined(page: &[Session]) -> Result<String, Failure> {
    let texts: Result<Vec<String>, _> = page.iter().map(serde_json::to_string).collect();
    Ok(texts.map_err(broken)?.join(","))
}

fn broken(error: impl ToString) -> Failure {
    Failure::broken(error.to_string())
}

impl Shared {
    /// Sessions behind an id, and the id to go on behind; none at the end.
    async fn page(&self, after: Option<SessionId>) -> Result<(Vec<Session>, Option<SessionId>), Failure> {
        let request = |reply| Request::Sessions { after, reply };
        let page = if after.is_none() { self.ask(request).await? } else { self.ask_on(request).await? };
        let last = page.last().map(|session| session.session_id.parse());
        let last = last.transpose().map_err(|_| Failure::broken("the daemon gave a session without an id"))?;
        Ok((page, last))
    }

    /// The session whose id starts with `prefix`.
    pub(super) async fn resolve(&self, prefix: &str) -> Result<(SessionId, Option<Session>), Failure> {
        let prefix = prefix.to_ascii_lowercase();
        let (mut found, mut guess) = (Vec::new(), None);
        // A whole id is on the page behind the one before it.
        let whole = prefix.parse::<SessionId>().ok();
        let before = whole.and_then(|id| u128::from_be_bytes(id.0).checked_sub(1));
        let (mut page, mut next) = self.page(before.map(|number| SessionId(number.to_be_bytes()))).await?;
        while let Some(after) = next {
            guess = guess.or_else(|| near(&prefix, &page));
            found.extend(page.into_iter().filter(|session| session.session_id.starts_with(&prefix)).take(2));
            if whole.is_some() {
                break;
            }
            (page, next) = self.page(Some(after)).await?;
        }
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(session), None) => {
                let id = session.session_id.parse();
                Ok((id.map_err(|_| Failure::broken("the daemon gave a session without an id"))?, Some(session)))
            }
            (Some(one), Some(other)) => {
                let text = format!("`{prefix}` is short for {} and {}", one.session_id, other.session_id);
                Err(Failure::bad(text))
            }
            (None, _) => {
                let guess = guess.map(|id| format!("; did you mean `{id}`?")).unwrap_or_default();
                self.ended(prefix, &guess).await.map(|id| (id, None))
            }
        }
    }

    /// One that ended is only in the record.
    async fn ended(&self, prefix: String, guess: &str) -> Result<SessionId, Failure> {
        let none = || Failure::not_found(format!("no session starts with `{prefix}`{guess}"));
        if !prefix.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(none());
        }
        let (dir, start) = (self.handle.feed.dir().to_path_buf(), prefix.clone());
        let read = tokio::task::spawn_blocking(move || audit::sessions(&dir, &start, 2)).await;
        let found = read.map_err(broken)?.map_err(broken)?;
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (Some(one), Some(other)) => Err(Failure::bad(format!("`{prefix}` is short for {one} and {other}"))),
            (None, _) => Err(none()),
        }
    }
}

/// The start of the live session that was probably meant.
fn near(prefix: &str, sessions: &[Session]) -> Option<String> {
    let starts = sessions.iter().filter_map(|session| session.session_id.get(..prefix.len().max(2)));
    let start = did_you_mean(prefix, starts)?;
    let meant = sessions.iter().find(|session| session.session_id.starts_with(start))?;
    meant.session_id.get(..8).map(str::to_owned)
}
