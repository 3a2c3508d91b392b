//! Two ends that talk until they are done, and ends that are told what nobody should say.

use std::iter;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::id::NodeId;
use crate::register::{Body, Register, Version};
use crate::store::{Limits, Merged, Reason};
use crate::time::Hlc;
use crate::wire::RecordsWriter;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Wall time of all that happens here.
const NOW_MS: u64 = 1_700_000_000_000;
const KEY: &str = "k";
const MAX_BYTES: usize = 64 << 20;

struct Fake {
    store: Store,
    member_hash: u64,
    members_told: usize,
    /// What becomes of all that comes in, if it is not stored.
    verdict: Option<Taken>,
}

impl Fake {
    fn new() -> Self {
        let limits = Limits { max_entries_per_key: 1_000_000, ..Limits::default() };
        Self { store: Store::new(limits, 0), member_hash: 0, members_told: 0, verdict: None }
    }

    fn with(places: impl IntoIterator<Item = EntryId>, register: &Register) -> Self {
        let mut fake = Self::new();
        for place in places {
            fake.put(&place, register);
        }
        fake
    }

    fn put(&mut self, place: &EntryId, register: &Register) {
        assert!(self.store.merge(now(), KEY, place, register, None).is_change());
    }
}

impl Host for Fake {
    fn now(&self) -> Now {
        now()
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn take(&mut self, record: &Record<'_>) -> Taken {
        if let Some(verdict) = self.verdict {
            return verdict;
        }
        let (entry, register) = (record.entry(), record.register());
        match self.store.merge(now(), record.key, &entry, &register, None) {
            Merged::New | Merged::Changed => Taken::Changed,
            Merged::Same => Taken::Known,
            Merged::Older => Taken::Older,
            Merged::Refused(Reason::TombstoneTooOld) => {
                self.store.remember(record.key, &entry, &register);
                Taken::Known
            }
            Merged::Refused(_) => Taken::Refused,
        }
    }

    fn member_hash(&self) -> u64 {
        self.member_hash
    }

    fn members(&self) -> Vec<MemberEntry> {
        vec![MemberEntry { node: id(), incarnation: 0, state: 0 }; 3]
    }

    fn take_members(&mut self, members: Vec<MemberEntry>) {
        self.members_told += members.len();
    }
}

fn now() -> Now {
    Now { wall_ms: NOW_MS, ..Now::default() }
}

fn id() -> NodeId {
    NodeId::new("n", 1, "10.0.0.1:7946".parse().unwrap())
}

/// Written so many milliseconds ago; `None` = removed.
fn register(ago_ms: u64, author: u64, bytes: Option<&[u8]>) -> Register {
    let body = bytes.map_or(Body::Tombstone, |bytes| Body::Live(Bytes::copy_from_slice(bytes)));
    Register { version: Version { epoch: 0, hlc: Hlc::from_ms(NOW_MS - ago_ms) }, author, body }
}

fn places(numbers: std::ops::Range<usize>) -> impl Iterator<Item = EntryId> {
    numbers.map(|number| EntryId::new(format!("e{number}"), 0))
}

fn pong(nonce: u64) -> Frame {
    Frame::Pong { nonce, node: id(), incarnation: 0 }
}

/// Lets the first compare with the second until both are done, and returns all that each of them said.
fn talk(hosts: &mut [Fake; 2], join: bool) -> [Vec<Frame>; 2] {
    let (opener, request) = Session::open(&hosts[0], join, MAX_BYTES);
    let mut ends = [opener, Session::accept(MAX_BYTES)];
    let mut said = [vec![], vec![]];
    let mut done = [false; 2];
    let mut pending = VecDeque::from([(0, request)]);
    while let Some((from, frame)) = pending.pop_front() {
        said[from].push(frame.clone());
        let to = 1 - from;
        if let Frame::Ping { nonce } = frame {
            pending.push_back((to, pong(nonce)));
            continue;
        }
        let mut out = Vec::new();
        done[to] = ends[to].on_frame(frame, &mut hosts[to], &mut out).unwrap();
        pending.extend(out.into_iter().map(|frame| (to, frame)));
    }
    assert_eq!(done, [true; 2]);
    said
}

fn num_records(frames: &[Frame]) -> usize {
    let records = frames.iter().filter_map(|frame| match frame {
        Frame::Records(records) => Some(records.iter().count()),
        _ => None,
    });
    records.sum()
}

fn num_pieces(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| matches!(frame, Frame::Ping { .. })).count()
}

fn num_bytes(frames: &[Frame]) -> usize {
    frames.iter().map(|frame| frame.encode().unwrap().len()).sum()
}

/// What a session answers to one frame.
fn say(session: &mut Session, host: &mut Fake, frame: Frame) -> Result<Vec<Frame>, Refusal> {
    let mut out = Vec::new();
    session.on_frame(frame, host, &mut out)?;
    Ok(out)
}

fn request() -> Frame {
    Frame::SyncRequest { join: false, member_hash: 0, roots: Vec::new() }
}

fn entries(part: u8, ids: &[&EntryId]) -> Frame {
    let entries = ids.iter().map(|entry| ((*entry).clone(), 7)).collect();
    Frame::Entries { key: KEY.into(), bucket: part, entries }
}

fn fetch(entries: impl IntoIterator<Item = EntryId>) -> Frame {
    Frame::Fetch { key: KEY.into(), entries: entries.into_iter().collect() }
}

#[test]
fn whatever_two_have_they_both_have_afterwards() {
    let mut random = SmallRng::seed_from_u64(1);
    for round in 0..200 {
        let mut hosts = [Fake::new(), Fake::new()];
        for place in places(0..random.random_range(0..40)) {
            for host in &mut hosts {
                if random.random_bool(0.7) {
                    let body = [b'0' + random.random_range(0..3)];
                    let body = random.random_bool(0.8).then_some(&body[..]);
                    let written = register(random.random_range(1..4), random.random_range(1..3), body);
                    let key = if random.random_bool(0.2) { "other" } else { KEY };
                    let _ = host.store.merge(now(), key, &place, &written, None);
                }
            }
        }
        let before = hosts.each_ref().map(|host| host.store.sizes().entries);
        let said = talk(&mut hosts, false);
        assert_eq!(hosts[0].store.root(), hosts[1].store.root(), "round {round}");
        let moved = said.iter().map(|frames| num_records(frames)).sum::<usize>();
        assert!(moved <= before.iter().sum::<usize>(), "round {round}");
        assert_eq!(talk(&mut hosts, false).map(|frames| num_records(&frames)), [0, 0]);
    }
}

#[test]
fn who_has_nothing_is_sent_everything_piece_by_piece() {
    // More of everything than fits a piece, in both directions at once.
    let [one, other] = [0..40_000, 40_000..80_000].map(|numbers| {
        let register = register(1, 1, Some(b"some bytes that are the same everywhere"));
        Fake::with(places(numbers), &register)
    });
    let mut hosts = [one, other];
    let said = talk(&mut hosts, false);
    assert_eq!(said.each_ref().map(|frames| num_records(frames)), [40_000; 2]);
    assert!(said.iter().all(|frames| num_pieces(frames) > 2));
    assert_eq!(hosts[0].store.sizes().entries, 80_000);
    assert_eq!(hosts[0].store.root(), hosts[1].store.root());

    let mut hosts = [Fake::new(), hosts.into_iter().next().unwrap()];
    let said = talk(&mut hosts, true);
    assert_eq!(said.map(|frames| num_records(&frames)), [0, 80_000]);
    assert_eq!(hosts[0].store.root(), hosts[1].store.root());
}

#[test]
fn of_a_part_that_takes_many_frames_only_what_differs_is_sent() {
    let ids = (0..).map(|number: usize| format!("{number:0>250}")).filter(|id| bucket_of(id) == 7);
    let places: Vec<EntryId> = ids.take(4_000).map(|id| EntryId::new(id, 0)).collect();
    let mut sorted: Vec<&EntryId> = places.iter().collect();
    sorted.sort_by_key(|place| mark_of(place));
    // At the ends of the part, and between.
    let changed = [sorted[0], sorted[2_500], sorted[3_999]];
    let missing = [[sorted[1], sorted[3_998]], [sorted[2], sorted[1_700]]];
    let equal = register(10, 1, Some(b"equal"));
    let mut hosts = missing.map(|missing| {
        let held = places.iter().filter(|place| !missing.contains(place));
        Fake::with(held.cloned(), &equal)
    });
    for place in changed {
        hosts[1].put(place, &register(1, 1, Some(b"changed")));
    }
    let said = talk(&mut hosts, false);
    let lists = said[0].iter().filter(|frame| matches!(frame, Frame::Entries { .. })).count();
    assert!(lists > 2, "{lists} frames");
    assert_eq!(said.map(|frames| num_records(&frames)), [2, 5]);
    assert_eq!(hosts[0].store.root(), hosts[1].store.root());
}

#[test]
fn nobody_is_sent_more_than_a_piece_before_it_says_that_that_came() {
    let body = vec![1; 100_000];
    let mut host = Fake::with(places(0..50), &register(1, 1, Some(&body)));
    let mut session = Session::accept(MAX_BYTES);
    let all = fetch(places(0..50));
    let mut sent = Vec::new();
    let mut nonce = None;
    let mut frame = all.clone();
    for _ in 0..10 {
        let said = say(&mut session, &mut host, frame).unwrap();
        assert!(num_bytes(&said) <= PIECE_BYTES + 2 * body.len());
        nonce = said.iter().find_map(|frame| match frame {
            Frame::Ping { nonce } => Some(*nonce),
            _ => None,
        });
        sent.extend(said);
        let Some(nonce) = nonce else { break };
        // However much more is asked for.
        for _ in 0..100 {
            assert_eq!(say(&mut session, &mut host, all.clone()), Ok(Vec::new()));
        }
        frame = pong(nonce);
    }
    assert_eq!((num_records(&sent), nonce), (50, None));
    assert_eq!(num_pieces(&sent), 4);
    assert_eq!(say(&mut session, &mut host, pong(77)), Err("out_of_turn"));
}

#[test]
fn what_is_asked_for_again_is_sent_once() {
    let mut host = Fake::with(places(0..2), &register(1, 1, Some(b"a")));
    let mut session = Session::accept(MAX_BYTES);
    for _ in 0..10 {
        let again = iter::repeat_n(EntryId::new("e1", 0), 60_000);
        assert_eq!(say(&mut session, &mut host, fetch(again)), Ok(Vec::new()));
    }
    let said = say(&mut session, &mut host, Frame::Done { moved: 0 }).unwrap();
    assert_eq!(num_records(&said), 1);

    // Neither are parts told of again and again.
    let mut host = Fake::with(places(0..2_000), &register(1, 1, Some(b"a")));
    let mut session = Session::accept(MAX_BYTES);
    assert_eq!(say(&mut session, &mut host, request()).unwrap().len(), 2);
    for part in [7, 9] {
        for _ in 0..1_000 {
            say(&mut session, &mut host, entries(part, &[])).unwrap();
        }
    }
    let said = say(&mut session, &mut host, Frame::Done { moved: 0 }).unwrap();
    let in_parts = places(0..2_000).filter(|place| [7, 9].contains(&bucket_of(&place.id))).count();
    assert_eq!(num_records(&said), in_parts);
}

#[test]
fn what_does_not_come_in_order_ends_the_session() {
    let place = EntryId::new("e1", 0);
    let part = bucket_of("e1");
    let told = |frames: Vec<Frame>| {
        let mut host = Fake::with(places(0..10), &register(1, 1, Some(b"a")));
        let mut session = Session::accept(MAX_BYTES);
        say(&mut session, &mut host, request()).unwrap();
        frames.into_iter().try_for_each(|frame| say(&mut session, &mut host, frame).map(drop))
    };
    assert_eq!(told(vec![entries(part, &[&place])]), Ok(()));
    assert_eq!(told(vec![entries(part, &[&place, &place])]), Err("repeated"));
    assert_eq!(told(vec![entries(part, &[&place]), entries(part, &[&place])]), Err("repeated"));
    assert_eq!(told(vec![entries(9, &[]), entries(7, &[])]), Err("repeated"));
    assert_eq!(told(vec![entries(part.wrapping_add(1), &[&place])]), Err("repeated"), "another part");

    let offered = |keys: &[&str]| {
        let mut host = Fake::new();
        let (mut session, _) = Session::open(&host, false, MAX_BYTES);
        keys.iter().try_for_each(|key| {
            let offer = Frame::Buckets { key: SmolStr::new(key), buckets: vec![(1, 1)] };
            say(&mut session, &mut host, offer).map(drop)
        })
    };
    assert_eq!(offered(&["a", "b"]), Ok(()));
    assert_eq!(offered(&["a", "a"]), Err("repeated"));
    assert_eq!(offered(&["b", "a"]), Err("repeated"));
}

#[test]
fn who_does_not_read_cannot_have_more_asked_of_it_than_a_bound() {
    let body = vec![1; 100_000];
    let mut host = Fake::with(places(0..50), &register(1, 1, Some(&body)));
    let mut session = Session::accept(MAX_BYTES);
    say(&mut session, &mut host, request()).unwrap();
    // Everything of ours is to be sent, and it does not say that the first piece came.
    let mut answer = Ok(Vec::new());
    let mut asked = 0;
    let ids = (0..600_000).map(|number: usize| format!("n{number}"));
    let mut by_part: BTreeMap<u8, Vec<EntryId>> = BTreeMap::new();
    for id in ids {
        by_part.entry(bucket_of(&id)).or_default().push(EntryId::new(id, 0));
    }
    for (part, mut places) in by_part {
        places.sort_by_key(mark_of);
        answer = say(&mut session, &mut host, entries(part, &places.iter().collect::<Vec<_>>()));
        let Ok(said) = &answer else { break };
        asked += num_bytes(said);
    }
    assert_eq!(answer, Err("too_fast"));
    assert!(asked <= 2 * PIECE_BYTES, "{asked}");
}

#[test]
fn who_does_not_read_cannot_have_more_told_than_a_bound() {
    let mut host = Fake::with(places(0..40_000), &register(1, 1, Some(b"a")));
    let (mut session, _) = Session::open(&host, false, MAX_BYTES);
    let offer = |key: SmolStr, buckets| Frame::Buckets { key, buckets };
    let said = say(&mut session, &mut host, offer(KEY.into(), Vec::new())).unwrap();
    assert_eq!(num_pieces(&said), 1);
    // It does not say that this came, and offers one key after the other.
    let keys = (0..2 * outbox::MAX_TASKS).map(|number| SmolStr::from(format!("l{number:0>6}")));
    let offers = keys.map(|key| offer(key, vec![(1, 1)]));
    let refused = offers.enumerate().find_map(|(number, offer)| {
        let said = say(&mut session, &mut host, offer);
        said.err().map(|refusal| (number, refusal))
    });
    let (number, refusal) = refused.unwrap();
    assert_eq!(refusal, "too_fast");
    assert!(number <= outbox::MAX_TASKS, "{number}");
}

#[test]
fn who_asks_whether_its_pieces_came_has_to_read_the_answers() {
    let body = vec![1; 100_000];
    let mut host = Fake::with(places(0..50), &register(1, 1, Some(&body)));
    let mut session = Session::accept(MAX_BYTES);
    let said = say(&mut session, &mut host, fetch(places(0..50))).unwrap();
    let Some(Frame::Ping { nonce }) = said.last() else { panic!("all was sent at once") };
    // Once it may have asked before it read that, and not again.
    assert_eq!(session.on_ping(), Ok(()));
    assert_eq!(session.on_ping(), Err("too_many_pings"));
    say(&mut session, &mut host, pong(*nonce)).unwrap();
    assert_eq!(session.on_ping(), Ok(()));

    let mut session = Session::accept(MAX_BYTES);
    let pings = iter::repeat_with(|| session.on_ping()).take_while(Result::is_ok).take(10_000);
    assert_eq!(pings.count(), 1024);
}

fn beat(number: usize) -> EntryId {
    EntryId::new(format!("e{number}"), HEARTBEAT_FACET)
}

#[test]
fn of_heartbeats_both_have_the_later_one_afterwards_and_nothing_has_moved() {
    let mut hosts = [Fake::new(), Fake::new()];
    for number in 0..99 {
        // By turns one, the other and none has a later one.
        let [one, other] = [[10, 20], [20, 10], [10, 10]][number % 3];
        for (host, ago_ms) in hosts.iter_mut().zip([one, other]) {
            host.put(&beat(number), &register(ago_ms, 1, Some(b"beats")));
        }
    }
    assert_eq!(hosts[0].store.root(), hosts[1].store.root());
    let said = talk(&mut hosts, false);
    assert_eq!(said.each_ref().map(|frames| num_records(frames)), [33, 33]);
    let moved = said.iter().flatten().any(|frame| matches!(frame, Frame::Done { moved } if *moved > 0));
    assert!(!moved, "another session would follow");
    let latest = register(10, 1, Some(b"beats"));
    for host in &hosts {
        let held = |number| host.store.get(KEY, &beat(number)).map(|slot| slot.register().clone());
        assert!((0..99).all(|number| held(number) == Some(latest.clone())));
    }
    assert_eq!(talk(&mut hosts, false).map(|frames| num_records(&frames)), [0, 0]);

    // The first one moves.
    hosts[0].put(&beat(100), &latest);
    let said = talk(&mut hosts, false);
    assert!(said[1].contains(&Frame::Done { moved: 1 }) || said[0].contains(&Frame::Done { moved: 1 }));
}

#[test]
fn nobody_is_told_of_a_heartbeat_twice() {
    let mut host = Fake::new();
    for number in 0..3 {
        host.put(&beat(number), &register(10, 1, Some(b"beats")));
    }
    let mut hashes: Vec<u64> = (0..3).map(|number| crate::store::id_hash(&format!("e{number}"))).collect();
    hashes.sort_unstable();
    let beats = |key: &str, of: &[u64]| {
        let beats = of.iter().map(|id_hash| (*id_hash, Version::default())).collect();
        Frame::Beats { key: SmolStr::new(key), beats }
    };
    let mut told = |frames: [Frame; 2]| {
        let mut session = Session::accept(MAX_BYTES);
        say(&mut session, &mut host, request()).unwrap();
        frames.into_iter().try_for_each(|frame| say(&mut session, &mut host, frame).map(drop))
    };
    assert_eq!(told([beats(KEY, &hashes[..2]), beats(KEY, &hashes[2..])]), Ok(()));
    assert_eq!(told([beats(KEY, &hashes[1..]), beats("l", &hashes)]), Ok(()));
    assert_eq!(told([beats(KEY, &hashes[..2]), beats(KEY, &hashes[1..])]), Err("repeated"));
    assert_eq!(told([beats("l", &[]), beats(KEY, &hashes)]), Ok(()));
    assert_eq!(told([beats("l", &[1]), beats(KEY, &hashes)]), Err("repeated"));
}

#[test]
fn members_are_told_once() {
    let mut host = Fake::new();
    let (mut session, _) = Session::open(&host, false, MAX_BYTES);
    for turn in 0..10 {
        let members = Frame::Members(host.members());
        let said = say(&mut session, &mut host, members).unwrap();
        assert_eq!(said.len(), usize::from(turn == 0));
    }
    assert_eq!(host.members_told, 30);

    let mut hosts = [Fake { member_hash: 1, ..Fake::new() }, Fake::new()];
    talk(&mut hosts, false);
    assert_eq!(hosts.map(|host| host.members_told), [3, 3]);
}

#[test]
fn what_is_remembered_to_be_removed_is_answered_with_its_tombstone() {
    for remembers in [0, 1] {
        let mut hosts = [Fake::new(), Fake::new()];
        let place = EntryId::new("e1", 0);
        hosts[remembers].store.remember(KEY, &place, &register(2 * DAY_MS, 1, None));
        hosts[1 - remembers].put(&place, &register(3 * DAY_MS, 1, Some(b"a")));
        hosts[1 - remembers].put(&EntryId::new("e2", 0), &register(3 * DAY_MS, 1, Some(b"b")));
        talk(&mut hosts, false);
        assert!(hosts[remembers].store.get(KEY, &place).is_none());
        assert!(hosts[1 - remembers].store.get(KEY, &place).unwrap().register().is_tombstone());
        // What is only as old is taken.
        assert!(hosts.iter().all(|host| host.store.get(KEY, &EntryId::new("e2", 0)).is_some()));

        // And what was written there since.
        let later = register(DAY_MS, 1, Some(b"c"));
        hosts[1 - remembers].put(&place, &later);
        talk(&mut hosts, false);
        assert!(hosts.iter().all(|host| host.store.get(KEY, &place).unwrap().register() == &later));
    }
}

#[test]
fn who_joins_is_told_all_that_was_removed() {
    for join in [true, false] {
        let mut hosts = [Fake::new(), Fake::with(places(0..3), &register(1, 1, Some(b"a")))];
        for place in places(10..1_000) {
            hosts[1].store.remember(KEY, &place, &register(2 * DAY_MS, 1, None));
        }
        talk(&mut hosts, join);
        assert_eq!(hosts[0].store.sizes().entries, 3);
        assert_eq!(hosts[0].store.removals().count(), if join { 990 } else { 0 });
    }
}

#[test]
fn what_is_refused_is_counted_by_why() {
    let place = EntryId::new("e1", 0);
    for (verdict, ahead, full) in [(Taken::Ahead, 2, 0), (Taken::Full, 0, 3), (Taken::Refused, 0, 0)] {
        let mut host = Fake { verdict: Some(verdict), ..Fake::new() };
        let wanted = BTreeMap::from([(SmolStr::new(KEY), vec![place.clone()])]);
        let (mut session, _) = Session::fetch(wanted, MAX_BYTES);
        let mut writer = RecordsWriter::new(1_000);
        for author in [1, 2, 1] {
            assert!(writer.try_push(&Record::new(KEY, &place, &register(1, author, None), None)));
        }
        say(&mut session, &mut host, Frame::Records(writer.finish())).unwrap();
        assert_eq!((session.num_ahead(), session.num_full(), session.moved_here()), (ahead, full, 0));
    }
}
