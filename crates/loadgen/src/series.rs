//! Labels and values of one series, as functions of the plan.
//!
//! Values use integer arithmetic only, so that they are the same bits on every machine.

use xxhash_rust::xxh3::{Xxh3Builder, xxh3_64_with_seed, xxh3_128};

use crate::plan::{Plan, SERIES_PER_POD};

/// Prometheus' staleness marker: a NaN with its own bit pattern.
pub const STALE_NAN: u64 = 0x7ff0_0000_0000_0002;
/// The bit pattern of an ordinary NaN, as Go writes it.
pub const NORMAL_NAN: u64 = 0x7ff8_0000_0000_0001;

const METRICS: [&str; 10] = [
    "load_cpu_seconds_total",
    "load_disk_written_bytes_total",
    "load_http_requests_total",
    "load_http_request_duration_seconds_sum",
    "load_memory_resident_bytes",
    "load_network_receive_bytes_total",
    "load_open_connections",
    "load_queue_length",
    "load_temperature_celsius",
    "load_threads",
];
const METHODS: [&str; 5] = ["DELETE", "GET", "PATCH", "POST", "PUT"];
const STATUSES: [&str; 5] = ["200", "204", "400", "404", "500"];

/// The `job` label of all series of a load.
pub fn job(plan: &Plan) -> String {
    format!("load-{:016x}", plan.seed)
}

/// The `pod` label that [`SERIES_PER_POD`] series share.
pub fn pod(plan: &Plan, pod: u32) -> String {
    format!("load-{:016x}-{pod:06}", plan.seed)
}

/// Labels of series number `series`, sorted by name, values never empty. No two series of one plan have equal labels.
pub fn labels(plan: &Plan, series: u32) -> Vec<(&'static str, String)> {
    let (pod_index, in_pod) = (series / SERIES_PER_POD, (series % SERIES_PER_POD) as usize);
    let metric = in_pod % METRICS.len();
    let method = in_pod / METRICS.len() % METHODS.len();
    let status = in_pod / (METRICS.len() * METHODS.len()) % STATUSES.len();
    vec![
        ("__name__", METRICS[metric].to_owned()),
        ("cluster", format!("cluster-{}", pod_index % 4)),
        (
            "instance",
            format!("10.{}.{}.{}:9100", pod_index >> 16 & 255, pod_index >> 8 & 255, pod_index & 255),
        ),
        ("job", job(plan)),
        ("method", METHODS[method].to_owned()),
        ("pod", pod(plan, pod_index)),
        ("status", STATUSES[status].to_owned()),
    ]
}

/// A hash that names a label set, whatever the type of its strings. The order of the labels matters.
pub fn fingerprint<'a>(labels: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> u128 {
    let mut bytes = Vec::with_capacity(256);
    for (name, value) in labels {
        for part in [name, value] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    xxh3_128(&bytes)
}

/// The value of a series at a timestamp (milliseconds). Mostly what monitoring looks like: counters that grow by a little,
/// gauges that move around a level; plus the special values the plan asks for.
pub fn value(plan: &Plan, series: u32, timestamp_ms: i64) -> f64 {
    let noise = hash(plan.seed, series, timestamp_ms);
    if noise % 1000 < u64::from(plan.special_permille) {
        return match noise / 1000 % 4 {
            0 => f64::from_bits(NORMAL_NAN),
            1 => f64::from_bits(STALE_NAN),
            2 => f64::INFINITY,
            _ => f64::NEG_INFINITY,
        };
    }
    let noise = noise >> 32;
    let character = hash(plan.seed, series, i64::MIN) >> 32;
    if series.is_multiple_of(2) {
        // A counter: a slope of its own, never falling, since the noise stays below one step of a millisecond.
        let slope = character % 97 + 3;
        let since = timestamp_ms.unsigned_abs() % (1 << 42);
        ((since * slope) as f64 + (noise % slope) as f64) / 1000.0
    } else {
        let level = (character % 100_000) as f64;
        level + (noise % 2001) as f64 / 100.0 - 10.0
    }
}

/// Whether two values are the same for a store: by bits, since NaN carries meaning in them.
pub fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}

fn hash(seed: u64, series: u32, timestamp_ms: i64) -> u64 {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&series.to_le_bytes());
    key[4..].copy_from_slice(&timestamp_ms.to_le_bytes());
    xxh3_64_with_seed(&key, seed)
}

/// Hasher for maps keyed by [`fingerprint`].
pub(crate) type FingerprintHasher = Xxh3Builder;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn plan() -> Plan {
        Plan { seed: 7, series: 5000, interval_ms: 1000, batch: 500, special_permille: 0 }
    }

    #[test]
    fn labels_are_sorted_unique_and_never_empty() {
        let plan = plan();
        let mut seen = HashSet::new();
        for series in 0..plan.series {
            let labels = labels(&plan, series);
            assert!(labels.windows(2).all(|pair| pair[0].0 < pair[1].0));
            assert!(labels.iter().all(|(_, value)| !value.is_empty()));
            assert!(
                seen.insert(fingerprint(labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())))),
                "series {series} is like another one"
            );
        }
    }

    /// Pinned: a ledger written by one build must be verifiable by the next.
    #[test]
    fn values_never_change_between_builds() {
        let plan = Plan { special_permille: 50, ..plan() };
        let values: Vec<u64> = (0..6).map(|i| value(&plan, i, 1_700_000_000_000).to_bits()).collect();
        assert_eq!(values, PINNED, "{values:#x?}");
    }
    const PINNED: [u64; 6] = [
        0x422a_ea4c_0400_0ed9,
        0x40f3_e821_9999_999a,
        0x423b_4f9f_f500_1062,
        0x40ea_9064_7ae1_47ae,
        0x423e_7a3f_7d00_0148,
        0x40c5_6d73_3333_3333,
    ];

    #[test]
    fn counters_never_fall_and_a_seed_changes_everything() {
        let plan = plan();
        let at = |t: i64| value(&plan, 4, 1_700_000_000_000 + t);
        assert!((0..1000).all(|t| at(t) <= at(t + 1)));
        let other = Plan { seed: 8, ..plan };
        assert_ne!(labels(&plan, 3), labels(&other, 3));
        assert!(!same(value(&plan, 3, 1000), value(&other, 3, 1000)));
    }

    #[test]
    fn special_values_appear_when_asked_for_and_only_then() {
        let asked = Plan { special_permille: 100, ..plan() };
        let bits = |plan: &Plan| (0..4000).map(|t| value(plan, 1, t).to_bits()).collect::<HashSet<_>>();
        let found = bits(&asked);
        for special in [NORMAL_NAN, STALE_NAN, f64::INFINITY.to_bits(), f64::NEG_INFINITY.to_bits()] {
            assert!(found.contains(&special), "{special:#x} never came");
        }
        assert!(bits(&plan()).iter().all(|bits| f64::from_bits(*bits).is_finite()));
    }
}
