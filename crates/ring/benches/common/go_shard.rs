//! Cortex's shuffle sharding: a ring made of copies of the chosen entries, remembered under a lock.

use std::sync::{Arc, RwLock};

use hashbrown::HashMap;
use ringkit_ring::State;

use super::go_rand::GoRand;
use super::go_ring::{Entries, Ring, merge_tokens, search, tokens_by_zone};

/// Where the choice for an identifier starts in a zone.
pub(crate) type Seed = fn(&str, &str) -> i64;

/// The shard of `size` for `identifier`, with everybody who registered at `until` or later besides.
pub(crate) fn shuffle_shard(
    ring: &Ring,
    identifier: &str,
    size: usize,
    until: Option<i64>,
    seed: Seed,
) -> Ring {
    let per_zone = size.div_ceil(ring.zones.len());
    let mut chosen = Entries::with_capacity(size);
    for zone in &ring.zones {
        let tokens = &ring.tokens_by_zone[zone];
        let mut random = GoRand::new(seed(identifier, zone));
        for _ in 0..per_zone {
            let start = search(tokens, random.next_u32());
            let mut found = false;
            for step in 0..tokens.len() {
                let mut at = start + step;
                if at >= tokens.len() {
                    at -= tokens.len();
                }
                let owner = ring.owners[&tokens[at]];
                if chosen.contains_key(owner.id) {
                    continue;
                }
                let entry = &ring.entries[owner.id];
                chosen.insert(owner.id, entry.clone());
                let extends =
                    entry.state == State::ReadOnly || until.is_some_and(|until| entry.registered >= until);
                if !extends {
                    found = true;
                    break;
                }
            }
            if !found {
                break;
            }
        }
    }
    let tokens_by_zone = tokens_by_zone(&chosen);
    let lists: Vec<Arc<[u32]>> = tokens_by_zone.values().map(|tokens| tokens.as_slice().into()).collect();
    let mut zones: Vec<_> = tokens_by_zone.keys().copied().collect();
    zones.sort_unstable();
    Ring {
        tokens: merge_tokens(&lists),
        tokens_by_zone,
        zones,
        owners: Arc::clone(&ring.owners),
        entries: Arc::new(chosen),
        id_by_addr: HashMap::new(),
        zone_aware: ring.zone_aware,
    }
}

/// A shard that all who ask for it share.
type Shared = Arc<RwLock<Ring>>;

/// Shards by identifier and size. A hit brings states and heartbeats of the shard up to date, under the write lock.
#[derive(Default)]
pub(crate) struct Cache {
    shards: RwLock<HashMap<(String, usize), Shared>>,
}

impl Cache {
    pub(crate) fn store(&self, identifier: &str, size: usize, shard: Ring) {
        let shard = Arc::new(RwLock::new(shard));
        self.shards.write().unwrap().insert((identifier.to_owned(), size), shard);
    }

    pub(crate) fn get(&self, ring: &RwLock<Ring>, identifier: &str, size: usize) -> Option<Shared> {
        let key = KeyRef(identifier, size);
        let shard = Arc::clone(self.shards.read().unwrap().get(&key)?);
        {
            let ring = ring.read().unwrap();
            let mut shard = shard.write().unwrap();
            // Nobody else holds the entries of a shard, so this copies nothing.
            for (id, entry) in Arc::make_mut(&mut shard.entries) {
                let known = &ring.entries[id];
                entry.state = known.state;
                entry.timestamp = known.timestamp;
            }
        }
        Some(shard)
    }
}

/// A key that is looked up without being made.
#[derive(PartialEq, Eq, Hash)]
struct KeyRef<'a>(&'a str, usize);

impl hashbrown::Equivalent<(String, usize)> for KeyRef<'_> {
    fn equivalent(&self, key: &(String, usize)) -> bool {
        self.0 == key.0 && self.1 == key.1
    }
}
