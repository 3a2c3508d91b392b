//! What a ring shows at `/metrics` in rings that are odd or large.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringkit_kv::{Client, InMemory};
use ringkit_ring::{Desc, InstanceDesc, Ring, RingOptions, State};
use ringkit_runtime::{CancellationToken, Clock, Meter, Service as _};

use crate::support::active;

/// The series of a ring of `entries`, and the client to change it. The ring follows only when `text` is called.
struct World {
    client: Client<Desc>,
    options: RingOptions,
    meter: Meter,
}

impl World {
    fn new(options: RingOptions) -> Self {
        let client = Client::new(Arc::new(InMemory::default()), &Meter::disabled());
        Self { client, options, meter: Meter::new(Arc::new(metrics::NoopRecorder)) }
    }

    async fn put(&self, (id, entry): (String, InstanceDesc)) {
        self.client.upsert_own("ring", &id, &entry).await.unwrap();
    }

    async fn text(&self) -> String {
        let (clock, _) = Clock::manual(1_000_000);
        let (_ring, mut service) = Ring::new(self.options.clone(), self.client.clone(), clock, &self.meter);
        service.start(&CancellationToken::new()).await.unwrap();
        self.meter.render_collected()
    }
}

fn in_state(id: &str, zone: &str, state: State) -> (String, InstanceDesc) {
    let (id, entry) = active(id, zone, &[]);
    (id, InstanceDesc { state, ..entry })
}

/// Name and labels of each series.
fn series(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.rsplit_once(' ')?.0))
        .collect()
}

#[tokio::test]
async fn the_families_are_those_of_cortex_word_for_word() {
    let world = World::new(RingOptions::default());
    world.put(active("a", "z", &[1])).await;
    let text = world.text().await;
    let told: Vec<_> =
        text.lines().filter(|line| line.starts_with("# ") && line.contains("cortex_")).collect();
    assert_eq!(
        told,
        [
            "# HELP cortex_ring_duplicate_tokens Number of duplicate tokens in the ring (tokens owned by multiple instances).",
            "# TYPE cortex_ring_duplicate_tokens gauge",
            "# HELP cortex_ring_member_ownership_percent The percent ownership of the ring by member",
            "# TYPE cortex_ring_member_ownership_percent gauge",
            "# HELP cortex_ring_members Number of members in the ring",
            "# TYPE cortex_ring_members gauge",
            "# HELP cortex_ring_oldest_member_timestamp Timestamp of the oldest member in the ring.",
            "# TYPE cortex_ring_oldest_member_timestamp gauge",
            "# HELP cortex_ring_tokens_owned The number of tokens in the ring owned by the member",
            "# TYPE cortex_ring_tokens_owned gauge",
            "# HELP cortex_ring_tokens_total Number of tokens in the ring",
            "# TYPE cortex_ring_tokens_total gauge",
        ]
    );
    let states = ["ACTIVE", "JOINING", "LEAVING", "PENDING", "READONLY", "Unhealthy"];
    let mut expected: BTreeSet<String> = BTreeSet::new();
    for state in states {
        expected.insert(format!(r#"cortex_ring_members{{name="ingester",state="{state}",zone="z"}}"#));
        expected.insert(format!(r#"cortex_ring_oldest_member_timestamp{{name="ingester",state="{state}"}}"#));
    }
    for name in ["cortex_ring_duplicate_tokens", "cortex_ring_tokens_total"] {
        expected.insert(format!(r#"{name}{{name="ingester"}}"#));
    }
    for name in ["cortex_ring_member_ownership_percent", "cortex_ring_tokens_owned"] {
        expected.insert(format!(r#"{name}{{name="ingester",member="a"}}"#));
    }
    for name in [
        "ringkit_ring_shard_cache_entries",
        "ringkit_ring_shard_cache_evictions_total",
        "ringkit_ring_vanish_held_members",
        "ringkit_ring_vanish_holds_total",
    ] {
        expected.insert(format!(r#"{name}{{name="ingester"}}"#));
    }
    assert_eq!(series(&text), expected.iter().map(String::as_str).collect());
}

#[tokio::test]
async fn odd_states_are_shown_while_somebody_is_in_them_and_leave_nothing_behind() {
    let world = World::new(RingOptions::default());
    world.put(in_state("a", "x", State::Left)).await;
    world.put(in_state("b", "y", State::Unknown(9))).await;
    let text = world.text().await;
    for (state, zone) in [("LEFT", "x"), ("9", "y")] {
        let line = format!(r#"cortex_ring_members{{name="ingester",state="{state}",zone="{zone}"}} 1"#);
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        assert_eq!(text.matches(&format!(r#"state="{state}""#)).count(), 2, "once by zone, once by age");
    }
    world.put(in_state("a", "x", State::Active)).await;
    world.put(in_state("b", "y", State::Active)).await;
    let text = world.text().await;
    assert!(!text.contains("LEFT") && !text.contains(r#"state="9""#), "{text}");
}

#[tokio::test]
async fn rings_beyond_the_limit_name_no_members() {
    let world = World::new(RingOptions { detailed_metrics_limit: 2, ..RingOptions::default() });
    world.put(active("a", "", &[1])).await;
    world.put(active("b", "", &[2])).await;
    assert!(world.text().await.contains(r#"member="b""#));
    world.put(active("c", "", &[3])).await;
    let text = world.text().await;
    assert!(!text.contains("member="), "{text}");
    assert!(text.lines().any(|line| line == r#"cortex_ring_tokens_total{name="ingester"} 3"#), "totals stay");
}
