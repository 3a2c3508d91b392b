//! What a ring shows at `/metrics`: Cortex's gauges, computed from the newest snapshot when somebody asks.
//!
//! So no reader waits for them, an instance that falls silent becomes `Unhealthy` without an update of the ring, and
//! nothing is left behind of members and zones that are gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringkit_runtime::{Collect, Families};
use tracing::info;

use crate::desc::State;
use crate::operation::Operation;
use crate::ring::Shared;
use crate::snapshot::Snapshot;

pub(crate) struct RingMetrics {
    shared: Arc<Shared>,
    /// Whether it was said that the ring is too large for series of its members.
    said_too_large: AtomicBool,
}

impl RingMetrics {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, said_too_large: AtomicBool::new(false) }
    }

    /// Whether series of members are wanted, and not too many.
    fn tells_members(&self, members: usize) -> bool {
        let options = &self.shared.options;
        if !options.detailed_metrics || members <= options.detailed_metrics_limit {
            return options.detailed_metrics;
        }
        if !self.said_too_large.swap(true, Ordering::Relaxed) {
            let (ring, limit) = (&options.name, options.detailed_metrics_limit);
            info!(
                ring,
                members, limit, "the ring is too large for metrics of each member; showing totals only"
            );
        }
        false
    }
}

impl Collect for RingMetrics {
    fn collect(&self, out: &mut Families) {
        // Not the guard of a moment: what follows may take some time.
        let snapshot = Arc::clone(&self.shared.load());
        members(&snapshot, self.shared.clock.now_secs(), out);
        tokens(&snapshot, out);
        if self.tells_members(snapshot.members.len()) {
            ownership(&snapshot, out);
        }
        shards(&snapshot, out);
        vanished(&self.shared, out);
    }
}

/// What a member is counted as; `None` = not heard of lately.
type Shown = Option<State>;

/// Shown also where there are none: unlike LEFT and unknown states, which come and go with those in them.
const ALWAYS_SHOWN: [Shown; 6] = [
    Some(State::Active),
    Some(State::Leaving),
    Some(State::Pending),
    Some(State::Joining),
    Some(State::ReadOnly),
    None,
];

fn label(shown: Shown) -> String {
    shown.map_or_else(|| "Unhealthy".to_owned(), |state| state.to_string())
}

fn members(snapshot: &Snapshot, now: i64, out: &mut Families) {
    let zones = snapshot.zones();
    let mut oldest: BTreeMap<Shown, i64> = ALWAYS_SHOWN.map(|shown| (shown, 0)).into();
    let everywhere =
        ALWAYS_SHOWN.iter().flat_map(|&shown| (0..zones.len()).map(move |zone| ((shown, zone), 0)));
    let mut counts: BTreeMap<(Shown, usize), u64> = everywhere.collect();
    for (place, member) in snapshot.members.iter().enumerate() {
        let healthy = snapshot.is_healthy_at(place, Operation::REPORTING, now);
        let shown = healthy.then(|| member.state());
        let oldest = oldest.entry(shown).or_default();
        if *oldest == 0 || member.desc.timestamp < *oldest {
            *oldest = member.desc.timestamp;
        }
        *counts.entry((shown, snapshot.topology.zone_of[place] as usize)).or_default() += 1;
    }
    for ((shown, zone), count) in counts {
        let labels = [("state", label(shown)), ("zone", zones[zone].to_string())];
        let labels = labels.each_ref().map(|(name, value)| (*name, value.as_str()));
        out.gauge("cortex_ring_members", "Number of members in the ring", &labels, count as f64);
    }
    for (shown, timestamp) in oldest {
        let help = "Timestamp of the oldest member in the ring.";
        let labels = [("state", &*label(shown))];
        out.gauge("cortex_ring_oldest_member_timestamp", help, &labels, timestamp as f64);
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

fn shards(snapshot: &Snapshot, out: &mut Families) {
    let help = "Tenants' shards that are kept.";
    out.gauge("ringkit_ring_shard_cache_entries", help, &[], snapshot.shards.len() as f64);
    let help = "Tenants' shards that were pushed out or not kept for want of room.";
    let evictions = snapshot.shards.evictions() as f64;
    out.counter("ringkit_ring_shard_cache_evictions_total", help, &[], evictions);
}

fn vanished(shared: &Shared, out: &mut Families) {
    let (held, holds) = shared.vanish.get();
    let help = "Members that vanished from the store and are still served, because too many did at once.";
    out.gauge("ringkit_ring_vanish_held_members", help, &[], held as f64);
    let help = "How often members that vanished began to be held back.";
    out.counter("ringkit_ring_vanish_holds_total", help, &[], holds as f64);
}
