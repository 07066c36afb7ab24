//! `/v1/metrics` on the socket, `/metrics` on loopback TCP where the configuration asks for it.
//!
//! Owns both ways to the numbers. Whoever may log in to the host may read the TCP one, so it has nothing else: no other page,
//! no command, no label that names a peer.

use super::model::{Envelope, ErrorBody};
use super::request::Request;
use super::server::{Failure, Handle, Shared};
use crate::observe::metrics::CONTENT_TYPE;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// In which form.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    #[default]
    Text,
    Json,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct MetricsQuery {
    #[serde(default)]
    form: Form,
}

pub(super) async fn metrics(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<MetricsQuery>,
) -> Result<Response, Failure> {
    let mut all = shared.ask(Request::Metrics).await?;
    shared.handle.feed.expose(&mut all);
    Ok(match query.form {
        Form::Text => ([("content-type", CONTENT_TYPE)], all.text()).into_response(),
        Form::Json => Json(Envelope::from(all.document())).into_response(),
    })
}

/// Takes the address; the caller made sure that it is a loopback one.
pub(super) fn bind(at: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Answers there until the future is dropped.
pub(super) async fn serve(listener: TcpListener, handle: Handle) -> std::io::Result<()> {
    let shared = Arc::new(Shared::without_socket(handle));
    let nothing = || async {
        let error = ErrorBody { error: "there is /metrics and nothing else".to_owned(), reason: None, detail: None };
        (axum::http::StatusCode::NOT_FOUND, Json(Envelope::from(error)))
    };
    let pages = Router::new().route("/metrics", get(metrics)).route("/v1/metrics", get(metrics)).fallback(nothing);
    axum::serve(listener, pages.with_state(shared)).await
}
