//! The kernel program in a laboratory: loaded with fixed time, pinned where nobody else looks, run by
//! `BPF_PROG_TEST_RUN`.
//!
//! Owns a private pin directory and removes it. Must never attach to an interface and never skip: without
//! privileges or object it says which command is missing.

use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use jvpn_common::abi::{BUCKETS_PER_SESSION, Config, Event, LAYOUT_HASH, PATHS_PER_SLOT, map};
use jvpn_common::verdict::VERDICTS_MAX;
use jvpn_ctl::dataplane::attach::Program;
use jvpn_ctl::dataplane::object;
use jvpn_ctl::dataplane::pins::Pins;
use std::process;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

pub use crate::packet_maps::SLOTS;

/// A pin directory that goes with its owner, also when loading panics.
pub(crate) struct Private(pub(crate) Pins);

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove_all() {
            eprintln!("{}: {error}", self.0.root().display());
        }
    }
}

/// The program and its maps.
pub struct Laboratory {
    ebpf: Ebpf,
    pins: Private,
    program: Program,
}

impl std::fmt::Debug for Laboratory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Laboratory").field("pins", &self.pins.0).finish_non_exhaustive()
    }
}

/// What came out of one run.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// XDP action.
    pub action: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

impl Laboratory {
    /// Loads a gateway's program with its own maps. With a `tick` of zero it sees real time.
    #[must_use]
    pub fn new(tick: u64, now: u64) -> Self {
        Self::of(Program::Gateway, tick, now)
    }

    /// The same with either program.
    #[must_use]
    pub fn of(program: Program, tick: u64, now: u64) -> Self {
        let bytes = object().expect("no kernel program in this build: cargo xtask build, then again");
        Self::with(bytes, program, tick, now)
    }

    /// The same out of another object.
    #[must_use]
    pub fn with(bytes: &[u8], program: Program, tick: u64, now: u64) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests load a kernel program and need root: sudo -E cargo xtask test"
        );
        let pins = Private(private_pins());
        let mut loader = EbpfLoader::new();
        loader.override_global("FIXED_TICK", &tick, true).override_global("FIXED_NOW", &now, true);
        for name in map::SIZED {
            let each = match name {
                map::LOCATORS => BUCKETS_PER_SESSION,
                map::PATHS => PATHS_PER_SLOT,
                _ => 1,
            };
            loader.map_max_entries(name, SLOTS * each);
        }
        for name in map::ALL {
            loader.map_pin_path(name, pins.0.map(name));
        }
        let mut ebpf = loader.load(bytes).expect("the kernel takes the maps");
        for name in [program.name(), "jvpn_clock"] {
            let program: &mut Xdp = ebpf.program_mut(name).expect("named").try_into().expect("XDP");
            program.load().expect("the verifier takes the program");
        }
        let mut laboratory = Self { ebpf, pins, program };
        let config = Config { layout: LAYOUT_HASH, max_sessions: SLOTS, hz: 250, ..Config::default() };
        laboratory.array::<[u64; 32]>(map::CONFIG).set(0, config.to_words(), 0).expect("CONFIG");
        laboratory
    }

    /// Where the maps are pinned.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins.0
    }

    /// Instructions the verifier walked.
    #[must_use]
    pub fn verified(&self) -> u32 {
        self.program().info().ok().and_then(|info| info.verified_instruction_count()).unwrap_or(0)
    }

    /// Id of the program in this kernel.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.program().info().expect("a loaded program").id()
    }

    fn program(&self) -> &Xdp {
        self.ebpf.program(self.program.name()).expect("named").try_into().expect("XDP")
    }

    /// Runs the program over a frame of at least 14 bytes.
    #[must_use]
    pub fn run(&self, frame: &[u8]) -> Outcome {
        // No byte of what stood there may be taken for the frame's.
        let mut out = vec![0x5a; frame.len() + 64];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = self.program().test_run(options).expect("BPF_PROG_TEST_RUN");
        out.truncate(result.data_size_out as usize);
        Outcome { action: result.return_value, frame: out }
    }

    /// The XDP action over a frame larger than one buffer, or why the kernel does not run it.
    pub fn action(&self, frame: &[u8]) -> Result<u32, String> {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        self.program().test_run(options).map(|result| result.return_value).map_err(|error| format!("{error:?}"))
    }

    /// Nanoseconds a run of `repeat` took on average.
    #[must_use]
    pub fn time(&self, frame: &[u8], repeat: u32) -> u64 {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        let result = self.program().test_run(options).expect("BPF_PROG_TEST_RUN");
        u64::try_from(result.duration.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Runs the program over `repeat` frames in pages of their own, in batches as a driver brings them; what passes goes
    /// on to this namespace's loopback.
    pub fn live(&self, frame: &[u8], repeat: u32) {
        let attrs = TestRunAttrs::new().xdp_live_frames(64);
        let options = TestRunOptions { data_in: Some(frame), repeat, attrs, ..TestRunOptions::default() };
        let _ = self.program().test_run(options).expect("BPF_PROG_TEST_RUN with live frames: Linux 5.18 or later");
    }

    fn data(&self, name: &str) -> MapData {
        MapData::from_pin(self.pins.0.map(name)).expect("pinned")
    }

    /// An array map.
    #[must_use]
    pub fn array<T: aya::Pod>(&mut self, name: &str) -> Array<MapData, T> {
        Array::try_from(Map::Array(self.data(name))).expect("an array of this value size")
    }

    /// The events.
    #[must_use]
    pub fn events(&mut self) -> RingBuf<MapData> {
        RingBuf::try_from(Map::RingBuf(self.data(map::EVENTS))).expect("EVENTS")
    }

    /// The verdict counters.
    #[must_use]
    pub fn verdicts(&self) -> PerCpuArray<MapData, u64> {
        verdicts_at(&self.pins.0)
    }
}

/// The verdict counters pinned there.
#[must_use]
pub fn verdicts_at(pins: &Pins) -> PerCpuArray<MapData, u64> {
    let data = MapData::from_pin(pins.map(map::VERDICTS)).expect("pinned");
    PerCpuArray::try_from(Map::PerCpuArray(data)).expect("VERDICTS")
}

/// All counts of all processors.
#[must_use]
pub fn counted(verdicts: &PerCpuArray<MapData, u64>) -> Vec<u64> {
    let sum = |index| verdicts.get(&index, 0).expect("VERDICTS").iter().sum();
    (0..VERDICTS_MAX).map(sum).collect()
}

/// Every event in the ring.
#[must_use]
pub fn drained(events: &mut RingBuf<MapData>) -> Vec<Event> {
    std::iter::from_fn(|| events.next().map(|item| Event::from_bytes(&item).expect("an event"))).collect()
}

/// The kernel program with the features that no release has, as `cargo xtask test` and `bench` build it in the target
/// directory.
#[must_use]
pub fn variant() -> Vec<u8> {
    const PLACE: &str = "ebpf-lab/bpfel-unknown-none/ebpf/jvpn";
    let own = std::env::current_exe().expect("own path");
    let found = own.ancestors().map(|dir| dir.join(PLACE)).find(|path| path.is_file());
    let path = found.unwrap_or_else(|| panic!("no {PLACE} above {}: cargo xtask test --only build-lab", own.display()));
    std::fs::read(path).expect("readable")
}

/// A pin directory of this test's own. bpffs is mounted if it is not.
#[must_use]
pub fn private_pins() -> Pins {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    let pins = Pins::below(format!("/sys/fs/bpf/jvpn-test-{}-{number}", process::id()));
    pins.create().unwrap_or_else(|error| panic!("{error}"));
    pins
}
