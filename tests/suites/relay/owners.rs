//! Two owners behind one relay, the same inside to the last address: each gets its own clients, and neither's end nor
//! ill will reaches the other's session.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jvpn_common::abi::ActiveWord;
use jvpn_common::ids::Slot;
use jvpn_common::wire::Kind;
use jvpn_tests::lab::netns::Netns;
use jvpn_tests::lab::tap::{Seen, Tap, station};
use jvpn_tests::lab::topology::{GATEWAY_PORT, LAN_V6, OWNERS_V4, RELAYS_V4};
use jvpn_tests::packet;

use super::*;

const GATEWAYS: [Role; 2] = [Role::Gateway, Role::OtherGateway];
const CLIENTS: [Role; 2] = [Role::Client, Role::OtherClient];
/// Where each gateway says which one it is.
const NAME_PORT: u16 = 7_000;
/// How often an owner is ended at most.
const ROUNDS: usize = 3;
/// Frames of the other owner that are sent again.
const FRAMES: usize = 50;

/// One path each, so that nobody moves for reasons of its own.
fn two_owners() -> Setup {
    let endpoints = vec![Endpoint::Relay(0)];
    Setup { relays: 1, owners: 2, uplinks: vec![Path::A], endpoints, ..Setup::default() }
}

/// Answers every datagram with the number of its owner, until it is dropped.
struct Doorman {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Doorman {
    fn of(stage: &Stage, owner: usize) -> Self {
        let space = stage.lab.topology.gateway_of(owner);
        let socket = space.enter(|| Ok(UdpSocket::bind(("0.0.0.0", NAME_PORT))?)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
        let (stop, name) = (Arc::new(AtomicBool::new(false)), u8::try_from(owner).expect("few"));
        let ends = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                if let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
                    // Its tunnel may be gone by now.
                    let _ = socket.send_to(&[name], from);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Doorman {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A session as its owner and the relay's maps have it.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    id: String,
    version: u64,
    slot: Slot,
    word: ActiveWord,
}

impl Stage {
    /// Whom the client of an owner reaches inside.
    fn asked(&self, owner: usize) -> usize {
        let client = self.lab.topology.client_of(owner);
        let deadline = Instant::now() + PATIENCE;
        client
            .enter(|| {
                let socket = UdpSocket::bind(("0.0.0.0", 0))?;
                socket.set_read_timeout(Some(Duration::from_millis(500)))?;
                let mut answer = [0; 16];
                loop {
                    // Where the tunnel is gone for a moment there is no route.
                    let _ = socket.send_to(b"who?", (INNER_GATEWAY_V4, NAME_PORT));
                    if let Ok(1) = socket.recv(&mut answer) {
                        return Ok(usize::from(answer[0]));
                    }
                    anyhow::ensure!(Instant::now() < deadline, "nobody says who it is");
                }
            })
            .unwrap_or_else(|error| panic!("client of owner {owner}: {error:#}\n{}", self.both_tails(owner)))
    }

    fn both_tails(&self, owner: usize) -> String {
        [GATEWAYS[owner], Role::Relay(0), CLIENTS[owner]].map(|role| self.product.log_tail(role)).join("\n")
    }

    fn held(&self, owner: usize) -> Held {
        let maps = self.maps(0);
        let place = u32::try_from(owner).expect("few") + 1;
        // What an earlier start of the owner left answers probes for a minute, bound to nothing.
        let bound = |slot: &Slot| maps.shared().session_owner(*slot) == place && maps.word(*slot).active() != 0;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sessions = self.product.json(GATEWAYS[owner], &["sessions"]).expect("sessions");
            let slots: Vec<Slot> = (0..maps.capacity()).map(Slot).filter(bound).collect();
            if let (Ok(Session { id, state_version: version, .. }), [slot]) = (live_session(&sessions), &slots[..]) {
                return Held { id, version, slot: *slot, word: maps.word(*slot) };
            }
            // On its way back after the machine stood still.
            assert!(Instant::now() < deadline, "one session of owner {owner}, but {slots:?}: {sessions:#}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a client carries its session's first packets and nothing of it changes.
    fn settled(&self, owner: usize) -> Held {
        assert_eq!(self.asked(owner), owner);
        let (mut last, mut since, deadline) = (self.held(owner), Instant::now(), Instant::now() + PATIENCE);
        while since.elapsed() < Duration::from_secs(2) {
            assert!(Instant::now() < deadline, "it moves all the time: {last:?}");
            thread::sleep(Duration::from_millis(100));
            let now = self.held(owner);
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        last
    }

    /// What the relay dropped for this reason, in its program and in its process.
    fn dropped(&self, verdict: Verdict) -> u64 {
        let status = self.product.json(Role::Relay(0), &["status"]).expect("a status");
        status["drops"][verdict.name()].as_u64().unwrap_or(0)
    }
}

#[test]
fn two_owners_behind_one_relay_get_their_own_clients_although_both_look_the_same_inside() {
    let stage = Stage::set(&two_owners());
    let _doormen = [0, 1].map(|owner| Doorman::of(&stage, owner));
    for owner in [0, 1, 0, 1] {
        assert_eq!(stage.asked(owner), owner);
        for target in [INNER_GATEWAY_V6, LAN_V4, LAN_V6] {
            let ip: IpAddr = target.parse().expect("an address");
            ping(&stage.lab.topology.client_of(owner), ip, 1_200, PATIENCE)
                .unwrap_or_else(|error| panic!("owner {owner}: {error:#}\n{}", stage.both_tails(owner)));
        }
    }
    let held = [0, 1].map(|owner| stage.held(owner));
    assert!(held[0].id != held[1].id && held[0].slot != held[1].slot, "{held:?}");
    let status = stage.product.json(Role::Relay(0), &["status"]).expect("a status");
    assert_eq!(
        (&status["sessions"]["held of gw-lab"], &status["sessions"]["held of gw-lab-2"]),
        (&1.into(), &1.into())
    );
    assert!(stage.counted(0, Verdict::ForwardedUp) > 0 && stage.counted(0, Verdict::ForwardedDown) > 0);
    stage.end();
}

#[test]
fn the_death_or_end_of_one_owner_is_not_the_others_and_it_comes_back() {
    let mut stage = Stage::set(&two_owners());
    let _doormen = [0, 1].map(|owner| Doorman::of(&stage, owner));
    for (ends, lives) in [(0, 1), (1, 0)] {
        // A machine that stands still may move a session by itself, but not each time.
        let untouched = (0..ROUNDS).any(|_| ended_and_back(&mut stage, ends, lives));
        assert!(untouched, "each end of owner {ends} moves the session of owner {lives}\n{}", stage.both_tails(lives));
    }
    stage.end();
}

/// One owner is killed, or ends in order, and comes back; whether nothing at all of the other's session changed.
fn ended_and_back(stage: &mut Stage, ends: usize, lives: usize) -> bool {
    let (before, other) = (stage.settled(lives), stage.settled(ends));
    if ends == 0 {
        stage.product.kill(GATEWAYS[ends]).expect("killed");
    } else {
        stage.product.stop(GATEWAYS[ends]).expect("stopped");
    }
    let (client, ip) = (stage.lab.topology.client_of(ends), INNER_GATEWAY_V4.parse().expect("an address"));
    let refused = stage.dropped(Verdict::LeaseEnded);
    stage.until("data for the one that is gone is dropped", |stage| {
        let _ = ping(&client, ip, 56, Duration::from_millis(20));
        assert_eq!(stage.asked(lives), lives);
        stage.dropped(Verdict::LeaseEnded) > refused
    });
    for _ in 0..20 {
        assert_eq!(stage.asked(lives), lives);
    }
    let meanwhile = stage.held(lives);
    stage.product.start_side(GATEWAYS[ends]).expect("started again");
    assert_eq!(stage.asked(ends), ends);
    stage.until("its session is back", |stage| {
        let sessions = stage.product.json(GATEWAYS[ends], &["sessions"]).expect("sessions");
        live_session(&sessions).is_ok_and(|session| session.id == other.id)
    });
    assert_eq!(stage.asked(lives), lives);
    let after = stage.held(lives);
    assert_eq!((&meanwhile.id, meanwhile.slot), (&before.id, before.slot), "the same session in the same place");
    assert_eq!((&after.id, after.slot), (&before.id, before.slot), "still");
    meanwhile == before && after == before
}

/// Data and control that an owner sent to the relay, as it stood in its frames.
fn copied(stage: &Stage, owner: usize) -> Vec<Vec<u8>> {
    let far = if owner == 0 { "gw" } else { "gw2" };
    let mut tap = Tap::on(&stage.lab.topology.space("core"), far).expect("a tap");
    let relay = SocketAddr::new(RELAYS_V4[0].parse().expect("an address"), GATEWAY_PORT);
    let mut copies = Vec::new();
    stage.until("frames of the owner", |stage| {
        assert_eq!(stage.asked(owner), owner);
        let seen = tap.arrived().into_iter().filter_map(|frame| Seen::of(&frame)).filter(|seen| seen.to == relay);
        let kind = |seen: &Seen| seen.payload.first().copied().and_then(Kind::from_byte);
        let session = seen.filter(|seen| matches!(kind(seen), Some(Kind::Data | Kind::Control)));
        copies.extend(session.map(|seen| seen.payload));
        copies.len() >= FRAMES
    });
    copies
}

#[test]
fn what_an_owner_sends_in_the_name_of_anothers_session_is_dropped_and_counted_and_moves_nothing() {
    let stage = Stage::set(&two_owners());
    let _doormen = [0, 1].map(|owner| Doorman::of(&stage, owner));
    let (attacker, victim) = (0, 1);
    let copies = copied(&stage, victim);
    let untouched = (0..ROUNDS).any(|_| {
        let before = stage.settled(victim);
        attack(&stage, attacker, victim, &copies);
        let after = stage.held(victim);
        assert_eq!((&after.id, after.slot), (&before.id, before.slot), "the same session in the same place");
        after == before
    });
    assert!(untouched, "each attack moves the session\n{}", stage.both_tails(victim));
    for owner in [victim, attacker] {
        assert_eq!(stage.asked(owner), owner);
    }
    stage.end();
}

/// From where an owner stands, out of the very endpoint that the relay believes it by, as copied and with wrong tags.
fn attack(stage: &Stage, attacker: usize, victim: usize, copies: &[Vec<u8>]) {
    let (core, gateway): (Netns, Netns) = (stage.lab.topology.space("core"), stage.lab.topology.gateway_of(attacker));
    let stations = [station(&core, "gw").expect("a station"), station(&gateway, "wan").expect("a station")].concat();
    let at = |address: &str| SocketAddr::new(address.parse().expect("an address"), GATEWAY_PORT);
    let mut out = Tap::on(&gateway, "wan").expect("a tap");
    let mut wires = Tap::on(&stage.lab.topology.client_of(victim), "wan-a").expect("a tap");
    let forged = |payload: &Vec<u8>| {
        let mut payload = payload.clone();
        payload[4] ^= 1;
        payload
    };
    let attacks = [(Verdict::BadDirection, copies.to_vec()), (Verdict::ForgedTag, copies.iter().map(forged).collect())];
    for (verdict, payloads) in attacks {
        let (counted, _) = (stage.dropped(verdict), wires.arrived());
        for payload in &payloads {
            let mut frame = packet::frame(at(OWNERS_V4[attacker]), at(RELAYS_V4[0]), false, payload);
            frame[..12].copy_from_slice(&stations);
            out.send(&frame).expect("sent");
        }
        let all = u64::try_from(payloads.len()).expect("few");
        stage.until("all of them are counted", |stage| stage.dropped(verdict) >= counted + all);
        assert_eq!(stage.dropped(verdict), counted + all, "{verdict}: each once");
        let arrived = wires.arrived();
        let reached = arrived.iter().filter_map(|frame| Seen::of(frame)).any(|seen| payloads.contains(&seen.payload));
        assert!(!reached, "{verdict}: one got to the other owner's client");
    }
}
