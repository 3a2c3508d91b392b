//! What a ring shows at `/metrics`: Cortex's gauges, computed from the newest snapshot when somebody asks.
//!
//! So no reader waits for them, an instance that falls silent becomes `Unhealthy` without an update of the ring, and
//! nothing is left behind of members and zones that are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringkit_runtime::{Collect, Families};

use crate::desc::State;
use crate::operation::Operation;
use crate::ring::Shared;
use crate::snapshot::Snapshot;

pub(crate) struct RingMetrics {
    shared: Arc<Shared>,
}

impl RingMetrics {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

/// Label of instances that were not heard of lately.
const UNHEALTHY: &str = "Unhealthy";

impl Collect for RingMetrics {
    fn collect(&self, out: &mut Families) {
        let snapshot = self.shared.load();
        members(&snapshot, self.shared.clock.now_secs(), out);
        tokens(&snapshot, out);
        if self.shared.options.detailed_metrics {
            ownership(&snapshot, out);
        }
    }
}

fn members(snapshot: &Snapshot, now: i64, out: &mut Families) {
    // Always shown, LEFT and unknown states only where there are some.
    let shown = [State::Active, State::Leaving, State::Pending, State::Joining, State::ReadOnly]
        .map(|s| s.to_string());
    let shown = || shown.iter().map(String::as_str).chain([UNHEALTHY]);
    let zones = snapshot.zones();
    let mut counts: BTreeMap<(String, &str), u64> = BTreeMap::new();
    let mut oldest: BTreeMap<String, i64> = shown().map(|state| (state.to_owned(), 0)).collect();
    for zone in zones {
        counts.extend(shown().map(|state| ((state.to_owned(), zone.as_str()), 0)));
    }
    for (place, member) in snapshot.members.iter().enumerate() {
        let healthy = snapshot.is_healthy_at(place, Operation::REPORTING, now);
        let state = if healthy { member.state().to_string() } else { UNHEALTHY.to_owned() };
        let oldest = oldest.entry(state.clone()).or_default();
        if *oldest == 0 || member.desc.timestamp < *oldest {
            *oldest = member.desc.timestamp;
        }
        *counts.entry((state, member.zone())).or_default() += 1;
    }
    for ((state, zone), count) in counts {
        let labels = [("state", state.as_str()), ("zone", zone)];
        out.gauge("cortex_ring_members", "Number of members in the ring", &labels, count as f64);
    }
    for (state, timestamp) in oldest {
        let help = "Timestamp of the oldest member in the ring.";
        out.gauge("cortex_ring_oldest_member_timestamp", help, &[("state", &state)], timestamp as f64);
    }
}

fn tokens(snapshot: &Snapshot, out: &mut Families) {
    let total = snapshot.tokens().len() as f64;
    out.gauge("cortex_ring_tokens_total", "Number of tokens in the ring", &[], total);
    let help = "Number of duplicate tokens in the ring (tokens owned by multiple instances).";
    out.gauge("cortex_ring_duplicate_tokens", help, &[], snapshot.duplicate_tokens() as f64);
}

fn ownership(snapshot: &Snapshot, out: &mut Families) {
    for (member, share) in snapshot.members.iter().zip(snapshot.ownership().of_circle()) {
        let labels = [("member", member.id.as_str())];
        let help = "The number of tokens in the ring owned by the member";
        out.gauge("cortex_ring_tokens_owned", help, &labels, share.tokens as f64);
        let help = "The percent ownership of the ring by member";
        out.gauge("cortex_ring_member_ownership_percent", help, &labels, share.fraction());
    }
}
