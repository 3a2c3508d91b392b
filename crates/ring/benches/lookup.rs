//! Lookups at 100, 1,000 and 10,000 instances with 128 tokens each, in three zones, at a replication factor of 3: ours next
//! to a plain rendering of Cortex's walk over hash maps (spec: the walk of `Ring.Get`).

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use ringkit_ring::{Desc, InstanceDesc, Operation, RingOptions, Snapshot, State, TokenGenerator};

const NOW: i64 = 1_700_000_000;
const TIMEOUT: i64 = 60;
const FACTOR: usize = 3;

fn ring(instances: usize, leaving_zone: Option<usize>) -> Desc {
    let mut generator = TokenGenerator::random(Some(1));
    // All tokens at once, dealt out in turns: drawing them instance by instance costs a scan of the ring each.
    let tokens = generator.generate(instances * 128, &Desc::new());
    let instance = |place: usize| {
        let state = if leaving_zone == Some(place % 3) { State::Leaving } else { State::Active };
        let own = tokens.iter().copied().skip(place * 7 % instances).step_by(instances).collect();
        let entry = InstanceDesc {
            addr: format!("10.0.{}.{}:9095", place / 250, place % 250).into(),
            timestamp: NOW,
            state,
            tokens: own,
            zone: format!("zone-{}", place % 3).into(),
            ..InstanceDesc::default()
        };
        (format!("ingester-{place}"), entry)
    };
    (0..instances).map(instance).collect()
}

/// What Cortex keeps: sorted tokens, a hash map from token to owner, and one from id to entry.
struct Plain {
    tokens: Vec<u32>,
    owners: HashMap<u32, (String, String)>,
    entries: HashMap<String, InstanceDesc>,
    zones: usize,
}

impl Plain {
    fn new(desc: &Desc) -> Self {
        let owner = |id: &str, entry: &InstanceDesc| (id.to_owned(), entry.zone.to_string());
        let owners =
            desc.iter().flat_map(|(id, entry)| entry.tokens.iter().map(|token| (*token, owner(id, entry))));
        let entries = desc.iter().map(|(id, entry)| (id.to_string(), (**entry).clone()));
        Self { tokens: desc.all_tokens(), owners: owners.collect(), entries: entries.collect(), zones: 3 }
    }

    fn get(&self, key: u32, op: Operation) -> Option<Vec<&InstanceDesc>> {
        let (base, mut extra, mut size) = (FACTOR / self.zones, FACTOR % self.zones, FACTOR);
        let mut hosts: Vec<&str> = Vec::with_capacity(5);
        let mut found: Vec<&InstanceDesc> = Vec::with_capacity(5);
        let mut per_zone: HashMap<&str, usize> = HashMap::with_capacity(3);
        let start = self.tokens.partition_point(|token| *token <= key);
        for step in 0..self.tokens.len() {
            if hosts.len() >= size {
                break;
            }
            let (id, zone) = self.owners.get(&self.tokens[(start + step) % self.tokens.len()])?;
            if hosts.contains(&id.as_str()) {
                continue;
            }
            let taken = per_zone.get(zone.as_str()).copied().unwrap_or(0);
            if taken >= base + usize::from(extra > 0) {
                continue;
            }
            hosts.push(id);
            let entry = self.entries.get(id)?;
            found.push(entry);
            if op.extends_on(entry.state) {
                size += 1;
            } else {
                extra -= usize::from(taken > 0 && taken >= base);
                per_zone.insert(zone, taken + 1);
            }
        }
        found.retain(|entry| op.accepts(entry.state) && NOW - entry.timestamp <= TIMEOUT);
        (found.len() > FACTOR.max(found.len()) / 2).then_some(found)
    }
}

/// Keys spread over the circle, the same for everybody.
fn keys() -> impl FnMut() -> u32 {
    let mut key = 0u32;
    move || {
        key = key.wrapping_add(2_654_435_761);
        key
    }
}

fn lookups(criterion: &mut Criterion, name: &str, leaving_zone: Option<usize>, plain_up_to: usize) {
    let options = RingOptions { zone_awareness_enabled: true, ..RingOptions::default() };
    let mut group = criterion.benchmark_group(name);
    for instances in [100, 1_000, 10_000] {
        let desc = ring(instances, leaving_zone);
        let snapshot = Snapshot::first_sight(&desc, NOW, &options);
        group.bench_function(BenchmarkId::new("ours", instances), |bencher| {
            let mut next = keys();
            bencher.iter(|| snapshot.get(black_box(next()), Operation::WRITE, NOW));
        });
        if instances > plain_up_to {
            continue;
        }
        let plain = Plain::new(&desc);
        let mut next = keys();
        for _ in 0..10 {
            let key = next();
            let ours = snapshot.get(key, Operation::WRITE, NOW).ok();
            let ours = ours.map(|set| set.addresses().map(str::to_owned).collect::<Vec<_>>());
            let theirs = plain.get(key, Operation::WRITE);
            let theirs = theirs.map(|set| set.iter().map(|entry| entry.addr.to_string()).collect());
            assert_eq!(ours, theirs, "both arms answer alike");
        }
        group.bench_function(BenchmarkId::new("hash maps", instances), |bencher| {
            let mut next = keys();
            bencher.iter(|| plain.get(black_box(next()), Operation::WRITE));
        });
    }
    group.finish();
}

fn builds(criterion: &mut Criterion) {
    let options = RingOptions { zone_awareness_enabled: true, ..RingOptions::default() };
    let mut group = criterion.benchmark_group("topology change until lookups see it");
    for instances in [100, 1_000, 10_000] {
        let desc = ring(instances, None);
        group.bench_function(BenchmarkId::from_parameter(instances), |bencher| {
            bencher.iter(|| Snapshot::first_sight(black_box(&desc), NOW, &options));
        });
    }
    group.finish();
}

fn main() {
    let limits = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2));
    let mut criterion = limits.warm_up_time(Duration::from_secs(1)).configure_from_args();
    lookups(&mut criterion, "get, zone-aware", None, usize::MAX);
    // There the plain walk visits every token for every key: at 10,000 instances one lookup takes seconds.
    lookups(&mut criterion, "get while one zone is LEAVING", Some(0), 100);
    builds(&mut criterion);
    criterion.final_summary();
}
