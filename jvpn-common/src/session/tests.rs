//! Tests of the session core: fixtures reached through the machine only, and stories of random inputs.
//!
//! Owns what the test files below share. Must never set a field to reach a state.

mod answers;
mod invariants;
mod refusals;
mod restart;
mod rows;
mod stories;

pub(crate) use answers::inputs;
pub(crate) use stories::{Story, any_story};

use super::*;
use crate::ids::TransportIndex;

/// When every fixture is born: late enough that looking back a minute stays after boot.
pub(crate) const T0: Instant = Instant(1_000_000_000_000);

pub(crate) fn at(ms: u64) -> Instant {
    T0 + Duration::from_millis(ms)
}

pub(crate) const PEER: [u8; 32] = [7; 32];

pub(crate) fn birth() -> Birth {
    Birth { id: SessionId(*b"a session's name"), peer: PEER, owner_epoch: OwnerEpoch(3) }
}

/// A transport of index `k` from host `host` of the documentation network.
pub(crate) fn transport(k: u16, host: u8) -> Transport {
    let remote = core::net::SocketAddr::new([192, 0, 2, host].into(), 40_000 + k);
    Transport {
        k: TransportIndex(k),
        path: Path::new(remote, 0),
        label: Label::new(b"wifi"),
        class: TransportClass::Primary,
        mtu: 1_400,
        since: Instant(0),
    }
}

pub(crate) fn request(class: Class, nonce: u64) -> Request {
    let (improvement, last_version) = (500, Version(1));
    Request { class, cause: Cause::Quality, improvement, nonce, last_version, evidence: Some(Reason::NoDelivery) }
}

/// A switch with all its evidence.
pub(crate) fn switch(request: Request, to: Transport) -> Switch {
    let validated = Validated::answered(to, to.path).expect("the path answered");
    let allowed = Allowed::by(&Policy::field(), &to).expect("all classes are allowed");
    Switch::new(Opened::new(request), validated, allowed).expect("one transport")
}

pub(crate) fn reattach(class: Class, nonce: u64, to: Transport) -> Input {
    Input::Reattach(switch(request(class, nonce), to))
}

pub(crate) fn confirmed(to: Transport) -> Confirmed {
    let allowed = Allowed::by(&Policy::field(), &to).expect("all classes are allowed");
    Confirmed::new(Opened::new(to), to.path, allowed).expect("from the address that was asked")
}

pub(crate) fn confirm(now: Instant) -> Input {
    Input::Confirm { confirmed: confirmed(transport(0, 1)), reject_after: now + Duration::from_secs(180) }
}

pub(crate) fn resume(now: Instant) -> Input {
    Input::Resume(Resume {
        peer: PEER,
        confirmed: confirmed(transport(0, 9)),
        last_version: Version(1),
        reject_after: now + Duration::from_secs(180),
    })
}

pub(crate) fn quality(loss: u16) -> Input {
    let (rtt, jitter) = (Duration::from_millis(20), Duration::from_millis(2));
    Input::Quality(Report { loss, rtt, jitter, delivered: 100 })
}

pub(crate) const LOST: Input = Input::TransportLost { by: Side::Client, evidence: Some(Reason::LinkDown) };

impl Session {
    /// Fires what is due, then applies an input that must be taken; every step is checked.
    pub(crate) fn after(&self, input: Input, now: Instant) -> Self {
        let policy = Policy::field();
        let session = self.settled(&policy, now);
        if input == Input::Tick {
            return session;
        }
        let step = session.step(&input, &policy, now);
        let step = step.unwrap_or_else(|refusal| panic!("{refusal:?} to {input:?} in {:?}", session.place()));
        checked(&session, &step, &policy, now);
        step.session
    }

    /// The session after every due timer.
    pub(crate) fn settled(&self, policy: &Policy, now: Instant) -> Self {
        let mut session = self.clone();
        for _ in 0..8 {
            let Some(step) = session.tick(policy, now) else {
                return session;
            };
            checked(&session, &step, policy, now);
            session = step.session;
        }
        panic!("timers that never stop firing: {session:?}");
    }
}

/// Every invariant, of one step.
pub(crate) fn checked(before: &Session, step: &Step, policy: &Policy, now: Instant) {
    let held = invariant::check(before, step).and_then(|()| invariant::replays(step, policy, now));
    held.unwrap_or_else(|broken| panic!("{broken}\nbefore {before:#?}\nstep {step:#?}"));
}

pub(crate) fn born() -> Session {
    Session::born(birth(), &Policy::field(), T0)
}

pub(crate) fn attached() -> Session {
    born().after(confirm(at(50)), at(50))
}

pub(crate) fn volatile() -> Session {
    attached().after(quality(300), at(1_000)).after(quality(300), at(2_000))
}

pub(crate) fn recovering() -> Session {
    attached().after(LOST, at(10_000))
}

pub(crate) fn degraded_bound() -> Session {
    volatile().after(Input::Tick, at(62_000))
}

pub(crate) fn degraded_unbound() -> Session {
    recovering().after(Input::Tick, at(40_000))
}

pub(crate) fn terminated() -> Session {
    attached().after(Input::Terminate { by: Ender::Client }, at(10_000))
}

/// Every place with a session in it.
pub(crate) fn everywhere() -> [Session; 7] {
    [born(), attached(), volatile(), recovering(), degraded_bound(), degraded_unbound(), terminated()]
}
