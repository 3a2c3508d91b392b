//! Lookups as Cortex and dskit have them, rendered in the plainest way: maps, every step taken, nothing prepared, no early end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use ringkit_ring::{Desc, Dialect, InstanceDesc, Operation, RingOptions, State, Strategy, is_fresh};

/// A ring that is first met at `now`, looked at through `options`.
pub(crate) struct Plain<'a> {
    options: &'a RingOptions,
    now: i64,
    visible: BTreeMap<String, Arc<InstanceDesc>>,
    owners: BTreeMap<u32, String>,
    sharing: usize,
}

/// Ids, how many may fail, in how many zones; or the text of the error.
type Answer = Result<(Vec<String>, usize, usize), String>;

impl<'a> Plain<'a> {
    pub(crate) fn new(desc: &Desc, now: i64, options: &'a RingOptions) -> Self {
        let excluded = |entry: &InstanceDesc| options.excluded_zones.iter().any(|zone| entry.zone == *zone);
        let visible: BTreeMap<_, _> = desc
            .iter()
            .filter(|(_, entry)| !excluded(entry))
            .map(|(id, entry)| (id.to_string(), Arc::clone(entry)))
            .collect();
        let mut claims = BTreeMap::<u32, Vec<String>>::new();
        for (id, entry) in &visible {
            entry.tokens.iter().for_each(|token| claims.entry(*token).or_default().push(id.clone()));
        }
        let owner = |claimants: Vec<String>| {
            // A merge clears the tokens of LEFT ones, and takes tokens from LEAVING ones.
            let rank =
                |id: &&String| (visible[*id].state == State::Left, visible[*id].state == State::Leaving);
            let winner = if options.merge_winner_owns_duplicates {
                claimants.iter().min_by_key(rank)
            } else {
                claimants.last()
            };
            winner.cloned().unwrap_or_default()
        };
        let owners: BTreeMap<_, _> = claims.into_iter().map(|(token, ids)| (token, owner(ids))).collect();
        let zone = |id: &String| visible[id].zone.to_string();
        let zones: BTreeSet<_> = visible.keys().map(zone).collect();
        let sharing = if options.zones_with_tokens_only {
            owners.values().map(zone).collect::<BTreeSet<_>>().len()
        } else {
            zones.len()
        };
        Self { options, now, visible, owners, sharing }
    }

    fn is_healthy(&self, id: &str, op: Operation) -> bool {
        let entry = &self.visible[id];
        let seen = entry.timestamp.min(self.now);
        op.accepts(entry.state) && is_fresh(seen, self.now, self.options.heartbeat_timeout)
    }

    fn factor(&self) -> usize {
        self.options.replication_factor.max(1)
    }

    /// Who stands at the tokens from `key` on, each token once around.
    fn circle(&self, key: u32) -> impl Iterator<Item = &String> {
        let after = self.owners.range((Bound::Excluded(key), Bound::Unbounded));
        after.chain(self.owners.range(..=key)).map(|(_, id)| id)
    }

    fn walk(&self, key: u32, op: Operation, factor: usize) -> Vec<String> {
        let dskit = self.options.dialect == Dialect::Dskit;
        let (mut size, zones) = (factor, self.sharing.max(1));
        let (base, mut extra) =
            if dskit { ((factor / self.factor()).max(1), 0) } else { (size / zones, size % zones) };
        let (mut hosts, mut per_zone) = (Vec::<String>::new(), BTreeMap::<&str, usize>::new());
        for id in self.circle(key) {
            if hosts.len() >= size {
                break;
            }
            if hosts.contains(id) {
                continue;
            }
            let entry = &self.visible[id];
            let limited = self.options.zone_awareness_enabled && !entry.zone.is_empty();
            let taken = per_zone.get(entry.zone.as_str()).copied().unwrap_or(0);
            if limited && taken >= base + usize::from(extra > 0) {
                continue;
            }
            hosts.push(id.clone());
            if op.extends_on(entry.state) {
                size += 1;
            } else if limited {
                per_zone.insert(&entry.zone, taken + 1);
                extra -= usize::from(!dskit && taken > 0 && taken >= base);
            }
        }
        hosts
    }

    pub(crate) fn get(&self, key: u32, op: Operation) -> Answer {
        self.get_with_factor(key, op, 0)
    }

    pub(crate) fn get_with_factor(&self, key: u32, op: Operation, factor: usize) -> Answer {
        let configured = self.factor();
        if factor > configured && self.options.strategy == Strategy::Quorum {
            let with = "with this replication strategy";
            return Err(format!(
                "per-call replication factor {factor} cannot exceed the configured replication factor {configured} {with}"
            ));
        }
        if self.owners.is_empty() {
            return Err("empty ring".into());
        }
        let walked = self.walk(key, op, factor.max(configured));
        let walked_over = walked.len();
        let (healthy, unhealthy): (Vec<_>, Vec<_>) =
            walked.into_iter().partition(|id| self.is_healthy(id, op));
        let counted = if self.options.dialect == Dialect::Dskit { walked_over } else { healthy.len() };
        let (need, what) = match self.options.strategy {
            Strategy::Quorum => (configured.max(counted) / 2 + 1, "live replicas"),
            Strategy::IgnoreUnhealthy => (1, "healthy replica"),
        };
        if healthy.len() >= need {
            let max_errors = healthy.len() - need;
            return Ok((healthy, max_errors, 0));
        }
        let quorum = self.options.strategy == Strategy::Quorum;
        let across = if quorum && self.options.zone_awareness_enabled {
            " across different availability zones"
        } else {
            ""
        };
        let addresses: Vec<_> = unhealthy.iter().map(|id| self.visible[id].addr.as_str()).collect();
        // Here alone it differs: an only one without an address is not announced.
        let dead = match addresses.join(",") {
            none if none.is_empty() => none,
            some => format!(" - unhealthy instances: {some}"),
        };
        let found = healthy.len();
        Err(format!("at least {need} {what} required{across}, could only find {found}{dead}"))
    }

    pub(crate) fn replication_set(&self, op: Operation) -> Answer {
        if self.owners.is_empty() {
            return Err("empty ring".into());
        }
        let too_many = || Err("too many unhealthy instances in the ring".to_owned());
        let (healthy, unhealthy): (Vec<_>, Vec<_>) =
            self.visible.keys().cloned().partition(|id| self.is_healthy(id, op));
        if !self.options.zone_awareness_enabled {
            let required = self.visible.len().max(self.factor()) - self.factor() / 2;
            let Some(max_errors) = healthy.len().checked_sub(required) else { return too_many() };
            return Ok((healthy, max_errors, 0));
        }
        let zone_of = |id: &String| self.visible[id].zone.as_str();
        // Not Cortex: a zone that shares nothing neither fails nor answers.
        let owning: BTreeSet<_> = self.owners.values().map(zone_of).collect();
        let shares = |id: &String| !self.options.zones_with_tokens_only || owning.contains(zone_of(id));
        let failing: BTreeSet<_> = unhealthy.iter().filter(|id| shares(id)).map(zone_of).collect();
        let tolerated = self.sharing.min(self.factor()) / 2;
        let Some(left) = tolerated.checked_sub(failing.len()) else { return too_many() };
        let sound = healthy.into_iter().filter(|id| shares(id) && !failing.contains(zone_of(id)));
        Ok((sound.collect(), 0, left))
    }
}
