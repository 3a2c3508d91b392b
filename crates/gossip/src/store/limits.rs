//! How much a store takes, of what size, and from what times.

use std::time::Duration;

use crate::register::{EntryId, MAX_BODY_BYTES, MAX_FACETS, MAX_ID_BYTES, Version};
use crate::time::Now;

/// What a [`Store`](super::Store) takes from others.
///
/// At the first three, new registers of others are refused; those known to us and those of our own pass, up to twice as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most keys.
    pub max_keys: usize,
    /// Most entries of one key, where an entry counts once if anything of it lives in a facet up to
    /// [`HEARTBEAT_FACET`](super::HEARTBEAT_FACET). Tombstones and other facets are bounded by their bytes alone.
    pub max_entries_per_key: usize,
    /// Most memory in bytes, about.
    pub max_bytes: usize,
    /// How far ahead of our wall clock a register of another may be. Others are refused alone, so a wrong clock harms its owner.
    pub max_clock_skew: Duration,
    /// How long tombstones are told to others, rounded up to a [tick](Self::until_tick). Later than that they are only remembered.
    pub tombstone_horizon: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_keys: 16_384,
            max_entries_per_key: 50_000,
            max_bytes: 256 << 20,
            max_clock_skew: Duration::from_secs(60),
            tombstone_horizon: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Limits {
    /// How often [`Store::tick`](super::Store::tick) is worth calling: often beside the horizon, and not for every packet.
    pub fn tick_period(&self) -> Duration {
        (self.tombstone_horizon / 64).clamp(Duration::from_millis(100), Duration::from_secs(60))
    }

    /// How long it is until [`Store::tick`](super::Store::tick) is to be called next: at the same moments everywhere, as far as
    /// wall clocks are right, so that all members drop the same tombstones at the same time.
    pub fn until_tick(&self, now: Now) -> Duration {
        let period = self.tick_ms();
        Duration::from_millis(period - now.wall_ms % period)
    }

    /// Whether a tombstone was written before the horizon, as it was at the last tick: between two of them nothing expires.
    pub(super) fn is_expired(&self, now: Now, version: Version) -> bool {
        let tick = now.wall_ms - now.wall_ms % self.tick_ms();
        Duration::from_millis(tick.saturating_sub(version.hlc.ms())) > self.tombstone_horizon
    }

    /// Whether what was written at `written` may have been there when something was removed at `removed`, by times only: clocks
    /// differ a little, but nobody forgets a removal, and the epoch it was in, before it has expired.
    pub(super) fn was_before(&self, written: Version, removed: Version) -> bool {
        let later = Duration::from_millis(written.hlc.ms().saturating_sub(removed.hlc.ms()));
        later <= self.tombstone_horizon / 2
    }

    /// Whether its author's clock is further ahead of ours than may be.
    pub(super) fn is_ahead(&self, now: Now, version: Version) -> bool {
        let skew = u64::try_from(self.max_clock_skew.as_millis()).unwrap_or(u64::MAX);
        version.hlc.ms() > now.wall_ms.saturating_add(skew)
    }

    fn tick_ms(&self) -> u64 {
        // At least 100, by its bounds.
        u64::try_from(self.tick_period().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// Why a register is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Reason {
    /// The key is longer than [`MAX_ID_BYTES`].
    #[error("the key is too long")]
    KeyTooLong,
    /// The entry's id is longer than [`MAX_ID_BYTES`].
    #[error("the id of the entry is too long")]
    IdTooLong,
    /// The facet is not below [`MAX_FACETS`].
    #[error("there is no such facet")]
    FacetOutOfRange,
    /// The body is longer than [`MAX_BODY_BYTES`].
    #[error("the body is too large")]
    BodyTooLarge,
    /// The epoch is beyond [`MAX_EPOCH`](crate::register::MAX_EPOCH).
    #[error("there is no such epoch")]
    EpochOutOfRange,
    /// Its author's clock is ahead of ours by more than [`Limits::max_clock_skew`].
    #[error("its time is too far ahead")]
    ClockAhead,
    /// A tombstone older than [`Limits::tombstone_horizon`], of something unknown or of something written later.
    #[error("the tombstone is too old")]
    TombstoneTooOld,
    /// There are [`Limits::max_keys`].
    #[error("there are too many keys")]
    TooManyKeys,
    /// The key has [`Limits::max_entries_per_key`].
    #[error("the key has too many entries")]
    TooManyEntries,
    /// It would take more than [`Limits::max_bytes`].
    #[error("the store is full")]
    TooManyBytes,
}

impl Reason {
    /// Whether there was no room for it: it may well be stored elsewhere.
    pub fn is_full(self) -> bool {
        matches!(self, Self::TooManyKeys | Self::TooManyEntries | Self::TooManyBytes)
    }

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::KeyTooLong => "key_too_long",
            Self::IdTooLong => "id_too_long",
            Self::FacetOutOfRange => "facet_out_of_range",
            Self::BodyTooLarge => "body_too_large",
            Self::EpochOutOfRange => "epoch_out_of_range",
            Self::ClockAhead => "clock_ahead",
            Self::TombstoneTooOld => "tombstone_too_old",
            Self::TooManyKeys => "too_many_keys",
            Self::TooManyEntries => "too_many_entries",
            Self::TooManyBytes => "too_many_bytes",
        }
    }
}

/// Whether there may be such a register in any store.
pub(super) fn check_shape(key: &str, entry: &EntryId, body_bytes: usize) -> Result<(), Reason> {
    if key.len() > MAX_ID_BYTES {
        return Err(Reason::KeyTooLong);
    }
    if entry.id.len() > MAX_ID_BYTES {
        return Err(Reason::IdTooLong);
    }
    if entry.facet >= MAX_FACETS {
        return Err(Reason::FacetOutOfRange);
    }
    if body_bytes > MAX_BODY_BYTES {
        return Err(Reason::BodyTooLarge);
    }
    Ok(())
}
