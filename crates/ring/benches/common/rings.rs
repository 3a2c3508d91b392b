//! Rings to measure with.

use std::time::Duration;

use ringkit_ring::{Desc, InstanceDesc, RingOptions, State, TokenGenerator};

/// The time at which everything happens.
pub(crate) const NOW: i64 = 1_700_000_000;
pub(crate) const TIMEOUT: i64 = 60;
pub(crate) const FACTOR: usize = 3;

/// What is the matter with one of the three zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    Healthy,
    Leaving,
    ReadOnly,
    /// Its heartbeats are too old.
    Stale,
}

/// `instances` with `tokens` each in three zones, the first of which is as told.
pub(crate) fn ring(instances: usize, tokens: usize, first_zone: Zone) -> Desc {
    let mut generator = TokenGenerator::random(Some(1));
    // All tokens at once, dealt out in turns: drawing them instance by instance costs a scan of the ring each.
    let all = generator.generate(instances * tokens, &Desc::new());
    let own = |place: usize| all.iter().copied().skip(place * 7 % instances).step_by(instances).collect();
    (0..instances)
        .map(|place| {
            let zone = if place % 3 == 0 { first_zone } else { Zone::Healthy };
            let entry = InstanceDesc { tokens: own(place), ..entry(place, zone) };
            (format!("ingester-{place}"), entry)
        })
        .collect()
}

fn entry(place: usize, zone: Zone) -> InstanceDesc {
    InstanceDesc {
        addr: format!("10.0.{}.{}:9095", place / 250, place % 250).into(),
        timestamp: if zone == Zone::Stale { NOW - TIMEOUT - 1 } else { NOW },
        state: match zone {
            Zone::Leaving => State::Leaving,
            Zone::ReadOnly => State::ReadOnly,
            Zone::Healthy | Zone::Stale => State::Active,
        },
        zone: format!("zone-{}", place % 3).into(),
        registered_timestamp: NOW - 3_600,
        ..InstanceDesc::default()
    }
}

/// One more instance, JOINING with tokens of its own.
pub(crate) fn joiner(ring: &Desc, tokens: usize) -> (String, InstanceDesc) {
    let tokens = TokenGenerator::random(Some(2)).generate(tokens, ring).into();
    let entry = InstanceDesc { tokens, state: State::Joining, ..entry(ring.len(), Zone::Healthy) };
    ("joiner".to_owned(), entry)
}

pub(crate) fn options(zone_aware: bool) -> RingOptions {
    RingOptions {
        zone_awareness_enabled: zone_aware,
        replication_factor: FACTOR,
        heartbeat_timeout: Duration::from_secs(TIMEOUT as u64),
        ..RingOptions::default()
    }
}
