//! What shards promise to whoever relies on them.

use super::*;

fn snapshot(ring: &BTreeMap<String, InstanceDesc>, zone_aware: bool) -> Snapshot {
    let desc: Desc = ring.iter().map(|(id, entry)| (id.as_str(), entry.clone())).collect();
    Snapshot::first_sight(&desc, NOW, &options(zone_aware, Dialect::Cortex, true))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_shard_grows_with_its_size_by_one_member_at_a_time(
        zones in 1..4usize, per_zone in 1..9usize, zone_aware: bool, seed: u64, tenant in "[a-z]{1,8}",
    ) {
        let snapshot = snapshot(&even_ring(zones * per_zone, zones, 8, seed), zone_aware);
        let counted = if zone_aware { zones } else { 1 };
        for (asked, step) in [(Asked::Plain, counted), (Asked::ZoneStable, 1)] {
            let mut before = BTreeSet::new();
            for size in 1..=(zones * per_zone) as i64 {
                let after = ids(&snapshot, &tenant, size, asked, NOW);
                prop_assert!(after.is_superset(&before), "{asked:?} {size}");
                prop_assert!(after.len() - before.len() <= step, "{asked:?} {size}");
                let expected = match asked {
                    Asked::ZoneStable => size as usize,
                    _ => crate::expected_instances(size, counted),
                };
                prop_assert_eq!(after.len(), expected);
                before = after;
            }
        }
    }

    #[test]
    fn one_member_joining_or_leaving_changes_one_member_of_a_shard_at_most(
        zones in 1..4usize, per_zone in 2..9usize, zone_aware: bool, seed: u64, tenant in "[a-z]{1,8}",
        size in 1..20i64, gone in any::<prop::sample::Index>(), zone_stable: bool,
    ) {
        let n = zones * per_zone;
        let size = size.min(n as i64 - 2).max(1);
        let asked = if zone_stable { Asked::ZoneStable } else { Asked::Plain };
        let mut ring = even_ring(n, zones, 8, seed);
        let before = ids(&snapshot(&ring, zone_aware), &tenant, size, asked, NOW);
        ring.remove(&format!("i{:04}", gone.index(n)));
        let after = ids(&snapshot(&ring, zone_aware), &tenant, size, asked, NOW);
        prop_assert!(before.difference(&after).count() <= 1, "{before:?} {after:?}");
        prop_assert!(after.difference(&before).count() <= 1, "{before:?} {after:?}");
    }

    #[test]
    fn who_was_in_the_shard_within_the_window_is_in_the_one_looking_back(
        zones in 1..4usize, zone_aware: bool, seed: u64, tenant in "[a-z]{1,4}", size in 1..7i64,
        events in vec((prop::bool::weighted(0.55), any::<u8>(), 0..40i64), 1..40), period in 1..300i64,
        dialect in dialect(),
    ) {
        let names: Vec<_> = even_ring(40 + 6 * zones, zones, 8, seed).into_iter().collect();
        // Six members per zone from the start; more than any shard, so that no shard is the whole ring.
        let (old, new) = names.split_at(6 * zones);
        let mut ring: BTreeMap<_, _> = old.iter().cloned().collect();
        ring.values_mut().for_each(|entry| entry.registered_timestamp = NOW - 100_000);
        let mut new = new.iter();
        let (mut now, mut past) = (NOW, Vec::<(i64, BTreeSet<String>)>::new());
        for (joins, which, later) in events {
            now += later;
            if joins && let Some((id, entry)) = new.next() {
                ring.insert(id.clone(), InstanceDesc { registered_timestamp: now, ..entry.clone() });
            } else if let Some(id) = ring.keys().nth(usize::from(which) % ring.len()).cloned() {
                let zone = &ring[&id].zone;
                if ring.values().filter(|entry| entry.zone == *zone).count() > size as usize {
                    ring.remove(&id);
                }
            }
            let desc: Desc = ring.iter().map(|(id, entry)| (id.as_str(), entry.clone())).collect();
            let snapshot = Snapshot::first_sight(&desc, now, &options(zone_aware, dialect, true));
            past.push((now, ids(&snapshot, &tenant, size, Asked::Plain, now)));
            let lookback = Asked::Lookback(Duration::from_secs(period as u64));
            let shard = ids(&snapshot, &tenant, size, lookback, now);
            for (_, then) in past.iter().filter(|(at, _)| *at >= now - period) {
                let missing: Vec<_> =
                    then.iter().filter(|id| ring.contains_key(*id) && !shard.contains(*id)).collect();
                prop_assert!(missing.is_empty(), "{missing:?}");
            }
        }
    }
}

#[test]
fn tenants_share_few_members() {
    let snapshot = snapshot(&even_ring(50, 1, 64, 1), false);
    let shards: Vec<_> =
        (0..200).map(|tenant| ids(&snapshot, &format!("tenant-{tenant}"), 5, Asked::Plain, NOW)).collect();
    let overlaps = shards
        .iter()
        .enumerate()
        .flat_map(|(at, a)| shards[..at].iter().map(move |b| a.intersection(b).count()));
    let (mut pairs, mut many) = (0, 0);
    for overlap in overlaps {
        pairs += 1;
        many += usize::from(overlap > 2);
    }
    // With five of fifty drawn fairly, about 0.5 % of pairs share three or more.
    assert!(many * 50 < pairs, "{many} of {pairs} pairs share more than two members");
}
