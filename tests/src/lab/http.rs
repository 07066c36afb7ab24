//! Owns the download: a paced HTTP server on the LAN host and a client that reads one response over one TCP
//! connection. Never retries: a broken connection is the finding.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::clock::{now_ns, sleep_until};
use super::netns::Netns;

/// One chunk of content, and the grain of the pace.
const CHUNK: usize = 65_536;
/// 10 MB/s: the transfer lasts as long as the acts, and leaves the processors to the product.
const BYTES_PER_S: u64 = 10_000_000;
/// A connection that is silent for longer has died: TCP retries for minutes, people do not.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);
const ACCEPT_NOTICE: Duration = Duration::from_millis(20);

/// Chunk number `index` of the content: the same on every machine and in every run.
pub fn chunk(index: u64) -> Vec<u8> {
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(CHUNK);
    while bytes.len() < CHUNK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// SHA-256, in hex, of the first `chunks` chunks: what a correct download must have.
pub fn expected_sha256(chunks: u64) -> String {
    let mut hash = Sha256::new();
    for index in 0..chunks {
        hash.update(chunk(index));
    }
    hex::encode(hash.finalize())
}

/// The server. It sends until it is told to finish.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    finish: AtomicBool,
    connections: AtomicU64,
    peer: Mutex<Option<SocketAddr>>,
}

impl Server {
    pub fn start(space: &Netns, ip: IpAddr) -> Result<Server> {
        let listener = space.enter(|| TcpListener::bind((ip, 8080)).with_context(|| format!("HTTP server on {ip}")))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let inner = Arc::clone(&shared);
        let thread = thread::Builder::new().name("http-server".into()).spawn(move || accept(&listener, &inner))?;
        Ok(Server { address, shared, thread: Some(thread) })
    }

    /// Ends the response after the chunk being sent.
    pub fn finish(&self) {
        self.shared.finish.store(true, Ordering::Relaxed);
    }

    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The client as the server sees it.
    pub fn peer(&self) -> Option<SocketAddr> {
        *self.shared.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((stream, peer)) = listener.accept() else {
            thread::sleep(ACCEPT_NOTICE);
            continue;
        };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        *shared.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // What the client saw is reported; the server's view of a broken pipe adds nothing.
            let _ = serve(stream, &shared);
        });
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(SILENCE_LIMIT))?;
    let mut request = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    let mut due = now_ns();
    for index in 0u64.. {
        if shared.stop.load(Ordering::Relaxed) || shared.finish.load(Ordering::Relaxed) {
            break;
        }
        sleep_until(due);
        // After an outage the pace goes on from now: catching up would be a burst.
        due = due.max(now_ns().saturating_sub(50_000_000)) + CHUNK as u64 * 1_000_000_000 / BYTES_PER_S;
        let mut framed = format!("{CHUNK:x}\r\n").into_bytes();
        framed.extend(chunk(index));
        framed.extend(b"\r\n");
        stream.write_all(&framed)?;
    }
    stream.write_all(b"0\r\n\r\n")
}

/// The end of a download.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finished {
    pub bytes: u64,
    pub sha256: String,
    pub sha256_right: bool,
}

/// A running download over one connection.
#[derive(Debug)]
pub struct Download {
    pub local: SocketAddr,
    bytes: Arc<AtomicU64>,
    /// (CLOCK_MONOTONIC ns, bytes so far), about every 10 ms.
    progress: Arc<Mutex<Vec<(u64, u64)>>>,
    thread: Option<JoinHandle<Result<Finished>>>,
    stream: TcpStream,
}

impl Download {
    pub fn start(space: &Netns, server: SocketAddr) -> Result<Download> {
        let stream = space.enter(|| {
            TcpStream::connect_timeout(&server, Duration::from_secs(10)).with_context(|| format!("connect to {server}"))
        })?;
        stream.set_read_timeout(Some(SILENCE_LIMIT))?;
        let local = stream.local_addr()?;
        let (bytes, progress) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::default()));
        let (counter, log) = (Arc::clone(&bytes), Arc::clone(&progress));
        let reader = stream.try_clone()?;
        let thread =
            thread::Builder::new().name("download".into()).spawn(move || download(reader, server, &counter, &log))?;
        Ok(Download { local, bytes, progress, thread: Some(thread), stream })
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether bytes arrived between two instants.
    pub fn advanced(&self, from_ns: u64, to_ns: u64) -> bool {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.iter().any(|(at, _)| (from_ns..to_ns).contains(at))
    }

    /// Whether the connection has not ended.
    pub fn alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Waits for the end; call `Server::finish` first.
    pub fn finish(mut self) -> Result<Finished> {
        let thread = self.thread.take().context("a download finishes once")?;
        thread.join().unwrap_or_else(|_| bail!("the download's thread panicked"))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Wakes the reader when the download is given up.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn download(
    mut stream: TcpStream,
    server: SocketAddr,
    counter: &AtomicU64,
    progress: &Mutex<Vec<(u64, u64)>>,
) -> Result<Finished> {
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {server}\r\n\r\n").as_bytes())?;
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200"), "the server answered {line:?}");
    while line.len() > 2 {
        line.clear();
        reader.read_line(&mut line)?;
    }
    let mut hash = Sha256::new();
    let (mut total, mut chunks) = (0u64, 0u64);
    let mut buffer = vec![0u8; 16_384];
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the connection ended after {total} bytes");
        let length = usize::from_str_radix(line.trim(), 16).context("chunk length")?;
        let mut left = length;
        while left > 0 {
            let part = left.min(buffer.len());
            reader.read_exact(&mut buffer[..part]).with_context(|| format!("after {total} bytes"))?;
            hash.update(&buffer[..part]);
            left -= part;
            total += part as u64;
            counter.store(total, Ordering::Relaxed);
        }
        let mut end = [0u8; 2];
        reader.read_exact(&mut end)?;
        if length == 0 {
            break;
        }
        chunks += 1;
        progress.lock().unwrap_or_else(PoisonError::into_inner).push((now_ns(), total));
    }
    let sha256 = hex::encode(hash.finalize());
    let sha256_right = sha256 == expected_sha256(chunks);
    Ok(Finished { bytes: total, sha256, sha256_right })
}
