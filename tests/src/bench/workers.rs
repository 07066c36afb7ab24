//! `bench workers`: how much faster two workers empty their sockets than one, each on a processor of its own. Owns the sealed packets
//! and the stopwatch. Never shares the processors with whoever sends: everything waits in the sockets before a worker begins.
//!
//! ```text
//! senders, a session each ── UDP_SEGMENT ──► sockets by locator, filled ── then: workers ──► TUN queues ──► no route
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant as Clock};

use anyhow::{Context, Result, ensure};
use jvpn_common::crypto::Suite;
use jvpn_common::ids::{Epoch, Locator, SessionId};
use jvpn_common::secret::Secret;
use jvpn_common::time::Instant;
use jvpn_common::wire::header::FLAG_DOWN;
use jvpn_common::wire::{Header, Kind};
use jvpn_ctl::tunnel::{
    DataKey, FromWorker, Inbound, Inbox, Inner, Origin, Role, Route, SessionData, Tun, TunOptions, UdpOptions, UdpPort,
    Worker, WorkerHandle, WorkerOptions, to_controller,
};

use super::Options;
use super::document::{Better, Contender, Document, Metric, Wanted};
use super::machine::{self, Watched};
use super::rig::{INNER_MTU, PORT, SOCKET, inner4};
use super::underlay::Underlay;

/// Rounds, and fillings of each.
const FULL: (u32, u32) = (9, 40);
const QUICK: (u32, u32) = (1, 5);
/// Sessions, half of them each worker's.
const SESSIONS: u8 = 8;
/// Packets of each session in a filling: together below what the buffer of one socket takes.
const PACKETS: u16 = 256;
/// In one send; the kernel takes 64.
const SEGMENTS: usize = 32;
/// How long workers spin before they begin together: by then the scheduler has given each a processor.
const SPREAD: Duration = Duration::from_millis(20);
/// What a filling may take to be carried.
const PATIENCE: Duration = Duration::from_secs(10);
const WANTED: Wanted = Wanted {
    metric: "two_workers_packets_per_s",
    unit: "packets/s",
    better: Better::Higher,
    bounds: &[("one", 1.9, 1.6)],
};

/// The gateway's half of the sessions; says when its share was judged.
struct Sessions {
    all: Vec<Arc<SessionData>>,
    left: u32,
    done: Sender<Clock>,
}

impl Role for Sessions {
    const DIRECTION: u16 = FLAG_DOWN;

    /// The turn after the last packet: that one was written by then.
    fn begin(&mut self, _now: Instant, _waited: Duration) {
        if self.left == 0 {
            self.left = u32::MAX;
            // Whoever measures has given up when nobody hears it.
            let _ = self.done.send(Clock::now());
        }
    }

    fn inbound(&mut self, _origin: &Origin, datagram: &mut [u8]) -> Inbound<'_> {
        self.left = self.left.saturating_sub(1);
        let session = Header::parse(datagram).and_then(|(header, _)| self.all.get(header.locator as usize));
        session.map_or(Inbound::Drop, |session| Inbound::Open { session, k: 0 })
    }

    fn outbound(&mut self, _inner: &Inner) -> Option<Route<'_>> {
        None
    }

    fn route_of(&mut self, _session: SessionId) -> Option<Route<'_>> {
        None
    }
}

fn key(session: u8, gateway: bool) -> DataKey {
    let (seal, open) = if gateway { (200, session) } else { (session, 200) };
    let secret = |n: u8| Secret::take(&mut [n; 32]);
    // Far ahead of any boot time: it never grows old.
    DataKey::new(Suite::Aes256Gcm, Epoch(1), secret(seal), secret(open), Instant(1 << 62))
}

fn shared(session: u8, gateway: bool) -> Result<Arc<SessionData>> {
    let net = "10.99.0.0/24".parse().context("a prefix")?;
    let data = SessionData::new(SessionId([session; 16]), vec![net]);
    data.change_keys(|keys| keys.current = Some(Arc::new(key(session, gateway))));
    Ok(Arc::new(data))
}

/// A session's packets of one filling, sealed, in sends of equal datagrams.
fn sealed(session: u8, data: &SessionData) -> Result<Vec<Vec<u8>>> {
    let key = data.sealing().context("a key")?;
    let (source, to) = (inner4(0).octets(), [10, 98, 0, session]);
    let builder = etherparse::PacketBuilder::ipv4(source, to, 64).udp(5_000 + u16::from(session), 9);
    let payload = vec![session; usize::from(INNER_MTU) - 28];
    let mut inner = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut inner, &payload).context("an inner packet")?;
    let header = |counter| {
        let (kind, epoch) = (Kind::Data as u8, Epoch(1).wire());
        Header { kind, epoch, flags: 0, tag: 0, locator: Locator(session.into()).0, counter }.to_bytes()
    };
    let datagrams: Vec<Vec<u8>> =
        (0..PACKETS).map(|_| key.sealing().seal(0, header, &inner)).collect::<Result<_, _>>().context("sealing")?;
    Ok(datagrams.chunks(SEGMENTS).map(<[Vec<u8>]>::concat).collect())
}

/// The workers of one measurement, before they run.
struct Ready {
    workers: Vec<Worker<Sessions>>,
    handles: Vec<WorkerHandle>,
    _inbox: Inbox<FromWorker>,
}

/// Opens everything a gateway with so many workers has; call it in its namespace.
fn ready(count: u32, all: &[Arc<SessionData>], done: &Sender<Clock>) -> Result<Ready> {
    let options = TunOptions { name: "jvpn0".into(), mtu: INNER_MTU, addresses: vec!["10.99.0.2/24".parse()?] };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let queues = runtime.block_on(Tun::open_queues(&options, count))?;
    let any = SocketAddr::new(IpAddr::from([0; 4]), PORT);
    let ports = UdpPort::open_group(&UdpOptions::new(any), count, false)?;
    let (sender, inbox) = to_controller()?;
    let mut made = Ready { workers: Vec::new(), handles: Vec::new(), _inbox: inbox };
    for (tun, port) in queues.into_iter().zip(ports) {
        let left = u32::from(SESSIONS) * u32::from(PACKETS) / count;
        let role = Sessions { all: all.to_vec(), left, done: done.clone() };
        let (worker, handle) = Worker::new(role, tun, sender.clone(), WorkerOptions::default())?;
        ensure!(handle.add_socket(SOCKET, Arc::new(port)), "the worker's queue is full at its start");
        made.workers.push(worker);
        made.handles.push(handle);
    }
    Ok(made)
}

/// Fills the sockets of `count` workers once and has them emptied; packets a second.
fn filling(underlay: &Underlay, count: u32) -> Result<f64> {
    let all: Vec<_> = (0..SESSIONS).map(|session| shared(session, true)).collect::<Result<_>>()?;
    let (done, finished) = channel();
    let Ready { workers, handles, _inbox } = underlay.gateway().enter(|| ready(count, &all, &done))?;
    underlay.gateway().ip("route replace blackhole 10.98.0.0/16\n")?;
    let to = SocketAddr::new(Underlay::outer(1)?, PORT);
    underlay.client().enter(|| {
        for session in 0..SESSIONS {
            let port = UdpPort::open(&UdpOptions::new(SocketAddr::new(Underlay::outer(0)?, 0)))?;
            for send in sealed(session, &*shared(session, false)?)? {
                port.send_segments(to, None, &send, send.len() / SEGMENTS)?;
            }
        }
        Ok(())
    })?;
    let began = Clock::now() + SPREAD;
    let ends: Result<Vec<Clock>> = std::thread::scope(|scope| {
        for worker in workers {
            scope.spawn(move || {
                while Clock::now() < began {
                    std::hint::spin_loop();
                }
                worker.run()
            });
        }
        let ends = handles.iter().map(|_| finished.recv_timeout(PATIENCE).context("some packets were lost")).collect();
        for handle in &handles {
            while !handle.stop() {
                std::thread::yield_now();
            }
        }
        ends
    });
    let ended = ends?.into_iter().max().context("no worker")?;
    let opened = |session: &Arc<SessionData>| session.keys().current.map_or(0, |key| key.opening().opened());
    let opened: u64 = all.iter().map(opened).sum();
    let packets = u64::from(SESSIONS) * u64::from(PACKETS);
    ensure!(opened == packets, "{opened} of {packets} packets were opened");
    Ok(packets as f64 / (ended - began).as_secs_f64())
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    results(Vec::new(), Vec::new())
}

fn results(two: Vec<Option<f64>>, one: Vec<Option<f64>>) -> Vec<Metric> {
    vec![Metric::new(&WANTED, two, [("one".to_owned(), one)].into())]
}

pub fn run(options: &Options) -> Result<Document> {
    let (rounds, fillings) = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(rounds)?;
    let underlay = Underlay::up()?;
    let mut machine = Watched::begin()?;
    let (mut one, mut two, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        machine.round()?;
        for (workers, series) in [(1, &mut one), (2, &mut two)] {
            let rates: Result<Vec<f64>> = (0..fillings).map(|_| filling(&underlay, workers)).collect();
            if let Err(error) = &rates {
                errors.push(format!("round {round}, {workers} workers: {error:#}"));
            }
            let median = rates.ok().and_then(|mut rates| {
                rates.sort_by(f64::total_cmp);
                rates.get(rates.len() / 2).copied()
            });
            eprintln!("round {round}, {workers} workers: {:.0} packets/s", median.unwrap_or(f64::NAN));
            series.push(median);
        }
    }
    Ok(Document {
        machine: machine.end()?,
        version: machine::product_version()?,
        policy: "none".into(),
        contenders: vec![
            Contender::new("ours", "two workers, a socket and a TUN queue each, half of the sessions each"),
            Contender::new("one", "one worker with all of them"),
        ],
        results: results(two, one),
        notes: vec![format!(
            "{SESSIONS} sessions of {PACKETS} packets of {INNER_MTU} bytes wait in the sockets before a worker begins; received, judged, \
             opened, written to the TUN, dropped by the kernel for want of a route"
        )],
        errors,
        ..machine::program_alone("workers")?
    })
}
