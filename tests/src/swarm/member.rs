//! One member of a swarm: the real engine, its two sockets, its data keys.
//!
//! Owns what a client's runtime would do. Must never answer for the engine.

use super::{Acked, Book};
use anyhow::{Context, Result};
use jvpn_common::abi::SteeringKeys;
use jvpn_common::client::{
    Activity, Command, Config, DataKeys, Engine, Event, EventKind, Input, PathClass, PathId, PathUp, Sealed, SetId,
    Transport, View,
};
use jvpn_common::crypto::Suite;
use jvpn_common::ids::TransportIndex;
use jvpn_common::message::Label;
use jvpn_common::reason::Reason;
use jvpn_common::secret::{PresharedKey, PrivateKey, PublicKey};
use jvpn_common::tag::steering_tag;
use jvpn_common::time::{Duration, Instant};
use jvpn_common::wire::{Header, Kind};
use jvpn_ctl::runtime::clock::{boot, wall};
use jvpn_ctl::runtime::entropy::System;
use jvpn_ctl::tunnel::DataKey;
use rustix::event::epoll;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// How long a path stays away when it goes.
const AWAY: Duration = Duration::from_millis(400);
/// Transports whose last opened packet is told to the engine.
const OPENED_MAX: usize = 16;
const HEADER: usize = 24;
/// A data PING's text: kind and number, both zero, and padding to the length of its answer.
const PING: [u8; 32] = [0; 32];

#[derive(Default)]
struct Set {
    steering: SteeringKeys,
    locators: BTreeMap<u64, TransportIndex>,
    epochs: Vec<DataKey>,
}

struct Seat {
    id: PathId,
    label: Label,
    address: Ipv4Addr,
    socket: Option<UdpSocket>,
    /// When it comes back.
    back: Option<Instant>,
}

pub(super) struct Member {
    number: usize,
    engine: Engine,
    seats: [Seat; 2],
    sets: BTreeMap<SetId, Set>,
    using: Option<Transport>,
    activity: Activity,
    dirty: bool,
    ping: Option<(Duration, Instant)>,
    /// Nothing was heard since the last PING.
    unheard: bool,
    /// Since when it moves.
    moving: Option<Instant>,
    /// Whether the path that is not in use stays up.
    pub(super) standby: bool,
    /// The wakeup the loop has noted.
    pub(super) listed: Option<Instant>,
}

impl Member {
    pub(super) fn new(
        number: usize,
        key: &PrivateKey,
        gateway: PublicKey,
        endpoint: SocketAddr,
        addresses: [Ipv4Addr; 2],
        ping: Option<(Duration, Instant)>,
        now: Instant,
    ) -> Self {
        let config = Config {
            name: format!("member-{number}"),
            private_key: key.duplicate(),
            gateway,
            psk: PresharedKey::none(),
            endpoints: vec![endpoint],
            suites: vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
        };
        let seat = |id: u32, address| Seat {
            id: PathId(id),
            label: Label::new(format!("path-{id}")),
            address,
            socket: None,
            back: None,
        };
        let [first, second] = addresses;
        Self {
            number,
            engine: Engine::new(config, Box::new(System), now),
            seats: [seat(0, first), seat(1, second)],
            sets: BTreeMap::new(),
            using: None,
            activity: Activity::default(),
            dirty: false,
            ping,
            unheard: false,
            moving: None,
            standby: true,
            listed: None,
        }
    }

    pub(super) fn view(&self) -> View {
        self.engine.view()
    }

    pub(super) fn wakeup(&self) -> Option<Instant> {
        let ping = self.ping.filter(|_| self.using.is_some()).map(|(_, at)| at);
        let back = self.seats.iter().filter_map(|seat| seat.back);
        self.engine.wakeup().into_iter().chain(ping).chain(back).min()
    }

    /// Its paths come up.
    pub(super) fn rise(&mut self, now: Instant, poll: &OwnedFd, book: &Mutex<Book>) -> Result<()> {
        self.handle(now, Input::WallClock(wall()), book);
        self.set_paths(true, now, poll, book)
    }

    pub(super) fn set_paths(&mut self, there: bool, now: Instant, poll: &OwnedFd, book: &Mutex<Book>) -> Result<()> {
        for seat in 0..self.seats.len() {
            let spare = seat > 0 && !self.standby;
            match there {
                true if spare => {}
                true => self.path_up(seat, now, poll, book)?,
                false => self.path_down(seat, None, now, book),
            }
        }
        Ok(())
    }

    pub(super) fn close(&mut self, now: Instant, _poll: &OwnedFd, book: &Mutex<Book>) -> Result<()> {
        self.handle(now, Input::Close, book);
        Ok(())
    }

    fn path_up(&mut self, seat: usize, now: Instant, poll: &OwnedFd, book: &Mutex<Book>) -> Result<()> {
        self.open(seat, poll)?;
        let seat = &mut self.seats[seat];
        seat.back = None;
        let (path, label) = (seat.id, seat.label);
        let (class, metered, v6, endpoint, beside) = (PathClass::Primary, false, false, None, None);
        let up = PathUp { path, beside, label, class, metered, v6, endpoint, link_mtu: 1_500 };
        self.handle(now, Input::PathUp(up), book);
        Ok(())
    }

    fn path_down(&mut self, seat: usize, back: Option<Instant>, now: Instant, book: &Mutex<Book>) {
        let seat = &mut self.seats[seat];
        (seat.socket, seat.back) = (None, back);
        let path = seat.id;
        self.handle(now, Input::PathDown { path, reason: Reason::LinkDown }, book);
    }

    /// A socket of its own for a path: another port each time.
    fn open(&mut self, number: usize, poll: &OwnedFd) -> Result<()> {
        let seat = &mut self.seats[number];
        let socket = UdpSocket::bind((seat.address, 0)).with_context(|| format!("a socket on {}", seat.address))?;
        socket.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64((self.number as u64) << 8 | number as u64);
        epoll::add(poll, &socket, data, epoll::EventFlags::IN).context("epoll_ctl")?;
        seat.socket = Some(socket);
        Ok(())
    }

    /// A move: seven of ten asked for, two since the path is gone, one with another port under the same path.
    pub(super) fn step_aside(&mut self, how: u64, now: Instant, poll: &OwnedFd, book: &Mutex<Book>) -> Result<()> {
        let Some(active) = self.using.map(|using| using.path) else { return Ok(()) };
        let Some(seat) = self.seats.iter().position(|seat| seat.id == active) else { return Ok(()) };
        let other = 1 - seat;
        if !self.standby {
            return self.change_over(seat, now, poll, book);
        }
        if self.seats[other].socket.is_none() || self.seats[seat].socket.is_none() {
            return Ok(());
        }
        self.begin_move(now, book);
        match how {
            0..7 => self.handle(now, Input::Jump { label: self.seats[other].label }, book),
            7 | 8 => self.path_down(seat, Some(now + AWAY), now, book),
            _ => self.open(seat, poll)?,
        }
        Ok(())
    }

    /// A move of who has one path at a time: the other one comes, and this one goes.
    fn change_over(&mut self, seat: usize, now: Instant, poll: &OwnedFd, book: &Mutex<Book>) -> Result<()> {
        self.begin_move(now, book);
        self.path_up(1 - seat, now, poll, book)?;
        self.path_down(seat, None, now, book);
        Ok(())
    }

    /// Takes note of a move; one that is asked for while another is under way began with that.
    fn begin_move(&mut self, now: Instant, book: &Mutex<Book>) {
        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
        book.moves += 1;
        book.under_way += usize::from(self.moving.is_none());
        self.moving.get_or_insert(now);
    }

    pub(super) fn wake(&mut self, now: Instant, poll: &OwnedFd, book: &Mutex<Book>) -> Result<()> {
        for seat in 0..self.seats.len() {
            if self.seats[seat].back.is_some_and(|at| at <= now) {
                self.path_up(seat, now, poll, book)?;
            }
        }
        if let (Some((every, at)), Some(using)) = (self.ping, self.using)
            && at <= now
        {
            self.ping = Some((every, now + every));
            let idle = self.activity.inner_sent.is_none_or(|at| now.since(at) >= jvpn_common::client::IDLE_AFTER);
            self.seal_ping(using);
            let mut told = book.lock().unwrap_or_else(PoisonError::into_inner);
            told.pinged += 1;
            if std::mem::replace(&mut self.unheard, true) {
                told.missed.push((now, self.number));
            }
            drop(told);
            // As if an application had sent it: the engine probes while traffic flows.
            self.activity.inner_sent = Some(now);
            self.dirty = true;
            if idle {
                self.handle(now, Input::TrafficStarted, book);
            }
        }
        self.handle(now, Input::Wakeup, book);
        Ok(())
    }

    pub(super) fn receive(&mut self, seat: u8, _poll: &OwnedFd, book: &Mutex<Book>) -> Result<()> {
        let mut buffer = [0; 2_048];
        loop {
            let Some(seat) = self.seats.get(usize::from(seat)) else { return Ok(()) };
            let Some(socket) = &seat.socket else { return Ok(()) };
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { return Ok(()) };
            let path = seat.id;
            let bytes = &mut buffer[..length];
            if bytes.first() == Some(&(Kind::Data as u8)) {
                let now = boot();
                let opened = self.open_data(now, bytes);
                self.unheard &= opened.is_none();
                let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                if opened.is_some() {
                    book.opened.0 += 1;
                    book.heard.insert(self.number, now);
                } else {
                    book.opened.1 += 1;
                }
            } else {
                self.handle(boot(), Input::Datagram { path, from, bytes }, book);
            }
        }
    }

    fn handle(&mut self, now: Instant, input: Input<'_>, book: &Mutex<Book>) {
        if std::mem::take(&mut self.dirty) {
            self.engine.handle(now, Input::Activity(self.activity.clone()));
        }
        self.engine.handle(now, input);
        while let Some(command) = self.engine.poll() {
            self.carry_out(now, command, book);
        }
    }

    fn send(&self, path: PathId, to: SocketAddr, bytes: &[u8]) {
        let seat = self.seats.iter().find(|seat| seat.id == path);
        if let Some(socket) = seat.and_then(|seat| seat.socket.as_ref()) {
            // Refused is lost.
            let _ = socket.send_to(bytes, to);
        }
    }

    fn carry_out(&mut self, now: Instant, command: Command, book: &Mutex<Book>) {
        match command {
            Command::Send { path, to, bytes } => self.send(path, to, &bytes),
            Command::Locators { set: id, steering, add, remove } => {
                let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                let set = self.sets.entry(id).or_default();
                set.steering = steering;
                for (k, locator) in add {
                    set.locators.insert(locator.0, k);
                    if book.locators.insert(locator.0, (self.number, id.0, k.0)).is_some() {
                        book.twice.push(locator.0);
                    }
                }
                set.locators.retain(|_, k| !remove.contains(k));
            }
            Command::InstallKeys(keys) => {
                let DataKeys { set, epoch, suite, up, down } = *keys;
                self.sets.entry(set).or_default().epochs.push(DataKey::new(suite, epoch, up, down, now));
            }
            Command::WipeKeys { set, epoch } => {
                if let Some(set) = self.sets.get_mut(&set) {
                    set.epochs.retain(|key| key.epoch() != epoch);
                }
            }
            Command::Forget { set } => {
                self.sets.remove(&set);
                if self.using.is_some_and(|using| using.set == set) {
                    self.using = None;
                }
            }
            Command::Use(transport) => self.using = Some(transport),
            Command::Hold => self.using = None,
            Command::Ping(transport) => self.seal_ping(transport),
            Command::Event(event) => self.note(&event, book),
            Command::Ended { session, reason } => {
                self.using = None;
                book.lock().unwrap_or_else(PoisonError::into_inner).ended.push((self.number, session, reason));
            }
            // A member has two ports, and no NAT before it forgets any: a path without another one is left as it is.
            Command::OpenPort { .. } | Command::ClosePort { .. } => {}
            Command::Configure { .. } | Command::Condition { .. } => {}
        }
    }

    fn note(&mut self, event: &Event, book: &Mutex<Book>) {
        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
        book.going_away += usize::from(event.kind == EventKind::GoingAway);
        let bound = matches!(event.kind, EventKind::SessionCreated | EventKind::Resumed | EventKind::TransportSwitch);
        if let (true, true, Some(session)) = (bound, event.acknowledged, event.session) {
            let (at, kind, version, to) = (event.at, event.kind, event.version, event.to);
            book.acked.push(Acked { at, member: self.number, session, kind, version, to });
            if kind == EventKind::TransportSwitch
                && let Some(since) = self.moving.take()
            {
                book.took.push(at.since(since));
                book.under_way -= 1;
            }
        }
    }

    fn seal_ping(&mut self, transport: Transport) {
        let Some(set) = self.sets.get(&transport.set) else { return };
        let Some(key) = set.epochs.iter().find(|key| key.epoch() == transport.epoch) else { return };
        let (kind, epoch, k) = (Kind::Data as u8, transport.epoch.wire(), transport.k);
        let steering = set.steering.up;
        let header = |counter| {
            let tag = steering_tag(steering, counter, kind, epoch, 0, k.0, None);
            Header { kind, epoch, flags: 0, tag, locator: transport.locator.0, counter }.to_bytes()
        };
        if let Ok(bytes) = key.sealing().seal(k.0, header, &PING) {
            let Transport { set, epoch, k, .. } = transport;
            self.activity.sealed = Some(Sealed { set, epoch, k, next: key.sealing().next_counter(k.0) });
            self.dirty = true;
            self.send(transport.path, transport.to, &bytes);
        }
    }

    fn open_data(&mut self, now: Instant, bytes: &mut [u8]) -> Option<()> {
        let (header, _) = Header::parse(bytes)?;
        let (&id, set) = self.sets.iter().find(|(_, set)| set.locators.contains_key(&header.locator))?;
        let k = *set.locators.get(&header.locator)?;
        let key = set.epochs.iter().find(|key| key.epoch().wire() == header.epoch)?;
        let (head, sealed) = bytes.split_first_chunk_mut::<HEADER>()?;
        key.opening().open(k.0, head, sealed).ok()?;
        self.activity.opened.retain(|&(of, index, _)| (of, index) != (id, k));
        self.activity.opened.push((id, k, now));
        if self.activity.opened.len() > OPENED_MAX {
            self.activity.opened.remove(0);
        }
        self.dirty = true;
        Some(())
    }
}
