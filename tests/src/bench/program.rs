//! The kernel program's measured variant: loaded beside maps of any size, filled, run by `BPF_PROG_TEST_RUN`.
//!
//! Owns a private pin directory and what stands in the maps. Must never attach to an interface; live frames end in the
//! program.

use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use jvpn_common::abi::{BUCKETS_PER_SESSION, Config, LAYOUT_HASH, PATHS_PER_SLOT, map};
use jvpn_common::locators::Writer;
use jvpn_ctl::dataplane::locators::{self, Mapped};

use crate::packet;
use crate::packet_kernel::{Private, private_pins, variant};

/// Slot 0 is the programs' own: it counts turns and keeps marks.
pub const OWN: u32 = 0;
/// Words of a row.
const ROW: usize = 16;
/// Words of `TRAFFIC` that the programs use in slot 0, by the name of what they count there.
pub const SEEN: usize = 0;
pub const RETRIED: usize = 2;
pub const TORN: usize = 3;
pub const GIVEN_UP: usize = 4;
pub const RETIRED: usize = 5;
/// The mark of the first packet that was data: boot time in nanoseconds.
pub const MARK: usize = 8;
/// Packets that live frames come in at once.
const BATCH: u32 = 64;

/// What is written over the packet at each turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Writes {
    /// Nothing: one frame, which the program leaves as it is.
    Nothing = 0,
    /// The datagram's header, over IPv4.
    Header = 1,
    /// All headers and the body of a probe, over IPv4.
    All = 2,
    /// All headers, over IPv6.
    AllV6 = 3,
}

/// How large, and how it ends.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Slots, the programs' own included.
    pub slots: u32,
    /// Prepared rows; a power of two.
    pub rows: u32,
    /// What of them is written over the packet.
    pub writes: Writes,
    /// Every frame is dropped in the end: what live frames need.
    pub drop: bool,
}

/// The variant and its maps.
pub struct Measured {
    ebpf: Ebpf,
    pins: Private,
    /// What a run begins with.
    frame: Vec<u8>,
}

impl std::fmt::Debug for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Measured")
    }
}

/// Which of its programs.
pub const STEER: &str = "jvpn_bench";
pub const RELAY: &str = "jvpn_bench_relay";
pub const EMPTY: &str = "jvpn_bench_empty";
pub const JUMP: &str = "jvpn_bench_jump";
pub const RACE: &str = "jvpn_race";
pub const RACE_BLIND: &str = "jvpn_race_blind";

impl Measured {
    /// Loads it in real time, configured as a gateway whose one worker is alive for good, or as a relay.
    pub fn load(shape: Shape, role: u16, frame: &[u8]) -> Result<Self> {
        crate::lab::require_root()?;
        let bytes = variant();
        let pins = Private(private_pins());
        let mask = u64::from(shape.rows) - 1;
        let (drop, writes) = (u64::from(shape.drop), shape.writes as u64);
        let mut loader = EbpfLoader::new();
        loader.override_global("BENCH_MASK", &mask, true).override_global("BENCH_DROP", &drop, true);
        loader.override_global("BENCH_WRITES", &writes, true);
        for name in map::SIZED {
            let each = match name {
                map::PATHS => PATHS_PER_SLOT,
                map::LOCATORS => BUCKETS_PER_SESSION,
                _ => 1,
            };
            loader.map_max_entries(name, shape.slots * each);
        }
        loader.map_max_entries("FRAMES", shape.rows);
        for name in map::ALL {
            loader.map_pin_path(name, pins.0.map(name));
        }
        let mut ebpf = loader.load(&bytes).context("the kernel takes the maps")?;
        for name in [STEER, RELAY, EMPTY, JUMP, RACE, RACE_BLIND] {
            let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load().with_context(|| format!("the verifier refuses {name}"))?;
        }
        let mut measured = Self { ebpf, pins, frame: frame.to_vec() };
        let mut config = Config {
            layout: LAYOUT_HASH,
            port: packet::PORT,
            role,
            workers: 1,
            max_sessions: shape.slots,
            hz: 250,
            ..Config::default()
        };
        config.alive_until[0] = u64::MAX;
        measured.array::<[u64; 32]>(map::CONFIG)?.set(0, config.to_words(), 0)?;
        Ok(measured)
    }

    /// Where its maps are pinned.
    #[must_use]
    pub fn pins(&self) -> &jvpn_ctl::dataplane::pins::Pins {
        &self.pins.0
    }

    /// Nanoseconds a run took on average, the harness included.
    pub fn run(&self, program: &str, repeat: u32, live: bool) -> Result<f64> {
        let attrs = if live { TestRunAttrs::new().xdp_live_frames(BATCH) } else { TestRunAttrs::new() };
        let options = TestRunOptions { data_in: Some(&self.frame), repeat, attrs, ..TestRunOptions::default() };
        let program: &Xdp = self.ebpf.program(program).context("a program of the variant")?.try_into()?;
        let result = program.test_run(options).context("BPF_PROG_TEST_RUN")?;
        Ok(Duration::as_nanos(&result.duration) as f64)
    }

    /// An array map.
    pub fn array<T: aya::Pod>(&mut self, name: &'static str) -> Result<Array<MapData, T>> {
        Ok(Array::try_from(Map::Array(MapData::from_pin(self.pins.0.map(name))?))?)
    }

    /// The rows.
    pub fn rows(&mut self) -> Result<Array<&mut MapData, [u64; ROW]>> {
        Ok(Array::try_from(self.ebpf.map_mut("FRAMES").context("FRAMES")?)?)
    }

    /// The locators.
    pub fn locators(&mut self) -> Result<Writer<Mapped>> {
        Ok(locators::writer(&self.pins.0)?)
    }

    /// What the programs count in their own slot.
    pub fn counted(&mut self) -> Result<[u64; 16]> {
        Ok(self.array::<[u64; 16]>(map::TRAFFIC)?.get(&OWN, 0)?)
    }

    /// Forgets it.
    pub fn forget(&mut self) -> Result<()> {
        Ok(self.array::<[u64; 16]>(map::TRAFFIC)?.set(OWN, [0; 16], 0)?)
    }
}

/// The row of a frame: its parts, each from a word's beginning.
#[must_use]
pub fn row(frame: &[u8], writes: Writes) -> [u64; ROW] {
    const V4: [usize; 15] = [42, 50, 58, 66, 74, 82, 90, 98, 106, 0, 8, 14, 22, 30, 34];
    const V6: [usize; 15] = [62, 70, 78, 14, 22, 30, 38, 46, 54, 0, 8, 0, 0, 0, 0];
    let word = |at: usize| {
        let mut bytes = [0; 8];
        let have = frame.get(at..frame.len().min(at + 8)).unwrap_or(&[]);
        bytes[..have.len()].copy_from_slice(have);
        u64::from_le_bytes(bytes)
    };
    let places = if writes == Writes::AllV6 { V6 } else { V4 };
    places.map(word).into_iter().chain([0]).collect::<Vec<_>>()[..].try_into().expect("16 words")
}
