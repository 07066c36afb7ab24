//! When things are due: the policy's times, and those that are the client's own.
//!
//! Owns every waiting time of the engine, each with its reason. Must never read a clock.

use crate::session::policy::Policy;
use crate::time::Duration;

/// First wait for a message 2 on a path nobody has measured. Twice of it and a dead first path costs a
/// second at start; half and a satellite path is asked twice.
pub(super) const HANDSHAKE_TRY: Duration = Duration::from_millis(400);
/// Longest wait between two handshakes: a gateway that is back is noticed within it even without echoes.
pub(super) const HANDSHAKE_TRY_MAX: Duration = Duration::from_secs(5);
/// Handshakes whose answer is still awaited. The gateway keeps two; two more may be on their way.
pub(super) const ATTEMPTS_MAX: usize = 4;
/// Pause after a refusal that says no time of its own.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// Pause after a session was ended by somebody: first, and most. Doubled each time.
pub(super) const ENDED_PAUSE: Duration = Duration::from_secs(1);
/// See [`ENDED_PAUSE`].
pub(super) const ENDED_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Pause when another device took the session over with the same key: two clients must not fight.
pub(super) const SUPERSEDED_PAUSE: Duration = Duration::from_secs(30);

/// Shortest and longest first wait for the answer to a sealed request; between them twice the round trip.
pub(super) const ANSWER_MIN: Duration = Duration::from_millis(50);
/// See [`ANSWER_MIN`].
pub(super) const ANSWER_MAX: Duration = Duration::from_millis(1_000);
/// Wait for an answer on a path without a measured round trip: three of them are the second after which
/// the client resumes.
pub(super) const ANSWER_UNKNOWN: Duration = Duration::from_millis(333);
/// Unanswered requests after which the client resumes, but not before [`RESUME_AFTER`].
pub(super) const REQUEST_TRIES: u32 = 3;
/// See [`REQUEST_TRIES`].
pub(super) const RESUME_AFTER: Duration = Duration::from_secs(1);
/// Wait between requests to a gateway whose worker is not alive: no answer can come, the first that can
/// should not be missed by much.
pub(super) const UNRESPONSIVE_TRY: Duration = Duration::from_secs(1);
/// How long an echo that says "not alive" stands. Without echoes the gateway may have forgotten us, and
/// patience would be for ever.
pub(super) const UNRESPONSIVE_FOR: Duration = Duration::from_secs(2);
/// Pause before asking again what the gateway could not commit.
pub(super) const COMMIT_PAUSE: Duration = Duration::from_millis(100);

/// Silence on every path after which a resume is tried beside the probes: the gateway may have forgotten
/// our locators, and an unconfirmed resume disturbs nothing.
pub(super) const SILENCE_RESUME: Duration = Duration::from_secs(1);
/// How often every path is probed while none works.
pub(super) const RECOVERY_PROBE: Duration = Duration::from_millis(200);
/// A probe is lost after this, or after `srtt + 4·rttvar` if that is longer.
pub(super) const PROBE_LOST: Duration = Duration::from_secs(1);
/// Distance of the three probes that confirm a suspicion.
pub(super) const BURST_GAP: Duration = Duration::from_millis(3);
/// How many those are,
pub(super) const BURST: u32 = 3;
/// and on a path that loses some anyway: where 4 % do not come back, three are lost together every other hour.
pub(super) const BURST_LOSSY: u32 = 4;
/// Such a path, in 1/1000: one of the last 64 probes.
pub(super) const LOSSY: u16 = 15;
/// Floor of the wait for their echoes: scheduling on a busy host takes this long.
pub(super) const BURST_WAIT_MIN: Duration = Duration::from_millis(5);
/// Longest pause that detection learns to wait for: whoever has another path is not better off for waiting longer.
pub(super) const PATIENCE_MAX: Duration = Duration::from_millis(500);
/// How long after the last one. Radios pause many times an hour, or not at all.
pub(super) const PATIENCE_FOR: Duration = Duration::from_secs(3_600);
/// Without a live alternative a path is given this many times longer.
pub(super) const ALONE_FACTOR: u32 = 4;
/// While packets arrive the uplink still needs a witness: one probe in this many intervals. What of them has passed when it
/// dies is added to the time that its death takes to be noticed.
pub(super) const WITNESS_INTERVALS: u32 = 2;

/// Wait before an unproven size is tried again, and how often.
pub(super) const MTU_RETRY: Duration = Duration::from_secs(1);
/// See [`MTU_RETRY`].
pub(super) const MTU_TRIES: u32 = 4;

/// A proven size is not doubted again so soon after it returned, whatever is lost: a padded probe a second is little beside
/// the data that gave reason to it.
pub(super) const DOUBT_PAUSE: Duration = Duration::from_secs(1);
/// Probes of a proven size that must be missed before it is given up: where a tenth is lost each way, one doubt in a thousand
/// is wrong.
pub(super) const DOUBT_TRIES: u32 = 4;
/// Wait for one of them, or the round trip if that is longer.
pub(super) const DOUBT_WAIT: Duration = Duration::from_millis(50);
/// Traffic that stops for so long, while its path answers, is worth a doubt: an interactive exchange has its answer by then.
pub(super) const STALL: Duration = Duration::from_millis(200);
/// How often at most, unless much came in between,
pub(super) const DOUBT_STALLED: Duration = Duration::from_secs(60);
/// which is so much: a probe and its echo are a twentieth of it.
pub(super) const DOUBT_STALLED_BYTES: u64 = 64 * 1_024;
/// When sizes that ceased to pass are tried again (RFC 8899, 5.1.1).
pub(super) const MTU_RAISE: Duration = Duration::from_secs(600);

/// PATH_REPORT while inner traffic flows.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Data sent this long without anything opened under the data keys asks for a PING.
pub(super) const DATA_SILENCE: Duration = Duration::from_secs(3);
/// Wait for its answer.
pub(super) const PING_WAIT: Duration = Duration::from_secs(1);
/// Unanswered PINGs after which the transport is lost.
pub(super) const PINGS_MAX: u32 = 3;
/// A NOTICE is believed for a counter sent this long ago at most.
pub(super) const NOTICE_WINDOW: Duration = Duration::from_secs(2);

/// A better path must have been better this often in a row.
pub(super) const BETTER_STREAK: u32 = 3;
/// And by at least this much unless its class is better: below, two idle paths trade places over noise.
pub(super) const BETTER_FLOOR: Duration = Duration::from_millis(10);

/// What a lost packet of data costs whoever waits for it: TCP repeats it after its round trip, or after this if nothing
/// behind it tells of the loss (Linux's least RTO; RFC 6298, 2.4 has a second). Without it two paths of a fraction of a
/// millisecond are compared by the noise of their round trips, whatever they lose.
pub(super) const RETRANSMISSION: Duration = Duration::from_millis(200);

/// Paths remembered, down ones included: a device does not meet more networks within a session's keys.
pub(super) const PATHS_KNOWN_MAX: usize = 16;

/// What the policy says, in the form the engine uses.
#[derive(Clone, Debug)]
pub(super) struct Timing {
    pub(super) dead_after: Duration,
    pub(super) probe_interval: Duration,
    pub(super) standby_interval: Duration,
    pub(super) gateway_dead_after: Duration,
    pub(super) path_validity: Duration,
    pub(super) cooldown: Duration,
    pub(super) rekey_after: Duration,
    pub(super) improvement_permille: u16,
    pub(super) loss_permille: u16,
    pub(super) rtt: Duration,
    pub(super) jitter: Duration,
    pub(super) candidates: usize,
    pub(super) policy: Policy,
}

impl Timing {
    /// The times of a snapshot; one that cannot be read means the defaults.
    pub(super) fn of(snapshot: &[u8]) -> Self {
        let policy = Policy::decode(snapshot).unwrap_or_default();
        Self {
            dead_after: policy.dead_after,
            probe_interval: policy.probe_interval,
            standby_interval: policy.standby_interval,
            gateway_dead_after: policy.gateway_dead_after,
            path_validity: policy.path_validity,
            cooldown: policy.cooldown,
            rekey_after: policy.rekey_after,
            improvement_permille: policy.improvement.0,
            loss_permille: policy.loss_threshold.0,
            rtt: policy.rtt_threshold,
            jitter: policy.jitter_threshold,
            candidates: usize::try_from(policy.max_candidates).unwrap_or(1),
            policy,
        }
    }
}
