//! What the kernel program must know: layout, port, incarnation, liveness.
//!
//! Owns the value of `CONFIG`. All zero means: pass everything, touch nothing.

/// Role in [`Config::role`]: not configured, everything passes.
pub const ROLE_NONE: u16 = 0;
/// Role in [`Config::role`]: a gateway.
pub const ROLE_GATEWAY: u16 = 1;
/// Role in [`Config::role`]: a relay, which owns no session.
pub const ROLE_RELAY: u16 = 2;
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
    /// [`ROLE_NONE`], [`ROLE_GATEWAY`] or [`ROLE_RELAY`].
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
    /// Message 1 a second and source bucket; 0 = no limit at all.
    pub handshake_rate: u32,
    /// Depth of a source's bucket; at least `max_sessions`, so that nobody behind one address waits.
    pub handshake_burst: u32,
    /// Message 1 a second of everybody together, a processor.
    pub handshake_total_rate: u32,
    /// Depth of that bucket.
    pub handshake_total_burst: u32,
    /// For later; zero.
    pub reserved: [u64; 7],
}

impl Config {
    /// Whether the worker of `locator` refreshed its liveness in time.
    #[must_use]
    pub fn alive(&self, locator: u64, tick: u64) -> bool {
        let workers = if self.workers == 0 { 1 } else { u64::from(self.workers) };
        let worker = ((locator & 0xff) % workers) as usize;
        matches!(self.alive_until.get(worker), Some(&until) if tick <= until && until != 0)
    }
}

/// Words of a [`Config`].
pub const CONFIG_WORDS: usize = size_of::<Config>() / 8;
/// Place of the word that holds port, role and workers: stored last, since the role switches everything on.
pub const WORD_ROLE: usize = 3;
/// Place of the first word of [`Config::alive_until`].
pub const WORD_ALIVE: usize = 5;

impl Config {
    /// The configuration as its words in memory.
    #[must_use]
    pub fn to_words(&self) -> [u64; CONFIG_WORDS] {
        let mut words = [0; CONFIG_WORDS];
        let head = [
            self.layout,
            self.incarnation,
            self.owner_epoch,
            u64::from(self.port) | u64::from(self.role) << 16 | u64::from(self.workers) << 32,
            u64::from(self.max_sessions) | u64::from(self.hz) << 32,
        ];
        let tail = [
            self.bucket_seed[0],
            self.bucket_seed[1],
            u64::from(self.handshake_rate) | u64::from(self.handshake_burst) << 32,
            u64::from(self.handshake_total_rate) | u64::from(self.handshake_total_burst) << 32,
        ];
        let values = head.iter().chain(&self.alive_until).chain(&tail);
        words.iter_mut().zip(values).for_each(|(word, value)| *word = *value);
        words
    }

    /// The configuration of its words; what is reserved reads as zero.
    #[must_use]
    pub fn from_words(words: &[u64; CONFIG_WORDS]) -> Self {
        let [layout, incarnation, owner_epoch, role, size, rest @ ..] = words;
        let mut alive_until = [0; WORKERS_MAX];
        alive_until.iter_mut().zip(rest).for_each(|(until, word)| *until = *word);
        let tail = |at: usize| rest.get(WORKERS_MAX + at).copied().unwrap_or(0);
        Self {
            layout: *layout,
            incarnation: *incarnation,
            owner_epoch: *owner_epoch,
            port: *role as u16,
            role: (*role >> 16) as u16,
            workers: (*role >> 32) as u32,
            max_sessions: *size as u32,
            hz: (*size >> 32) as u32,
            alive_until,
            bucket_seed: [tail(0), tail(1)],
            handshake_rate: tail(2) as u32,
            handshake_burst: (tail(2) >> 32) as u32,
            handshake_total_rate: tail(3) as u32,
            handshake_total_burst: (tail(3) >> 32) as u32,
            reserved: [0; 7],
        }
    }
}

const _: () = assert!(
    core::mem::offset_of!(Config, port) == WORD_ROLE * 8
        && core::mem::offset_of!(Config, alive_until) == WORD_ALIVE * 8
);
const _: () = assert!(size_of::<Config>() == 256);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_reads_back_from_its_words() {
        let config = Config {
            layout: 1,
            incarnation: 2,
            owner_epoch: 3,
            port: 4,
            role: 5,
            workers: 6,
            max_sessions: 7,
            hz: 8,
            alive_until: std::array::from_fn(|i| 9 + i as u64),
            bucket_seed: [30, 31],
            handshake_rate: 32,
            handshake_burst: 33,
            handshake_total_rate: 34,
            handshake_total_burst: 35,
            reserved: [0; 7],
        };
        assert_eq!(Config::from_words(&config.to_words()), config);
    }

    #[test]
    fn a_worker_is_alive_up_to_its_tick_and_a_zeroed_one_never() {
        let mut config = Config { workers: 2, ..Config::default() };
        config.alive_until[1] = 100;
        assert!(config.alive(0x0101, 100));
        assert!(!config.alive(0x0101, 101));
        assert!(!config.alive(0x0100, 0));
    }
}
