//! Three paths that come and go, one session, and a client that knows two rules: LOST when its path died and another
//! lives, BETTER whenever one looks better.
//!
//! Owns schedules, that client, and what must hold on any of them. Must never be kinder to the session than a network:
//! requests and answers are lost with the path they are on. One number makes a schedule.
//!
//! ```text
//! alive   p0 ▁▁▁▔▔▁▔▔▔▔▔▔▔▔▁▁▁▁▁▁▔▔▔▔      stranded: unbound, or bound to a dead path,
//!         p1 ▔▔▔▔▔▔▔▔▁▔▁▔▁▔▁▔▁▔▁▔▁▔▁▔                while one other lives on without a break
//!         p2 ▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▁▁▁▁▁▁▁▁
//! ```

use super::T0;
use super::judge::{Judge, Verdict};
use super::{born, confirm, transport};
use crate::sim::rng::Rng;
use jvpn_common::ids::Version;
use jvpn_common::reason::Reason;
use jvpn_common::session::transition::{On, TABLE};
use jvpn_common::session::twin::Core;
use jvpn_common::session::{
    Cause, Class, Input, Policy, Refusal, Report, Request, Session, Side, Step, Switch, invariant,
};
use jvpn_common::time::{Duration, Instant};
use std::collections::BTreeMap;

/// Paths of a schedule.
const PATHS: usize = 3;
/// How long a schedule is.
const LENGTH: Duration = Duration::from_secs(90);
/// The longest a session may be stranded while nothing holds its client back.
pub const STRANDED_MAX: Duration = Duration::from_secs(1);
/// An unanswered request is repeated after this.
const REPEAT: Duration = Duration::from_millis(200);
/// Requests the client may send at once, and how long until it may send one more, inside an abuse limit of 120: in the
/// 65 s a meter remembers these are 114.
const PACE: (u64, Duration) = (10, Duration::from_millis(625));
/// The same inside a limit of 1,200, which holds nobody back: 1,109.
const FREE: (u64, Duration) = (20, Duration::from_millis(60));

/// What happens at an instant.
#[derive(Clone, Copy, Debug)]
enum Event {
    Toggle(usize),
    /// The client looks at its paths.
    Look,
    /// Something looks better to the client.
    Better,
    /// The active path's outer address changes.
    Remap,
    Report,
    Rekey,
    /// The gateway has not heard of a path for `gateway_dead_after`.
    Silent(usize, Instant),
    Arrive(Sent),
    Answer(Sent, Option<Duration>, bool),
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    request: Request,
    to: usize,
    port: u16,
}

/// A path: since when it is as it is.
#[derive(Clone, Copy, Debug)]
struct Line {
    alive: bool,
    since: Instant,
    port: u16,
}

/// What a schedule, or many, showed.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Times a path came or went.
    pub toggles: u64,
    /// Optional switches carried out.
    pub optional: u64,
    /// Necessary ones.
    pub necessary: u64,
    /// Optional ones denied.
    pub denied: u64,
    /// Longest time stranded inside a tight abuse limit, inside a wide one, and of both the longest unbound.
    pub stranded: Duration,
    /// See `stranded`.
    pub free: Duration,
    /// See `stranded`.
    pub unbound: Duration,
    /// Most members of one run of quick optional switches.
    pub run: usize,
    /// Longest such run.
    pub run_length: Duration,
    /// Times each row was taken.
    pub rows: BTreeMap<usize, u64>,
}

impl Seen {
    /// Adds what another saw.
    pub fn add(&mut self, other: &Self) {
        self.toggles += other.toggles;
        self.optional += other.optional;
        self.necessary += other.necessary;
        self.denied += other.denied;
        self.stranded = self.stranded.max(other.stranded);
        self.free = self.free.max(other.free);
        self.unbound = self.unbound.max(other.unbound);
        self.run = self.run.max(other.run);
        self.run_length = self.run_length.max(other.run_length);
        other.rows.iter().for_each(|(row, count)| *self.rows.entry(*row).or_default() += count);
    }
}

/// One schedule while it runs.
struct Flap {
    core: Core,
    policy: Policy,
    session: Session,
    judge: Judge,
    /// Whether the judge is heard; without it the checks of this file stand alone.
    judged: bool,
    rng: Rng,
    now: Instant,
    agenda: BTreeMap<(Instant, u64), Event>,
    count: u64,
    lines: [Line; PATHS],
    pace: [u64; PATHS],
    /// The client's pace, and how long it may be stranded.
    tempo: (u64, Duration),
    limit: Duration,
    /// Since when the gateway has it unbound, and the path it is bound to.
    unbound: Option<Instant>,
    client: Client,
    /// The optional switches of the present run.
    run: Vec<Instant>,
    seen: Seen,
}

/// What the client believes.
struct Client {
    active: usize,
    lost: bool,
    asking: Option<Sent>,
    nonce: u64,
    /// The highest nonce that was answered.
    heard: u64,
    tokens: u64,
    refilled: Instant,
    version: Version,
    not_before: Instant,
}

/// The policy of a seed: `field`, every other one with an abuse limit out of the way, every other pair with a gateway
/// that notices a dead path soon, so that sessions are unbound at all.
#[must_use]
pub fn policy(seed: u64) -> Policy {
    let mut policy = Policy::field();
    if is_free(seed) {
        policy.max_requests_per_min = 1_200;
    }
    if seed & 2 != 0 {
        policy.gateway_dead_after = Duration::from_secs(1);
    }
    policy
}

const fn is_free(seed: u64) -> bool {
    seed & 1 != 0
}

/// The longest a session of a seed may be stranded. Inside a tight abuse limit two requests may go to paths that die
/// under them, each after a wait for the client's pace.
#[must_use]
pub fn stranded_max(seed: u64) -> Duration {
    if is_free(seed) { STRANDED_MAX } else { STRANDED_MAX + PACE.1 * 2 }
}

/// Runs the schedule of a seed.
pub fn run(core: Core, seed: u64, judged: bool) -> Result<Seen, String> {
    let mut flap = Flap::new(core, &policy(seed), seed, judged);
    flap.play().map_err(|wrong| format!("seed {seed} at {:?}: {wrong}", flap.now))?;
    Ok(flap.seen)
}

impl Flap {
    fn new(core: Core, policy: &Policy, seed: u64, judged: bool) -> Self {
        let mut rng = Rng::new(seed);
        let session = born(policy);
        let line = Line { alive: true, since: T0, port: 0 };
        // How quickly a path flaps, as a whole: from hardly living to hardly dying.
        let pace = [0; PATHS].map(|_| [60, 250, 1_000, 4_000, 15_000, 60_000][rng.below(6) as usize]);
        let tempo = if is_free(seed) { FREE } else { PACE };
        let client = Client {
            active: 0,
            lost: false,
            asking: None,
            nonce: 0,
            heard: 0,
            tokens: tempo.0,
            refilled: T0,
            version: Version(1),
            not_before: T0,
        };
        let judge = Judge::new(&session, policy, T0);
        let policy = policy.clone();
        let mut flap = Self {
            core,
            policy,
            session,
            judge,
            judged,
            rng,
            now: T0,
            agenda: BTreeMap::new(),
            count: 0,
            lines: [line; PATHS],
            pace,
            tempo,
            limit: stranded_max(seed),
            unbound: None,
            client,
            run: Vec::new(),
            seen: Seen::default(),
        };
        for path in 0..PATHS {
            flap.toggle_later(path);
        }
        for event in [Event::Better, Event::Remap, Event::Report, Event::Rekey] {
            flap.later(Duration::from_millis(200), event);
        }
        flap
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.count += 1;
        self.agenda.insert((self.now + after, self.count), event);
    }

    fn toggle_later(&mut self, path: usize) {
        let pace = self.pace[path];
        // Paths live somewhat longer than they are dead, and now and then one holds still.
        let still = if self.rng.chance(30) { 8 } else { 1 };
        let mean = if self.lines[path].alive { pace * 2 } else { pace };
        let after = self.rng.millis(mean / 4, mean * 7 / 4) * still;
        self.later(after, Event::Toggle(path));
    }

    fn play(&mut self) -> Verdict {
        self.meet(&confirm(transport(0, 0), T0, Duration::from_secs(180)))?;
        while let Some((&(at, number), &event)) = self.agenda.first_key_value() {
            if at > T0 + LENGTH {
                break;
            }
            let timer = self.core.next_deadline(&self.session, &self.policy);
            if let Some(due) = timer.filter(|&due| due <= at) {
                self.now = self.now.max(due);
                self.watch()?;
                self.meet(&Input::Tick)?;
                continue;
            }
            self.agenda.remove(&(at, number));
            self.now = at;
            self.watch()?;
            self.happens(event)?;
        }
        Ok(())
    }

    /// Nobody is stranded while a path lives. Nothing changed since the last event: now is as bad as it was.
    fn watch(&mut self) -> Verdict {
        let since = match (self.unbound, self.session.transport()) {
            (Some(at), _) => Some(at),
            (None, Some(active)) => {
                let line = self.lines[usize::from(active.k.0)];
                (!line.alive).then_some(line.since)
            }
            (None, None) => None,
        };
        let Some(since) = since.filter(|_| self.session.is_live()) else { return Ok(()) };
        let stranded =
            self.lines.iter().filter(|line| line.alive).map(|line| self.now.since(line.since.max(since))).max();
        let longest = if self.tempo == FREE { &mut self.seen.free } else { &mut self.seen.stranded };
        *longest = (*longest).max(stranded.unwrap_or_default());
        if self.unbound.is_some() {
            self.seen.unbound = self.seen.unbound.max(stranded.unwrap_or_default());
        }
        let what = if self.unbound.is_some() { "unbound" } else { "bound to a dead path" };
        match stranded {
            Some(long) if long > self.limit => Err(format!("stranded: {what} for {long:?} while a path lives")),
            _ => Ok(()),
        }
    }

    fn happens(&mut self, event: Event) -> Verdict {
        match event {
            Event::Toggle(path) => self.toggle(path),
            Event::Look => self.look(),
            Event::Better => self.better(),
            Event::Remap => {
                if self.client.asking.is_some() || self.client.lost {
                    self.later(REPEAT, Event::Remap);
                    return Ok(());
                }
                let next = self.rng.millis(4_000, 30_000);
                self.later(next, Event::Remap);
                let active = self.client.active;
                self.lines[active].port ^= 1;
                self.ask(Class::Rebind, Cause::Quality, 0, active);
            }
            Event::Report => {
                self.later(Duration::from_millis(500), Event::Report);
                let loss = [0, 0, 0, 20, 100, 300][self.rng.below(6) as usize];
                if self.session.transport().is_some_and(|active| self.lines[usize::from(active.k.0)].alive) {
                    let (rtt, jitter) = (Duration::from_millis(20), Duration::from_millis(2));
                    return self.meet(&Input::Quality(Report { loss, rtt, jitter, delivered: 25 }));
                }
            }
            Event::Rekey => {
                self.later(Duration::from_secs(30), Event::Rekey);
                return self.meet(&Input::Rekeyed { reject_after: self.now + Duration::from_secs(180) });
            }
            Event::Silent(path, since) => {
                let line = self.lines[path];
                let active = self.session.transport().is_some_and(|active| usize::from(active.k.0) == path);
                if active && !line.alive && line.since == since {
                    return self.meet(&Input::TransportLost { by: Side::Gateway, evidence: None });
                }
            }
            Event::Arrive(sent) => return self.arrive(sent),
            Event::Answer(sent, retry, taken) => self.answered(sent, retry, taken),
        }
        Ok(())
    }

    fn toggle(&mut self, path: usize) {
        self.seen.toggles += 1;
        let line = &mut self.lines[path];
        (line.alive, line.since) = (!line.alive, self.now);
        let (alive, since) = (line.alive, line.since);
        self.toggle_later(path);
        self.later(if alive { Duration::ZERO } else { self.policy.dead_after }, Event::Look);
        if !alive {
            self.later(self.policy.gateway_dead_after, Event::Silent(path, since));
        }
    }

    fn is_dead(&self, path: usize) -> bool {
        let line = self.lines[path];
        !line.alive && self.now.since(line.since) >= self.policy.dead_after
    }

    /// LOST, when the active path is dead and another lives.
    fn look(&mut self) {
        // A request nobody answered leaves open where the session is: then it is asked for where a path lives.
        let unanswered = |sent: Sent| self.now.since(sent.at) >= REPEAT;
        self.client.lost |= self.is_dead(self.client.active) || self.client.asking.is_some_and(unanswered);
        let waits = self.client.asking.is_some_and(|sent| {
            sent.request.class == Class::Lost && !self.is_dead(sent.to) && self.now.since(sent.at) < REPEAT
        });
        if !self.client.lost || waits {
            return;
        }
        // What lived longest will live on.
        let alive = (0..PATHS).filter(|&path| self.lines[path].alive);
        if let Some(to) = alive.min_by_key(|&path| self.lines[path].since) {
            self.ask(Class::Lost, Cause::Quality, 0, to);
        }
    }

    /// BETTER, to any path that lives: what looks better changes all the time.
    fn better(&mut self) {
        let next = self.rng.millis(100, 600);
        self.later(next, Event::Better);
        let to = self.rng.below(PATHS as u64) as usize;
        let free = self.client.asking.is_none() && !self.client.lost && self.client.not_before <= self.now;
        // What is needed to come back is not spent on what is nice to have.
        if free && to != self.client.active && self.lines[to].alive && self.tokens() > self.tempo.0 / 2 {
            let cause = if self.rng.chance(100) { Cause::Operator } else { Cause::Quality };
            let improvement = self.rng.between(100, 600) as u16;
            self.ask(Class::Better, cause, improvement, to);
        }
    }

    fn tokens(&mut self) -> u64 {
        while self.client.tokens < self.tempo.0 && self.client.refilled + self.tempo.1 <= self.now {
            self.client.tokens += 1;
            self.client.refilled = self.client.refilled + self.tempo.1;
        }
        if self.client.tokens == self.tempo.0 {
            self.client.refilled = self.now;
        }
        self.client.tokens
    }

    fn ask(&mut self, class: Class, cause: Cause, improvement: u16, to: usize) {
        if self.tokens() == 0 {
            let next = self.client.refilled + self.tempo.1;
            self.later(next.since(self.now), Event::Look);
            return;
        }
        self.client.tokens -= 1;
        self.client.nonce += 1;
        let evidence = (class == Class::Lost).then_some(Reason::NoDelivery);
        let (nonce, last_version) = (self.client.nonce, self.client.version);
        let request = Request { class, cause, improvement, nonce, last_version, evidence };
        let sent = Sent { at: self.now, request, to, port: self.lines[to].port };
        self.client.asking = Some(sent);
        let way = self.rng.millis(5, 60);
        self.later(way, Event::Arrive(sent));
        self.later(REPEAT, Event::Look);
    }

    /// Whether a path lived all the time since.
    fn carried(&self, sent: Sent) -> bool {
        let line = self.lines[sent.to];
        line.alive && line.since <= sent.at
    }

    fn arrive(&mut self, sent: Sent) -> Verdict {
        if !self.carried(sent) {
            return Ok(());
        }
        let to = transport(sent.to as u16, sent.port);
        let input = Input::Reattach(Switch::supposed(sent.request, to));
        let answer = self.core.step(&self.session, &input, &self.policy, self.now);
        let refused = answer.as_ref().err().and_then(|refusal| refusal.retry_after);
        let taken = answer.is_ok();
        let optional = sent.request.class == Class::Better && self.session.is_bound();
        self.heard(&input, answer)?;
        match (taken, optional) {
            (true, true) => {
                self.seen.optional += 1;
                self.quick()?;
            }
            (false, true) => self.seen.denied += 1,
            (true, false) => self.seen.necessary += 1,
            (false, false) => {}
        }
        let way = self.rng.millis(5, 60);
        self.later(way, Event::Answer(sent, refused, taken));
        Ok(())
    }

    fn answered(&mut self, sent: Sent, retry: Option<Duration>, taken: bool) {
        if !self.carried(sent) || sent.request.nonce <= self.client.heard {
            return;
        }
        self.client.heard = sent.request.nonce;
        self.client.version = self.client.version.max(self.session.version());
        if self.client.asking.is_some_and(|asking| asking.request.nonce == sent.request.nonce) {
            self.client.asking = None;
        }
        if taken {
            (self.client.active, self.client.lost) = (sent.to, false);
        } else {
            self.client.not_before = self.now + retry.unwrap_or(REPEAT);
        }
        self.later(Duration::ZERO, Event::Look);
    }

    /// A run of optional switches, each sooner after the last than the rate allows in the long run, has at most
    /// `max_switches_per_min` members and is over within a minute: one more would be too many in a minute, and a
    /// budget refills only where nothing moved for `degraded_stability_window`, which no run contains.
    fn quick(&mut self) -> Verdict {
        let most = self.policy.max_switches_per_min as usize;
        let gap = Duration::from_secs(60) / self.policy.max_switches_per_min;
        if self.run.last().is_some_and(|&last| self.now.since(last) >= gap) {
            self.run.clear();
        }
        self.run.push(self.now);
        let length = self.run.first().map_or(Duration::ZERO, |&first| self.now.since(first));
        (self.seen.run, self.seen.run_length) = (self.seen.run.max(self.run.len()), self.seen.run_length.max(length));
        let within = self.run.len() <= most && length < Duration::from_secs(60);
        if within { Ok(()) } else { Err(format!("oscillation: {} optional switches in {length:?}", self.run.len())) }
    }

    fn meet(&mut self, input: &Input) -> Verdict {
        let answer = self.core.step(&self.session, input, &self.policy, self.now);
        self.heard(input, answer)
    }

    fn heard(&mut self, input: &Input, answer: Result<Step, Refusal>) -> Verdict {
        if self.judged {
            self.judge.heard(&self.session, input, &answer, &self.policy, self.now)?;
        }
        let Ok(step) = answer else { return Ok(()) };
        if self.judged {
            invariant::check(&self.session, &step).map_err(|broken| broken.to_string())?;
        }
        for transition in &step.transitions {
            *self.seen.rows.entry(transition.row).or_default() += 1;
            let lost = TABLE.get(transition.row).is_some_and(|row| row.on == On::TransportLost);
            if lost || transition.after.is_bound() {
                self.unbound = if transition.after.is_bound() { None } else { self.unbound.or(Some(self.now)) };
            }
        }
        self.session = step.session;
        if !self.session.is_bound() {
            self.unbound = self.unbound.or(Some(self.now));
        }
        Ok(())
    }
}
