//! The Unix socket: where it is, who may open it, and whether somebody listens already.
//!
//! Owns the socket file. Must never take over one that is alive, and must never leave its own behind.

use super::request::Caller;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Group that may use the API besides root and the daemon's own user.
const GROUP: &str = "jvpn";

/// A listening socket; dropped, its file is removed.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: Option<UnixListener>,
    path: PathBuf,
    inode: (u64, u64),
}

/// Why nobody can listen there.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A living daemon answers.
    #[error("{0} is in use by another jvpn-ctl")]
    Alive(PathBuf),
    /// The file or its directory cannot be used.
    #[error("{path}: {cause}", path = path.display())]
    Io {
        /// The socket or its directory.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

impl Socket {
    /// Listens at `path`, 0660 and of group `jvpn` where that exists. A file nobody listens on any more is replaced.
    ///
    /// # Errors
    /// Somebody listens, or the place cannot be used.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let io = |cause| SocketError::Io { path: path.into(), cause };
        if let Some(dir) = path.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(dir);
            made.map_err(|cause| SocketError::Io { path: dir.into(), cause })?;
            if let Some(group) = group_number() {
                // Best effort: without it only root and the daemon's user reach the socket, which is safe.
                let _ = std::os::unix::fs::chown(dir, None, Some(group));
            }
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(SocketError::Alive(path.into()));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(io)?;
        if let Some(group) = group_number() {
            let _ = std::os::unix::fs::chown(path, None, Some(group));
        }
        let meta = std::fs::metadata(path).map_err(io)?;
        Ok(Self { listener: Some(listener), path: path.into(), inode: (meta.dev(), meta.ino()) })
    }

    /// Group of the socket file.
    pub(super) fn group(&self) -> Option<u32> {
        std::fs::metadata(&self.path).ok().map(|meta| meta.gid())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let same = |meta: std::fs::Metadata| (meta.dev(), meta.ino()) == self.inode;
        if std::fs::metadata(&self.path).is_ok_and(same) {
            // A file that stays is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Number of the group `jvpn` in `/etc/group`.
pub(crate) fn group_number() -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let line = groups.lines().find(|line| line.split(':').next() == Some(GROUP))?;
    line.split(':').nth(2)?.parse().ok()
}

/// Who connected, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) Option<Caller>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let cred = stream.io().peer_cred().ok();
        Self(cred.map(|cred| Caller { uid: cred.uid(), gid: cred.gid(), pid: cred.pid() }))
    }
}

/// Whether a caller may use a socket of this owner and group. The file's mode lets through the same people; this
/// holds when somebody changed it.
pub(super) fn admits(caller: Caller, own_uid: u32, group: Option<u32>) -> bool {
    let in_group = || group.is_some_and(|group| caller.gid == group || further_groups(caller.pid).contains(&group));
    caller.uid == 0 || caller.uid == own_uid || in_group()
}

/// A process's further groups, which SO_PEERCRED does not carry.
fn further_groups(pid: Option<i32>) -> Vec<u32> {
    let status = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok()).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_whitespace().filter_map(|group| group.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_own_user_and_the_group_are_let_in_and_nobody_else() {
        let caller = |uid, gid| Caller { uid, gid, pid: None };
        assert!(admits(caller(0, 0), 7, None));
        assert!(admits(caller(7, 7), 7, None));
        assert!(admits(caller(9, 50), 7, Some(50)));
        assert!(!admits(caller(9, 51), 7, Some(50)));
        assert!(!admits(caller(9, 9), 7, None));
    }

    #[tokio::test]
    async fn a_living_socket_is_refused_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/gateway.sock");
        let first = Socket::bind(&path).expect("listens");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o660);
        assert!(matches!(Socket::bind(&path), Err(SocketError::Alive(_))));
        drop(first);
        assert!(!path.exists(), "its own file is removed");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a file nobody listens on"));
        Socket::bind(&path).expect("replaced");
    }
}
