//! Verdicts: stable numbers and names for what became of one packet.
//!
//! Owns every verdict with its meaning and its class. Each packet ends in exactly one and is counted once.
//! A verdict is never renamed or renumbered, only added, and must never decide anything about a session.

/// Places of the `VERDICTS` map; verdict numbers stay below. Raising it changes the map's size.
pub const VERDICTS_MAX: u32 = 64;

/// What the packet path does with a packet of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Not ours: the host's own stack gets it untouched.
    Pass,
    /// Ours: on to the gateway's socket.
    User,
    /// Turned into its answer, to be sent back where it came from.
    Answer,
    /// A relay's: on to the other side, outer headers rewritten.
    Forward,
    /// Dropped.
    Drop,
}

/// Declares the verdicts once: number, name, class, meaning, advice.
macro_rules! verdicts {
    ($($number:literal $variant:ident $name:literal $class:ident $meaning:literal $advice:literal;)*) => {
        /// What became of one packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Verdict { $(#[doc = $meaning] $variant = $number,)* }

        impl Verdict {
            /// Every verdict, in order of number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The verdict of a number that came out of a map or an event.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The stable UPPER_SNAKE_CASE name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What is done with the packet.
            #[must_use]
            #[inline(always)]
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)* }
            }

            /// One sentence: what it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// One sentence: what to do about it.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }
        }
    };
}

verdicts! {
    1 Foreign "FOREIGN" Pass "Not for the gateway's UDP port."
        "Nothing to do: the host's own traffic; if clients' packets are here, compare their destination port with `listen`.";
    2 Unconfigured "UNCONFIGURED" Pass "The program is attached, but no gateway has filled in the configuration."
        "Start the gateway (`jvpn-ctl serve`); until then nothing is filtered.";
    3 NoNeighbour "NO_NEIGHBOUR" Pass "A relay's data whose way on the kernel program cannot take: its process sends it."
        "Expected for the first packets of a new way; if it lasts, see which hop is not resolved (`jvpn-ctl maps HOPS`) and whether that neighbour answers.";
    10 Handshake "HANDSHAKE" User "A handshake message for the controller."
        "Nothing to do; if many come and no session is born, look at `jvpn-ctl events`.";
    11 Control "CONTROL" User "A sealed control message of a known session for the controller."
        "Nothing to do.";
    12 Data "DATA" User "Data from the session's bound source for the tunnel worker."
        "Nothing to do; what is wrong behind this point the worker counts (`jvpn-ctl status`, drops in lower case).";
    20 Echoed "ECHOED" Answer "A probe, sent back as its echo."
        "Nothing to do.";
    21 Noticed "NOTICED" Answer "Data from a source that is not bound, answered with a notice."
        "Expected for a moment after a client's NAT forgot it or its address changed; if it lasts, that client does not hear the notices: look at the path down.";
    22 ForwardedUp "FORWARDED_UP" Forward "Data from the session's bound source, rewritten towards its owner."
        "Nothing to do.";
    23 ForwardedDown "FORWARDED_DOWN" Forward "Data from the owner, rewritten towards the session's active binding."
        "Nothing to do.";
    30 BadLength "BAD_LENGTH" Drop "Lengths of the outer headers disagree with the frame."
        "Something on the way cuts or pads packets, or somebody sends junk: capture on both sides of the last router.";
    31 Short "SHORT" Drop "The datagram is shorter than its type needs."
        "Junk or a scanner; no client sends it.";
    32 UnknownType "UNKNOWN_TYPE" Drop "The first byte names no message of this version."
        "Junk, or a client of a later version: compare versions on both sides.";
    33 ClientOnly "CLIENT_ONLY" Drop "A message that only a client may receive."
        "Somebody sends a gateway's messages to a gateway: a reflection, or a client configured with its own address as endpoint.";
    34 Fragment "FRAGMENT" Drop "The first fragment of a datagram to the gateway's port; both ends forbid fragmentation."
        "A client sends more than the path takes and a router fragments it: lower the MTU of its TUN device, or find the router that clears DF.";
    35 IpOptions "IP_OPTIONS" Drop "An IPv4 header with options in front of the gateway's port."
        "Take the device out of the path that adds IP options; clients never send any.";
    36 ExtensionHeader "EXTENSION_HEADER" Drop "An IPv6 extension header in front of the gateway's port."
        "Take the device out of the path that adds IPv6 extension headers; clients never send any.";
    37 UnknownLocator "UNKNOWN_LOCATOR" Drop "No session has this locator."
        "A client of a session that ended or of another gateway; it resumes by itself within seconds. If it lasts, restart that client.";
    38 StaleGeneration "STALE_GENERATION" Drop "The locator belongs to a session that is gone; its slot was freed or given out again."
        "Packets of an ended session still under way; if it lasts, restart the client that sends them.";
    39 BadFlags "BAD_FLAGS" Drop "Reserved flags are set, or a flag that this type does not have."
        "A client of a later version, or junk: compare versions on both sides.";
    40 BadDirection "BAD_DIRECTION" Drop "The flags say that the datagram came from a gateway."
        "A gateway's own packets come back: a routing loop, or an endpoint that names the wrong side.";
    41 ForgedTag "FORGED_TAG" Drop "The steering tag is wrong: junk, or somebody who only saw a locator."
        "Junk or an attacker who saw a locator; harmless here. If one honest client is the source, it has keys of an earlier session: restart it.";
    42 NotBound "NOT_BOUND" Drop "Data from a source that is not bound, and no notice was due."
        "As for NOTICED, but no notice was due or the packet is too small for one: the client learns it from its probes.";
    43 DrainExpired "DRAIN_EXPIRED" Drop "Data from the previous binding after its drain ended."
        "Packets that were under way longer than the drain (two round trips, 0.2 to 2 s): look for a full buffer on the old path.";
    44 PendingSlot "PENDING_SLOT" Drop "The session is not confirmed yet; only its CONFIRM passes."
        "Data that overtook the CONFIRM of its handshake; it is sent again by whoever sent it. If it lasts, CONFIRMs are lost on the way up.";
    45 WorkerDead "WORKER_DEAD" Drop "The tunnel worker has not said that it is alive in time."
        "The gateway is stopped, frozen or starved: `jvpn-ctl status`, then start it or find what holds it up.";
    46 Torn "TORN" Drop "The binding changed twice while it was read."
        "Two jumps of one session within nanoseconds: once in a while is chance, often is a writer of the maps that is not the gateway.";
    47 HandshakeSize "HANDSHAKE_SIZE" Drop "A handshake message that is not padded to the size of its answer."
        "Junk, or a client of another version; the padding keeps the gateway from answering with more than it was asked.";
    48 HandshakeRate "HANDSHAKE_RATE" Drop "Too many handshake messages from this source, or from all together."
        "A flood of handshakes, or very many clients behind one address: see which with `jvpn-ctl maps BUCKETS`, and raise the limit only for the latter.";
    49 ProbeReplay "PROBE_REPLAY" Drop "A probe that was seen before or is too old to tell."
        "A network that duplicates packets, or somebody who repeats captured probes; harmless.";
    50 ProbeSize "PROBE_SIZE" Drop "A probe longer than the gateway answers."
        "A client probes for a larger path MTU than the gateway answers; harmless.";
    51 EchoRate "ECHO_RATE" Drop "Too many probes of one session from sources that are not bound."
        "One session probes from many addresses at once: a client with very many transports, or somebody who repeats its probes.";
    52 WriteFailed "WRITE_FAILED" Drop "The answer could not be written into the frame: a bug."
        "Report it with a capture: a frame that was read must be writable.";
    53 HopLimit "HOP_LIMIT" Drop "TTL or hop limit was used up when the relay would have forwarded it."
        "A routing loop between relay and owner or client: trace the route from both sides.";
    54 TooBig "TOO_BIG" Drop "Larger than what the way behind the relay takes."
        "The client's next search for the path MTU finds the smaller size; if it lasts, the path between relay and owner became narrower: `jvpn-ctl maps HOPS`.";
    55 NoOtherSide "NO_OTHER_SIDE" Drop "The relay knows no other side for it: no owner, or none in this IP version."
        "Give the owner an address in this IP version, or the client an endpoint in the other: `jvpn-ctl maps OWNERS`.";
    56 NoChecksum "NO_CHECKSUM" Drop "UDP over IPv6 without a checksum, which a relay cannot rewrite."
        "Find what on the path removes UDP checksums; no client or owner sends without one.";
    57 LeaseEnded "LEASE_ENDED" Drop "The owner has not renewed the relay's lease in time."
        "The stream to the owner is down or the owner is frozen: `jvpn-ctl status` on both.";
    58 NoBinding "NO_BINDING" Drop "Data from the owner to a session that is not bound."
        "Expected while a client recovers; if it lasts, that client is gone or its path to the relay is.";
}

impl core::fmt::Display for Verdict {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_reads_back_from_its_number_and_fits_the_map() {
        for &verdict in Verdict::ALL {
            assert_eq!(Verdict::from_number(verdict as u16), Some(verdict));
            assert!(u32::from(verdict as u16) < VERDICTS_MAX, "{verdict}");
            assert!(verdict.meaning().ends_with('.') && verdict.advice().ends_with('.'), "{verdict}");
        }
        assert_eq!(Verdict::from_number(0), None);
    }
}
