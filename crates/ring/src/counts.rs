//! [`Counts`]: how many members a ring has, of what kind and where.

use smol_str::SmolStr;

use crate::snapshot::Snapshot;

/// How many members a ring has, of what kind and where, whatever their health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of the whole ring.
    pub total: Count,
    /// Per zone, sorted by name.
    zones: Vec<(SmolStr, Count)>,
    /// When the member that registered first did so, in Unix seconds; 0 if that is unknown of one, or there is none.
    pub oldest_registered_timestamp: i64,
    /// Members that want no writes, in either dialect.
    pub read_only: usize,
    /// When the first of them became so, in Unix seconds; 0 if that is unknown of one, or there is none.
    pub oldest_read_only_updated_timestamp: i64,
}

/// How many members there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All of them.
    pub instances: usize,
    /// Those that have tokens.
    pub with_tokens: usize,
    /// Those that have tokens and are not read-only.
    pub writable_with_tokens: usize,
}

impl Counts {
    /// Members of `zone`; zeros for one that has none.
    pub fn of_zone(&self, zone: &str) -> Count {
        let found = self.zones.binary_search_by(|(name, _)| name.as_str().cmp(zone)).ok();
        found.and_then(|place| self.zones.get(place)).map(|(_, count)| *count).unwrap_or_default()
    }

    /// The zones and their members, sorted by name; members without a zone make the zone of the empty name.
    pub fn zones(&self) -> impl ExactSizeIterator<Item = (&str, Count)> {
        self.zones.iter().map(|(name, count)| (name.as_str(), *count))
    }
}

impl Snapshot {
    /// Counts the members. Costs O(n) for n members, however many tokens they have: keep the result as long as
    /// [`Snapshot::generation`] stays.
    ///
    /// # Source
    ///
    /// The counters of dskit's `Ring`; here Cortex's READONLY members count as read-only too.
    pub fn counts(&self) -> Counts {
        let mut zones: Vec<_> = self.zones().iter().map(|zone| (zone.clone(), Count::default())).collect();
        let mut total = Count::default();
        let (mut registered, mut read_only) = (Oldest::default(), Oldest::default());
        for (member, &zone) in self.members.iter().zip(&self.topology.zone_of) {
            let is_read_only = member.desc.is_read_only();
            let has_tokens = !member.desc.tokens.is_empty();
            let in_zone = zones.get_mut(zone as usize).map(|(_, count)| count);
            for count in in_zone.into_iter().chain([&mut total]) {
                count.instances += 1;
                count.with_tokens += usize::from(has_tokens);
                count.writable_with_tokens += usize::from(has_tokens && !is_read_only);
            }
            registered.note(member.registered_timestamp());
            if is_read_only {
                read_only.note(member.desc.read_only_updated_timestamp);
            }
        }
        Counts {
            total,
            zones,
            oldest_registered_timestamp: registered.at.unwrap_or(0),
            read_only: read_only.count,
            oldest_read_only_updated_timestamp: read_only.at.unwrap_or(0),
        }
    }
}

/// The oldest of some times, of which an unknown one is 0 and so the oldest.
#[derive(Default)]
struct Oldest {
    count: usize,
    at: Option<i64>,
}

impl Oldest {
    fn note(&mut self, at: i64) {
        let at = at.max(0);
        self.count += 1;
        self.at = Some(self.at.map_or(at, |oldest| oldest.min(at)));
    }
}
