//! The maps, and steering's view of them.
//!
//! Owns the map definitions (typed in BTF, so that `bpftool map dump` prints fields), every load and store of
//! their values, and the helpers that read what no map holds. The kernel's maps are memory that other processors and user space write at the
//! same time: nothing here hands out a reference to what may change while it is read, and what must be
//! whole is loaded word by word with `read_volatile`. Must never count twice, and never lock.

use aya_ebpf::EbpfContext;
use aya_ebpf::Global;
use aya_ebpf::btf_maps::{Array, PerCpuArray, PerfEventArray, RingBuf};
use aya_ebpf::helpers::{bpf_fib_lookup, bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_boot_ns, bpf_redirect};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use core::arch::asm;
use core::ptr;
use jvpn_common::abi::{
    BUCKET_LANES, BUCKET_SOURCES, BUCKET_WORDS, BUCKETS_PER_SESSION, Binding, Bucket, BucketField, Config, Event,
    HOPS_MAX, Hop, LocatorBucket, LocatorEntry, OWNERS_MAX, Owner, PATHS_PER_SLOT, PathCounters, SESSION_WORDS,
    SessionEntry, SessionInfo, SteeringKeys, Traffic, TrafficField, WORD_ACTIVE, WORD_GENERATION, WORD_OWNER,
    binding_place, buckets, sequence,
};
use jvpn_common::steer::{Cells, Session, Tables, find};
use jvpn_common::verdict::{VERDICTS_MAX, Verdict};

/// Slots when nobody sets a size: `max_sessions` does at load.
const SLOTS: usize = 4_096;
/// `BPF_F_MMAPABLE`.
const MMAPABLE: usize = 1 << 10;
/// Bytes of the event ring: a thousand records.
const RING_BYTES: usize = 64 * 1_024;

#[btf_map]
static LOCATORS: Array<LocatorBucket, { SLOTS * BUCKETS_PER_SESSION as usize }, MMAPABLE> = Array::new();
#[btf_map]
static SESSIONS: Array<SessionEntry, SLOTS, MMAPABLE> = Array::new();
#[btf_map]
static KEYS: Array<SteeringKeys, SLOTS> = Array::new();
#[btf_map]
static SESSION_INFO: Array<SessionInfo, SLOTS, MMAPABLE> = Array::new();
#[btf_map]
static PATHS: Array<PathCounters, { SLOTS * PATHS_PER_SLOT as usize }, MMAPABLE> = Array::new();
#[btf_map]
static TRAFFIC: Array<Traffic, SLOTS, MMAPABLE> = Array::new();
#[btf_map]
static VERDICTS: PerCpuArray<u64, { VERDICTS_MAX as usize }> = PerCpuArray::new();
#[btf_map]
static CONFIG: Array<Config, 1, MMAPABLE> = Array::new();
#[btf_map]
static BUCKETS: Array<Bucket, { (BUCKET_SOURCES + BUCKET_LANES) as usize }> = Array::new();
#[btf_map]
static OWNERS: Array<Owner, { OWNERS_MAX as usize }, MMAPABLE> = Array::new();
#[btf_map]
static HOPS: Array<Hop, { HOPS_MAX as usize }, MMAPABLE> = Array::new();
#[btf_map]
static EVENTS: RingBuf<(), RING_BYTES> = RingBuf::new();
#[btf_map]
static EVENT_TAP: PerfEventArray = PerfEventArray::new();

/// Tests load the program with a fixed tick and time here, so that kernel and host decide by the same
/// ones. Read-only once loaded: with zero the verifier removes the branch.
#[unsafe(no_mangle)]
static FIXED_TICK: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static FIXED_NOW: Global<u64> = Global::new(0);

/// The tick now.
#[inline(always)]
pub(crate) fn tick() -> u64 {
    match FIXED_TICK.load() {
        // SAFETY: a helper without arguments that returns a number.
        0 => unsafe { bpf_jiffies64() },
        fixed => fixed,
    }
}

/// The maps of this program.
pub(crate) struct Maps;

/// One slot of `SESSIONS`.
#[derive(Clone, Copy)]
pub(crate) struct Slot(*const [u64; SESSION_WORDS]);

/// Place of the third binding's first word.
const LAST_ENTRY: usize = 10;

impl Slot {
    #[inline(always)]
    fn load(self, at: usize) -> u64 {
        if at >= SESSION_WORDS {
            return 0;
        }
        let word = self.0.cast::<u64>().wrapping_add(at);
        // SAFETY: `self.0` came from a successful look-up in `SESSIONS`, whose values are SESSION_WORDS
        // aligned words that live as long as the program; `at` is below that. Others write the word at the
        // same time, hence volatile: one aligned 64-bit load, which x86-64 never tears.
        unsafe { ptr::read_volatile(word) }
    }
}

impl Session for Slot {
    #[inline(always)]
    fn word(&self) -> u64 {
        self.load(WORD_ACTIVE)
    }

    #[inline(always)]
    fn entry(&self, entry: u8) -> Binding {
        Binding::from_words(self.words(entry))
    }

    #[inline(always)]
    fn words(&self, entry: u8) -> [u64; 4] {
        const { assert!(LAST_ENTRY + 4 <= SESSION_WORDS) };
        let Some(at) = binding_place(entry) else {
            return [0; 4];
        };
        let mut at = at as u64;
        // The compiler knows the place to be small and would leave the comparison out, or fold its offset
        // into the address in a way the verifier cannot follow. Behind an instruction of our own it does not know.
        // SAFETY: a register moved onto itself. (No instruction at all would leave two source lines at one
        // offset, which the kernel refuses.)
        unsafe { asm!("{0} = {0}", inout(reg) at, options(nomem, nostack)) };
        if at > LAST_ENTRY as u64 {
            return [0; 4];
        }
        let word = self.0.cast::<u64>().wrapping_add(at as usize);
        let mut words = [0; 4];
        let mut i = 0;
        while i < 4 {
            // SAFETY: as in `load`; `at` and the three words behind it are below SESSION_WORDS.
            words[i] = unsafe { ptr::read_volatile(word.wrapping_add(i)) };
            i += 1;
        }
        words
    }

    #[inline(always)]
    fn generation(&self) -> u32 {
        self.load(WORD_GENERATION) as u32
    }

    #[inline(always)]
    fn flags(&self) -> u32 {
        (self.load(WORD_GENERATION) >> 32) as u32
    }

    #[inline(always)]
    fn owner(&self) -> u32 {
        self.load(WORD_OWNER) as u32
    }
}

/// Reads `N` words of a map value others may write.
#[inline(always)]
fn words<T, const N: usize>(value: Option<*const T>) -> [u64; N] {
    const { assert!(size_of::<T>() == N * 8) };
    let mut out = [0; N];
    if let Some(value) = value {
        let mut at = 0;
        while at < N {
            // SAFETY: a looked-up value of N aligned words that lives as long as the program.
            out[at] = unsafe { ptr::read_volatile(value.cast::<u64>().wrapping_add(at)) };
            at += 1;
        }
    }
    out
}

/// Reads an entry that is written between two sequences; twice, since a writer is done within nanoseconds.
#[inline(always)]
fn whole<T, const N: usize>(value: *const T) -> Option<[u64; N]> {
    const { assert!(size_of::<T>() == N * 8) };
    // SAFETY: a looked-up value of N aligned words that lives as long as the program; `read` asks for places
    // below N only. Volatile: one aligned 64-bit load each, in this order, which x86-64 keeps.
    let load = |at| unsafe { ptr::read_volatile(value.cast::<u64>().wrapping_add(at)) };
    sequence::read(load).or_else(|| sequence::read(load))
}

/// Stores them.
#[inline(always)]
fn set_words<T, const N: usize>(value: Option<*mut T>, words: [u64; N]) {
    const { assert!(size_of::<T>() == N * 8) };
    if let Some(value) = value {
        let mut at = 0;
        while at < N {
            // SAFETY: as in `words`. Two processors may store at once; these are counters.
            unsafe { ptr::write_volatile(value.cast::<u64>().wrapping_add(at), words[at]) };
            at += 1;
        }
    }
}

/// One bucket of `LOCATORS`.
struct Line(*const LocatorBucket);

impl Cells for Line {
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        if at >= BUCKET_WORDS {
            return 0;
        }
        let word = self.0.cast::<u64>().wrapping_add(at);
        // SAFETY: `self.0` came from a successful look-up in `LOCATORS`, whose values are BUCKET_WORDS aligned
        // words that live as long as the program; `at` is below that. The controller writes the word at the same
        // time, hence volatile: one aligned 64-bit load, which x86-64 never tears.
        unsafe { ptr::read_volatile(word) }
    }
}

impl Tables for Maps {
    type Session = Slot;

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }

    #[inline(always)]
    fn locator(&self, locator: u64) -> Option<LocatorEntry> {
        find(locator, buckets(self.config()?.max_sessions), |at| Some(Line(LOCATORS.get_ptr(at)?)))
    }

    #[inline(always)]
    fn session(&self, slot: u32) -> Option<Slot> {
        Some(Slot(SESSIONS.get_ptr(slot)?.cast()))
    }

    #[inline(always)]
    fn keys(&self, slot: u32) -> Option<&SteeringKeys> {
        KEYS.get(slot)
    }

    #[inline(always)]
    fn path(&self, slot: u32, place: u32) -> PathCounters {
        PathCounters::from_words(words(PATHS.get_ptr(slot.wrapping_mul(PATHS_PER_SLOT).wrapping_add(place))))
    }

    #[inline(always)]
    fn set_path(&self, slot: u32, place: u32, path: &PathCounters) {
        let index = slot.wrapping_mul(PATHS_PER_SLOT).wrapping_add(place);
        set_words(PATHS.get_ptr_mut(index), path.to_words());
    }

    #[inline(always)]
    fn add(&self, slot: u32, field: TrafficField, amount: u64) {
        if let Some(value) = TRAFFIC.get_ptr_mut(slot) {
            let word = value.cast::<u64>().wrapping_add(field as usize);
            // SAFETY: a field is one of the looked-up value's aligned words.
            let now = unsafe { ptr::read_volatile(word) };
            // SAFETY: as above; a count lost to another processor is allowed.
            unsafe { ptr::write_volatile(word, now.wrapping_add(amount)) };
        }
    }

    #[inline(always)]
    fn slot_bucket(&self, slot: u32, which: BucketField) -> Bucket {
        let [at, tokens] = words(bucket_of(slot, which).map(<*mut Bucket>::cast_const));
        Bucket { at, tokens }
    }

    #[inline(always)]
    fn set_slot_bucket(&self, slot: u32, which: BucketField, bucket: &Bucket) {
        set_words(bucket_of(slot, which), [bucket.at, bucket.tokens]);
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Bucket {
        let [at, tokens] = words(BUCKETS.get_ptr(index));
        Bucket { at, tokens }
    }

    #[inline(always)]
    fn set_bucket(&self, index: u32, bucket: &Bucket) {
        set_words(BUCKETS.get_ptr_mut(index), [bucket.at, bucket.tokens]);
    }

    #[inline(always)]
    fn owner(&self, index: u32) -> Option<Owner> {
        whole(OWNERS.get_ptr(index)?).map(|words| Owner::from_words(&words))
    }

    #[inline(always)]
    fn hop(&self, id: u16) -> Option<Hop> {
        whole(HOPS.get_ptr(u32::from(id))?).map(|words| Hop::from_words(&words))
    }

    #[inline(always)]
    fn lane(&self) -> u32 {
        // SAFETY: a helper without arguments that returns a number.
        unsafe { bpf_get_smp_processor_id() }
    }

    #[inline(always)]
    fn ticks(&self) -> u64 {
        tick()
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        match FIXED_NOW.load() {
            // SAFETY: a helper without arguments that returns a number.
            0 => unsafe { bpf_ktime_get_boot_ns() },
            fixed => fixed,
        }
    }

    #[inline(always)]
    fn counts_arrivals(&self) -> bool {
        true
    }

    #[inline(always)]
    fn count(&self, verdict: Verdict) {
        if let Some(count) = VERDICTS.get_ptr_mut(verdict as u32) {
            // SAFETY: this processor's own word; XDP is not preempted by itself.
            let now = unsafe { ptr::read_volatile(count) };
            // SAFETY: as above.
            unsafe { ptr::write_volatile(count, now + 1) };
        }
    }
}

#[inline(always)]
fn bucket_of(slot: u32, which: BucketField) -> Option<*mut Bucket> {
    Some(TRAFFIC.get_ptr_mut(slot)?.cast::<u64>().wrapping_add(which as usize).cast())
}

/// Whether an event of `slot` is due, given that one every `every` ticks is enough.
#[inline(always)]
pub(crate) fn event_due(slot: u32, every: u64) -> bool {
    let Some(value) = TRAFFIC.get_ptr_mut(slot) else {
        return false;
    };
    let word = value.cast::<u64>().wrapping_add(TrafficField::EventAt as usize);
    let tick = tick();
    // SAFETY: a field is one of the looked-up value's aligned words.
    let last = unsafe { ptr::read_volatile(word) };
    if last != 0 && tick.wrapping_sub(last) < every {
        return false;
    }
    // SAFETY: as above; two processors at once send two events.
    unsafe { ptr::write_volatile(word, tick) };
    true
}

/// Sends an event to the controller and to whoever runs `bpftool map event_pipe`; losses are allowed.
#[inline(always)]
pub(crate) fn report(ctx: &XdpContext, event: Event) {
    // The controller polls: no wake-up from the packet path.
    const BPF_RB_NO_WAKEUP: u64 = 1;
    // In the ring's own memory: the stack has no room for it.
    let Some(mut entry) = EVENTS.reserve_untyped::<Event>(0) else {
        return;
    };
    let place: &mut Event = entry.write(event);
    EVENT_TAP.output(ctx, place, 0);
    entry.submit(BPF_RB_NO_WAKEUP);
}

/// Words of `struct bpf_fib_lookup`.
pub(crate) const FIB_WORDS: usize = 8;

/// Asks the kernel's routes and neighbours; the answer stands in `asked`, 0 means that there is one.
#[inline(always)]
pub(crate) fn fib_lookup(ctx: &XdpContext, asked: &mut [u64; FIB_WORDS]) -> i64 {
    let size = size_of::<[u64; FIB_WORDS]>();
    // SAFETY: the helper takes the context this program was called with, and reads and writes `size` bytes, which
    // are this array's own.
    unsafe { bpf_fib_lookup(ctx.as_ptr(), asked.as_mut_ptr().cast(), size as i32, 0) }
}

/// Hands the frame to another interface: the action to end with.
#[inline(always)]
pub(crate) fn redirect(ifindex: u32) -> u32 {
    // SAFETY: a helper of two numbers.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}
