//! Looking keys up.

use std::sync::Arc;

use ringkit_ring::{Operation, Snapshot, do_batch};
use ringkit_runtime::Supervisor;

use crate::common::rings::{NOW, Zone, options, ring};
use crate::common::{Goal, Row, go_batch, go_ring, keys, timed};

pub(crate) const HEALTHY_GET: &str = "get, zone-aware";

/// One key.
pub(crate) fn gets(instances: usize) -> Vec<Row> {
    let tenth = Goal::OneIn(10);
    let row = |figure, tokens, zone_aware, zone, goal, recorded| {
        let desc = ring(instances, tokens, zone);
        let snapshot = Snapshot::first_sight(&desc, NOW, &options(zone_aware));
        let plain = go_ring::Ring::build(Arc::new(go_ring::entries(&desc)), zone_aware);
        // There the walk visits every token for every key, and compares it with each host: seconds for one lookup.
        let go_is_hopeless = zone == Zone::Leaving && instances > 100;
        if !go_is_hopeless {
            both_answer_alike(&snapshot, &plain);
        }
        let (mut hosts, mut found) = (Vec::with_capacity(5), Vec::with_capacity(5));
        let (mut key, mut their_key) = (keys(), keys());
        let ours = timed(move || snapshot.get(key(), Operation::WRITE, NOW).map(|set| set.len()));
        let go = timed(move || plain.get(their_key(), Operation::WRITE, &mut hosts, &mut found));
        let row = Row::new(figure, instances, goal, ours).recorded(recorded);
        if go_is_hopeless { row } else { row.against(go) }
    };
    vec![
        row(HEALTHY_GET, 128, true, Zone::Healthy, tenth, [480, 1_130, 2_900]),
        row("get, zone-aware, 512 tokens", 512, true, Zone::Healthy, tenth, [0; 3]),
        row("get, without zones", 128, false, Zone::Healthy, tenth, [0; 3]),
        row("get, one zone unhealthy", 128, true, Zone::Stale, tenth, [0; 3]),
        row(
            "get, one zone LEAVING",
            128,
            true,
            Zone::Leaving,
            Goal::TimesOwn(2, HEALTHY_GET),
            [0, 0, 903_000],
        ),
    ]
}

fn both_answer_alike(snapshot: &Snapshot, plain: &go_ring::Ring) {
    let mut key = keys();
    for _ in 0..10 {
        let (key, mut hosts, mut found) = (key(), Vec::new(), Vec::new());
        let ours = snapshot.get(key, Operation::WRITE, NOW).ok();
        let ours = ours.map(|set| set.addresses().map(ToString::to_string).collect::<Vec<_>>());
        let theirs = plain.get(key, Operation::WRITE, &mut hosts, &mut found);
        let theirs = theirs.map(|_| found.iter().map(|entry| entry.addr.to_owned()).collect::<Vec<_>>());
        assert_eq!(ours, theirs, "both arms answer alike");
    }
}

/// Many keys at once, written through calls that succeed at once.
pub(crate) fn batches(instances: usize) -> Vec<Row> {
    let desc = ring(instances, 128, Zone::Healthy);
    let snapshot = Snapshot::first_sight(&desc, NOW, &options(true));
    let plain = go_ring::Ring::build(Arc::new(go_ring::entries(&desc)), true);
    let runtime = || tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let tokens: Vec<u32> = std::iter::repeat_with(keys()).take(2_000).collect();
    let (our_runtime, their_runtime, their_tokens) = (runtime(), runtime(), tokens.clone());
    let background = Supervisor::new("benchmark");
    let ours = timed(move || {
        let call = |_, items: Vec<usize>| {
            std::hint::black_box(items);
            std::future::ready(Ok(()))
        };
        let batch = do_batch(&snapshot, Operation::WRITE, &tokens, NOW, &background, call);
        our_runtime.block_on(batch).expect("a batch")
    });
    let go = timed(move || {
        let batch = go_batch::do_batch(&plain, Operation::WRITE, &their_tokens);
        their_runtime.block_on(batch).expect("a batch")
    });
    vec![Row::new("batch of 2,000 keys, answered at once", instances, Goal::None, ours).against(go)]
}

/// All instances.
pub(crate) fn sets(instances: usize) -> Vec<Row> {
    let row = |figure, zone_aware, zone, recorded| {
        let desc = ring(instances, 128, zone);
        let snapshot = Snapshot::first_sight(&desc, NOW, &options(zone_aware));
        let plain = go_ring::Ring::build(Arc::new(go_ring::entries(&desc)), zone_aware);
        let ours = snapshot.replication_set(Operation::READ, NOW).expect("a set").len();
        assert_eq!(ours, plain.replication_set(Operation::READ).expect("a set").0.len());
        let ours = timed(move || snapshot.replication_set(Operation::READ, NOW).map(|set| set.len()));
        let go = timed(move || plain.replication_set(Operation::READ).map(|(set, _)| set.len()));
        Row::new(figure, instances, Goal::OneIn(20), ours).against(go).recorded(recorded)
    };
    let recorded = [9_000, 62_000, 645_000];
    vec![
        row("all instances for an operation", true, Zone::Healthy, recorded),
        row("all instances, one zone unhealthy", true, Zone::Stale, [0; 3]),
        row("all instances, without zones", false, Zone::Healthy, [0; 3]),
    ]
}
