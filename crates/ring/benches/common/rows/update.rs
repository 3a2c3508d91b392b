//! What arrives: heartbeats and instances that join.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringkit_ring::bench_support::publish;
use ringkit_ring::{Desc, EntryId, InstanceDesc, Ring, merge, remove_tombstones};
use ringkit_runtime::Clock;

use crate::common::rings::{NOW, Zone, joiner, options, ring};
use crate::common::{Goal, Row, go_merge, go_ring, timed, timed_with};

/// Since when LEFT entries are forgotten.
const FORGOTTEN: i64 = NOW - 300;

/// A heartbeat seen, merged, and written.
pub(crate) fn heartbeats(instances: usize) -> Vec<Row> {
    let (seen, micro) = ([20_000, 172_000, 2_500_000], Duration::from_micros);
    let seen_within = Goal::Within(micro(5));
    vec![
        seen_by_a_reader("heartbeat seen by a reader", instances, 128, seen_within).recorded(seen),
        seen_by_a_reader("heartbeat seen by a reader, 512 tokens", instances, 512, seen_within),
        received(instances, Goal::Within(micro(3))).recorded([14_000, 33_000, 166_000]),
        written(instances, Goal::Within(micro(5))).recorded([65_000, 600_000, 6_800_000]),
        written_whole(instances),
    ]
}

/// The id of the instance whose heart beats: one in the middle.
fn beating(desc: &Desc) -> EntryId {
    desc.iter().nth(desc.len() / 2).map(|(id, _)| id.clone()).expect("an instance")
}

fn with_timestamp(entry: &InstanceDesc, timestamp: i64) -> InstanceDesc {
    InstanceDesc { timestamp, ..entry.clone() }
}

/// Compared with what was known and published. The new value comes with tokens of its own, as if decoded in full.
fn seen_by_a_reader(figure: &'static str, instances: usize, tokens: usize, goal: Goal) -> Row {
    let before = ring(instances, tokens, Zone::Healthy);
    let id = beating(&before);
    let mut after = before.clone();
    let known = before.get(&id).expect("it is there");
    let fresh = InstanceDesc { tokens: known.tokens.as_slice().into(), ..with_timestamp(known, NOW + 5) };
    after.insert(id.clone(), fresh);

    let shown = Ring::fixed(&before, options(true), Clock::manual(NOW * 1000).0);
    let values = [go_ring::entries(&before), go_ring::entries(&after)].map(Arc::new);
    let client = go_ring::Client::new(Arc::clone(&values[0]), true);
    let (descs, changed) = ([before, after], [id]);
    let (mut turn, mut their_turn) = (0, 0);
    let ours = timed(move || {
        turn = 1 - turn;
        assert!(publish(&shown, &descs[turn], &changed), "the lookup tables were kept");
    });
    let go = timed(move || {
        their_turn = 1 - their_turn;
        client.update(Arc::clone(&values[their_turn]))
    });
    Row::new(figure, instances, goal, ours).against(go)
}

/// Decoded, merged, and what changed encoded again to be passed on.
fn received(instances: usize, goal: Goal) -> Row {
    let local = ring(instances, 128, Zone::Healthy);
    let id = beating(&local);
    let entry = Arc::clone(local.get(&id).expect("it is there"));
    let message = move |beats: &mut i64| {
        *beats += 1;
        Desc::from_iter([(id.clone(), with_timestamp(&entry, NOW + *beats))]).encode()
    };
    let (their_message, theirs) = (message.clone(), go_ring::entries(&local));
    let mut settled = Desc::new();
    merge(&mut settled, &local, false, NOW);
    let ours = timed_with(
        (settled, 0),
        move |(_, beats)| message(beats),
        |(local, beats), message| {
            let incoming = Desc::decode(&message).expect("a message");
            let mut change = merge(local, &incoming, false, NOW + *beats).change.expect("a change");
            remove_tombstones(local, Some(FORGOTTEN));
            remove_tombstones(&mut change, Some(FORGOTTEN));
            change.encode()
        },
    );
    let go = timed_with(
        (theirs, 0),
        move |(_, beats)| their_message(beats),
        |(local, beats), message| {
            go_merge::receive(local, &message, NOW + *beats, FORGOTTEN).expect("a change")
        },
    );
    Row::new("gossiped heartbeat received and merged", instances, goal, ours).against(go)
}

/// One's own entry with a new timestamp, merged and encoded; Go does so with the whole ring.
fn written(instances: usize, goal: Goal) -> Row {
    let local = ring(instances, 128, Zone::Healthy);
    let id = beating(&local);
    let (theirs, their_id) = (go_ring::entries(&local), id.clone());
    let mut settled = Desc::new();
    merge(&mut settled, &local, false, NOW);
    let beat = |(_, beats): &mut (Desc, i64)| *beats += 1;
    let ours = timed_with((settled, 0), beat, move |(local, beats), ()| {
        let now = NOW + *beats;
        let entry = with_timestamp(local.get(&id).expect("it is there"), now);
        let own = Desc::from_iter([(id.clone(), entry)]);
        let change = merge(local, &own, false, now).change.expect("a change");
        remove_tombstones(local, Some(FORGOTTEN));
        change.encode()
    });
    let go = timed_with(
        (theirs, 0),
        |(_, beats)| *beats += 1,
        move |(local, beats), ()| {
            go_merge::heartbeat(local, &their_id, NOW + *beats, FORGOTTEN).expect("a change")
        },
    );
    Row::new("own heartbeat written (gossip CAS)", instances, goal, ours).against(go)
}

/// One's own heartbeat by the way Go goes: a copy of the whole ring, changed and merged as the only truth.
fn written_whole(instances: usize) -> Row {
    let local = ring(instances, 128, Zone::Healthy);
    let id = beating(&local);
    let (theirs, their_id) = (go_ring::entries(&local), id.clone());
    let mut settled = Desc::new();
    merge(&mut settled, &local, false, NOW);
    let beat = |(_, beats): &mut (Desc, i64)| *beats += 1;
    let ours = timed_with((settled, 0), beat, move |(local, beats), ()| {
        let now = NOW + *beats;
        let mut whole = local.clone();
        remove_tombstones(&mut whole, None);
        let entry = with_timestamp(whole.get(&id).expect("it is there"), now);
        whole.insert(id.clone(), entry);
        let change = merge(local, &whole, true, now).change.expect("a change");
        remove_tombstones(local, Some(FORGOTTEN));
        change.encode()
    });
    let go = timed_with(
        (theirs, 0),
        |(_, beats)| *beats += 1,
        move |(local, beats), ()| {
            go_merge::heartbeat(local, &their_id, NOW + *beats, FORGOTTEN).expect("a change")
        },
    );
    Row::new("own heartbeat by a copy of the whole ring", instances, Goal::None, ours).against(go)
}

/// An instance joins: merged, and seen by lookups.
pub(crate) fn joins(instances: usize) -> Vec<Row> {
    let seen = [4_000_000, 74_000_000, 1_300_000_000];
    vec![
        joined(instances).recorded([200_000, 3_000_000, 166_000_000]),
        topology_change("topology change until lookups see it", instances, 128).recorded(seen),
        topology_change("topology change, 512 tokens", instances, 512),
    ]
}

fn joined(instances: usize) -> Row {
    let local = ring(instances, 128, Zone::Healthy);
    let new = Desc::from_iter([joiner(&local, 128)]);
    let (theirs, their_new) = (go_ring::entries(&local), go_ring::entries(&new));
    let mut settled = Desc::new();
    merge(&mut settled, &local, false, NOW);
    let ours = timed_with(
        settled,
        |local| drop(local.remove("joiner")),
        move |local, ()| merge(local, &new, false, NOW).change.expect("a change"),
    );
    let go = timed_with(
        theirs,
        move |local| {
            local.remove("joiner");
            their_new.clone()
        },
        |local, new| go_merge::merge(local, new, false, NOW).expect("a change"),
    );
    Row::new("one instance joins: merged", instances, Goal::OneIn(10), ours).against(go)
}

/// The ring without and with one more instance, and what shows it: ours and Go's.
pub(crate) struct Change {
    descs: [Desc; 2],
    shown: Ring,
    values: [Arc<go_ring::Entries>; 2],
    client: go_ring::Client,
    turns: [usize; 2],
}

impl Change {
    pub(crate) fn new(instances: usize, tokens: usize) -> Self {
        let before = ring(instances, tokens, Zone::Healthy);
        let mut after = before.clone();
        let (id, entry) = joiner(&before, tokens);
        after.insert(id, entry);
        let values = [go_ring::entries(&before), go_ring::entries(&after)].map(Arc::new);
        Self {
            shown: Ring::fixed(&before, options(true), Clock::manual(NOW * 1000).0),
            client: go_ring::Client::new(Arc::clone(&values[0]), true),
            descs: [before, after],
            values,
            turns: [0; 2],
        }
    }

    /// The instance joins if it is not there, and else is gone.
    pub(crate) fn ours(&mut self) {
        self.turns[0] = 1 - self.turns[0];
        let kept = publish(&self.shown, &self.descs[self.turns[0]], &[EntryId::new_static("joiner")]);
        assert!(!kept, "the lookup tables are new");
    }

    pub(crate) fn go(&mut self) {
        self.turns[1] = 1 - self.turns[1];
        self.client.update(Arc::clone(&self.values[self.turns[1]]));
    }
}

fn topology_change(figure: &'static str, instances: usize, tokens: usize) -> Row {
    let ours = Rc::new(RefCell::new(Change::new(instances, tokens)));
    let go = Rc::clone(&ours);
    let (ours, go) = (timed(move || ours.borrow_mut().ours()), timed(move || go.borrow_mut().go()));
    Row::new(figure, instances, Goal::OneIn(10), ours).against(go)
}
