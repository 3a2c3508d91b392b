//! A shard answers like a ring made of copies of its members.

use super::*;
use crate::operation::Operation;
use crate::shard::Shard;
use crate::strategy::Strategy as Filter;
use crate::{Replicas, View};

/// A ring large enough that small shards of it are searched member by member. `mess` brings tokens that are claimed twice,
/// or lists that are not sorted.
fn large_ring() -> impl Strategy<Value = Desc> {
    let state = prop_oneof![5 => Just(State::Active), 3 => prop::sample::select(State::KNOWN.to_vec())];
    let entry = (0..4usize, 0..5usize, state, prop::bool::weighted(0.85));
    (vec(entry, 1..160), any::<u64>(), 0..3usize).prop_map(|(entries, seed, mess)| {
        let mut tokens =
            crate::TokenGenerator::random(Some(seed)).generate(entries.len() * 5 + 1, &Desc::new());
        if mess == 1 {
            tokens.iter_mut().skip(1).step_by(7).for_each(|token| *token &= 0xF000_0000);
        }
        let entry = |(place, (zone, count, state, fresh)): (usize, (usize, usize, State, bool))| {
            let own = tokens.iter().skip(place).step_by(entries.len()).take(count).copied();
            let mut own: Vec<_> = own.collect();
            if mess == 2 && place.is_multiple_of(5) {
                own.reverse();
            }
            let entry = InstanceDesc {
                addr: format!("{place}:1").into(),
                timestamp: if fresh { NOW } else { NOW - 61 },
                state,
                tokens: own.into(),
                zone: ["", "a", "b", "c"][zone].into(),
                ..InstanceDesc::default()
            };
            (format!("i{place}"), entry)
        };
        entries.iter().copied().enumerate().map(entry).collect()
    })
}

/// The members of `shard` as a ring of their own, without the tokens that others own.
fn copy(desc: &Desc, shard: &Shard<'_>) -> Desc {
    let owners: BTreeMap<u32, &str> = desc
        .iter()
        .flat_map(|(id, entry)| entry.tokens.iter().map(move |token| (*token, id.as_str())))
        .collect();
    let copied = desc.iter().filter(|(id, _)| shard.contains(id)).map(|(id, entry)| {
        let mut entry = (**entry).clone();
        entry.tokens = entry.tokens.iter().copied().filter(|token| shard.contains(owners[token])).collect();
        (id.clone(), entry)
    });
    copied.collect()
}

fn operation() -> impl Strategy<Value = Operation> {
    prop::sample::select(vec![
        Operation::WRITE,
        Operation::WRITE_NO_EXTEND,
        Operation::READ,
        Operation::REPORTING,
        Operation::BLOCKS_OWNER_SYNC,
        Operation::RULER_LIST,
    ])
}

type Answer = Result<(Vec<String>, usize, usize), crate::Error>;

fn answer(result: Result<Replicas<'_>, crate::Error>) -> Answer {
    result.map(|replicas| {
        let ids = replicas.ids().map(ToString::to_string).collect();
        (ids, replicas.max_errors(), replicas.max_unavailable_zones())
    })
}

fn names(members: &[std::sync::Arc<crate::Instance>]) -> Vec<String> {
    members.iter().map(|member| member.id.to_string()).collect()
}

fn check(view: &impl View, copy: &Snapshot, op: Operation, keys: &[u32]) -> Result<(), TestCaseError> {
    for &key in keys {
        prop_assert_eq!(answer(view.get(key, op, NOW)), answer(copy.get(key, op, NOW)), "key {}", key);
    }
    prop_assert_eq!(answer(view.replication_set(op, NOW)), answer(copy.replication_set(op, NOW)));
    let split = |result: Result<_, _>| {
        result.map(|(a, b): (crate::Instances, crate::Instances)| (names(&a), names(&b)))
    };
    prop_assert_eq!(split(view.split_by_health(op, NOW)), split(copy.split_by_health(op, NOW)));
    let all = |result: Result<crate::Instances, _>| result.map(|all| names(&all));
    prop_assert_eq!(all(view.all_healthy(op, NOW)), all(copy.all_healthy(op, NOW)));
    prop_assert_eq!(view.len(), View::len(copy));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]
    #[test]
    fn a_shard_answers_like_a_ring_of_copies_of_its_members(
        desc in prop_oneof![large_ring(), any_ring()], zone_aware: bool, dialect in dialect(), quorum: bool,
        replication_factor in 1..6usize, zones_with_tokens_only: bool, size in 0..9i64, asked in asked(),
        op in operation(), tenant in "[a-z]{1,3}", mut keys in vec(any::<u32>(), 6),
    ) {
        let options = RingOptions {
            replication_factor,
            zones_with_tokens_only,
            strategy: if quorum { Filter::Quorum } else { Filter::IgnoreUnhealthy },
            ..options(zone_aware, dialect, true)
        };
        let snapshot = Snapshot::first_sight(&desc, NOW, &options);
        let shard = match asked {
            Asked::Plain => snapshot.shuffle_shard(&tenant, size),
            Asked::ZoneStable => snapshot.shuffle_shard_zone_stable(&tenant, size),
            Asked::Lookback(period) => snapshot.shuffle_shard_with_lookback(&tenant, size, period, NOW),
        };
        let copy = Snapshot::first_sight(&copy(&desc, &shard), NOW, &options);
        keys.extend(copy.tokens().iter().take(4).flat_map(|&token| [token, token.wrapping_sub(1)]));
        keys.extend([0, u32::MAX]);
        check(&shard, &copy, op, &keys)?;
        prop_assert!(shard.zones().eq(copy.zones()));
        prop_assert!(shard.instances().map(|member| &member.id).eq(copy.instances().iter().map(|member| &member.id)));
        for member in snapshot.instances() {
            prop_assert_eq!(shard.id_by_addr(member.addr()), copy.id_by_addr(member.addr()));
        }
        let states = snapshot.subring_for_states(op);
        let expected: Vec<_> = desc.iter().filter(|(_, entry)| op.accepts(entry.state)).map(|(id, _)| id).collect();
        prop_assert!(states.instances().map(|member| &member.id).eq(expected));
        check(&states, &Snapshot::first_sight(&self::copy(&desc, &states), NOW, &options), op, &keys)?;
    }
}

#[test]
fn both_ways_to_look_up_were_taken() {
    let desc: Desc = even_ring(400, 3, 8, 1).into_iter().collect();
    let snapshot = Snapshot::first_sight(&desc, NOW, &options(true, Dialect::Cortex, true));
    let searched = |size| {
        snapshot.shuffle_shard("tenant", size).members.is_some_and(|members| members.is_searched(&snapshot))
    };
    assert_eq!((searched(6), searched(60)), (true, false));
}

#[test]
fn a_token_claimed_twice_slows_down_only_the_shards_of_those_who_claim_it() {
    let mut ring = even_ring(400, 3, 8, 1);
    let shared = ring["i0007"].tokens[0];
    let mut tokens = ring["i0300"].tokens.to_vec();
    tokens.push(shared);
    tokens.sort_unstable();
    ring.get_mut("i0300").unwrap().tokens = tokens.into();
    let desc: Desc = ring.into_iter().collect();
    let snapshot = Snapshot::first_sight(&desc, NOW, &options(true, Dialect::Cortex, true));
    let (mut searched, mut walked) = (0, 0);
    for tenant in 0..300 {
        let shard = snapshot.shuffle_shard(&format!("tenant-{tenant}"), 6);
        let is_searched = shard.members.as_ref().is_some_and(|members| members.is_searched(&snapshot));
        assert_eq!(is_searched, !shard.contains("i0007") && !shard.contains("i0300"));
        *if is_searched { &mut searched } else { &mut walked } += 1;
    }
    assert!(searched > 200 && walked > 0, "{searched} {walked}");
}
