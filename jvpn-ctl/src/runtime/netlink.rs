//! The kernel's own tables: links, addresses, routes, neighbours.
//!
//! Owns the connection to netlink and the word that something changed. Must never say what: whoever asks reads all of
//! it anew, so that nothing hangs on a message that was lost.

use anyhow::{Context, Result};
use futures_util::stream::StreamExt;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::mpsc;

/// A connection to netlink and a channel that says "something changed".
#[derive(Debug)]
pub(super) struct Netlink {
    /// For questions.
    pub(super) handle: Handle,
    changes: mpsc::Receiver<()>,
}

impl Netlink {
    /// Connects and subscribes to changes of these kinds.
    ///
    /// # Errors
    /// When netlink is not there.
    pub(super) fn watch(groups: &[MulticastGroup]) -> Result<Self> {
        let (connection, _, mut messages) = rtnetlink::new_multicast_connection(groups).context("netlink")?;
        tokio::spawn(connection);
        let (questions, handle, _) = rtnetlink::new_connection().context("netlink")?;
        tokio::spawn(questions);
        // One is enough: whoever looks sees everything that changed until then.
        let (changed, changes) = mpsc::channel(1);
        tokio::spawn(async move {
            while messages.next().await.is_some() {
                if changed.is_closed() {
                    return;
                }
                let _ = changed.try_send(());
            }
        });
        Ok(Self { handle, changes })
    }

    /// Waits until something changed.
    pub(super) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
