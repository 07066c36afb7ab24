//! One frame through the steering function on the host, and then before the oracle.
//!
//! Owns what is said of a frame without a kernel. Panics at the first thing that is wrong, with the frame in hex. Must
//! never choose frames.

use jvpn_common::abi::{Hop, ROLE_RELAY};
use jvpn_common::steer::{self, Address, Bytes, Exit, Judgement, Route};
use jvpn_common::verdict::{Class, Verdict};

use crate::maps::{HostMaps, State};
use crate::oracle::{check_answer, check_forwarded, is_ours};

/// The interface every frame came in by: what `BPF_PROG_TEST_RUN` says, the loopback of the namespace.
pub const INGRESS: u32 = 1;
/// A frame shorter than an Ethernet header is nothing; `BPF_PROG_TEST_RUN` takes none either.
pub const SHORTEST: usize = 14;

/// The host's routes: what a slow path finds.
#[derive(Clone, Copy, Debug)]
pub struct Routes(pub Option<Exit>);

impl Route for Routes {
    fn ingress(&self) -> u32 {
        INGRESS
    }
    fn resolve(&self, _: &Hop, _: Address, _: u16) -> Option<Exit> {
        self.0
    }
}

/// What became of a frame.
#[derive(Debug)]
pub struct Outcome {
    /// The judgement.
    pub judgement: Judgement,
    /// The interface a forwarded frame leaves by.
    pub ifindex: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// Runs one frame over maps in which nothing happened yet.
#[must_use]
pub fn judge(host: &HostMaps, frame: &[u8]) -> Outcome {
    host.reset();
    let role = host.state.borrow().config.role;
    let mut bytes = frame.to_vec();
    let mut view = Bytes::new(&mut bytes);
    let (judgement, ifindex) = if role == ROLE_RELAY {
        let relayed = steer::relay(&mut view, host, &Routes(None));
        (relayed.judgement, relayed.ifindex)
    } else {
        (steer::steer(&mut view, host), 0)
    };
    let verdict = judgement.verdict;
    assert_eq!(host.counted.borrow().as_slice(), [verdict], "counted once: {}", hex::encode(frame));
    if frame.len() < SHORTEST {
        assert!(matches!(verdict, Verdict::Foreign | Verdict::Unconfigured), "{verdict}");
    }
    Outcome { judgement, ifindex, frame: view.packet().to_vec() }
}

/// What can be said about a frame without asking the product; whether it was answered or forwarded.
pub fn prove(question: &[u8], outcome: &Outcome, before: &State) -> bool {
    let (verdict, answer) = (outcome.judgement.verdict, &outcome.frame);
    match verdict.class() {
        Class::Answer => check_answer(question, answer, verdict, before),
        Class::Forward => {
            assert_eq!(check_forwarded(question, answer, verdict, before), outcome.ifindex, "interface");
        }
        Class::Pass | Class::User | Class::Drop => {
            assert_eq!(question, answer, "what is not answered is not changed");
        }
    }
    if let (Some(ours), false) = (is_ours(question), verdict == Verdict::Unconfigured) {
        assert_eq!(verdict != Verdict::Foreign, ours, "{verdict} on {}", hex::encode(question));
    }
    matches!(verdict.class(), Class::Answer | Class::Forward)
}
