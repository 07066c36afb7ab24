//! What an eavesdropper sees of a swarm: every sealed datagram between it and its gateway, both ways, by key and nonce.
//!
//! Owns the captures and the search for a nonce used twice. A locator belongs to one key set and one transport index for
//! ever; with direction, type and epoch it names the key, with the counter the nonce. Must never open anything.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use jvpn_common::limits::CONTROL_LEN;
use jvpn_common::wire::{Header, Kind};

use crate::lab::netns::Netns;
use crate::lab::tap::Tap;

/// How often what arrived is taken; the queue holds many times as much.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Bytes of that queue.
const QUEUE: usize = 32 << 20;

/// A key and one of its nonces: down or up, type, epoch, locator, counter.
type Nonce = (bool, u8, u8, u64, u64);

/// What was captured.
#[derive(Debug, Default)]
pub struct Captured {
    /// Each nonce with a hash over the whole datagram.
    nonces: HashMap<Nonce, u64>,
    /// Sealed datagrams, up and down.
    pub sealed: [u64; 2],
    /// Other datagrams of the gateway's port.
    pub others: u64,
    /// The same datagram seen again, byte for byte: it tells an eavesdropper nothing.
    pub copies: u64,
    /// The same nonce with other bytes.
    pub reused: Vec<String>,
    /// The last frames with requests and proofs of members.
    pub requests: VecDeque<Vec<u8>>,
}

/// Requests that are kept.
const REQUESTS: usize = 256;

impl Captured {
    fn frame(&mut self, frame: &[u8], port: u16) {
        let Some(payload) = datagram(frame, port) else { return };
        let header = Header::parse(payload).map(|(header, _)| header);
        let kind = payload.first().copied().and_then(Kind::from_byte);
        let (Some(header), Some(Kind::Data | Kind::Control)) = (header, kind) else {
            self.others += 1;
            return;
        };
        if kind == Some(Kind::Control) && payload.len() == CONTROL_LEN && header.flags == 0 {
            self.requests.push_back(frame.to_vec());
            self.requests.drain(..self.requests.len().saturating_sub(REQUESTS));
        }
        let down = header.flags & jvpn_common::wire::header::FLAG_DOWN != 0;
        self.sealed[usize::from(down)] += 1;
        let mut hasher = DefaultHasher::new();
        payload.hash(&mut hasher);
        let (nonce, whole) = ((down, header.kind, header.epoch, header.locator, header.counter), hasher.finish());
        match self.nonces.insert(nonce, whole) {
            Some(before) if before == whole => self.copies += 1,
            Some(_) => self.reused.push(format!("{header:?}")),
            None => {}
        }
    }

    /// Locators that sealed datagrams went under.
    pub fn locators(&self) -> impl Iterator<Item = u64> + '_ {
        self.nonces.keys().map(|(.., locator, _)| *locator)
    }
}

/// The payload of a UDP datagram over IPv4 from or to a port.
fn datagram(frame: &[u8], port: u16) -> Option<&[u8]> {
    let (ethernet, ip) = frame.split_at_checked(14)?;
    if ethernet.get(12..14)? != [8, 0] || ip.get(9)? != &17 {
        return None;
    }
    let udp = ip.get(usize::from(ip.first()? & 15) * 4..)?;
    let ports: &[u8; 4] = udp.first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*udp.get(4..)?.first_chunk()?));
    let port = port.to_be_bytes();
    if ports[..2] != port && ports[2..] != port {
        return None;
    }
    udp.get(8..length)
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Captured>>,
}

impl Capture {
    /// Captures what arrives on these interfaces: one towards the swarm, one towards the gateway.
    pub fn start(places: &[(Netns, &str)], port: u16) -> Result<Capture> {
        let taps = places.iter().map(|(space, interface)| Tap::with_queue(space, interface, QUEUE));
        let mut taps = taps.collect::<Result<Vec<_>>>()?;
        let stop = Arc::<AtomicBool>::default();
        let ends = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("capture".into()).spawn(move || {
            let mut captured = Captured::default();
            loop {
                // What came before the end is taken after it was seen.
                let last = ends.load(Ordering::SeqCst);
                for tap in &mut taps {
                    tap.each(|frame| captured.frame(frame, port));
                }
                if last {
                    return captured;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        })?;
        Ok(Capture { stop, thread: Some(thread) })
    }

    /// Ends it: everything there was.
    pub fn finish(mut self) -> Captured {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("it is taken once, here");
        thread.join().expect("the capture does not panic")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(counter: u64, text: u8) -> Vec<u8> {
        let header = Header { kind: 5, epoch: 0, flags: 0, tag: 0, locator: 7, counter };
        let payload = [&header.to_bytes()[..], &[text; 32]].concat();
        let udp = [&51_821_u16.to_be_bytes()[..], &[0, 9], &(8 + payload.len() as u16).to_be_bytes(), &[0, 0]].concat();
        let mut ip = vec![0x45; 20];
        ip[9] = 17;
        [&[0; 12][..], &[8, 0], &ip, &udp, &payload].concat()
    }

    #[test]
    fn a_nonce_with_other_bytes_is_reuse_and_the_same_datagram_again_is_a_copy() {
        let mut captured = Captured::default();
        for (counter, text) in [(0, 1), (1, 1), (1, 1)] {
            captured.frame(&frame(counter, text), 51_821);
        }
        assert_eq!((captured.sealed, captured.copies, captured.reused.len()), ([3, 0], 1, 0));
        captured.frame(&frame(0, 2), 51_821);
        assert_eq!(captured.reused.len(), 1);
        captured.frame(&frame(9, 2), 51_822);
        assert_eq!(captured.sealed, [4, 0], "another port is not ours");
    }
}
