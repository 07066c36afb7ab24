//! The other end of the socket: what verbs use to ask a running daemon.
//!
//! Owns finding the socket and turning answers into values. Must never guess between two daemons.

use super::model::{Envelope, ErrorBody};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// Largest answer that is not a stream: some ten thousand sessions.
const ANSWER_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no jvpn-ctl is running at {0}")]
    NoDaemon(PathBuf),
    /// More than one daemon could be meant.
    #[error("several daemons are running: {}", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    Several(Vec<PathBuf>),
    /// The socket may not be opened by this user.
    #[error("{0} may not be opened by this user")]
    Denied(PathBuf),
    /// The daemon said no.
    #[error("{}", .body.error)]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// What it said.
        body: ErrorBody,
    },
    /// The exchange broke.
    #[error("{socket}: {cause}", socket = socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        cause: String,
    },
}

/// A daemon that can be asked.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon at a socket.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    /// The one daemon of a run directory.
    ///
    /// # Errors
    /// None, or several, are running.
    pub fn find(run_dir: &Path) -> Result<Self, ClientError> {
        let entries = std::fs::read_dir(run_dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => ClientError::Denied(run_dir.into()),
            _ => ClientError::NoDaemon(run_dir.into()),
        })?;
        let sockets = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let sockets = sockets.filter(|path| path.extension().is_some_and(|extension| extension == "sock"));
        // One left behind by a killed daemon is not a daemon.
        let dead = |path: &PathBuf| {
            std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        let mut alive: Vec<_> = sockets.filter(|path| !dead(path)).collect();
        alive.sort();
        match alive.as_slice() {
            [] => Err(ClientError::NoDaemon(run_dir.into())),
            [socket] => Ok(Self::at(socket)),
            _ => Err(ClientError::Several(alive)),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for a page.
    ///
    /// # Errors
    /// No daemon, or it said no.
    pub async fn get<T: DeserializeOwned>(&self, page: &str) -> Result<T, ClientError> {
        self.value(Method::GET, page).await
    }

    /// Asks for a page that is text.
    ///
    /// # Errors
    /// No daemon, or it said no.
    pub async fn text(&self, page: &str) -> Result<String, ClientError> {
        let response = self.send(Method::GET, page).await?;
        let bytes = self.whole(response).await?;
        String::from_utf8(bytes.into()).map_err(|error| self.broken(error))
    }

    /// Commands something.
    ///
    /// # Errors
    /// No daemon, or it said no.
    pub async fn post<T: DeserializeOwned>(&self, page: &str) -> Result<T, ClientError> {
        self.value(Method::POST, page).await
    }

    async fn value<T: DeserializeOwned>(&self, method: Method, page: &str) -> Result<T, ClientError> {
        let response = self.send(method, page).await?;
        let bytes = self.whole(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(error))
    }

    /// Asks for a stream of lines and hands over each; ends when the stream or `each` does.
    ///
    /// # Errors
    /// No daemon, or it said no.
    pub async fn lines(
        &self,
        page: &str,
        mut each: impl FnMut(&str) -> std::io::Result<()>,
    ) -> Result<(), ClientError> {
        let mut body = self.send(Method::GET, page).await?.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(error))?;
            pending.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let rest = pending.split_off(end + 1);
                let line = String::from_utf8_lossy(pending.get(..end).unwrap_or_default());
                // A closed pipe ends the reading, as `head` expects.
                if each(&line).is_err() {
                    return Ok(());
                }
                pending = rest;
            }
        }
        Ok(())
    }

    async fn send(&self, method: Method, page: &str) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => ClientError::Denied(self.socket.clone()),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                ClientError::NoDaemon(self.socket.clone())
            }
            _ => self.broken(error),
        })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken(error))?;
        tokio::spawn(connection);
        let request = hyper::Request::builder().method(method).uri(page).header("host", "jvpn");
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.broken(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = self.whole(response).await?;
        let body = serde_json::from_slice::<Envelope<ErrorBody>>(&bytes).map(|envelope| envelope.body);
        let body = body.unwrap_or_else(|_| ErrorBody {
            error: String::from_utf8_lossy(&bytes).into_owned(),
            reason: None,
            detail: None,
        });
        Err(ClientError::Refused { status, body })
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let limited = http_body_util::Limited::new(response.into_body(), ANSWER_MAX);
        let collected = limited.collect().await.map_err(|error| self.broken(error))?;
        Ok(collected.to_bytes())
    }

    fn broken(&self, cause: impl std::fmt::Display) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), cause: cause.to_string() }
    }
}
