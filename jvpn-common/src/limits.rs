//! Every fixed bound of the protocol and the maps, with its unit and its reason.
//!
//! Owns the `…_MAX` constants. Must never hold what an operator can set: that is policy or configuration.

use crate::time::Duration;

/// Locators a session has at once: in use, draining and spare. Six let a device meet three new networks
/// while two are still draining; there are 256 bytes of kernel memory a session for them.
pub const LOCATORS_MAX: usize = 6;

/// Pending handshakes of one peer. Two: the newest and one that crossed it on the way.
pub const PENDING_PER_PEER_MAX: usize = 2;

/// How long a message 2 waits for its CONFIRM.
pub const PENDING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a challenge cookie lives. A round trip over the worst path people call usable is below 3 s.
pub const COOKIE_LIFE: Duration = Duration::from_secs(5);

/// How long wiped-after `previous` keys still open what was under way.
pub const PREVIOUS_KEYS_LIFE: Duration = Duration::from_secs(10);

/// The receive bucket of a drain: inbound from the previous binding opens for `2 × srtt`, within these.
pub const DRAIN_MIN: Duration = Duration::from_millis(200);
/// See [`DRAIN_MIN`].
pub const DRAIN_MAX: Duration = Duration::from_secs(2);

/// UDP payload of message 1, so that the answer (at most this long) is never larger than its question.
pub const HANDSHAKE_LEN: usize = 1_200;

/// UDP payload to which requests that will be answered are padded.
pub const CONTROL_LEN: usize = 200;

/// Bytes a relay and its owner append to each other's datagrams. With them message 1 still fits the smallest IPv6 MTU.
pub const TRAILER_LEN: usize = 32;

/// Header, and AEAD tag of everything sealed.
pub const HEADER_LEN: usize = 24;
/// See [`HEADER_LEN`].
pub const TAG_LEN: usize = 16;

/// Bytes of a transport's label.
pub const LABEL_MAX: usize = 16;

/// Inner addresses of a session.
pub const ADDRESSES_MAX: usize = 4;

/// The highest transport index; past it the client resumes and gets a new key set.
pub const TRANSPORT_INDEX_MAX: u16 = u16::MAX;

/// Smallest path MTU of a binding of a session that has IPv6 inside: 1,280 + the IPv6 overhead of 88.
pub const PATH_MTU_MIN_V6_INSIDE: u16 = 1_368;

/// Path MTU of a transport on which no padded probe has come back yet.
pub const PATH_MTU_UNPROVEN: u16 = 1_280;

/// Bytes of outer IPv4 header, UDP, our header and tag.
pub const OVERHEAD_V4: u16 = 20 + 8 + 24 + 16;
/// Bytes of outer IPv6 header, UDP, our header and tag.
pub const OVERHEAD_V6: u16 = 40 + 8 + 24 + 16;

/// How long `alive_until` is set ahead by a worker's loop, and how often.
pub const ALIVE_FOR: Duration = Duration::from_millis(500);
/// See [`ALIVE_FOR`].
pub const ALIVE_EVERY: Duration = Duration::from_millis(100);

/// Paths in one PATH_REPORT, and candidates a client may hold: 4 reports of 13 bytes fit a control message.
pub const PATHS_MAX: usize = 4;

/// Highest claim of a version above the stored one that is believed in a RESUME; a larger one is refused.
pub const VERSION_LEAP_MAX: u64 = 1 << 32;
