//! A swarm: many clients of the real engine in one process, over real sockets, against the real gateway.
//!
//! ```text
//!  one thread ── epoll ── member 0 ─┬─ socket on its first address  ─┐
//!                         member 1 ─┴─ socket on its second address ─┼── the gateway, in a process of its own
//!                         …                                          ┘
//! ```
//!
//! Each member holds one session and two paths (or one after the other), sends a data PING now and then, and moves when its turn comes: asked for,
//! since its path is gone, or since its port is another one. Owns the pace of moves and what members saw ([`Book`]).
//! Must never judge it: suites do.

pub mod capture;
pub mod host;
mod member;

use anyhow::{Context, Result};
use jvpn_common::client::{EventKind, View};
use jvpn_common::ids::{SessionId, Version};
use jvpn_common::message::Label;
use jvpn_common::reason::Reason;
use jvpn_common::secret::{PrivateKey, PublicKey};
use jvpn_common::time::{Duration, Instant};
use jvpn_ctl::runtime::clock::boot;
use jvpn_ctl::runtime::entropy::System;
use member::Member;
use rustix::event::epoll;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::lab::netns::Netns;
use crate::lab::topology::Topology;

/// Longest time the loop sleeps, so that an order is not left waiting.
const NAP: Duration = Duration::from_millis(5);
/// Events taken from the kernel at once: all there are, usually.
const EVENTS: usize = 4_096;
/// Members woken between two looks at what arrived. Each of them would be a machine of its own and read what is there
/// before it repeats a question; thousands that all repeat theirs first would never come to the answers.
const WOKEN: usize = 64;

/// Who the members are and where they talk to.
#[derive(Debug)]
pub struct Plan {
    /// Where their sockets are.
    pub space: Netns,
    /// The gateway.
    pub gateway: SocketAddr,
    /// Its identity.
    pub key: PublicKey,
    /// The members' identities.
    pub members: Vec<PrivateKey>,
    /// Whether members keep their second path up. Without, one moves by taking the other path and leaving the first, and
    /// ten thousand need ten thousand sockets.
    pub standby: bool,
    /// Between two data PINGs of a member; `None`: no data.
    pub ping_every: Option<Duration>,
    /// First number of what is drawn at random.
    pub seed: u64,
}

/// Where members have their addresses, two each. Every one is its host's own, so that they need not be listed; who routes
/// to the host needs a route.
const OUTER: &str = "10.66.0.0/16";

/// Makes the addresses of members those of a lab's client, and tells the routers.
///
/// # Errors
/// When `ip` refuses.
pub fn settle(topology: &Topology) -> Result<()> {
    topology.client().ip(&format!("route add local {OUTER} dev lo\n"))?;
    for (space, way) in [("ra", "via 192.0.2.2"), ("core", "via 198.18.1.1")] {
        topology.space(space).ip(&format!("route add {OUTER} {way}\n"))?;
    }
    Ok(())
}

/// The two addresses of a member. A NAT in front of many is another test: the gateway admits 100 handshakes a second from
/// one address.
fn addresses(member: usize) -> [Ipv4Addr; 2] {
    let first = Ipv4Addr::new(10, 66, 1, 0).to_bits() + 2 * u32::try_from(member).unwrap_or(0);
    [first, first + 1].map(Ipv4Addr::from_bits)
}

/// Identities for so many members.
#[must_use]
pub fn identities(count: usize) -> Vec<PrivateKey> {
    (0..count).map(|_| PrivateKey::generate(&mut System)).collect()
}

/// What the gateway acknowledged to a member.
#[derive(Clone, Debug)]
pub struct Acked {
    pub at: Instant,
    pub member: usize,
    pub session: SessionId,
    pub kind: EventKind,
    pub version: Version,
    /// The path it is bound to, for a switch.
    pub to: Option<Label>,
}

/// The key set, by member and number, and the index that a locator belongs to.
pub type KeyOf = (usize, u32, u16);

/// Everything members saw, in order.
#[derive(Debug, Default)]
pub struct Book {
    pub acked: Vec<Acked>,
    /// Sessions that are over, as their clients were told.
    pub ended: Vec<(usize, SessionId, Reason)>,
    /// Whose each locator is, ever.
    pub locators: BTreeMap<u64, KeyOf>,
    /// Locators that were given out a second time.
    pub twice: Vec<u64>,
    /// Announcements that the gateway will be away.
    pub going_away: usize,
    /// Data packets of the gateway that opened, and that did not.
    pub opened: (u64, u64),
    /// Data PINGs that were sent.
    pub pinged: u64,
    /// Members that had heard nothing since their last PING when the next one was due, and when that was.
    pub missed: Vec<(Instant, usize)>,
    /// When a data packet of the gateway opened last, by member.
    pub heard: BTreeMap<usize, Instant>,
    /// Moves that were begun.
    pub moves: u64,
    /// How long moves took, from the event that began them to their acknowledgement.
    pub took: Vec<Duration>,
    /// Members that move and have no acknowledgement yet.
    pub under_way: usize,
}

impl Book {
    /// Moves the gateway acknowledged.
    #[must_use]
    pub fn switches(&self) -> usize {
        self.acked.iter().filter(|acked| acked.kind == EventKind::TransportSwitch).count()
    }
}

enum Order {
    /// Moves a second, of all members together.
    Pace(u32),
    /// The same, but each of them is only asked for, from wherever the member is.
    Insist(u32),
    /// Every so many members one moves, all of them now.
    MoveEach(usize),
    Look(Sender<Vec<View>>),
    /// Takes every path of every member away, or gives them back.
    Paths(bool),
    Close,
}

/// A running swarm. Dropping it ends it without a word, as a power cut would.
#[derive(Debug)]
pub struct Swarm {
    orders: Sender<Order>,
    book: Arc<Mutex<Book>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Swarm {
    /// Starts all members; each begins its handshake at once.
    pub fn start(plan: Plan) -> Result<Swarm> {
        let (orders, asked) = channel();
        let book = Arc::<Mutex<Book>>::default();
        let shared = Arc::clone(&book);
        let thread = std::thread::Builder::new().name("swarm".into());
        let thread = thread.spawn(move || {
            plan.space.join()?;
            Loop::new(plan, shared)?.run(&asked)
        })?;
        Ok(Swarm { orders, book, thread: Some(thread) })
    }

    /// What members saw so far.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many moves a second are begun from now on.
    pub fn pace(&self, per_second: u32) {
        self.order(Order::Pace(per_second));
    }

    /// How many moves a second are asked for from now on, and nothing else happens to a member.
    pub fn insist(&self, per_second: u32) {
        self.order(Order::Insist(per_second));
    }

    /// Lets every `nth` member move, all at once.
    pub fn move_each(&self, nth: usize) {
        self.order(Order::MoveEach(nth));
    }

    /// Takes all paths away, or gives them back.
    pub fn paths(&self, there: bool) {
        self.order(Order::Paths(there));
    }

    /// Every member as it sees itself.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        let (answer, views) = channel();
        self.order(Order::Look(answer));
        views.recv().expect("the swarm runs; it says why on standard error when it does not")
    }

    /// Ends every session in order.
    pub fn close(&self) {
        self.order(Order::Close);
    }

    fn order(&self, order: Order) {
        self.orders.send(order).expect("the swarm runs; it says why on standard error when it does not");
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let (orders, _) = channel();
        self.orders = orders;
        if let Some(thread) = self.thread.take()
            && let Ok(Err(error)) = thread.join()
        {
            eprintln!("the swarm failed: {error:#}");
        }
    }
}

/// The same numbers for the same seed.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

struct Loop {
    poll: OwnedFd,
    members: Vec<Member>,
    due: BTreeSet<(Instant, usize)>,
    book: Arc<Mutex<Book>>,
    dice: Dice,
    pace: Option<Duration>,
    insists: bool,
    next_move: Instant,
}

impl Loop {
    fn new(plan: Plan, book: Arc<Mutex<Book>>) -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
        let (mut dice, now) = (Dice(plan.seed), boot());
        let mut members = Vec::with_capacity(plan.members.len());
        for (number, key) in plan.members.iter().enumerate() {
            let offset = plan.ping_every.map(|every| {
                let micros = u64::try_from(every.as_micros()).unwrap_or(u64::MAX);
                (every, now + Duration::from_micros(dice.below(micros)))
            });
            let mut member = Member::new(number, key, plan.key, plan.gateway, addresses(number), offset, now);
            member.standby = plan.standby;
            members.push(member);
        }
        let due = BTreeSet::new();
        Ok(Self { poll, members, due, book, dice, pace: None, insists: false, next_move: now })
    }

    fn run(mut self, asked: &Receiver<Order>) -> Result<()> {
        let now = boot();
        for number in 0..self.members.len() {
            self.with(number, |member, poll, book| member.rise(now, poll, book))?;
        }
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            match asked.try_recv() {
                Ok(order) => self.carry_out(order)?,
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => {}
            }
            self.fire()?;
            let now = boot();
            let next = self.due.first().map_or(now + NAP, |(at, _)| *at).min(now + NAP);
            let wait =
                rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::try_from(next.since(now).as_nanos()).unwrap_or(0) };
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(self.poll.as_fd(), spare, Some(&wait)) {
                Err(rustix::io::Errno::INTR) | Ok(_) => {}
                Err(error) => return Err(error).context("epoll_wait"),
            }
            for event in &events {
                let data = event.data.u64();
                let (number, path) = (usize::try_from(data >> 8).unwrap_or(0), (data & 0xff) as u8);
                self.with(number, |member, poll, book| member.receive(path, poll, book))?;
            }
        }
    }

    /// Works with one member and notes when it wants to be woken.
    fn with(
        &mut self,
        number: usize,
        work: impl FnOnce(&mut Member, &OwnedFd, &Mutex<Book>) -> Result<()>,
    ) -> Result<()> {
        let Some(member) = self.members.get_mut(number) else { return Ok(()) };
        work(member, &self.poll, &self.book)?;
        let wakeup = member.wakeup();
        if member.listed != wakeup {
            if let Some(old) = member.listed.take() {
                self.due.remove(&(old, number));
            }
            if let Some(at) = wakeup {
                self.due.insert((at, number));
            }
            member.listed = wakeup;
        }
        Ok(())
    }

    fn fire(&mut self) -> Result<()> {
        let now = boot();
        for _ in 0..WOKEN {
            let Some(&(_, number)) = self.due.first().filter(|(at, _)| *at <= now) else { break };
            self.due.pop_first();
            if let Some(member) = self.members.get_mut(number) {
                member.listed = None;
            }
            self.with(number, |member, poll, book| member.wake(boot(), poll, book))?;
        }
        if let Some(every) = self.pace {
            // Behind by a second or more, the machine stood still: what was missed is not made up for.
            self.next_move = self.next_move.max(now.before(Duration::from_secs(1)));
            while self.next_move <= now {
                self.next_move = self.next_move + every;
                let number = usize::try_from(self.dice.below(self.members.len() as u64)).unwrap_or(0);
                let how = if self.insists { 0 } else { self.dice.below(10) };
                self.with(number, |member, poll, book| member.step_aside(how, boot(), poll, book))?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Pace(per_second) | Order::Insist(per_second) => {
                self.insists = matches!(order, Order::Insist(_));
                self.pace = Duration::from_secs(1).checked_div(per_second);
                self.next_move = boot();
            }
            Order::Look(answer) => {
                // Whoever asked may have given up.
                let _ = answer.send(self.members.iter().map(Member::view).collect());
            }
            Order::MoveEach(nth) => {
                for number in (0..self.members.len()).step_by(nth.max(1)) {
                    self.with(number, |member, poll, book| member.step_aside(0, boot(), poll, book))?;
                }
            }
            Order::Paths(there) => {
                for number in 0..self.members.len() {
                    self.with(number, |member, poll, book| member.set_paths(there, boot(), poll, book))?;
                }
            }
            Order::Close => {
                for number in 0..self.members.len() {
                    self.with(number, |member, poll, book| member.close(boot(), poll, book))?;
                }
            }
        }
        Ok(())
    }
}
