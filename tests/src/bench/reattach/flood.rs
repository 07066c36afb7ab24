//! Somebody without a key who asks for handshakes as fast as a gateway can make them. Owns the messages and the addresses
//! they come from. Never ends by itself, and never asks for less than it was told without saying so.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use jvpn_common::crypto::cookie::{MAC_LEN, MacKeys};
use jvpn_common::crypto::frame::wrap;
use jvpn_common::crypto::noise::Initiator;
use jvpn_common::message::handshake::HELLO_LEN;
use jvpn_common::message::{HandshakePurpose, Hello};
use jvpn_common::secret::{PresharedKey, PrivateKey, PublicKey};
use jvpn_common::wire::Kind;
use jvpn_ctl::runtime::clock::wall;
use jvpn_ctl::runtime::entropy::System;

use crate::lab::netns::Netns;

/// Addresses it has. The gateway lets 100 handshakes a second in from each.
const ADDRESSES: u32 = 64;
/// The first of them: the swarm's members are far below.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 66, 200, 1);
/// Between two bursts.
const STEP: Duration = Duration::from_millis(1);

/// Messages 1 made beforehand, each with an ephemeral of its own: making them takes as long as answering them.
#[derive(Debug)]
pub struct Shots {
    noise: Vec<Vec<u8>>,
    gateway: PublicKey,
}

impl Shots {
    /// So many, of as few strangers as there are addresses.
    ///
    /// # Errors
    /// When the handshake's own code refuses.
    pub fn make(count: usize, gateway: PublicKey) -> Result<Shots> {
        let strangers: Vec<_> = (0..ADDRESSES).map(|_| PrivateKey::generate(&mut System)).collect();
        let hello = Hello { purpose: HandshakePurpose::Birth, timestamp: wall(), suites: vec![1] }.encode(HELLO_LEN);
        let noise =
            strangers.iter().cycle().take(count).map(|stranger| {
                Initiator::new(stranger, &gateway, &PresharedKey::none(), &mut System)?.message1(&hello)
            });
        Ok(Shots { noise: noise.collect::<Result<_, _>>()?, gateway })
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// Messages 1 that were sent for the first time.
    pub asked: u64,
    /// Those that were answered with a cookie.
    pub cookies: u64,
    /// Those that were sent once more with it: each costs the gateway a Diffie-Hellman.
    pub proven: u64,
}

/// A flood under way. Dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Told>>>,
}

impl Flood {
    /// Sends the shots at `rate` a second from `space` to `gateway`; who `proves` comes back with the cookie it is given.
    #[must_use]
    pub fn begin(space: Netns, gateway: SocketAddr, shots: Arc<Shots>, rate: u32, proves: bool) -> Flood {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            space.join()?;
            Gun::new(gateway, &shots, proves)?.fire(rate, &stopped)
        });
        Flood { stop, thread: Some(thread) }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it could not send, or ran out of messages.
    pub fn end(mut self) -> Result<Told> {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().context("it runs until it is ended")?;
        thread.join().map_err(|_| anyhow!("the flood's thread panicked"))?
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// Whoever sends.
struct Gun<'a> {
    sockets: Vec<UdpSocket>,
    shots: &'a Shots,
    keys: MacKeys,
    /// What opens the reply to a shot.
    mac1: Vec<[u8; MAC_LEN]>,
    proves: bool,
    told: Told,
}

impl<'a> Gun<'a> {
    fn new(gateway: SocketAddr, shots: &'a Shots, proves: bool) -> Result<Self> {
        let sockets = (0..ADDRESSES).map(|number| {
            let socket = UdpSocket::bind((Ipv4Addr::from_bits(FIRST.to_bits() + number), 0))?;
            socket.set_nonblocking(true)?;
            socket.connect(gateway)?;
            Ok(socket)
        });
        let sockets = sockets.collect::<std::io::Result<_>>().context("sockets of a flood")?;
        Ok(Self { sockets, shots, keys: MacKeys::new(&shots.gateway), mac1: Vec::new(), proves, told: Told::default() })
    }

    fn fire(mut self, rate: u32, stop: &AtomicBool) -> Result<Told> {
        let began = Instant::now();
        while !stop.load(Relaxed) {
            let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as usize;
            ensure!(due < self.shots.noise.len(), "out of messages after {:?}", began.elapsed());
            // A burst that is too late is sent all the same: a flood makes up for what it was held up.
            (self.mac1.len()..due).for_each(|number| self.ask(number));
            if self.proves {
                self.prove();
            }
            std::thread::sleep(STEP);
        }
        Ok(self.told)
    }

    /// The socket of a shot.
    fn of(&self, number: usize) -> &UdpSocket {
        &self.sockets[number % self.sockets.len()]
    }

    fn ask(&mut self, number: usize) {
        let index = u32::try_from(number).unwrap_or(u32::MAX);
        let (bytes, mac1) = wrap(Kind::Initiation, index, &self.shots.noise[number], &self.keys, None);
        self.mac1.push(mac1);
        // Refused is lost.
        self.told.asked += u64::from(self.of(number).send(&bytes).is_ok());
    }

    /// Comes back with every cookie that is there.
    fn prove(&mut self) {
        let mut buffer = [0; 2_048];
        for socket in 0..self.sockets.len() {
            while let Ok(length) = self.sockets[socket].recv(&mut buffer) {
                let Some(number) = index_of(&buffer[..length]).filter(|number| *number < self.mac1.len()) else {
                    continue;
                };
                let Ok((index, cookie)) = self.keys.open_reply(&buffer[..length], &self.mac1[number]) else { continue };
                self.told.cookies += 1;
                let (bytes, _) = wrap(Kind::Initiation, index, &self.shots.noise[number], &self.keys, Some(&cookie));
                self.told.proven += u64::from(self.of(number).send(&bytes).is_ok());
            }
        }
    }
}

/// The index that a handshake message or a reply to it names.
fn index_of(message: &[u8]) -> Option<usize> {
    let index = message.get(4..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*index)).ok()
}
