//! Shards kept: the same as those selected anew, at any time and after any change.

use super::*;
use crate::follow::{follow, follow_changed};
use crate::shard::select::{Mode, Request, select as select_members};

proptest! {
    #[test]
    fn a_shard_kept_is_the_one_that_would_be_selected(
        desc in any_ring(), zone_aware: bool, dialect in dialect(),
        requests in vec(("[ab]", 0..7i64, asked(), -60..200i64), 1..60),
    ) {
        let warm = Snapshot::first_sight(&desc, NOW, &options(zone_aware, dialect, true));
        let cold = Snapshot::first_sight(&desc, NOW, &options(zone_aware, dialect, false));
        for (identifier, size, asked, later) in requests {
            // Few periods, so that requests meet what earlier ones left.
            let asked = match asked {
                Asked::Lookback(period) => Asked::Lookback(Duration::from_millis(period.as_millis() as u64 / 20_000 * 20_500)),
                asked => asked,
            };
            let now = NOW + later;
            prop_assert_eq!(
                ids(&warm, &identifier, size, asked, now),
                ids(&cold, &identifier, size, asked, now),
                "{} {} {:?} {}", identifier, size, asked, later
            );
        }
        prop_assert_eq!(cold.shards.len(), 0);
    }
}

fn base() -> Desc {
    let mut ring = even_ring(12, 3, 8, 1);
    ring.values_mut().for_each(|entry| entry.registered_timestamp = NOW - 9_000);
    ring.into_iter().collect()
}

fn snapshot(desc: &Desc) -> Snapshot {
    Snapshot::first_sight(desc, NOW, &options(true, Dialect::Cortex, true))
}

/// The ring after `change` of one member that is not in every shard.
fn changed(desc: &Desc, change: impl FnOnce(&mut InstanceDesc)) -> Desc {
    let mut next = desc.clone();
    let mut entry = (**desc.get("i0004").unwrap()).clone();
    change(&mut entry);
    next.insert("i0004", entry);
    next
}

#[test]
fn shards_are_kept_while_only_heartbeats_and_states_change() {
    let desc = base();
    let known = snapshot(&desc);
    known.shuffle_shard("tenant", 3);
    assert_eq!(known.shards.len(), 1);
    type Edit = fn(&mut InstanceDesc);
    let edits: [(Edit, bool); 7] = [
        (|_| (), true),
        (|entry| entry.timestamp += 5, true),
        (|entry| entry.state = State::Leaving, true),
        (|entry| entry.state = State::ReadOnly, false),
        (|entry| entry.registered_timestamp += 1, false),
        (|entry| entry.addr = "elsewhere:1".into(), false),
        (|entry| entry.tokens = vec![1, 2, 3].into(), false),
    ];
    for (number, (edit, kept)) in edits.into_iter().enumerate() {
        let next = changed(&desc, edit);
        let whole = follow(&known, &next, NOW + 5, |_| None).snapshot;
        assert_eq!(whole.shards.len(), usize::from(kept), "edit {number}");
        if let Some(quick) = follow_changed(&known, &next, &["i0004".into()], NOW + 5, |_| None) {
            assert_eq!(quick.snapshot.shards.len(), usize::from(kept), "edit {number}");
        }
    }
}

#[test]
fn a_shard_selected_from_an_old_snapshot_never_shows_in_a_new_one() {
    let desc = base();
    let old = snapshot(&desc);
    for tenant in 0..100 {
        let tenant = format!("tenant-{tenant}");
        let member = old.shuffle_shard(&tenant, 3).instances().next().unwrap().id.clone();
        let mut next = desc.clone();
        let entry = InstanceDesc { state: State::ReadOnly, ..(**desc.get(&member).unwrap()).clone() };
        next.insert(member, entry);
        let new = follow(&old, &next, NOW, |_| None).snapshot;
        // A late request that still holds the old snapshot stores its shard now.
        old.cleanup_shards(&tenant);
        assert_eq!(old.shuffle_shard(&tenant, 3).len(), 3);
        assert_eq!(new.shuffle_shard(&tenant, 3).len(), 4, "a READONLY member is made up for");
    }
}

#[test]
fn a_shard_kept_shows_states_and_heartbeats_of_the_newest_snapshot() {
    let desc = base();
    let known = snapshot(&desc);
    let id = known.shuffle_shard("tenant", 3).instances().next().unwrap().id.clone();
    let mut next = desc.clone();
    let entry = InstanceDesc { state: State::Leaving, ..(**desc.get(&id).unwrap()).clone() };
    next.insert(id.clone(), entry);
    let snapshot = follow(&known, &next, NOW, |_| None).snapshot;
    let shard = snapshot.shuffle_shard("tenant", 3);
    assert_eq!(shard.instances().find(|member| member.id == id).unwrap().state(), State::Leaving);
    assert_eq!(snapshot.shards.len(), 1, "and was not selected anew");
}

#[test]
fn an_idle_tenant_is_forgotten_alone() {
    let snapshot = snapshot(&base());
    for tenant in ["a", "b"] {
        for size in [1, 4] {
            snapshot.shuffle_shard(tenant, size);
            snapshot.shuffle_shard_zone_stable(tenant, size);
        }
    }
    assert_eq!(snapshot.shards.len(), 8);
    snapshot.cleanup_shards("a");
    snapshot.cleanup_shards("nobody");
    assert_eq!(snapshot.shards.len(), 4);
}

#[test]
fn many_tenants_take_bounded_memory_and_get_right_answers() {
    let desc = base();
    let (warm, cold) =
        (snapshot(&desc), Snapshot::first_sight(&desc, NOW, &options(true, Dialect::Cortex, false)));
    for tenant in 0..20_000 {
        let tenant = format!("tenant-{}", tenant % 12_000);
        let (a, b) = (warm.shuffle_shard(&tenant, 3), cold.shuffle_shard(&tenant, 3));
        assert!(a.instances().eq(b.instances()));
    }
    assert!((4_000..=8_192).contains(&warm.shards.len()), "{}", warm.shards.len());
}

#[test]
fn expiry_is_when_the_first_of_those_looked_back_at_leaves_the_window() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/shuffle_shard.json");
    let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let now = file["now"].as_i64().unwrap();
    let mut expiring = 0;
    for case in file["rings"].as_array().unwrap() {
        let instance = |value: &serde_json::Value| {
            let text = |field: &str| value[field].as_str().unwrap_or_default();
            let tokens = value["tokens"].as_array().unwrap().iter();
            let entry = InstanceDesc {
                state: text("state").parse().unwrap(),
                zone: text("zone").into(),
                tokens: tokens.map(|token| token.as_u64().unwrap() as u32).collect(),
                registered_timestamp: value["registered_timestamp"].as_i64().unwrap_or_default(),
                ..InstanceDesc::default()
            };
            (text("id").to_owned(), entry)
        };
        let desc: Desc = case["instances"].as_array().unwrap().iter().map(instance).collect();
        let zone_aware = case["config"]["zone_awareness_enabled"] == true;
        let snapshot = Snapshot::first_sight(&desc, now, &options(zone_aware, Dialect::Cortex, true));
        for shard in case["shards"].as_array().unwrap() {
            if shard["mode"] != "lookback" || shard["is_full_ring"] == true {
                continue;
            }
            let period = Duration::from_secs(shard["lookback_s"].as_u64().unwrap_or_default());
            let mode = Mode::Lookback(period);
            let request = Request::new(
                shard["identifier"].as_str().unwrap(),
                shard["size"].as_i64().unwrap(),
                mode,
                now,
            );
            let selection = select_members(&snapshot, &snapshot.shards, &request);
            let expiry = selection.earliest_in_window.map(|at| request.valid_until(at, Dialect::Cortex));
            assert_eq!(expiry, shard["cache_expiry"].as_i64(), "{shard}");
            expiring += usize::from(expiry.is_some());
        }
    }
    assert!(expiring > 10, "{expiring}");
}

#[test]
fn a_clock_that_was_ahead_does_not_keep_shards_out() {
    let mut ring = even_ring(12, 3, 8, 1);
    ring.values_mut().for_each(|entry| entry.registered_timestamp = NOW - 10);
    let desc = ring.into_iter().collect();
    let snapshot = snapshot(&desc);
    let request = |now| Request::new("tenant", 3, Mode::Lookback(Duration::from_secs(3_600)), now);
    for now in [NOW, NOW + 1_000_000, NOW + 1] {
        snapshot.shuffle_shard_with_lookback("tenant", 3, Duration::from_secs(3_600), now);
        assert!(snapshot.shards.get(&request(now)).is_some(), "{}", now - NOW);
    }
    assert_eq!(snapshot.shards.len(), 1);
}

#[test]
fn plain_shards_take_the_room_of_those_that_are_over() {
    // Everybody is looked back at, so all of these end.
    let mut ring = even_ring(60, 3, 8, 1);
    ring.values_mut().for_each(|entry| entry.registered_timestamp = NOW - 9_000);
    for place in 0..9 {
        ring.get_mut(&format!("i{place:04}")).unwrap().registered_timestamp = NOW - 5;
    }
    let snapshot = snapshot(&ring.into_iter().collect());
    let period = Duration::from_secs(60);
    let lookback = |size, now| snapshot.shuffle_shard_with_lookback("tenant", size, period, now).len();
    // All that fit next to each other; the last one comes when the others are over.
    (1..=8).for_each(|size| assert!(lookback(40 + size, NOW) > 0));
    assert_eq!(snapshot.shards.len(), 8);
    assert!(lookback(40, NOW + 1_000) > 0);
    (1..=7).for_each(|size| assert!(!snapshot.shuffle_shard("tenant", size).is_empty()));
    assert_eq!(snapshot.shards.evictions(), 0, "only what is over was replaced");
    let newest = Request::new("tenant", 40, Mode::Lookback(period), NOW + 1_000);
    assert!(snapshot.shards.get(&newest).is_some(), "it is not over");
    for size in 1..=7 {
        assert!(snapshot.shards.get(&Request::new("tenant", size, Mode::Plain, 0)).is_some(), "{size}");
    }
}

#[test]
fn what_is_kept_stays_within_a_budget_and_is_counted() {
    // Shards of half of the ring, each in as many zones as it has members.
    let entry = |n: usize| {
        let tokens = vec![(n as u32).wrapping_mul(2_654_435_761)];
        let entry = InstanceDesc {
            tokens: tokens.into(),
            zone: format!("z{n:04}").into(),
            ..InstanceDesc::default()
        };
        (format!("i{n:04}"), entry)
    };
    let desc: Desc = (0..4_000).map(entry).collect();
    let snapshot = Snapshot::first_sight(&desc, NOW, &options(false, Dialect::Cortex, true));
    for tenant in 0..600 {
        let tenant = format!("tenant-{tenant}");
        assert_eq!(snapshot.shuffle_shard(&tenant, 2_000).len(), 2_000);
        assert!(snapshot.shards.get(&Request::new(&tenant, 2_000, Mode::Plain, 0)).is_some(), "{tenant}");
    }
    let (len, bytes) = snapshot.shards.counted();
    assert_eq!((snapshot.shards.len(), snapshot.shards.bytes()), (len, bytes));
    assert!((8 << 20..=16 << 20).contains(&bytes), "{bytes}");
    assert_eq!(snapshot.shards.evictions() as usize, 600 - len);
    // Another placement begins anew and counts on.
    let mut next = desc.clone();
    next.insert("new", InstanceDesc { tokens: vec![5].into(), ..InstanceDesc::default() });
    let evictions = snapshot.shards.evictions();
    let next = follow(&snapshot, &next, NOW, |_| None).snapshot;
    assert_eq!((next.shards.len(), next.shards.evictions()), (0, evictions));
    snapshot.cleanup_shards("tenant-599");
    assert_eq!(snapshot.shards.len(), len - 1);
}

#[test]
fn a_shard_that_would_take_most_of_the_budget_is_not_kept_but_counted() {
    let entry = |n: usize| {
        let tokens = vec![(n as u32).wrapping_mul(2_654_435_761)];
        let entry = InstanceDesc {
            tokens: tokens.into(),
            zone: format!("z{n:06}").into(),
            ..InstanceDesc::default()
        };
        (format!("i{n:06}"), entry)
    };
    let desc: Desc = (0..100_000).map(entry).collect();
    let snapshot = Snapshot::first_sight(&desc, NOW, &options(false, Dialect::Cortex, true));
    assert_eq!(snapshot.shuffle_shard("tenant", 99_000).len(), 99_000);
    assert_eq!((snapshot.shards.len(), snapshot.shards.bytes(), snapshot.shards.evictions()), (0, 0, 1));
}
