//! Merging next to a plain rendering of Cortex's rules, over rings in which everybody wants the same few tokens.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use ringkit_ring::{Desc, InstanceDesc, State, merge, remove_tombstones};

const NOW: i64 = 50;

type Ring = BTreeMap<String, InstanceDesc>;

fn plain(desc: &Desc) -> Ring {
    desc.iter().map(|(id, entry)| (id.to_string(), (**entry).clone())).collect()
}

/// The rules one by one, looking at every entry and every token each time.
fn merge_plainly(local: &mut Ring, incoming: &Ring, local_cas: bool, now: i64) -> Option<Ring> {
    let mut updated = BTreeSet::new();
    let mut tokens_changed = false;
    for (id, entry) in incoming.iter().filter(|(_, entry)| entry.timestamp <= now + 1800) {
        let mut entry = entry.clone();
        let tokens: BTreeSet<u32> = entry.tokens.iter().copied().collect();
        entry.tokens = if entry.state == State::Left { vec![].into() } else { tokens.into_iter().collect() };
        let absent = InstanceDesc::default();
        let known = local.get(id).unwrap_or(&absent);
        let left = entry.state == State::Left && known.state != State::Left;
        if entry.timestamp > known.timestamp || (entry.timestamp == known.timestamp && left) {
            tokens_changed |= known.tokens != entry.tokens;
            updated.insert(id.clone());
            local.insert(id.clone(), entry);
        }
    }
    for (id, entry) in local.iter_mut().filter(|_| local_cas) {
        if entry.state != State::Left && !incoming.contains_key(id) {
            updated.insert(id.clone());
            *entry =
                InstanceDesc { state: State::Left, timestamp: now, tokens: vec![].into(), ..entry.clone() };
        }
    }
    if updated.is_empty() {
        return None;
    }
    if tokens_changed || local.values().any(|entry| entry.state == State::Joining) {
        settle_plainly(local);
    }
    Some(updated.into_iter().map(|id| (id.clone(), local[&id].clone())).collect())
}

fn settle_plainly(ring: &mut Ring) {
    let mut winners = BTreeMap::<u32, (bool, String)>::new();
    let mut disputed = false;
    for (id, entry) in ring.iter().filter(|(_, entry)| entry.state != State::Left) {
        let claim = (entry.state == State::Leaving, id.clone());
        for token in entry.tokens.iter().copied().collect::<BTreeSet<_>>() {
            let winner = winners.entry(token).or_insert_with(|| claim.clone());
            disputed |= *winner != claim;
            if claim < *winner {
                *winner = claim.clone();
            }
        }
    }
    for (id, entry) in ring.iter_mut().filter(|(_, entry)| disputed && entry.state != State::Left) {
        let kept: BTreeSet<_> =
            entry.tokens.iter().copied().filter(|token| winners[token].1 == *id).collect();
        entry.tokens = kept.into_iter().collect();
    }
}

fn entry() -> impl Strategy<Value = InstanceDesc> {
    let state = prop_oneof![3 => Just(State::Active), 4 => prop::sample::select(State::KNOWN.to_vec())];
    let timestamp = prop_oneof![20 => 0..12i64, 1 => Just(NOW + 1800), 1 => Just(NOW + 1801)];
    let tokens = prop_oneof![3 => vec(0..24u32, 0..4), 1 => Just(vec![7, 3]), 1 => Just(vec![])];
    (state, timestamp, tokens).prop_map(|(state, timestamp, tokens)| InstanceDesc {
        state,
        timestamp,
        tokens: tokens.into(),
        ..InstanceDesc::default()
    })
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof![(0..6u32).prop_map(|n| format!("i{n}")), (0..40u32).prop_map(|n| format!("j{n}"))]
}

/// What happens to a ring between one merge and the next.
#[derive(Clone, Debug)]
enum Step {
    Merge {
        incoming: Vec<(String, InstanceDesc)>,
        local_cas: bool,
    },
    /// Merges the ring itself with one entry changed, as a writer of its own entry does.
    Cas(String, InstanceDesc),
    Insert(String, InstanceDesc),
    Remove(String),
    Claim(String, String),
    Forget(Option<i64>),
}

fn step() -> impl Strategy<Value = Step> {
    let incoming = prop_oneof![3 => vec((id(), entry()), 0..3), 1 => vec((id(), entry()), 0..30)];
    prop_oneof![
        8 => (incoming, prop::bool::weighted(0.15))
            .prop_map(|(incoming, local_cas)| Step::Merge { incoming, local_cas }),
        3 => (id(), entry()).prop_map(|(id, entry)| Step::Cas(id, entry)),
        1 => (id(), entry()).prop_map(|(id, entry)| Step::Insert(id, entry)),
        1 => id().prop_map(Step::Remove),
        1 => (id(), id()).prop_map(|(from, to)| Step::Claim(from, to)),
        1 => prop::option::of(0..12i64).prop_map(Step::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn merges_in_any_company_follow_the_rules_one_by_one(
        start in vec((id(), entry()), 0..12), steps in vec(step(), 1..14),
    ) {
        let mut desc: Desc = start.into_iter().collect();
        for step in steps {
            let mut expected = plain(&desc);
            let (incoming, local_cas) = match step {
                Step::Merge { incoming, local_cas } => (incoming.into_iter().collect(), local_cas),
                Step::Cas(id, entry) => {
                    let mut incoming = desc.clone();
                    incoming.insert(id, entry);
                    (incoming, true)
                }
                Step::Insert(id, entry) => {
                    desc.insert(id, entry);
                    continue;
                }
                Step::Remove(id) => {
                    desc.remove(&id);
                    continue;
                }
                Step::Claim(from, to) => {
                    desc.claim_tokens(&from, &to);
                    continue;
                }
                Step::Forget(limit) => {
                    let left = |entry: &InstanceDesc| entry.state == State::Left;
                    let tombstones = expected.values().filter(|entry| left(entry)).count();
                    expected.retain(|_, entry| !left(entry) || limit.is_some_and(|limit| entry.timestamp >= limit));
                    let kept = expected.values().filter(|entry| left(entry)).count();
                    prop_assert_eq!(remove_tombstones(&mut desc, limit), (kept, tombstones - kept));
                    prop_assert_eq!(plain(&desc), expected);
                    continue;
                }
            };
            let change = merge_plainly(&mut expected, &plain(&incoming), local_cas, NOW);
            let merged = merge(&mut desc, &incoming, local_cas, NOW);
            prop_assert_eq!(merged.change.as_ref().map(plain), change);
            prop_assert_eq!(plain(&desc), expected);
        }
    }
}

/// Merges never leave tokens with a LEFT entry, but a stored ring may come with one.
#[test]
fn tokens_of_an_instance_that_had_left_are_disputed_once_somebody_claims_them_again() {
    let entry = |state, timestamp, tokens: &[u32]| InstanceDesc {
        state,
        timestamp,
        tokens: tokens.into(),
        ..InstanceDesc::default()
    };
    let ring = |id: &str, entry: InstanceDesc| Desc::from_iter([(id, entry)]);
    for claimant in ["left", "heir"] {
        let mut desc = Desc::new();
        merge(&mut desc, &ring("zz", entry(State::Active, 1, &[1, 2])), false, NOW);
        desc.insert("left", entry(State::Left, 2, &[1]));
        if claimant == "left" {
            merge(&mut desc, &ring("left", entry(State::Active, 3, &[1])), false, NOW);
        } else {
            desc.insert("heir", entry(State::Active, 1, &[]));
            desc.claim_tokens("left", "heir");
        }
        merge(&mut desc, &ring("new", entry(State::Joining, 1, &[9])), false, NOW);
        assert_eq!(desc.get(claimant).unwrap().tokens.as_slice(), [1], "{claimant}");
        assert_eq!(desc.get("zz").unwrap().tokens.as_slice(), [2], "{claimant}");
    }
}
