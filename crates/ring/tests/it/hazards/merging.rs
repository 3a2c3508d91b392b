//! Copies of a ring that become one, or fail to.

use std::sync::Arc;

use ringkit_kv::Value as _;
use ringkit_ring::{
    Desc, InstanceDesc, MAX_CLOCK_SKEW_SECS, RingOptions, Snapshot, State, find_difference, merge,
};

const NOW: i64 = 1_700_000_000;

fn entry(state: State, timestamp: i64, tokens: &[u32]) -> InstanceDesc {
    InstanceDesc { state, timestamp, tokens: tokens.into(), ..InstanceDesc::default() }
}

fn ring<const N: usize>(entries: [(&str, State, i64, &[u32]); N]) -> Desc {
    entries.map(|(id, state, timestamp, tokens)| (id, entry(state, timestamp, tokens))).into_iter().collect()
}

fn tokens<'a>(desc: &'a Desc, id: &str) -> &'a [u32] {
    &desc.get(id).unwrap().tokens
}

use State::{Active, Joining, Leaving, Left};

/// Cortex checks timestamps while it merges, in the random order of a map: entries before the bad one are taken over and
/// neither versioned nor passed on, those after it are lost, and one wrong clock refuses a whole synchronisation.
#[test]
fn h04_one_entry_from_the_future_is_left_out_alone() {
    let limit = NOW + MAX_CLOCK_SKEW_SECS;
    let sound = [("a", Active, NOW, &[1][..]), ("c", Leaving, NOW + 5, &[3]), ("z", Active, limit, &[4])];
    let mut incoming = ring(sound);
    incoming.insert("b", entry(Active, limit + 1, &[2]));
    let mut local = ring([("a", Active, NOW - 9, &[1]), ("b", Active, NOW - 9, &[2])]);
    let merged = merge(&mut local, &incoming, false, NOW);
    let rejected: Vec<_> = merged.rejected.iter().map(ToString::to_string).collect();
    let text = format!("ingester b timestamp in the future, expected max of {limit}, got {}", limit + 1);
    assert_eq!(rejected, [text]);
    assert_eq!(merged.change, Some(ring(sound)), "everything taken over is passed on");
    assert_eq!(local.get("b").unwrap().timestamp, NOW - 9);
    // Being refused is not being absent: the receiver's own change does not delete it.
    let merged = merge(&mut local, &incoming, true, NOW);
    assert_eq!((merged.change, local.get("b").unwrap().state), (None, Active));
}

/// In Go a clone shares the lists of tokens with the original, and sorting, comparing, claiming and renewing write into
/// them: the gossip store's own entry becomes [10, 30, 40, 50, 50].
#[test]
fn h07_nothing_done_to_a_copy_shows_in_the_original() {
    let list = [50, 10, 40, 10, 30];
    let original =
        ring([("a", Active, NOW, &list), ("b", Leaving, NOW, &[10, 7]), ("c", Joining, NOW, &[50])]);
    let held: Vec<_> = original.iter().map(|(_, entry)| entry.tokens.clone()).collect();

    let mut clone = original.clone();
    assert!(clone.get("a").unwrap().tokens.ptr_eq(&held[0]), "a clone costs pointers");
    clone.claim_tokens("a", "b");
    clone.all_tokens();
    clone.compare(&original);
    let mut merged = original.clone();
    merge(&mut merged, &ring([("c", Joining, NOW + 1, &[50, 10])]), true, NOW);
    find_difference(Some(&original), Some(&mut original.clone()));
    Snapshot::first_sight(&original, NOW, &RingOptions::default()).ownership();
    original.encode();

    assert_eq!(tokens(&original, "a"), list);
    let now: Vec<_> = original.iter().map(|(_, entry)| entry.tokens.clone()).collect();
    assert!(now.iter().zip(&held).all(|(now, held)| now.ptr_eq(held)));
}

/// Cortex's first heartbeat of an entry whose registration is unknown writes Go's zero time, 1 January of the year 1; such
/// entries are in stores. They stay as they are when they are passed on, and are read as unknown.
#[test]
fn h14_a_registration_before_1970_is_read_as_unknown_and_passed_on_unchanged() {
    const YEAR_1: i64 = -62_135_596_800;
    let entry = InstanceDesc { registered_timestamp: YEAR_1, timestamp: NOW, ..InstanceDesc::default() };
    assert_eq!(entry.registered_at(), 0);
    let decoded = Desc::decode_entry("a", &Desc::encode_entry(&entry)).unwrap();
    assert_eq!((decoded.registered_timestamp, decoded.registered_at()), (YEAR_1, 0));
    let desc: Desc = [("a", decoded)].into_iter().collect();
    let snapshot = Snapshot::first_sight(&desc, NOW, &RingOptions::default());
    assert_eq!(snapshot.instance("a").unwrap().registered_timestamp(), 0);
}

/// In Cortex two changes of one instance within a second are one: the second is refused by every receiver. So they are here
/// (rule of the merge, the same on all sides), and a writer that moves its timestamp by one is heard at once.
#[test]
fn h21_a_change_within_the_second_is_heard_once_its_timestamp_moves() {
    let mut local = ring([("a", Joining, NOW, &[1])]);
    assert_eq!(merge(&mut local, &ring([("a", Active, NOW, &[1])]), false, NOW).change, None);
    let bumped = ring([("a", Active, NOW + 1, &[1])]);
    assert_eq!(merge(&mut local, &bumped, false, NOW).change, Some(bumped));
    // Leaving for good is the one change that needs no newer timestamp, and cannot be taken back within the second.
    let left = ring([("a", Left, NOW + 1, &[])]);
    assert_eq!(merge(&mut local, &left, false, NOW).change, Some(left.clone()));
    assert_eq!(merge(&mut local, &ring([("a", Active, NOW + 1, &[1])]), false, NOW).change, None);
    assert_eq!(local, left);
}

/// The last writer's wall clock wins, as in Cortex: a clock that is half an hour ahead wins for half an hour. Beyond that
/// it is not listened to, whereas a clock that is behind is never refused, only older.
#[test]
fn h22_a_clock_ahead_wins_within_the_limit_and_is_not_heard_beyond_it() {
    let ahead = NOW + MAX_CLOCK_SKEW_SECS;
    let mut local = ring([("a", Active, ahead, &[1])]);
    let set_right = ring([("a", Leaving, NOW + 60, &[1])]);
    assert_eq!(merge(&mut local, &set_right, false, NOW + 60).change, None, "still in the shadow");
    let later = ring([("a", Leaving, ahead + 1, &[1])]);
    assert_eq!(merge(&mut local, &later, false, ahead).change, Some(later));

    let beyond = ring([("a", Active, ahead + 100, &[1])]);
    let merged = merge(&mut local, &beyond, false, NOW);
    assert_eq!((merged.change, merged.rejected.len()), (None, 1));
    let merged = merge(&mut local, &beyond, false, NOW + 100);
    assert_eq!(
        (merged.change, merged.rejected.len()),
        (Some(beyond), 0),
        "once the clocks meet, it is taken"
    );
}

/// Two payloads of one second stay apart until the owner writes again, as in Cortex: nobody can tell which is newer.
#[test]
fn h23_copies_that_differ_within_a_second_meet_at_the_next_heartbeat() {
    let (mut here, mut there) = (ring([("a", Active, NOW, &[1])]), ring([("a", Leaving, NOW, &[1])]));
    let (sent, returned) = (here.clone(), there.clone());
    assert_eq!(merge(&mut here, &returned, false, NOW).change, None);
    assert_eq!(merge(&mut there, &sent, false, NOW).change, None);
    assert_ne!(here, there);
    let beat = ring([("a", Leaving, NOW + 5, &[1])]);
    merge(&mut here, &beat, false, NOW + 5);
    merge(&mut there, &beat, false, NOW + 5);
    assert_eq!(here, there);
}

/// Settling who keeps a token is not passed on, as in Cortex: copies that heard of a claimant in different orders differ
/// until the loser writes again.
#[test]
fn h23_who_keeps_a_token_depends_on_the_order_until_its_owner_writes_again() {
    let (claim, left) = (ring([("a", Active, NOW, &[1])]), ring([("a", Left, NOW + 1, &[])]));
    let b = ring([("b", Active, NOW, &[1])]);
    let (mut saw_the_claim, mut saw_it_end) = (b.clone(), b.clone());
    let change = merge(&mut saw_the_claim, &claim, false, NOW).change;
    assert_eq!(change, Some(claim.clone()), "that b lost is not in the change");
    merge(&mut saw_the_claim, &left, false, NOW + 1);
    merge(&mut saw_it_end, &left, false, NOW + 1);
    assert_eq!(merge(&mut saw_it_end, &claim, false, NOW + 1).change, None);
    assert_eq!((tokens(&saw_the_claim, "b"), tokens(&saw_it_end, "b")), (&[][..], &[1][..]));
    let again = ring([("b", Active, NOW + 2, &[1])]);
    merge(&mut saw_the_claim, &again, false, NOW + 2);
    merge(&mut saw_it_end, &again, false, NOW + 2);
    assert_eq!(saw_the_claim, saw_it_end);
}

/// Cortex drops the fields that it does not know whenever it writes: read-only marks and versions of the other dialect are
/// gone after the next heartbeat of anybody on a store with one value.
#[test]
fn h24_fields_of_the_other_dialect_and_of_later_versions_survive_whoever_writes() {
    let foreign = InstanceDesc {
        timestamp: NOW,
        id: "a".into(),
        read_only: true,
        read_only_updated_timestamp: NOW - 7,
        versions: [(3, 9)].into(),
        unknown: vec![0x98, 0x06, 0x2a].into(),
        tokens: vec![9, 4].into(),
        ..InstanceDesc::default()
    };
    assert!(foreign.is_read_only());
    let stored =
        [("a", foreign.clone()), ("b", entry(Active, NOW, &[4]))].into_iter().collect::<Desc>().encode();
    // Somebody else reads the whole, changes its own entry, and writes; here even a token of the other is taken away.
    let mut desc = Desc::decode(&stored).unwrap();
    desc.insert("b", entry(Active, NOW + 5, &[5]));
    let mut read = Desc::decode(&desc.encode()).unwrap();
    assert_eq!(**read.get("a").unwrap(), foreign);
    merge(&mut read, &ring([("0", Active, NOW, &[9])]), false, NOW);
    let kept = InstanceDesc { tokens: vec![4].into(), ..foreign };
    assert_eq!(**read.get("a").unwrap(), kept);
}

/// While anybody joins, Cortex builds a set of all tokens for every heartbeat. Here entries that a merge has no business
/// with are not even copied.
#[test]
fn a_heartbeat_during_a_rollout_leaves_the_entries_of_others_where_they_are() {
    let mut local = ring([("a", Active, NOW, &[1, 5]), ("b", Joining, NOW, &[2]), ("c", Leaving, NOW, &[3])]);
    let before = local.clone();
    merge(&mut local, &ring([("a", Active, NOW + 5, &[1, 5])]), false, NOW);
    for id in ["b", "c"] {
        assert!(Arc::ptr_eq(local.get(id).unwrap(), before.get(id).unwrap()), "{id}");
    }
}
