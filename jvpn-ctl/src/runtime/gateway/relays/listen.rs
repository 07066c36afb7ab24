//! Hearing relays: the TCP port, the handshake, and the tasks that carry frames.
//!
//! Owns how many strangers may be half way through a handshake. Must never count a caller before its HELLO opened: the
//! first message of the handshake can be replayed by anybody who saw it.

use super::{EVENTS_MAX, Event};
use crate::runtime::entropy::System;
use crate::runtime::stream;
use anyhow::{Result, bail};
use jvpn_common::crypto::link::answer;
use jvpn_common::ids::RelayId;
use jvpn_common::relay::ToOwner;
use jvpn_common::secret::{PrivateKey, PublicKey};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

/// Callers between SYN and HELLO at once. Each holds a socket for at most 10 s.
const STRANGERS_MAX: usize = 64;
/// Connections the kernel keeps for us.
const BACKLOG: i32 = 128;

/// Who we are and whom we know.
pub(super) struct Who {
    pub(super) key: Arc<PrivateKey>,
    pub(super) known: BTreeMap<PublicKey, RelayId>,
    /// Frames a relay may be behind with.
    pub(super) behind: usize,
}

/// Listens on both families and serves every relay that calls.
pub(super) fn start(port: u16, who: Who, tell: mpsc::Sender<Event>) -> Result<()> {
    let who = Rc::new(who);
    let strangers = Rc::new(Semaphore::new(STRANGERS_MAX));
    let v4 = listener(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    let v6 = match listener(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(%error, port, "relays are heard over IPv4 only");
            None
        }
    };
    for (at, listener) in std::iter::once(v4).chain(v6).enumerate() {
        let (who, tell, strangers) = (Rc::clone(&who), tell.clone(), Rc::clone(&strangers));
        tokio::task::spawn_local(async move {
            // Streams of both listeners are told apart by their number.
            let mut number = at as u64;
            loop {
                number += 2;
                match listener.accept().await {
                    Ok((stream, from)) => serve(stream, from, number, &who, &tell, &strangers),
                    // Out of descriptors, mostly: the next turn may have some.
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a relay");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        });
    }
    Ok(())
}

fn listener(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into())?)
}

fn serve(
    stream: TcpStream,
    from: SocketAddr,
    number: u64,
    who: &Rc<Who>,
    tell: &mpsc::Sender<Event>,
    strangers: &Rc<Semaphore>,
) {
    let (who, tell, strangers) = (Rc::clone(who), tell.clone(), Rc::clone(strangers));
    tokio::task::spawn_local(async move {
        if let Err(error) = converse(stream, number, &who, &tell, &strangers).await {
            tracing::info!(%from, error = format!("{error:#}"), "a relay's stream ended");
        }
    });
}

async fn converse(
    mut stream: TcpStream,
    number: u64,
    who: &Who,
    tell: &mpsc::Sender<Event>,
    strangers: &Semaphore,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let Ok(stranger) = strangers.try_acquire() else { bail!("too many strangers at once") };
    let (relay, mut link) = stream::in_time(async {
        let call = stream::read(&mut stream).await?;
        let (caller, message, link) = answer(&who.key, &call, &mut System, |key| who.known.contains_key(key))?;
        stream::write(&mut stream, &message).await?;
        let Some(relay) = who.known.get(&caller) else { bail!("nobody we know") };
        Ok((*relay, link))
    })
    .await?;
    let hello = stream::in_time(async { Ok(link.open(&stream::read(&mut stream).await?)?) }).await?;
    let Some(hello @ ToOwner::Hello { .. }) = ToOwner::from_bytes(&hello) else { bail!("no HELLO") };
    drop(stranger);
    let (out, said) = mpsc::channel(who.behind.max(EVENTS_MAX));
    tell.send(Event::Connected { relay, stream: number, out, hello }).await?;
    let ended = stream::carry(stream, link, said, true, |frame| match ToOwner::from_bytes(frame) {
        // The loop is behind by more events than relays can cause by being well: this one is not.
        Some(frame) => tell.try_send(Event::Said { relay, stream: number, frame }).is_ok(),
        None => false,
    })
    .await;
    tell.send(Event::Gone { relay, stream: number }).await?;
    ended
}
