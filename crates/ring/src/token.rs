//! Positions on the 32-bit circle: the search for the next token, distances, and the hashes that place things on it.

/// How many positions the circle has.
pub const CIRCLE: u64 = 1 << 32;

/// Index of the first of the ascending `tokens` that is greater than `key`, and 0 if there is none: a token owns what
/// lies between its predecessor and itself, itself excluded.
///
/// 0 for an empty list. Costs O(log n).
#[inline]
pub fn search_token(tokens: &[u32], key: u32) -> usize {
    let after = tokens.partition_point(|&token| token <= key);
    if after < tokens.len() { after } else { 0 }
}

/// How many positions lie from `from` to `to` going up and around; the whole circle from a token to itself.
#[inline]
pub fn distance(from: u32, to: u32) -> u64 {
    if from < to { u64::from(to - from) } else { CIRCLE - u64::from(from) + u64::from(to) }
}

/// A 32-bit FNV-1 hash under way: multiply, then xor. Places series, metadata and blocks.
#[derive(Clone, Copy, Debug)]
pub struct Fnv1(u32);

/// A 32-bit FNV-1a hash under way: xor, then multiply. Places tenants, rule groups and compaction groups.
#[derive(Clone, Copy, Debug)]
pub struct Fnv1a(u32);

const OFFSET_BASIS: u32 = 2_166_136_261;
const PRIME: u32 = 16_777_619;

impl Fnv1 {
    /// The hash of nothing.
    pub const fn new() -> Self {
        Self(OFFSET_BASIS)
    }

    /// The hash of what came before followed by `bytes`.
    #[must_use]
    #[inline]
    pub fn with(self, bytes: impl AsRef<[u8]>) -> Self {
        Self(bytes.as_ref().iter().fold(self.0, |hash, &byte| hash.wrapping_mul(PRIME) ^ u32::from(byte)))
    }

    /// The position.
    #[inline]
    pub const fn finish(self) -> u32 {
        self.0
    }
}

impl Fnv1a {
    /// The hash of nothing.
    pub const fn new() -> Self {
        Self(OFFSET_BASIS)
    }

    /// The hash of what came before followed by `bytes`.
    #[must_use]
    #[inline]
    pub fn with(self, bytes: impl AsRef<[u8]>) -> Self {
        Self(bytes.as_ref().iter().fold(self.0, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME)))
    }

    /// The position.
    #[inline]
    pub const fn finish(self) -> u32 {
        self.0
    }
}

impl Default for Fnv1 {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for Fnv1a {
    fn default() -> Self {
        Self::new()
    }
}

/// FNV-1 of `bytes`.
#[inline]
pub fn fnv1(bytes: impl AsRef<[u8]>) -> u32 {
    Fnv1::new().with(bytes).finish()
}

/// FNV-1a of `bytes`.
#[inline]
pub fn fnv1a(bytes: impl AsRef<[u8]>) -> u32 {
    Fnv1a::new().with(bytes).finish()
}

/// Where a series lies when all its labels count: tenant, then name and value of each label in the given order.
///
/// Give the labels sorted. A label with an empty value counts as absent. There are no separators, so tenant `a` with
/// name `bc` lies where tenant `ab` with name `c` does, as in Cortex.
#[inline]
pub fn shard_by_all_labels<N, V>(tenant: impl AsRef<[u8]>, labels: impl IntoIterator<Item = (N, V)>) -> u32
where
    N: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    let with_label = |hash: Fnv1, (name, value): (N, V)| {
        if value.as_ref().is_empty() { hash } else { hash.with(name).with(value) }
    };
    labels.into_iter().fold(Fnv1::new().with(tenant), with_label).finish()
}

/// Where a series lies when only its metric name counts.
#[inline]
pub fn shard_by_metric_name(tenant: impl AsRef<[u8]>, metric_name: impl AsRef<[u8]>) -> u32 {
    Fnv1::new().with(tenant).with(metric_name).finish()
}

/// Where metric metadata lies: by tenant and family when series lie by all labels, else by tenant alone.
pub fn shard_metadata(tenant: &str, metric_family: &str, by_all_labels: bool) -> u32 {
    if by_all_labels { shard_by_metric_name(tenant, metric_family) } else { fnv1(tenant) }
}

/// Where a tenant lies, for alertmanagers, rulers and compactors.
pub fn shard_by_user(tenant: &str) -> u32 {
    fnv1a(tenant)
}

/// Where a rule group lies.
pub fn shard_rule_group(tenant: &str, namespace: &str, group: &str) -> u32 {
    Fnv1a::new().with(tenant).with("/").with(namespace).with("/").with(group).finish()
}

/// Where a compaction of the range `start_ms..end_ms` (Unix milliseconds) lies.
pub fn shard_compaction_group(tenant: &str, start_ms: i64, end_ms: i64) -> u32 {
    Fnv1a::new().with(tenant).with(start_ms.to_string()).with(end_ms.to_string()).finish()
}

/// Where a block lies for store-gateways: by the 16 bytes of its ULID, not by its text.
pub fn shard_block(ulid: &[u8; 16]) -> u32 {
    fnv1(ulid)
}

/// A tenant's shard size from a limit: below 1 a fraction of the `instances`, otherwise a number of them, rounded up.
/// Nothing above 0 means that the tenant is not sharded.
pub fn dynamic_shard_size(value: f64, instances: usize) -> i64 {
    // Casts from f64 saturate, and turn what is not a number into 0.
    let size = if value < 1.0 { instances as f64 * value } else { value };
    size.ceil() as i64
}
