//! Whether a set of instances is still the one it was.

use std::sync::Arc;

use crate::desc::{InstanceDesc, State};
use crate::replicas::ReplicationSet;
use crate::snapshot::Instance;

/// What may differ between two sets that count as the same. Heartbeats always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignoring {
    /// Heartbeats alone.
    Heartbeats,
    /// States too.
    States,
    /// States and addresses too, as when an instance comes back elsewhere.
    StatesAndAddresses,
}

impl ReplicationSet {
    /// Whether this set has other instances than `before`, or some have other entries; their order does not matter.
    ///
    /// Costs O(n log n) for n instances, plus a comparison of the tokens of each whose entry was replaced.
    ///
    /// # Source
    ///
    /// Cortex's `HasReplicationSetChanged`, `…WithoutState`, and dskit's `…WithoutStateOrAddr`. As in dskit, instances are
    /// matched by id, where Cortex matches them by address.
    pub fn has_changed(&self, before: &Self, ignoring: Ignoring) -> bool {
        let by_id = |set: &Self| {
            let mut instances: Vec<Arc<Instance>> = set.instances.to_vec();
            instances.sort_by(|a, b| a.id.cmp(&b.id));
            instances
        };
        let same = |(a, b): (&Arc<Instance>, &Arc<Instance>)| {
            a.id == b.id
                && (Arc::ptr_eq(&a.desc, &b.desc) || ignoring.reset(&a.desc) == ignoring.reset(&b.desc))
        };
        self.len() != before.len() || !by_id(self).iter().zip(&by_id(before)).all(same)
    }

    /// Addresses in the order of the instances, `addr` left out.
    pub fn addresses_without(&self, addr: &str) -> impl Iterator<Item = &str> {
        self.addresses().filter(move |other| *other != addr)
    }
}

impl Ignoring {
    fn reset(self, entry: &InstanceDesc) -> InstanceDesc {
        let mut entry = InstanceDesc { timestamp: 0, ..entry.clone() };
        if self != Self::Heartbeats {
            entry.state = State::Pending;
        }
        if self == Self::StatesAndAddresses {
            entry.addr = "".into();
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, change: impl FnOnce(&mut InstanceDesc)) -> Arc<Instance> {
        let mut desc =
            InstanceDesc { addr: format!("{id}:1").into(), zone: "a".into(), ..InstanceDesc::default() };
        change(&mut desc);
        Arc::new(Instance { id: id.into(), desc: Arc::new(desc) })
    }

    fn set(instances: [Arc<Instance>; 2]) -> ReplicationSet {
        ReplicationSet { instances: instances.into_iter().collect(), ..ReplicationSet::default() }
    }

    fn changes(change: impl Fn(&mut InstanceDesc)) -> [bool; 3] {
        let before = set([instance("x", |_| ()), instance("y", |_| ())]);
        let after = set([instance("y", change), instance("x", |_| ())]);
        [Ignoring::Heartbeats, Ignoring::States, Ignoring::StatesAndAddresses]
            .map(|ignoring| after.has_changed(&before, ignoring))
    }

    #[test]
    fn heartbeats_and_the_order_change_nothing_and_each_kind_ignores_what_it_says() {
        assert_eq!(changes(|_| ()), [false; 3]);
        assert_eq!(changes(|entry| entry.timestamp = 99), [false; 3]);
        assert_eq!(changes(|entry| entry.state = State::Leaving), [true, false, false]);
        assert_eq!(changes(|entry| entry.addr = "z:1".into()), [true, true, false]);
        assert_eq!(changes(|entry| entry.zone = "b".into()), [true; 3]);
        assert_eq!(changes(|entry| entry.tokens = vec![7].into()), [true; 3]);
        assert_eq!(changes(|entry| entry.registered_timestamp = 7), [true; 3]);
    }

    #[test]
    fn other_members_are_a_change_even_behind_the_same_addresses() {
        let before = set([instance("x", |_| ()), instance("y", |_| ())]);
        let renamed = set([instance("x", |_| ()), instance("z", |entry| entry.addr = "y:1".into())]);
        assert!(renamed.has_changed(&before, Ignoring::StatesAndAddresses));
        assert!(ReplicationSet::default().has_changed(&before, Ignoring::StatesAndAddresses));
        assert!(!ReplicationSet::default().has_changed(&ReplicationSet::default(), Ignoring::Heartbeats));
    }

    #[test]
    fn addresses_come_with_or_without_one() {
        let set = set([instance("x", |_| ()), instance("y", |entry| entry.zone = "b".into())]);
        assert_eq!(set.addresses().collect::<Vec<_>>(), ["x:1", "y:1"]);
        assert_eq!(set.addresses_without("x:1").collect::<Vec<_>>(), ["y:1"]);
        assert_eq!(set.addresses_without("z:1").count(), 2);
        assert!(set.includes("y:1") && !set.includes("z:1"));
        assert_eq!((set.zone_count(), ReplicationSet::default().zone_count()), (2, 0));
    }
}
