//! Owns a TCP transfer that takes all it is given and fills every buffer on its way, until it is told to end. Never judges how
//! fast it was.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use socket2::SockRef;

use super::fault::Fault;
use super::netns::Netns;

/// Longest a call may stand still, so that the end is noticed.
const NOTICE: Duration = Duration::from_millis(100);
/// Doubles what is on its way until something is lost.
const RENO: &[u8] = b"reno";
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Begins one, as a fault: it ends when that does, which is an error if nothing arrived.
///
/// # Errors
/// When the two ends do not come together.
pub fn begin(from: &Netns, to: (&Netns, IpAddr)) -> Result<Fault> {
    let listener = to.0.enter(|| TcpListener::bind((to.1, 0)).context("a listener for a transfer"))?;
    let address = listener.local_addr()?;
    let (stop, arrived) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let sender = from.enter(|| TcpStream::connect_timeout(&address, CONNECT_LIMIT).context("begin a transfer"))?;
    // The kernel's usual one leaves slow start when packets begin to wait, and fills a buffer of a second in no ten.
    SockRef::from(&sender).set_tcp_congestion(RENO).context("no reno in this kernel")?;
    let (receiver, _) = listener.accept()?;
    let threads = [
        named("bulk-send", &stop, move |stop| send(sender, &stop))?,
        named("bulk-receive", &stop, {
            let arrived = Arc::clone(&arrived);
            move |stop| receive(receiver, &arrived, &stop)
        })?,
    ];
    Ok(Fault::undone_by(move || {
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a thread of a transfer panicked"))?;
        }
        ensure!(arrived.load(Ordering::Relaxed) > 0, "nothing of the transfer to {address} arrived");
        Ok(())
    }))
}

fn named(
    name: &str,
    stop: &Arc<AtomicBool>,
    work: impl FnOnce(Arc<AtomicBool>) + Send + 'static,
) -> Result<JoinHandle<()>> {
    let stop = Arc::clone(stop);
    Ok(thread::Builder::new().name(name.into()).spawn(move || work(stop))?)
}

fn send(mut stream: TcpStream, stop: &AtomicBool) {
    let filling = vec![0x5a; 64 << 10];
    // Without a limit a call could stand still for as long as the path does.
    let limited = stream.set_write_timeout(Some(NOTICE)).is_ok();
    while limited && !stop.load(Ordering::Relaxed) {
        match stream.write(&filling) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            // The other end is gone; what arrived tells.
            Err(_) => return,
        }
    }
}

fn receive(mut stream: TcpStream, arrived: &AtomicU64, stop: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    let limited = stream.set_read_timeout(Some(NOTICE)).is_ok();
    while limited && !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => drop(arrived.fetch_add(length as u64, Ordering::Relaxed)),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}
