//! What a worker counted, every drop under a name.
//!
//! Owns the list of counters. A worker counts in plain numbers and publishes them once a turn; readers on
//! other threads see sums that only grow. Must never be written by two workers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Declares each counter once: its place, its stable name, what it means.
macro_rules! counters {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal,)*) => {
        /// One thing a worker counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Counter { $($(#[doc = $doc])* $variant,)* }

        impl Counter {
            /// Every counter, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable lower_snake_case name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

counters! {
    /// Inner packets opened and handed to the TUN.
    RxPackets "rx_packets",
    /// Their bytes.
    RxBytes "rx_bytes",
    /// Inner packets sealed and sent.
    TxPackets "tx_packets",
    /// Their bytes.
    TxBytes "tx_bytes",
    /// Batches received from sockets; divided into packets: how well UDP_GRO works.
    RxBatches "rx_batches",
    /// Batches sent; divided into packets: how well UDP_SEGMENT works.
    TxBatches "tx_batches",
    /// Super-packets read from the TUN.
    TunReads "tun_reads",
    /// Super-packets written to the TUN.
    TunWrites "tun_writes",
    /// What the own kernel said to its link (router solicitations, multicast reports): no tunnel carries it.
    OfTheLink "of_the_link",
    /// Datagrams handed to the controller.
    ToController "to_controller",
    /// Replies (echo, notice) written in place and sent back.
    Replies "replies",
    /// Pings answered and pongs taken.
    Pings "pings",
    /// The role refused the datagram; it counts why.
    DropRole "drop_role",
    /// The controller's queue was full.
    DropQueueFull "drop_queue_full",
    /// A reply longer than its question was about to be sent.
    DropReplyTooLong "drop_reply_too_long",
    /// No such epoch, or its key is dead.
    DropEpoch "drop_epoch",
    /// Seen before, or too old for the window.
    DropReplay "drop_replay",
    /// Too short, reserved flags, or a length that does not fit.
    DropFrame "drop_frame",
    /// The AEAD did not verify.
    DropOpen "drop_open",
    /// The inner packet is not sane.
    DropInner "drop_inner",
    /// The inner source is not the session's (SEC_INNER_SPOOF).
    DropInnerSpoof "drop_inner_spoof",
    /// The inner checksum was wrong.
    DropInnerChecksum "drop_inner_checksum",
    /// No session for the inner destination, or it has no binding.
    DropNoRoute "drop_no_route",
    /// Waited for a transport while the active one was lost: too many, or too long.
    DropHeld "drop_held",
    /// No key to seal with, or its limit is reached.
    DropNoKey "drop_no_key",
    /// Larger than the path carries; answered with ICMP when allowed.
    DropTooBig "drop_too_big",
    /// A super-packet whose virtio header does not fit it.
    DropVnet "drop_vnet",
    /// The kernel refused a segment.
    DropSend "drop_send",
    /// The TUN refused a packet.
    DropTunWrite "drop_tun_write",
    /// ICMP errors written to the TUN.
    IcmpSent "icmp_sent",
    /// A segmented send was refused and repeated segment by segment.
    GsoSendFallback "gso_send_fallback",
    /// A coalesced TUN write was refused and repeated packet by packet.
    GsoWriteFallback "gso_write_fallback",
    /// A send waited for room in the socket's buffer.
    SendWaits "send_waits",
    /// A socket reported an error of an earlier datagram.
    SocketErrors "socket_errors",
    /// Sockets given up: shut down, or their interface is gone.
    SocketsLost "sockets_lost",
    /// Turns of the loop. Many while little arrives: the worker spins.
    Turns "turns",
}

/// Number of counters.
const COUNT: usize = Counter::ALL.len();

/// A worker's own numbers.
#[derive(Debug)]
pub(super) struct Tally([u64; COUNT]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Tally {
    /// Counts one.
    pub(super) fn one(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`.
    pub(super) fn add(&mut self, counter: Counter, n: u64) {
        if let Some(value) = self.0.get_mut(counter as usize) {
            *value += n;
        }
    }

    /// What was counted so far.
    pub(super) fn value(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or(0)
    }

    /// Makes the numbers visible to other threads.
    pub(super) fn publish(&self, to: &Counters) {
        for (value, shared) in self.0.iter().zip(&to.0) {
            shared.store(*value, Relaxed);
        }
    }
}

/// The published numbers of one worker.
#[derive(Debug)]
pub struct Counters([AtomicU64; COUNT]);

impl Default for Counters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; COUNT])
    }
}

impl Counters {
    /// What several workers counted together.
    #[must_use]
    pub fn sum<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let total = Self::default();
        for (sum, value) in all.flat_map(|counters| total.0.iter().zip(&counters.0)) {
            sum.fetch_add(value.load(Relaxed), Relaxed);
        }
        total
    }

    /// The value last published.
    #[must_use]
    pub fn value(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).map_or(0, |value| value.load(Relaxed))
    }

    /// Names and values of everything counted so far.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Counter::ALL.iter().map(|&counter| (counter.name(), self.value(counter)))
    }
}
