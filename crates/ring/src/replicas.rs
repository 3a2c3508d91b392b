//! What a lookup answers with: [`Replicas`], which borrows the snapshot, and [`ReplicationSet`], which owns its instances.

use std::fmt;
use std::sync::Arc;

use ringkit_kv::EntryId;
use smallvec::SmallVec;

use crate::snapshot::{Instance, Snapshot};
use crate::walk::Places;

/// Instances that together hold a key or a whole ring, and how many of them an operation may lose.
///
/// Borrows the snapshot it was looked up in: up to eight instances cost no allocation, and none is counted as referred to.
/// [`Replicas::to_set`] gives what may be kept.
#[derive(Clone)]
pub struct Replicas<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) places: Places,
    pub(crate) max_errors: usize,
    pub(crate) max_unavailable_zones: usize,
}

impl<'a> Replicas<'a> {
    /// How many instances there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many of the instances may fail.
    #[inline]
    pub fn max_errors(&self) -> usize {
        self.max_errors
    }

    /// In how many zones instances may fail; used instead of `max_errors` when it is not 0.
    pub fn max_unavailable_zones(&self) -> usize {
        self.max_unavailable_zones
    }

    /// The instances: for a key in walk order, for a whole ring in the byte order of ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a Arc<Instance>> + use<'a, '_> {
        let members = &self.snapshot.members;
        self.places.iter().map(|&place| &members[place as usize])
    }

    /// The instance at `index` in that order.
    pub fn get(&self, index: usize) -> Option<&'a Arc<Instance>> {
        self.snapshot.members.get(*self.places.get(index)? as usize)
    }

    /// Ids in the order of the instances.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = &'a EntryId> + use<'a, '_> {
        self.iter().map(|instance| &instance.id)
    }

    /// Addresses in the order of the instances.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a, '_> {
        self.iter().map(|instance| instance.addr().as_str())
    }

    /// Whether instance `id` is among them.
    pub fn contains(&self, id: &str) -> bool {
        self.iter().any(|instance| instance.id == *id)
    }

    /// Whether there is an instance that is reached on `addr`.
    pub fn includes(&self, addr: &str) -> bool {
        self.addresses().any(|other| other == addr)
    }

    /// How many different zones the instances are in; those without a zone count as one.
    pub fn zone_count(&self) -> usize {
        let zone_of = &self.snapshot.topology.zone_of;
        let mut zones: SmallVec<[u32; 8]> =
            self.places.iter().map(|&place| zone_of[place as usize]).collect();
        zones.sort_unstable();
        zones.dedup();
        zones.len()
    }

    /// The same set, to be kept.
    pub fn to_set(&self) -> ReplicationSet {
        ReplicationSet {
            instances: self.iter().map(Arc::clone).collect(),
            max_errors: self.max_errors,
            max_unavailable_zones: self.max_unavailable_zones,
            // A key's replicas may fail one by one, in whatever zones: that is no set to be asked by zone. (One that may lose
            // nobody is decided the same either way.)
            zone_awareness_enabled: self.snapshot.options.zone_awareness_enabled && self.max_errors == 0,
        }
    }
}

impl fmt::Debug for Replicas<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicas")
            .field("ids", &self.ids().collect::<Vec<_>>())
            .field("max_errors", &self.max_errors)
            .field("max_unavailable_zones", &self.max_unavailable_zones)
            .finish()
    }
}

/// Instances that together hold a key or a whole ring, and how many of them an operation may lose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicationSet {
    /// For a key in walk order; for a whole ring in the byte order of ids. Up to five without allocating.
    pub instances: SmallVec<[Arc<Instance>; 5]>,
    /// How many of the instances may fail.
    pub max_errors: usize,
    /// In how many zones instances may fail; used instead of `max_errors` when it is not 0.
    pub max_unavailable_zones: usize,
    /// Whether this is a set of whole zones. Then a read that may lose no zone is still decided zone by zone.
    pub zone_awareness_enabled: bool,
}

impl ReplicationSet {
    /// How many instances there are.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// Whether the set has an instance that is reached on `addr`.
    pub fn includes(&self, addr: &str) -> bool {
        self.instances.iter().any(|instance| instance.addr() == addr)
    }

    /// Addresses in the order of the instances.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.instances.iter().map(|instance| instance.addr().as_str())
    }

    /// How many different zones the instances are in; those without a zone count as one.
    pub fn zone_count(&self) -> usize {
        let mut zones: SmallVec<[&str; 8]> =
            self.instances.iter().map(|instance| instance.zone().as_str()).collect();
        zones.sort_unstable();
        zones.dedup();
        zones.len()
    }
}
