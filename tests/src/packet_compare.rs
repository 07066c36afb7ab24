//! One frame in the kernel and on the host, and an oracle that shares no code.
//!
//! Owns the comparison: action, bytes, verdict and the state of all maps after the frame. Panics at the first
//! difference, with the frame in hex. Must never choose frames.

use etherparse::{LaxSlicedPacket, NetSlice, SlicedPacket, TransportSlice};
use jvpn_common::abi::{PathCounters, TrafficField};
use jvpn_common::steer::{self, Bytes, Judgement, NO_SLOT};
use jvpn_common::verdict::{Class, Verdict};

use crate::packet::{self, KEYS, XDP_DROP, XDP_PASS, XDP_TX};
use crate::packet_cases::Case;
use crate::packet_kernel::{Laboratory, counted, drained};
use crate::packet_maps::{HostMaps, INCARNATION, KernelMaps, NOW, TICK};

/// `BPF_PROG_TEST_RUN` takes no frame shorter than an Ethernet header.
const SHORTEST: usize = 14;

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
    /// Answers among them, which the oracle looked at.
    pub answers: u64,
}

impl std::fmt::Debug for Both {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Both").field("runs", &self.runs).field("answers", &self.answers).finish_non_exhaustive()
    }
}

impl Default for Both {
    fn default() -> Self {
        Self::new()
    }
}

impl Both {
    /// Loads the program; needs root.
    #[must_use]
    pub fn new() -> Self {
        stay_on_one_processor();
        let mut laboratory = Laboratory::new(TICK, NOW);
        let kernel = KernelMaps::of(&mut laboratory);
        let verdicts = laboratory.verdicts();
        let events = laboratory.events();
        Self { laboratory, kernel, verdicts, events, runs: 0, answers: 0 }
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
        let mut times: Vec<_> = (0..5).map(|_| self.laboratory.time(&case.frame, repeat)).collect();
        times.sort_unstable();
        times[2]
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
        host.reset();
        let before = host.state.borrow().clone();
        let mut bytes = frame.to_vec();
        let mut view = Bytes::new(&mut bytes);
        let judgement = steer::steer(&mut view, host);
        let verdict = judgement.verdict;
        assert_eq!(host.counted.borrow().as_slice(), [verdict], "counted once");
        let answer = view.packet().to_vec();
        if frame.len() < SHORTEST {
            assert!(matches!(verdict, Verdict::Foreign | Verdict::Unconfigured), "{verdict}");
            return verdict;
        }
        let reported = expect_event(host, &judgement);
        let seen = self.count_of(verdict);
        let outcome = self.laboratory.run(frame);
        self.runs += 1;
        let told = format!("{verdict} on {}", hex(frame));
        assert_eq!(self.count_of(verdict), seen + 1, "the kernel has another verdict than {told}");
        let action = match verdict.class() {
            Class::Pass | Class::User => XDP_PASS,
            Class::Answer | Class::Forward => XDP_TX,
            Class::Drop => XDP_DROP,
        };
        assert_eq!(outcome.action, action, "action of {told}");
        assert_eq!(hex(&outcome.frame), hex(&answer), "bytes of {told}");
        let (paths, traffic) = self.kernel.counters();
        let after = host.state.borrow();
        assert_eq!(paths, after.paths, "PATHS after {told}");
        assert_eq!(traffic, after.traffic, "TRAFFIC after {told}");
        if matches!(verdict, Verdict::Handshake | Verdict::HandshakeRate) {
            assert_eq!(self.kernel.buckets(), after.buckets, "BUCKETS after {told}");
        }
        let events = drained(&mut self.events);
        assert_eq!(events.iter().map(|event| event.verdict).collect::<Vec<_>>(), reported, "EVENTS after {told}");
        self.oracle(frame, &answer, verdict, &before.paths);
        self.kernel.restore(&after, &before);
        verdict
    }

    /// What can be said about a frame without asking the product.
    fn oracle(&mut self, question: &[u8], answer: &[u8], verdict: Verdict, paths: &[PathCounters]) {
        match verdict.class() {
            Class::Answer => {
                check_answer(question, answer, verdict, paths);
                self.answers += 1;
            }
            Class::Pass | Class::User | Class::Forward | Class::Drop => {
                assert_eq!(question, answer, "what is not answered is not changed");
            }
        }
        if let (Some(ours), false) = (is_ours(question), verdict == Verdict::Unconfigured) {
            assert_eq!(verdict != Verdict::Foreign, ours, "{verdict} on {}", hex(question));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// The kernel program reports a drop that concerns a session, at most once in 25 ticks.
fn expect_event(host: &HostMaps, judgement: &Judgement) -> Vec<u16> {
    let slot = judgement.entry.slot;
    if judgement.verdict.class() != Class::Drop || slot == NO_SLOT {
        return Vec::new();
    }
    let word = &mut host.state.borrow_mut().traffic[slot as usize][TrafficField::EventAt as usize];
    if *word != 0 && TICK - *word < 25 {
        return Vec::new();
    }
    *word = TICK;
    vec![judgement.verdict as u16]
}

/// Whether etherparse finds a UDP datagram for our port, where it is sure.
fn is_ours(frame: &[u8]) -> Option<bool> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let unicast = frame[0] & 1 == 0;
    let tags = packet.vlan_ids().len();
    let simple = tags == 0 || (tags == 1 && frame[12..14] == [0x81, 0]);
    if !simple || packet.is_ip_payload_fragmented() || !packet.link_exts.iter().all(is_vlan) {
        return None;
    }
    match (&packet.net, &packet.transport) {
        // Authentication headers are not walked: the kernel would not deliver what is behind one either.
        (Some(NetSlice::Ipv6(ip)), _) if ip.extensions().clone().into_iter().any(|e| is_authentication(&e)) => None,
        (Some(NetSlice::Ipv4(ip)), _) if ip.extensions().auth.is_some() => None,
        (Some(_), Some(TransportSlice::Udp(udp))) => Some(unicast && udp.destination_port() == packet::PORT),
        (Some(_), Some(_)) => Some(false),
        _ => None,
    }
}

fn is_vlan(ext: &etherparse::LinkExtSlice<'_>) -> bool {
    matches!(ext, etherparse::LinkExtSlice::Vlan(_))
}

fn is_authentication(extension: &etherparse::Ipv6ExtensionSlice<'_>) -> bool {
    matches!(extension, etherparse::Ipv6ExtensionSlice::Authentication(_))
}

/// RFC 1071, word by word. (etherparse forgets the reserved flag when it sums up a header.)
fn ones_complement(bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(0, |sum, pair| {
        let sum = sum + u32::from(pair[0]) * 256 + u32::from(pair[1]);
        (sum & 0xffff) + (sum >> 16)
    })
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// An echo or notice as the protocol says it, with every checksum computed in full.
fn check_answer(question: &[u8], answer: &[u8], verdict: Verdict, paths: &[PathCounters]) {
    let asked = LaxSlicedPacket::from_ethernet(question).expect("an answered question");
    let told = SlicedPacket::from_ethernet(answer).expect("an answer that parses strictly");
    assert!(answer.len() <= question.len(), "an answer is never larger than its question");
    assert_eq!((&answer[..6], &answer[6..12]), (&question[6..12], &question[..6]), "stations");
    assert_eq!(told.vlan_ids(), asked.vlan_ids(), "VLAN");
    let (Some(TransportSlice::Udp(from)), Some(TransportSlice::Udp(to))) = (&asked.transport, &told.transport) else {
        panic!("UDP both ways");
    };
    assert_eq!((to.source_port(), to.destination_port()), (from.destination_port(), from.source_port()));
    let sum = match (&asked.net, &told.net) {
        (Some(etherparse::LaxNetSlice::Ipv4(from)), Some(NetSlice::Ipv4(ip))) => {
            let (from, header) = (from.header(), ip.header());
            assert_eq!((header.source(), header.destination()), (from.destination(), from.source()));
            assert_eq!((header.ttl(), header.dcp(), header.ecn()), (64, from.dcp(), from.ecn()));
            assert_eq!(ones_complement(header.slice()), 0xffff, "IPv4 header checksum");
            to.to_header().calc_checksum_ipv4(&header.to_header(), to.payload()).expect("short")
        }
        (Some(etherparse::LaxNetSlice::Ipv6(from)), Some(NetSlice::Ipv6(ip))) => {
            let (from, header) = (from.header(), ip.header());
            assert_eq!((header.source(), header.destination()), (from.destination(), from.source()));
            assert_eq!(header.hop_limit(), 64);
            to.to_header().calc_checksum_ipv6(&header.to_header(), to.payload()).expect("short")
        }
        _ => panic!("the same IP version both ways"),
    };
    assert_eq!(to.checksum(), sum, "UDP checksum over everything");
    assert_ne!(to.checksum(), 0);
    check_body(from.payload(), to.payload(), verdict, paths);
}

/// What stands in an echo or notice.
fn check_body(q: &[u8], a: &[u8], verdict: Verdict, paths: &[PathCounters]) {
    assert_eq!((a[1], &a[2..4], &a[8..24]), (q[1], &[1_u8, 0][..], &q[8..24]), "epoch, direction, locator, counter");
    let (slot, k) = ((word(q, 8) >> 32) as u32 & 0xff, (word(q, 8) >> 8) as u16);
    assert_eq!(a[4..8], packet::tag(KEYS.down, a, k).to_le_bytes(), "tag");
    assert_eq!((word(a, 32), word(a, 40), word(a, 64)), (NOW, INCARNATION, 0), "time, incarnation, reserved");
    let alive = word(q, 8) & 1 == 0;
    let path = paths[slot as usize * 4 + usize::from(k)];
    match verdict {
        Verdict::Echoed => {
            assert_eq!((a[0], a.len(), word(a, 24)), (7, q.len(), word(q, 24)));
            assert_eq!(a[72..], q[72..], "padding");
            let counts = u64::from(path.probes + 1) | path.data << 32;
            assert_eq!(word(a, 48), counts, "probes and data that arrived");
            assert_eq!(word(a, 56) & 4 != 0, alive, "liveness");
        }
        _ => assert_eq!((a[0], a.len(), word(a, 24), word(a, 48), word(a, 56)), (8, 72, 0, 0, 4)),
    }
}
