//! The paths between the two hosts, and what is wrong with each at the moment.
//!
//! Owns delay, jitter, loss, death and the NAT. Must never look into a datagram.

use super::rng::Rng;
use super::{Direction, Kind, Path};
use crate::client::{Input, PathId, PathUp};
use crate::time::{Duration, Instant, nanos};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where the gateway is.
pub(super) const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 51_821);

/// One way of a line.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Deaths that last.
    dead: u32,
    loss: u16,
}

/// A path as it is now.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) path: Path,
    pub(super) id: PathId,
    /// Its address as the gateway sees it.
    pub(super) outer: SocketAddr,
    /// Losses of its link that last.
    gone: u32,
    delay: Duration,
    jitter: Duration,
    /// Until when what is sent waits.
    paused: Option<Instant>,
    up: Way,
    down: Way,
}

impl Line {
    pub(super) fn new(number: u8, path: &Path) -> Self {
        let way = Way { dead: 0, loss: path.loss };
        Self {
            id: PathId(u32::from(number) + 1),
            outer: SocketAddr::new(Ipv4Addr::new(198, 51, 100, number + 10).into(), 40_000),
            gone: 0,
            delay: path.delay,
            jitter: path.jitter,
            paused: None,
            up: way,
            down: way,
            path: path.clone(),
        }
    }

    /// Whether the client has it.
    pub(super) const fn exists(&self) -> bool {
        self.gone == 0
    }

    /// What tells the client that it has it.
    pub(super) const fn announced(&self) -> Input<'static> {
        Input::PathUp(PathUp {
            path: self.id,
            label: self.path.name,
            class: self.path.class,
            metered: self.path.metered,
            v6: false,
            endpoint: None,
            beside: None,
            link_mtu: 1_500,
        })
    }

    /// When a datagram that leaves now arrives; none if it does not.
    pub(super) fn carry(&self, upwards: bool, now: Instant, rng: &mut Rng) -> Option<Instant> {
        let way = if upwards { self.up } else { self.down };
        let jitter = Duration::from_nanos(rng.below(nanos(self.jitter) + 1));
        let lost = rng.chance(way.loss.into());
        (self.exists() && way.dead == 0 && !lost)
            .then(|| self.paused.map_or(now, |until| until.max(now)) + self.delay + jitter)
    }

    fn ways(&mut self, direction: Direction) -> impl Iterator<Item = &mut Way> {
        let up = (direction != Direction::Down).then_some(&mut self.up);
        let down = (direction != Direction::Up).then_some(&mut self.down);
        up.into_iter().chain(down)
    }

    /// Something begins to be wrong, until then.
    pub(super) fn begin(&mut self, kind: Kind, until: Instant) {
        match kind {
            Kind::Death(direction) => self.ways(direction).for_each(|way| way.dead += 1),
            Kind::Link => self.gone += 1,
            Kind::Loss(direction, loss) => self.ways(direction).for_each(|way| way.loss = loss),
            Kind::Delay(delay) => self.delay = delay,
            Kind::Jitter(jitter) => self.jitter = jitter,
            Kind::Pause => self.paused = self.paused.max(Some(until)),
            Kind::Rebind => self.outer.set_port(self.outer.port().checked_add(1).unwrap_or(40_000)),
        }
    }

    /// And is over.
    pub(super) fn end(&mut self, kind: Kind) {
        let (loss, delay, jitter) = (self.path.loss, self.path.delay, self.path.jitter);
        match kind {
            Kind::Death(direction) => self.ways(direction).for_each(|way| way.dead = way.dead.saturating_sub(1)),
            Kind::Link => self.gone = self.gone.saturating_sub(1),
            Kind::Loss(direction, _) => self.ways(direction).for_each(|way| way.loss = loss),
            Kind::Delay(_) => self.delay = delay,
            Kind::Jitter(_) => self.jitter = jitter,
            // Its end is in the instant itself.
            Kind::Pause | Kind::Rebind => {}
        }
    }
}

/// A fault in words.
pub(super) fn told(paths: &str, kind: Kind, begins: bool) -> String {
    let what = match (kind, begins) {
        (Kind::Death(_), true) => "nothing passes any more".to_owned(),
        (Kind::Link, true) => "its link is gone".to_owned(),
        (Kind::Loss(_, loss), true) => format!("loses {}.{} %", loss / 10, loss % 10),
        (Kind::Delay(delay), true) => format!("takes {} ms each way", delay.as_millis()),
        (Kind::Jitter(jitter), true) => format!("varies by {} ms", jitter.as_millis()),
        (Kind::Pause, true) => "pauses".to_owned(),
        (Kind::Rebind, _) => "its NAT gives another port".to_owned(),
        (_, false) => "is as before".to_owned(),
    };
    format!("{paths}: {what}")
}
