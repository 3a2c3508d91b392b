//! Readers that work too hard, wait for each other, or show what is long gone.

use std::sync::Arc;
use std::time::Duration;

use ringkit_kv::{Client, InMemory};
use ringkit_ring::{Desc, InstanceDesc, Operation, Ring, RingOptions, State};
use ringkit_runtime::{Clock, ManualClock, Meter, ServiceHandle};

use crate::answers;
use crate::support::active;

const START: i64 = 1000;

struct Reader {
    client: Client<Desc>,
    ring: Ring,
    clock: ManualClock,
    meter: Meter,
    _service: ServiceHandle,
}

impl Reader {
    async fn of(entries: impl IntoIterator<Item = (String, InstanceDesc)>) -> Self {
        let client = Client::new(Arc::new(InMemory::default()), &Meter::disabled());
        for (id, entry) in entries {
            client.upsert_own("ring", &id, &entry).await.unwrap();
        }
        let (clock, hand) = Clock::manual(START * 1000);
        let meter = Meter::new(Arc::new(metrics::NoopRecorder));
        let (ring, service) = Ring::new(RingOptions::default(), client.clone(), clock, &meter);
        let service = ServiceHandle::new("ring", Box::new(service));
        service.start_async().unwrap();
        service.await_running().await.unwrap();
        Self { client, ring, clock: hand, meter, _service: service }
    }

    /// Writes an entry and waits until the reader shows it.
    async fn write(&self, (id, entry): (&str, InstanceDesc)) {
        self.client.upsert_own("ring", id, &entry).await.unwrap();
        self.until(|ring| ring.snapshot().instance(id).is_some_and(|seen| *seen.desc == entry)).await;
    }

    async fn until(&self, reached: impl Fn(&Ring) -> bool) {
        let waiting = async {
            while !reached(&self.ring) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the ring follows its store");
    }

    fn shows(&self, line: &str) -> bool {
        self.meter.render_collected().lines().any(|shown| shown == line)
    }
}

/// In Cortex every heartbeat of every instance makes every reader decode the whole ring and compare all tokens of all.
/// Here what a heartbeat does not change is the same storage before and after, which is equal without being looked at.
#[tokio::test]
async fn h09_a_heartbeat_compares_no_tokens() {
    let ids: Vec<String> = (0..300).map(|n| format!("i{n:03}")).collect();
    let entry = |n: u32| active("", ["a", "b", "c"][n as usize % 3], &[n, n + 1_000, n + 2_000]).1;
    let reader = Reader::of(ids.iter().cloned().zip((0..).map(entry))).await;
    let before = reader.ring.snapshot();
    let beating = InstanceDesc { timestamp: START + 5, ..entry(150) };
    reader.write(("i150", beating)).await;
    let after = reader.ring.snapshot();
    assert!(std::ptr::eq(before.tokens(), after.tokens()), "the table of tokens is the same");
    assert!(std::ptr::eq(before.zones(), after.zones()));
    assert!(std::ptr::eq(before.ownership(), after.ownership()), "and what is derived from it");
    for (before, after) in before.instances().iter().zip(after.instances()) {
        assert!(before.desc.tokens.ptr_eq(&after.desc.tokens), "{}: tokens are shared", before.id);
        assert_eq!(Arc::ptr_eq(before, after), before.id != "i150", "{}: only one entry is new", before.id);
    }
    assert_eq!(before.generation(), after.generation(), "and nobody is woken");
}

/// Cortex rebuilds its tables under the lock that every lookup takes, and computes ownership under it for metrics.
/// Here somebody who holds a view of the ring holds nobody up, and is not disturbed.
#[tokio::test]
async fn a_view_that_is_held_neither_waits_for_updates_nor_delays_them() {
    let reader = Reader::of([active("a", "", &[10]), active("b", "", &[20]), active("c", "", &[30])]).await;
    let (guard, held) = (reader.ring.load(), reader.ring.snapshot());
    for round in 1..=10 {
        let moved = InstanceDesc { timestamp: START + round, ..active("a", "", &[100 + round as u32]).1 };
        reader.write(("a", moved)).await;
        assert!(!reader.meter.render_collected().is_empty(), "and so are scrapes");
    }
    assert_eq!(reader.ring.snapshot().tokens(), [20, 30, 110]);
    for view in [&**guard, &*held] {
        assert_eq!(view.tokens(), [10, 20, 30]);
        assert_eq!(answers::get(view, 5, Operation::WRITE, START).unwrap().0, ["a", "b", "c"]);
    }
}

/// Cortex judges by the writer's wall clock: an entry from half an hour ahead looks alive for half an hour after its owner
/// died. Here it is the reader who notices that a timestamp advances.
#[tokio::test]
async fn h22_a_wrong_clock_neither_outlives_its_owner_nor_kills_it() {
    let at = |id, timestamp| (id, InstanceDesc { timestamp, ..active(id, "", &[id.len() as u32]).1 });
    let named = |(id, entry): (&str, InstanceDesc)| (id.to_owned(), entry);
    let reader = Reader::of([at("ahead", START + 1_800), at("behind", START - 1_800)].map(named)).await;
    let healthy =
        |id: &str| reader.ring.snapshot().is_healthy(id, Operation::WRITE, reader.ring.clock().now_secs());
    reader.write(at("behind", START - 1_795)).await;
    assert!(healthy("ahead") && healthy("behind"));
    reader.clock.advance(Duration::from_secs(61));
    assert!(!healthy("ahead") && !healthy("behind"), "both fell silent");
    reader.write(at("behind", START - 1_734)).await;
    assert!(!healthy("ahead") && healthy("behind"));
}

/// In Cortex the gauge of LEFT or unknown instances, once shown, keeps its last value for ever.
#[tokio::test]
async fn h25_a_state_that_nobody_is_in_any_more_is_not_shown() {
    let left = InstanceDesc { state: State::Left, ..active("b", "z", &[]).1 };
    let odd = InstanceDesc { state: State::Unknown(9), ..active("c", "z", &[]).1 };
    let reader =
        Reader::of([active("a", "z", &[10]), ("b".into(), left.clone()), ("c".into(), odd.clone())]).await;
    let members =
        |state: &str| format!(r#"cortex_ring_members{{name="ingester",state="{state}",zone="z"}} 1"#);
    assert!(reader.shows(&members("LEFT")) && reader.shows(&members("9")));
    reader.write(("b", InstanceDesc { state: State::Joining, timestamp: START + 1, ..left })).await;
    reader.write(("c", InstanceDesc { state: State::Leaving, timestamp: START + 1, ..odd })).await;
    assert!(reader.shows(&members("JOINING")) && reader.shows(&members("LEAVING")));
    let text = reader.meter.render_collected();
    assert!(!text.contains("LEFT") && !text.contains(r#"state="9""#), "{text}");
}

/// `cortex_ring_member_ownership_percent` is a fraction, whatever its name says; dashboards multiply it by 100.
#[tokio::test]
async fn h25_ownership_in_percent_is_a_fraction_of_one() {
    let reader = Reader::of([active("a", "", &[0]), active("b", "", &[1 << 30])]).await;
    for (member, share) in [("a", "0.75"), ("b", "0.25")] {
        let line =
            format!(r#"cortex_ring_member_ownership_percent{{name="ingester",member="{member}"}} {share}"#);
        assert!(reader.shows(&line), "{line}\n{}", reader.meter.render_collected());
    }
}

/// Tokens that several claim are to be seen, since readers and merges of Cortex disagree about their owner meanwhile.
#[tokio::test]
async fn h18_tokens_claimed_twice_are_counted_for_operators() {
    let reader = Reader::of([active("a", "", &[10, 20]), active("b", "", &[10, 20, 30])]).await;
    assert!(reader.shows(r#"cortex_ring_duplicate_tokens{name="ingester"} 2"#));
    assert!(reader.shows(r#"cortex_ring_tokens_total{name="ingester"} 5"#));
    reader.write(("a", InstanceDesc { timestamp: START + 1, ..active("a", "", &[11]).1 })).await;
    assert!(reader.shows(r#"cortex_ring_duplicate_tokens{name="ingester"} 0"#));
}
