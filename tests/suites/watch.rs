//! What a running gateway notices by itself: maps that somebody changed, inner sources that are not a session's own.
//! The real product in the lab, with and without the kernel program; root, like the lab. Never changes a map but of its own lab.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use jvpn_common::ids::{Generation, Slot};
use jvpn_common::mapop::MapOp;
use jvpn_ctl::dataplane::DataPlane;
use jvpn_ctl::dataplane::kernel::Kernel;
use jvpn_ctl::dataplane::pins::Pins;
use jvpn_tests::lab::Lab;
use jvpn_tests::lab::ping::ping;
use jvpn_tests::lab::process::{Product, Role};
use jvpn_tests::lab::record::{Record, history, live_session};
use jvpn_tests::lab::setup::Setup;
use jvpn_tests::lab::topology::{INNER_CLIENT_V4, INNER_GATEWAY_V4};

/// How long something that happens by itself within seconds is waited for on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A session that did not move for so long has no reason to move.
const SETTLED: Duration = Duration::from_secs(3);

struct Stage {
    lab: Lab,
    product: Product,
    session: String,
}

impl Stage {
    fn set(xdp: &str) -> Self {
        let lab = Lab::up().expect("a lab");
        let setup = Setup { xdp: xdp.into(), ..Setup::default() };
        let mut product = Product::start(&lab, &setup).expect("both sides start");
        product.wait_healthy().expect("both sides are healthy");
        let sessions = product.json(Role::Gateway, &["sessions"]).expect("sessions");
        let session = live_session(&sessions).expect("one session").id;
        let stage = Self { lab, product, session };
        stage.answers();
        stage
    }

    /// The tunnel carries packets, now or soon.
    fn answers(&self) {
        let target: IpAddr = INNER_GATEWAY_V4.parse().expect("an address");
        if let Err(error) = ping(&self.lab.topology.client(), target, 56, PATIENCE) {
            panic!("{error:#}\n{}", self.product.log_tail(Role::Gateway));
        }
    }

    fn security_events(&self) -> Vec<Record> {
        let document = self.product.json(Role::Gateway, &["sessions", &self.session, "history"]).expect("a history");
        let records = history(&document).expect("records");
        records.into_iter().filter(|record| record.event == "SECURITY_EVENT").collect()
    }

    /// Waits for a security event of this code.
    fn raised(&self, code: &str) -> Vec<Record> {
        let began = Instant::now();
        loop {
            let events = self.security_events();
            if events.iter().any(|event| event.reason.as_deref() == Some(code)) {
                return events;
            }
            assert!(began.elapsed() < PATIENCE, "no {code}: {events:?}\n{}", self.product.log_tail(Role::Gateway));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn state_version(&self) -> u64 {
        let sessions = self.product.json(Role::Gateway, &["sessions"]).expect("sessions");
        live_session(&sessions).expect("one session").state_version
    }

    /// Waits until the session has chosen its path: what is changed before would be overwritten by its next move.
    fn settle(&self) -> u64 {
        let began = Instant::now();
        let (mut version, mut since) = (self.state_version(), Instant::now());
        while since.elapsed() < SETTLED {
            assert!(began.elapsed() < PATIENCE, "it moves all the time: version {version}");
            std::thread::sleep(Duration::from_millis(100));
            let now = self.state_version();
            if now != version {
                (version, since) = (now, Instant::now());
            }
        }
        version
    }

    fn end(mut self) {
        for role in [Role::Client, Role::Gateway] {
            self.product.stop(role).expect("it stops");
        }
        self.lab.down().expect("nothing is left");
    }
}

#[test]
fn a_map_that_somebody_changed_is_put_back_and_recorded_with_and_without_xdp() {
    for xdp in ["native", "off"] {
        let stage = Stage::set(xdp);
        let version = stage.settle();
        let pins = Pins::below(stage.lab.pin_root().join("gateway"));
        let mut maps = Kernel::open(&pins).expect("its maps open");
        let used = |slot: &Slot| maps.shared().generation(*slot).0 != Generation(0);
        let slots: Vec<Slot> = (0..maps.capacity()).map(Slot).filter(used).collect();
        let [slot] = slots.as_slice() else { panic!("one session, but slots {slots:?}") };
        let committed = maps.word(*slot);
        assert_ne!(committed.active(), 0, "it is bound");
        assert_eq!(stage.security_events(), [], "nobody changed anything yet");
        maps.apply(&MapOp::Activate { slot: *slot, word: committed.successor(0, 0) }).expect("a map can be written");
        let events = stage.raised("SEC_MAP_TAMPERED");
        assert_eq!((events.len(), maps.word(*slot)), (1, committed), "{xdp}");
        stage.answers();
        assert_eq!(stage.state_version(), version, "the session never moved");
        stage.end();
    }
}

#[test]
fn inner_packets_from_a_foreign_source_are_dropped_and_recorded_once_with_their_number() {
    let stage = Stage::set("native");
    let client = stage.lab.topology.client();
    let tun = client.run(&["ip", "-o", "address", "show", "to", INNER_CLIENT_V4], None).expect("an inner address");
    let tun = tun.split_whitespace().nth(1).expect("an interface").to_owned();
    client.run(&["ip", "address", "add", "10.99.9.9/32", "dev", &tun], None).expect("another address");
    client
        .enter(|| {
            let socket = UdpSocket::bind("10.99.9.9:0")?;
            for _ in 0..500 {
                socket.send_to(b"spoofed", (INNER_GATEWAY_V4, 9))?;
            }
            Ok(())
        })
        .expect("packets leave");
    let events = stage.raised("SEC_INNER_SPOOF");
    assert!(events.len() <= 2, "{events:?}");
    stage.answers();
    stage.end();
}
