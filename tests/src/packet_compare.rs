//! One frame in the kernel and on the host, and then before the oracle.
//!
//! Owns the comparison: action, bytes, verdict and the state of all maps after the frame. Panics at the first
//! difference, with the frame in hex. Must never choose frames.

use jvpn_common::abi::TrafficField;
use jvpn_common::steer::{Judgement, NO_SLOT};
use jvpn_common::verdict::{Class, Verdict};

use jvpn_ctl::dataplane::attach::Program;

use crate::packet::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use crate::packet_cases::Case;
use crate::packet_kernel::{Laboratory, counted, drained};
use crate::packet_kernel_maps::KernelMaps;
use crate::packet_maps::{HostMaps, NOW, State, TICK};
use jvpn_packets::host::{INGRESS, Outcome, SHORTEST, judge, prove};

/// Runs on one processor, so that the kernel's "own" buckets and counters are always the same.
fn stay_on_one_processor() {
    let mut set = rustix::thread::CpuSet::new();
    set.set(0);
    rustix::thread::sched_setaffinity(None, &set).expect("processor 0 is there");
}

/// Kernel and host with the same maps.
pub struct Both {
    laboratory: Laboratory,
    kernel: KernelMaps,
    verdicts: aya::maps::PerCpuArray<aya::maps::MapData, u64>,
    events: aya::maps::RingBuf<aya::maps::MapData>,
    /// Frames compared so far.
    pub runs: u64,
    /// Answers and forwarded frames among them, which the oracle looked at.
    pub answers: u64,
}

impl std::fmt::Debug for Both {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Both").field("runs", &self.runs).field("answers", &self.answers).finish_non_exhaustive()
    }
}

impl Both {
    /// Loads a program; needs root.
    #[must_use]
    pub fn new(program: Program) -> Self {
        stay_on_one_processor();
        let mut laboratory = Laboratory::of(program, TICK, NOW);
        let kernel = KernelMaps::of(&mut laboratory);
        let verdicts = laboratory.verdicts();
        let events = laboratory.events();
        Self { laboratory, kernel, verdicts, events, runs: 0, answers: 0 }
    }

    /// Loads a program over maps that hold `state`.
    #[must_use]
    pub fn filled(program: Program, state: &State) -> Self {
        let mut both = Self::new(program);
        both.kernel.fill(state);
        both
    }

    /// The program alone.
    #[must_use]
    pub fn laboratory(&self) -> &Laboratory {
        &self.laboratory
    }

    /// A base frame gets its verdict; it and its variants are the same on both sides and leave alone what only the
    /// controller may change.
    pub fn check(&mut self, case: &Case, variants: impl Iterator<Item = Vec<u8>>) {
        let Case { verdict, v6, state, frame } = case;
        self.kernel.fill(state);
        let host = HostMaps::new(state);
        let got = self.compare(&host, frame);
        assert_eq!(got, *verdict, "base frame (IPv6: {v6}) {}", hex(frame));
        for variant in variants {
            self.compare(&host, &variant);
        }
        assert!(self.kernel.untouched(state), "a packet changed what only the controller may change");
        assert_eq!(self.kernel.buckets(), state.buckets, "BUCKETS");
        assert_eq!(counted(&self.verdicts).iter().sum::<u64>(), self.runs, "one verdict a packet");
    }

    /// Median nanoseconds of `repeat` runs of a base frame, the harness included.
    pub fn price(&mut self, case: &Case, repeat: u32) -> u64 {
        self.kernel.fill(&case.state);
        let mut times: Vec<_> = (0..25).map(|_| self.laboratory.time(&case.frame, repeat.div_ceil(5))).collect();
        times.sort_unstable();
        times[12]
    }

    /// Instructions the verifier walked.
    #[must_use]
    pub fn verified(&self) -> u32 {
        self.laboratory.verified()
    }

    fn count_of(&self, verdict: Verdict) -> u64 {
        self.verdicts.get(&u32::from(verdict as u16), 0).expect("VERDICTS").iter().sum()
    }

    /// Runs one frame in the kernel and on the host and compares all there is.
    fn compare(&mut self, host: &HostMaps, frame: &[u8]) -> Verdict {
        let before = {
            host.reset();
            host.state.borrow().clone()
        };
        let outcome = judge(host, frame);
        let Outcome { judgement, ifindex, frame: answer } = &outcome;
        let verdict = judgement.verdict;
        if frame.len() < SHORTEST {
            return verdict;
        }
        let reported = expect_event(host, judgement);
        let seen = self.count_of(verdict);
        let ran = self.laboratory.run(frame);
        self.runs += 1;
        let told = format!("{verdict} on {}", hex(frame));
        assert_eq!(self.count_of(verdict), seen + 1, "the kernel has another verdict than {told}");
        let action = match verdict.class() {
            Class::Pass | Class::User => XDP_PASS,
            Class::Answer => XDP_TX,
            Class::Forward if *ifindex == INGRESS => XDP_TX,
            Class::Forward => XDP_REDIRECT,
            Class::Drop => XDP_DROP,
        };
        assert_eq!(ran.action, action, "action of {told}");
        assert_eq!(hex(&ran.frame), hex(answer), "bytes of {told}");
        let (paths, traffic) = self.kernel.counters();
        let after = host.state.borrow();
        assert_eq!(paths, after.paths, "PATHS after {told}");
        assert_eq!(traffic, after.traffic, "TRAFFIC after {told}");
        if matches!(verdict, Verdict::Handshake | Verdict::HandshakeRate) {
            assert_eq!(self.kernel.buckets(), after.buckets, "BUCKETS after {told}");
        }
        let events = drained(&mut self.events);
        assert_eq!(events.iter().map(|event| event.verdict).collect::<Vec<_>>(), reported, "EVENTS after {told}");
        self.answers += u64::from(prove(frame, &outcome, &before));
        self.kernel.restore(&after, &before);
        verdict
    }
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// The kernel program reports a drop that concerns a session, or a way without a neighbour, at most once in 25 ticks.
fn expect_event(host: &HostMaps, judgement: &Judgement) -> Vec<u16> {
    let slot = judgement.entry.slot;
    let reported = judgement.verdict.class() == Class::Drop || judgement.verdict == Verdict::NoNeighbour;
    if !reported || slot == NO_SLOT {
        return Vec::new();
    }
    let word = &mut host.state.borrow_mut().traffic[slot as usize][TrafficField::EventAt as usize];
    if *word != 0 && TICK - *word < 25 {
        return Vec::new();
    }
    *word = TICK;
    vec![judgement.verdict as u16]
}
