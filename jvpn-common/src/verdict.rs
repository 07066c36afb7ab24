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

/// Declares the verdicts once: number, name, class, meaning.
macro_rules! verdicts {
    ($($number:literal $variant:ident $name:literal $class:ident $meaning:literal;)*) => {
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
        }
    };
}

verdicts! {
    1 Foreign "FOREIGN" Pass "Not for the gateway's UDP port.";
    2 Unconfigured "UNCONFIGURED" Pass "The program is attached, but no gateway has filled in the configuration.";
    3 NoNeighbour "NO_NEIGHBOUR" Pass "A relay's data whose way on the kernel program cannot take: its process sends it.";
    10 Handshake "HANDSHAKE" User "A handshake message for the controller.";
    11 Control "CONTROL" User "A sealed control message of a known session for the controller.";
    12 Data "DATA" User "Data from the session's bound source for the tunnel worker.";
    20 Echoed "ECHOED" Answer "A probe, sent back as its echo.";
    21 Noticed "NOTICED" Answer "Data from a source that is not bound, answered with a notice.";
    22 ForwardedUp "FORWARDED_UP" Forward "Data from the session's bound source, rewritten towards its owner.";
    23 ForwardedDown "FORWARDED_DOWN" Forward "Data from the owner, rewritten towards the session's active binding.";
    30 BadLength "BAD_LENGTH" Drop "Lengths of the outer headers disagree with the frame.";
    31 Short "SHORT" Drop "The datagram is shorter than its type needs.";
    32 UnknownType "UNKNOWN_TYPE" Drop "The first byte names no message of this version.";
    33 ClientOnly "CLIENT_ONLY" Drop "A message that only a client may receive.";
    34 Fragment "FRAGMENT" Drop "The first fragment of a datagram to the gateway's port; both ends forbid fragmentation.";
    35 IpOptions "IP_OPTIONS" Drop "An IPv4 header with options in front of the gateway's port.";
    36 ExtensionHeader "EXTENSION_HEADER" Drop "An IPv6 extension header in front of the gateway's port.";
    37 UnknownLocator "UNKNOWN_LOCATOR" Drop "No session has this locator.";
    38 StaleGeneration "STALE_GENERATION" Drop "The locator belongs to a session that is gone; its slot was freed or given out again.";
    39 BadFlags "BAD_FLAGS" Drop "Reserved flags are set, or a flag that this type does not have.";
    40 BadDirection "BAD_DIRECTION" Drop "The flags say that the datagram came from a gateway.";
    41 ForgedTag "FORGED_TAG" Drop "The steering tag is wrong: junk, or somebody who only saw a locator.";
    42 NotBound "NOT_BOUND" Drop "Data from a source that is not bound, and no notice was due.";
    43 DrainExpired "DRAIN_EXPIRED" Drop "Data from the previous binding after its drain ended.";
    44 PendingSlot "PENDING_SLOT" Drop "The session is not confirmed yet; only its CONFIRM passes.";
    45 WorkerDead "WORKER_DEAD" Drop "The tunnel worker has not said that it is alive in time.";
    46 Torn "TORN" Drop "The binding changed twice while it was read.";
    47 HandshakeSize "HANDSHAKE_SIZE" Drop "A handshake message that is not padded to the size of its answer.";
    48 HandshakeRate "HANDSHAKE_RATE" Drop "Too many handshake messages from this source, or from all together.";
    49 ProbeReplay "PROBE_REPLAY" Drop "A probe that was seen before or is too old to tell.";
    50 ProbeSize "PROBE_SIZE" Drop "A probe longer than the gateway answers.";
    51 EchoRate "ECHO_RATE" Drop "Too many probes of one session from sources that are not bound.";
    52 WriteFailed "WRITE_FAILED" Drop "The answer could not be written into the frame: a bug.";
    53 HopLimit "HOP_LIMIT" Drop "TTL or hop limit was used up when the relay would have forwarded it.";
    54 TooBig "TOO_BIG" Drop "Larger than what the way behind the relay takes.";
    55 NoOtherSide "NO_OTHER_SIDE" Drop "The relay knows no other side for it: no owner, or none in this IP version.";
    56 NoChecksum "NO_CHECKSUM" Drop "UDP over IPv6 without a checksum, which a relay cannot rewrite.";
    57 LeaseEnded "LEASE_ENDED" Drop "The owner has not renewed the relay's lease in time.";
    58 NoBinding "NO_BINDING" Drop "Data from the owner to a session that is not bound.";
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
            assert!(verdict.meaning().ends_with('.'), "{verdict}");
        }
        assert_eq!(Verdict::from_number(0), None);
    }
}
