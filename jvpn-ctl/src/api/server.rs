//! HTTP on the Unix socket: routes, who may call, and the stream of events.
//!
//! Owns the way from a request to the event loop and back, with a bound on the wait. Must never hold a session:
//! it asks whoever owns them.

use super::model::{
    Body, EmergencyState, EndReason, Envelope, ErrorBody, History, Jumped, OneSession, Paths, PolicyView, Reload,
    Reloaded, Status, Terminated,
};
use super::request::{Caller, Refused, Reply, Request, Wish};
use super::socket::{Peer, Socket, admits};
use super::{metrics, sessions, stream};
use crate::audit::{self, Feed};
use axum::extract::{ConnectInfo, Path, Query, Request as Http, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jvpn_common::gateway::Mode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long the event loop may take. A jump waits for its ACK, which needs a round trip or two.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What the server needs of its daemon.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Where questions go.
    pub requests: mpsc::Sender<Request>,
    /// Where the record is.
    pub feed: Feed,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) handle: Handle,
    uid: u32,
    group: Option<u32>,
}

/// Answers on `socket` until the future is dropped; then its file is gone.
///
/// # Errors
/// The socket broke.
pub async fn serve(mut socket: Socket, handle: Handle) -> std::io::Result<()> {
    let Some(listener) = socket.listener.take() else { return Ok(()) };
    let uid = rustix::process::geteuid().as_raw();
    let shared = Arc::new(Shared { handle, uid, group: socket.group() });
    let app = router(shared).into_make_service_with_connect_info::<Peer>();
    let outcome = axum::serve(listener, app).await;
    drop(socket);
    outcome
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/sessions", get(sessions::sessions))
        .route("/v1/sessions/{id}", get(session))
        .route("/v1/sessions/{id}/history", get(history))
        .route("/v1/sessions/{id}/terminate", post(terminate))
        .route("/v1/metrics", get(metrics::metrics))
        .route("/v1/paths", get(paths))
        .route("/v1/jump", post(jump))
        .route("/v1/peers/reload", post(reload_peers))
        .route("/v1/reload", post(reload))
        .route("/v1/policy", get(policy))
        .route("/v1/policy/emergency", post(emergency))
        .route("/v1/events", get(stream::events))
        .fallback(|| async {
            Failure::not_found("no such page; see /v1/status, /v1/sessions, /v1/paths, /v1/metrics, /v1/events")
        })
        .layer(axum::middleware::from_fn_with_state(shared.clone(), only_admitted))
        .with_state(shared)
}

async fn only_admitted(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut http: Http,
    next: Next,
) -> Response {
    match peer.0 {
        Some(caller) if admits(caller, shared.uid, shared.group) => {
            http.extensions_mut().insert(caller);
            next.run(http).await
        }
        _ => Failure(StatusCode::FORBIDDEN, error("only root, this daemon's user and the group jvpn may ask"))
            .into_response(),
    }
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Failure(StatusCode, ErrorBody);

fn error(text: impl Into<String>) -> ErrorBody {
    ErrorBody { error: text.into(), reason: None, detail: None }
}

impl Failure {
    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, error(text))
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, error(text))
    }

    pub(super) fn busy(text: impl Into<String>) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error(text))
    }

    pub(super) fn broken(text: impl Into<String>) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error(text))
    }

    /// For an answer that has begun: it breaks off.
    pub(super) fn into_error(self) -> std::io::Error {
        std::io::Error::other(self.1.error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(Envelope::from(self.1))).into_response()
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound(text) => Self::not_found(text),
            Refused::Invalid(text) => Self::bad(text),
            Refused::Conflict(text) => Self(StatusCode::CONFLICT, error(text)),
            Refused::Failed(text) => Self::broken(text),
            Refused::Denied { reason, detail, text } => {
                let detail = detail.map(|detail| detail.name().to_owned());
                Self(StatusCode::CONFLICT, ErrorBody { error: text, reason: Some(reason.name().to_owned()), detail })
            }
        }
    }
}

type Answer<T> = Result<Json<Envelope<T>>, Failure>;

fn answer<T: Body>(body: T) -> Answer<T> {
    Ok(Json(body.into()))
}

fn busy() -> Failure {
    Failure::busy("the daemon is too busy to answer")
}

impl Shared {
    /// For pages that anybody may read; they have no caller.
    pub(super) fn without_socket(handle: Handle) -> Self {
        Self { handle, uid: rustix::process::geteuid().as_raw(), group: None }
    }

    /// Asks the event loop; a full queue, silence and a dropped reply are all answers.
    pub(super) async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.handle.requests.try_send(request(reply)).map_err(|_| busy())?;
        self.answered(answer).await
    }

    /// The same for a question that belongs to one that was answered: it waits for room.
    pub(super) async fn ask_on<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let sent = tokio::time::timeout(ANSWER_MAX, self.handle.requests.send(request(reply))).await;
        sent.ok().and_then(Result::ok).ok_or_else(busy)?;
        self.answered(answer).await
    }

    async fn answered<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, Failure> {
        match tokio::time::timeout(ANSWER_MAX, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Failure::broken("the daemon gave no answer")),
            Err(_) => Err(busy()),
        }
    }
}

async fn status(State(shared): State<Arc<Shared>>) -> Answer<Status> {
    answer(shared.ask(Request::Status).await?)
}

async fn session(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer<OneSession> {
    let (id, session) = shared.resolve(&id).await?;
    let session =
        session.ok_or_else(|| Failure::not_found(format!("no session is called {id}; its history may be known")))?;
    let bounds = shared.ask(|reply| Request::Standing { session: id, reply }).await?;
    answer(OneSession { session, bounds })
}

async fn history(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer<History> {
    let (id, session) = shared.resolve(&id).await?;
    let dir = shared.handle.feed.dir().to_path_buf();
    let read = tokio::task::spawn_blocking(move || audit::history(&dir, id)).await;
    let history = read
        .map_err(|error| Failure::broken(error.to_string()))?
        .map_err(|error| Failure::broken(error.to_string()))?;
    if history.is_empty() && session.is_none() {
        return Err(Failure::not_found(format!("no session is called {id}, now or in the record")));
    }
    answer(History { session_id: id.to_string(), history })
}

async fn paths(State(shared): State<Arc<Shared>>) -> Answer<Paths> {
    answer(Paths { paths: shared.ask(Request::Paths).await? })
}

/// What a jump is asked with.
#[derive(Debug, serde::Deserialize)]
struct JumpQuery {
    session: Option<String>,
    to: String,
    #[serde(default)]
    dry_run: bool,
}

async fn jump(
    State(shared): State<Arc<Shared>>,
    axum::Extension(by): axum::Extension<Caller>,
    Query(query): Query<JumpQuery>,
) -> Answer<Jumped> {
    let session = match query.session {
        Some(prefix) => Some(shared.resolve(&prefix).await?.0),
        None => None,
    };
    let jump = |reply| Request::Jump { session, to: query.to, dry_run: query.dry_run, by, reply };
    answer(shared.ask(jump).await??)
}

/// What a termination is asked with.
#[derive(Debug, serde::Deserialize)]
struct TerminateQuery {
    #[serde(default)]
    reason: EndReason,
    #[serde(default)]
    dry_run: bool,
}

async fn terminate(
    State(shared): State<Arc<Shared>>,
    axum::Extension(by): axum::Extension<Caller>,
    Path(id): Path<String>,
    Query(query): Query<TerminateQuery>,
) -> Answer<Terminated> {
    let (session, _) = shared.resolve(&id).await?;
    let TerminateQuery { reason: why, dry_run } = query;
    answer(shared.ask(|reply| Request::Terminate { session, why, dry_run, by, reply }).await??)
}

async fn reload_peers(
    State(shared): State<Arc<Shared>>,
    axum::Extension(by): axum::Extension<Caller>,
) -> Answer<Reloaded> {
    answer(shared.ask(|reply| Request::ReloadPeers { by, reply }).await??)
}

/// What a reload is asked with.
#[derive(Debug, serde::Deserialize)]
struct ReloadQuery {
    mode: Option<Mode>,
    #[serde(default)]
    dry_run: bool,
}

async fn reload(
    State(shared): State<Arc<Shared>>,
    axum::Extension(by): axum::Extension<Caller>,
    Query(query): Query<ReloadQuery>,
) -> Answer<Reload> {
    let ReloadQuery { mode, dry_run } = query;
    answer(shared.ask(|reply| Request::Reload { mode, dry_run, by, reply }).await??)
}

/// Whose policy is asked for.
#[derive(Debug, serde::Deserialize)]
struct PolicyQuery {
    peer: Option<String>,
}

async fn policy(State(shared): State<Arc<Shared>>, Query(query): Query<PolicyQuery>) -> Answer<PolicyView> {
    answer(shared.ask(|reply| Request::Policy { peer: query.peer, reply }).await??)
}

/// Whose emergency begins or ends.
#[derive(Debug, serde::Deserialize)]
struct EmergencyQuery {
    on: bool,
    whom: Option<String>,
}

async fn emergency(
    State(shared): State<Arc<Shared>>,
    axum::Extension(by): axum::Extension<Caller>,
    Query(query): Query<EmergencyQuery>,
) -> Answer<EmergencyState> {
    let EmergencyQuery { on, whom } = query;
    answer(shared.ask(|reply| Request::Emergency(Wish { on, whom, by }, reply)).await??)
}
