//! The metrics, said once: name, kind, unit, labels, who has it, what it means.
//!
//! Owns the list that the text, the JSON and the page are made from. A metric is never renamed, only added. Must never hold
//! a label that names a session or a peer: there are as many of those as there are clients.

use crate::config::Role;

/// What kind of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its sample ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Lengths, by how long they were.
    Histogram,
    /// Facts as labels; its sample ends in `_info`.
    Info,
}

impl Kind {
    /// As OpenMetrics calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// Declares the metrics once.
macro_rules! metrics {
    ($($variant:ident $name:literal $kind:ident $unit:literal [$($label:literal),*] $roles:literal $help:literal;)*) => {
        /// One family of samples.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Metric { $(#[doc = $help] $variant,)* }

        impl Metric {
            /// Every metric, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Name of the family, its unit included; the sample of a counter has `_total` behind it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What kind of number.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// Its unit, empty for a bare number; the name ends in it.
            #[must_use]
            pub const fn unit(self) -> &'static str {
                match self { $(Self::$variant => $unit,)* }
            }

            /// Names of its labels.
            #[must_use]
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*],)* }
            }

            /// Who has it: `g`ateway, `r`elay, `c`lient.
            const fn roles(self) -> &'static str {
                match self { $(Self::$variant => $roles,)* }
            }

            /// What it means.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

metrics! {
    Build "jvpn_build" Info "" ["version", "kernel_program", "features", "role"] "grc"
        "What runs: version, hash of the built-in kernel program, compiled-in features, role.";
    Start "process_start_time_seconds" Gauge "seconds" [] "grc"
        "When the process started, seconds since 1970.";
    Uptime "jvpn_uptime_seconds" Gauge "seconds" [] "grc"
        "How long it has been running, time in which the host slept included.";
    Healthy "jvpn_healthy" Gauge "" [] "grc"
        "1 when `status` calls it healthy, else 0.";
    Problems "jvpn_problems" Gauge "" [] "grc"
        "Problems that `status` lists.";
    Sessions "jvpn_sessions" Gauge "" ["state"] "gc"
        "Sessions in each state; a client has one, in the state the gateway acknowledged last.";
    Forwarded "jvpn_sessions_forwarded" Gauge "" [] "r"
        "Sessions held for owners.";
    SessionsMax "jvpn_sessions_max" Gauge "" [] "gr"
        "Sessions the maps have room for.";
    Pending "jvpn_handshakes_pending" Gauge "" [] "g"
        "Handshakes that were answered and are not confirmed yet.";
    Transitions "jvpn_transitions" Counter "" ["from", "to", "reason"] "g"
        "Transitions of sessions that were recorded, by state before, state after and reason.";
    Switch "jvpn_switch_seconds" Histogram "seconds" ["phase"] "gc"
        "Parts of a switch: from the first sign to the client's decision (detect, the client's own word), from there to the proof (prove), from the proof to the record (commit, on a gateway).";
    Outage "jvpn_outage_seconds" Histogram "seconds" ["cause"] "gc"
        "How long a session was without a transport, or silent before a switch that was necessary, by what caused it; from the client's first sign where it reported one.";
    Events "jvpn_events" Counter "" ["event", "reason"] "grc"
        "Records that were written, by event and reason; the reason is empty where an event has none.";
    Sent "jvpn_events_sent" Counter "" ["sink"] "grc"
        "Events that a sink's other side took.";
    Dropped "jvpn_events_dropped" Counter "" ["sink"] "grc"
        "Events that a sink lost since its other side was too slow or gone; the record has them.";
    RecordSequence "jvpn_record_sequence" Gauge "" [] "grc"
        "Number of the last record that was written.";
    RecordSynced "jvpn_record_synced_sequence" Gauge "" [] "grc"
        "Number of the last record that is on the disk.";
    RecordFailing "jvpn_record_failing" Gauge "" [] "grc"
        "1 while the record cannot be written, else 0; a gateway takes no new sessions then.";
    StoreFailing "jvpn_store_failing" Gauge "" [] "g"
        "1 while the store cannot be written, else 0; no new sessions then.";
    StoreSyncs "jvpn_store_syncs" Counter "" [] "g"
        "Times the store brought changes to the disk; births of one turn share one.";
    RxBytes "jvpn_rx_bytes" Counter "bytes" [] "gc"
        "Bytes of inner packets that were opened and handed to the tunnel device.";
    TxBytes "jvpn_tx_bytes" Counter "bytes" [] "gc"
        "Bytes of inner packets that were sealed and sent.";
    RxPackets "jvpn_rx_packets" Counter "packets" [] "gc"
        "Inner packets that were opened and handed to the tunnel device.";
    TxPackets "jvpn_tx_packets" Counter "packets" [] "gc"
        "Inner packets that were sealed and sent.";
    WorkerDrops "jvpn_worker_drops" Counter "" ["reason"] "grc"
        "Packets this process dropped behind the steering, by reason.";
    WorkerActions "jvpn_worker_actions" Counter "" ["action"] "gc"
        "What else the worker did: batches, replies, fallbacks, turns of its loop.";
    WorkerPackets "jvpn_worker_packets" Counter "" ["worker", "direction"] "g"
        "Inner packets each worker opened (in) and sealed (out).";
    WorkerBatches "jvpn_worker_batches" Counter "" ["worker"] "g"
        "Receives of each worker that brought something, whatever was in it.";
    SocketDrops "jvpn_socket_drops" Counter "" ["family"] "g"
        "Datagrams the kernel dropped at the sockets: more came at once than the workers took and the queue was full, or a checksum was wrong.";
    ControllerDrops "jvpn_controller_drops" Counter "" ["reason"] "g"
        "Handshake and control messages that were dropped or refused without a change, by reason.";
    XdpVerdicts "jvpn_xdp_verdicts" Counter "" ["verdict"] "gr"
        "Packets the kernel program judged, by verdict (docs/maps.md lists them).";
    WorkerVerdicts "jvpn_worker_verdicts" Counter "" ["verdict"] "gr"
        "Packets the same steering judged in this process, by verdict.";
    XdpInterfaces "jvpn_xdp_interfaces" Gauge "" ["mode"] "gr"
        "Interfaces the kernel program is attached to, by how.";
    Streams "jvpn_streams" Gauge "" ["state"] "gr"
        "Streams between a gateway and its relays, or a relay and its owners.";
    Paths "jvpn_paths" Gauge "" ["state"] "c"
        "Paths of the client, by how they are doing.";
}

impl Metric {
    /// Whether a daemon of this role has it.
    #[must_use]
    pub fn is_of(self, role: Role) -> bool {
        self.roles().contains(match role {
            Role::Gateway => 'g',
            Role::Relay => 'r',
            Role::Client => 'c',
        })
    }

    /// The name without its unit.
    pub(super) fn stem(self) -> &'static str {
        let name = self.name();
        name.strip_suffix(self.unit()).and_then(|stem| stem.strip_suffix('_')).unwrap_or(name)
    }

    /// Name of its samples; a histogram has `_bucket`, `_sum` and `_count` behind it.
    #[must_use]
    pub fn sample(self) -> String {
        match self.kind() {
            Kind::Counter => format!("{}_total", self.name()),
            Kind::Info => format!("{}_info", self.name()),
            Kind::Gauge | Kind::Histogram => self.name().to_owned(),
        }
    }
}
