//! Calling owners: a stream to each, made again whenever it ends.
//!
//! Owns the waits between calls. Must never give an owner up: its sessions depend on being heard again.

use crate::config::OwnerPeer;
use crate::runtime::entropy::System;
use crate::runtime::stream;
use anyhow::{Context as _, Result};
use jvpn_common::crypto::link::Caller;
use jvpn_common::relay::{ToOwner, ToRelay};
use jvpn_common::secret::PrivateKey;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Waits between two calls: the first soon, since a restarted owner is back in a second.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// See [`FIRST_WAIT`]. A lease is long over by then; more would only add to the outage.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Frames that wait for the stream: acknowledgements, mostly.
const SAID_MAX: usize = 65_536;

/// What a stream tells the loop.
#[derive(Debug)]
pub(super) enum Event {
    /// The owner answered: frames for it go here.
    Connected { owner: u16, say: mpsc::Sender<Vec<u8>> },
    /// It said something.
    Said { owner: u16, frame: ToRelay },
    /// The stream ended, and why.
    Gone { owner: u16, why: String },
}

/// Calls an owner for ever.
pub(super) async fn call(owner: u16, peer: OwnerPeer, key: Arc<PrivateKey>, tell: mpsc::Sender<Event>) {
    let mut wait = FIRST_WAIT;
    loop {
        let mut answered = false;
        let ended = converse(owner, &peer, &key, &tell, &mut answered).await;
        let why = ended.err().map(|error| format!("{error:#}")).unwrap_or_default();
        if tell.send(Event::Gone { owner, why }).await.is_err() {
            return;
        }
        wait = if answered { FIRST_WAIT } else { (wait * 2).min(WAIT_MAX) };
        tokio::time::sleep(wait).await;
    }
}

async fn converse(
    owner: u16,
    peer: &OwnerPeer,
    key: &PrivateKey,
    tell: &mpsc::Sender<Event>,
    answered: &mut bool,
) -> Result<()> {
    let (mut stream, link) = stream::in_time(async {
        let mut stream = TcpStream::connect(peer.control).await.with_context(|| format!("calling {}", peer.control))?;
        stream.set_nodelay(true)?;
        let mut caller = Caller::new(key, &peer.public_key, &mut System)?;
        stream::write(&mut stream, &caller.call()?).await?;
        let answer =
            stream::read(&mut stream).await.context("it does not know this relay's key, or has another one")?;
        Ok((stream, caller.answered(&answer)?))
    })
    .await?;
    let mut link = link;
    let hello = link.seal(&ToOwner::hello(vec![peer.address]).to_bytes())?;
    stream::write(&mut stream, &hello).await?;
    let (say, said) = mpsc::channel(SAID_MAX);
    tell.send(Event::Connected { owner, say }).await?;
    *answered = true;
    // Frames wait here for the loop: an owner that says more than a snapshot at once is not one of ours.
    stream::carry(stream, link, said, false, |frame| match ToRelay::from_bytes(frame) {
        Some(frame) => tell.try_send(Event::Said { owner, frame }).is_ok(),
        None => false,
    })
    .await
}
