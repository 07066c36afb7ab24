//! The TCP stream between a relay and an owner: length-prefixed frames, each way in order.
//!
//! Owns reading, writing and the end of one stream: whichever half fails ends both. Must never hold a frame back for
//! another one, nor let a slow reader grow a queue: one that is full ends the stream, and a new one starts whole.

use anyhow::{Context as _, Result, bail};
use jvpn_common::crypto::link::{FRAME_MAX, Link, SEALED_BY};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long the other side may take for its part of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a write may take. The other side reads all the time; a path that is dead this long carries no lease.
const WRITE: Duration = Duration::from_secs(5);
/// Without a frame from its owner for this long a relay's stream is dead: leases come ten times a second.
const SILENCE: Duration = Duration::from_secs(3);

/// Reads one frame as it travels.
///
/// # Errors
/// When the stream ends, or the length cannot be.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>> {
    let len = usize::from(stream.read_u16_le().await?);
    if len == 0 || len > FRAME_MAX + SEALED_BY {
        bail!("a frame of {len} bytes");
    }
    let mut frame = vec![0; len];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

/// Writes one frame as it travels.
///
/// # Errors
/// When the stream ends, or the other side does not read.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> Result<()> {
    let len = u16::try_from(frame.len()).context("a frame longer than any")?;
    let mut bytes = Vec::with_capacity(2 + frame.len());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(frame);
    timeout(WRITE, stream.write_all(&bytes)).await.context("the other side does not read")??;
    Ok(())
}

/// One part of a handshake, within its time.
pub(super) async fn in_time<T>(part: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(HANDSHAKE, part).await.context("the other side does not answer")?
}

/// Carries frames until the stream ends: opened ones go to `heard`, which says whether to go on; those of `said` are
/// sealed and written. `patient`: whether the other side may be silent.
///
/// # Errors
/// Why it ended.
pub(super) async fn carry(
    stream: TcpStream,
    link: Link,
    mut said: mpsc::Receiver<Vec<u8>>,
    patient: bool,
    mut heard: impl FnMut(&[u8]) -> bool,
) -> Result<()> {
    let link = Rc::new(RefCell::new(link));
    let (mut reads, mut writes) = stream.into_split();
    let reading = async {
        loop {
            let frame = if patient {
                read(&mut reads).await?
            } else {
                timeout(SILENCE, read(&mut reads)).await.context("nothing was heard for too long")??
            };
            let frame = link.borrow_mut().open(&frame)?;
            if !heard(&frame) {
                bail!("the other side said what it may not");
            }
        }
    };
    let writing = async {
        while let Some(frame) = said.recv().await {
            let sealed = link.borrow_mut().seal(&frame)?;
            write(&mut writes, &sealed).await?;
        }
        bail!("closed on this side")
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::entropy::System;
    use jvpn_common::crypto::link::{Caller, answer};
    use jvpn_common::secret::PrivateKey;
    use tokio::net::TcpListener;

    async fn pair() -> ((TcpStream, Link), (TcpStream, Link)) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (relay, owner) = (PrivateKey::generate(&mut System), PrivateKey::generate(&mut System));
        let mut caller = Caller::new(&relay, &owner.public(), &mut System).unwrap();
        let mut calling = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut called, _) = listener.accept().await.unwrap();
        write(&mut calling, &caller.call().unwrap()).await.unwrap();
        let (who, message, link) = answer(&owner, &read(&mut called).await.unwrap(), &mut System, |_| true).unwrap();
        assert_eq!(who, relay.public());
        write(&mut called, &message).await.unwrap();
        let message = read(&mut calling).await.unwrap();
        ((calling, caller.answered(&message).unwrap()), (called, link))
    }

    #[tokio::test]
    async fn frames_arrive_in_order_and_one_that_is_refused_ends_the_stream() {
        let ((calling, relay), (called, owner)) = pair().await;
        let (say, said) = mpsc::channel(8);
        for frame in [&b"one"[..], b"two", b"stop"] {
            say.send(frame.to_vec()).await.unwrap();
        }
        let mut heard = Vec::new();
        let (_keep, nothing) = mpsc::channel(1);
        let carrying = carry(called, owner, nothing, true, |frame| {
            heard.push(frame.to_vec());
            frame != b"stop"
        });
        let (ended, _) = tokio::join!(carrying, async { carry(calling, relay, said, true, |_| true).await });
        assert!(ended.unwrap_err().to_string().contains("may not"));
        assert_eq!(heard, [b"one".to_vec(), b"two".to_vec(), b"stop".to_vec()]);
    }

    #[tokio::test]
    async fn garbage_ends_the_stream() {
        let ((mut calling, _), (called, owner)) = pair().await;
        write(&mut calling, &[7; 40]).await.unwrap();
        let (_keep, nothing) = mpsc::channel(1);
        let ended = carry(called, owner, nothing, true, |_| panic!("nothing opened")).await;
        assert!(ended.is_err());
    }
}
