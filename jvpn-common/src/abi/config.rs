//! What the kernel program must know: layout, port, incarnation, liveness.
//!
//! Owns the value of `CONFIG`. All zero means: pass everything, touch nothing.

/// Role in [`Config::role`]: not configured, everything passes.
pub const ROLE_NONE: u16 = 0;
/// Role in [`Config::role`]: a gateway.
pub const ROLE_GATEWAY: u16 = 1;
/// Workers whose liveness is kept.
pub const WORKERS_MAX: usize = 16;

/// The one entry of `CONFIG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct Config {
    /// [`super::LAYOUT_HASH`] of the build that created the maps.
    pub layout: u64,
    /// Which start of the controller this is; echoes say it.
    pub incarnation: u64,
    /// Which owner this is.
    pub owner_epoch: u64,
    /// UDP port of the gateway, host order.
    pub port: u16,
    /// [`ROLE_NONE`] or [`ROLE_GATEWAY`].
    pub role: u16,
    /// Workers in use; a locator's low byte modulo this names its worker.
    pub workers: u32,
    /// Slots of the arrays.
    pub max_sessions: u32,
    /// Kernel ticks (jiffies) a second.
    pub hz: u32,
    /// Tick up to which each worker is known to be alive.
    pub alive_until: [u64; WORKERS_MAX],
    /// Keyed hash seed of the handshake buckets.
    pub bucket_seed: [u64; 2],
    /// Message 1 a second and source bucket, and its burst.
    pub handshake_rate: u32,
    /// See `handshake_rate`.
    pub handshake_burst: u32,
    /// For later; zero.
    pub reserved: [u64; 8],
}

impl Config {
    /// Whether the worker of `locator` refreshed its liveness in time.
    #[must_use]
    pub fn alive(&self, locator: u64, tick: u64) -> bool {
        let workers = if self.workers == 0 {
            1
        } else {
            self.workers as u64
        };
        let worker = ((locator & 0xff) % workers) as usize;
        matches!(self.alive_until.get(worker), Some(&until) if tick <= until && until != 0)
    }
}

const _: () = assert!(size_of::<Config>() == 256);
