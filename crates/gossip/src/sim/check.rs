//! Whether all is as it must be: [`Sim::check`].

use super::*;

impl Sim {
    /// Whether all is as it must be once nothing has happened for a while: live members on one side of a partition have equal
    /// stores, and within their bounds; without a partition, what was written last is everywhere, unless its author died before
    /// it told anybody, and what was removed is nowhere.
    ///
    /// # Errors
    ///
    /// What is wrong, and where.
    pub fn check(&self) -> Result<(), String> {
        for (node, host) in self.hosts.iter().enumerate() {
            if let Some(reason) = &host.failure {
                return Err(format!("member {node} failed: {reason}"));
            }
        }
        self.check_bounds()?;
        if let Some((one, other)) = self.first_difference() {
            return Err(self.describe_difference(one, other));
        }
        if self.links.is_partitioned() {
            return Ok(());
        }
        for node in self.live() {
            let limits = self.hosts[node].limits;
            // To one whose clock is far behind, what the others wrote is not yet to be believed.
            if self.hosts[node].offset_ms < -signed_millis(limits.max_clock_skew) {
                continue;
            }
            let store = self.node(node).store();
            self.model
                .check(store, self.true_wall_ms(), limits.tombstone_horizon)
                .map_err(|wrong| format!("member {node}: {wrong}"))?;
        }
        Ok(())
    }

    /// Whether every live member keeps within its bounds, which is to be so at any time: what it stores, what it has still to
    /// tell, and whom it knows.
    ///
    /// # Errors
    ///
    /// Which bound is broken, and where.
    pub fn check_bounds(&self) -> Result<(), String> {
        for node in self.live() {
            self.check_bounds_of(node).map_err(|wrong| format!("member {node}: {wrong}"))?;
        }
        Ok(())
    }

    fn check_bounds_of(&self, node: usize) -> Result<(), String> {
        let limits = self.hosts[node].limits;
        let (store, status) = (self.node(node).store(), self.node(node).status());
        // What is known already, or of one's own, may take as much again.
        let at_most = |what: &str, is: usize, limit: usize| {
            if is <= limit { Ok(()) } else { Err(format!("{is} {what}, more than {limit}")) }
        };
        at_most("bytes stored", store.sizes().bytes, limits.max_bytes.saturating_mul(2))?;
        at_most("keys", store.num_keys(), limits.max_keys.saturating_mul(2))?;
        for key in store.keys() {
            let most = limits.max_entries_per_key.saturating_mul(2);
            at_most("entries in a key", store.key_sizes(key).live_ids, most)?;
        }
        at_most("registers still to be told", status.queued, store.sizes().entries)?;
        let queue = self.node(node).queue_stats();
        if queue.own == 0 {
            at_most("bytes still to be told", queue.bytes, self.hosts[node].max_queued)?;
        }
        at_most("members", status.members, self.hosts.len())
    }

    /// Two live members on one side with stores that differ, though they should not.
    pub(super) fn first_difference(&self) -> Option<(usize, usize)> {
        let mut roots: BTreeMap<usize, (usize, u128)> = BTreeMap::new();
        for node in self.live().filter(|node| !self.hosts[*node].astray) {
            let root = self.node(node).store().root();
            let (first, expected) = *roots.entry(self.links.group(node)).or_insert((node, root));
            if root != expected {
                return Some((first, node));
            }
        }
        None
    }

    fn describe_difference(&self, one: usize, other: usize) -> String {
        let stores = [one, other].map(|node| self.node(node).store());
        let mut text = format!("members {one} and {other} differ:");
        let keys: BTreeSet<&str> = stores.iter().flat_map(|store| store.keys()).collect();
        for key in keys {
            if stores[0].key_digest(key) == stores[1].key_digest(key) {
                continue;
            }
            let mut places: Vec<&EntryId> =
                stores.iter().flat_map(|store| store.registers(key)).map(|(entry, _)| entry).collect();
            places.sort_unstable();
            places.dedup();
            for entry in places {
                let [a, b] = stores.map(|store| store.get(key, entry));
                if a.map(Slot::hash) != b.map(Slot::hash) {
                    let [a, b] = [a, b].map(|slot| slot.map(Slot::register));
                    let _ = write!(text, " `{key}` `{}` {}: {a:?} and {b:?};", entry.id, entry.facet);
                }
            }
        }
        text
    }
}
