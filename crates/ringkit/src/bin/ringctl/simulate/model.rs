//! [`Model`]: a ring that exists only here, and what can be done to it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ringkit_kv::EntryId;
use ringkit_ring::{Desc, InstanceDesc, State};

use super::choice::{Choice, Chooser};
use crate::ring::Page;

/// A ring, and how instances that join it get their names and tokens.
pub(crate) struct Model {
    ring: Desc,
    /// The members of each zone, in the order of their numbers.
    zones: BTreeMap<String, BTreeSet<Name>>,
    /// All tokens of the ring.
    taken: HashSet<u32>,
    choice: Choice,
    tokens_per_instance: usize,
    /// Says where the ring comes from.
    pub(crate) origin: String,
}

/// How tokens are chosen, and how that is called.
pub(crate) struct Chosen {
    pub(crate) choice: Choice,
    pub(crate) name: String,
    pub(crate) seed: u64,
}

impl std::fmt::Display for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, seed {}", self.name, self.seed)
    }
}

/// An id as people sort it: `i-9` before `i-10`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    prefix: String,
    number: Option<u64>,
    id: EntryId,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Instances join this zone, or each the zone that has the fewest.
    Join {
        zone: Option<String>,
        instances: usize,
    },
    Leave(Who),
}

/// Who leaves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Who {
    /// So many, each the last of the zone that has the most: what scaling down does.
    Last(usize),
    Called(Vec<String>),
    Zone(String),
}

/// Who came and went in a step.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) joined: Vec<EntryId>,
    pub(crate) left: Vec<EntryId>,
}

impl Model {
    fn new(origin: String, tokens_per_instance: usize, choice: Choice) -> Self {
        let (ring, zones, taken) = (Desc::new(), BTreeMap::new(), HashSet::new());
        Self { ring, zones, taken, choice, tokens_per_instance, origin }
    }

    /// A ring of `instances` in zones called `zone-a`, `zone-b` and so on.
    pub(crate) fn hypothetical(
        instances: usize,
        zones: usize,
        tokens: usize,
        chosen: Chosen,
    ) -> Result<Self, String> {
        let origin = format!("hypothetical, {tokens} tokens each, {chosen}");
        let mut model = Self::new(origin, tokens, chosen.choice);
        for number in 0..instances {
            let zone = zone_name(number % zones);
            model.add(Name::of(&format!("ingester-{zone}-{}", number / zones)), &zone)?;
        }
        Ok(model)
    }

    /// The ring of a page. Instances that join get `tokens` tokens, or as many as most have.
    pub(crate) fn of_page(page: &Page, tokens: Option<usize>, chosen: Chosen) -> Result<Self, String> {
        let shards = page.shards.as_deref().unwrap_or_default();
        let mut numbers: Vec<usize> = shards
            .iter()
            .filter_map(|shard| shard.tokens.as_ref().map(Vec::len))
            .filter(|n| *n > 0)
            .collect();
        numbers.sort_unstable();
        let usual = numbers.get(numbers.len() / 2).copied().unwrap_or(128);
        let tokens = tokens.unwrap_or(usual);
        let origin = format!("real; who joins gets {tokens} tokens, {chosen}");
        let mut model = Self::new(origin, tokens, chosen.choice);
        for shard in shards {
            let tokens = shard.tokens.as_deref().unwrap_or_default();
            model.taken.extend(tokens);
            let entry = InstanceDesc {
                zone: shard.zone.as_str().into(),
                // A page says `Unhealthy` in place of the state of those who are.
                state: shard.state.parse().unwrap_or(State::Active),
                tokens: tokens.into(),
                ..InstanceDesc::default()
            };
            if !model.insert(shard.id.as_str().into(), entry) {
                return Err(format!("the page shows `{}` twice", shard.id));
            }
        }
        Ok(model)
    }

    /// The ring as it is now.
    pub(crate) fn ring(&self) -> &Desc {
        &self.ring
    }

    /// How many tokens the ring will have at most; `None` if that is no number any more.
    pub(crate) fn num_tokens_after(&self, change: &Change) -> Option<usize> {
        let new = match change {
            Change::Join { instances, .. } => instances.checked_mul(self.tokens_per_instance)?,
            Change::Leave(_) => 0,
        };
        self.taken.len().checked_add(new)
    }

    /// The same change in steps of one instance.
    pub(crate) fn one_by_one(&self, change: &Change) -> Vec<Change> {
        match change {
            Change::Join { zone, instances } => {
                vec![Change::Join { zone: zone.clone(), instances: 1 }; *instances]
            }
            Change::Leave(Who::Last(number)) => vec![Change::Leave(Who::Last(1)); *number],
            Change::Leave(Who::Called(ids)) => {
                ids.iter().map(|id| Change::Leave(Who::Called(vec![id.clone()]))).collect()
            }
            Change::Leave(Who::Zone(zone)) => {
                let members = self.members_of(zone);
                // Nobody is there: the zone is unknown, which one step tells.
                if members.is_empty() {
                    return vec![change.clone()];
                }
                members.iter().map(|id| Change::Leave(Who::Called(vec![id.to_string()]))).collect()
            }
        }
    }

    /// Changes the ring, or says what is wrong with the change; the ring may then be changed in part.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<Done, String> {
        let mut done = Done::default();
        match change {
            Change::Join { zone, instances } => {
                for _ in 0..*instances {
                    let zone = zone.clone().unwrap_or_else(|| self.smallest_zone());
                    let name = self.next_name(&zone);
                    done.joined.push(name.id.clone());
                    self.add(name, &zone)?;
                }
            }
            Change::Leave(who) => {
                done.left = self.leaving(who)?;
                for id in &done.left {
                    self.remove(id)?;
                }
                if self.ring.is_empty() {
                    return Err("nobody would be left".to_owned());
                }
            }
        }
        Ok(done)
    }

    fn leaving(&self, who: &Who) -> Result<Vec<EntryId>, String> {
        match who {
            Who::Called(ids) => Ok(ids.iter().map(EntryId::from).collect()),
            Who::Zone(zone) => match self.members_of(zone) {
                members if members.is_empty() => {
                    let zones: Vec<String> = self.zones.keys().map(|zone| format!("`{zone}`")).collect();
                    Err(format!("there is no zone `{zone}`; there are {}", zones.join(", ")))
                }
                members => Ok(members),
            },
            Who::Last(number) if *number >= self.ring.len() => {
                Err(format!("nobody would be left: there are {}", self.ring.len()))
            }
            Who::Last(number) => {
                let mut zones: Vec<_> =
                    self.zones.values().map(|members| (members.len(), members.iter())).collect();
                let mut gone = Vec::with_capacity(*number);
                while gone.len() < *number {
                    // Of equally large zones the last, so that leaving undoes joining.
                    let Some((left, members)) = zones.iter_mut().max_by_key(|(left, _)| *left) else { break };
                    *left = left.saturating_sub(1);
                    gone.extend(members.next_back().map(|name| name.id.clone()));
                }
                Ok(gone)
            }
        }
    }

    fn remove(&mut self, id: &str) -> Result<(), String> {
        let entry = self.ring.remove(id).ok_or_else(|| format!("there is no instance `{id}`"))?;
        if let Some(members) = self.zones.get_mut(entry.zone.as_str()) {
            members.remove(&Name::of(id));
            if members.is_empty() {
                self.zones.remove(entry.zone.as_str());
            }
        }
        // One that somebody else claims too is then free to be chosen again, at one chance in 2³².
        entry.tokens.iter().for_each(|token| {
            self.taken.remove(token);
        });
        Ok(())
    }

    /// False if there is one of this name.
    fn insert(&mut self, id: EntryId, entry: InstanceDesc) -> bool {
        self.zones.entry(entry.zone.to_string()).or_default().insert(Name::of(&id));
        self.ring.insert(id, entry).is_none()
    }

    fn add(&mut self, name: Name, zone: &str) -> Result<(), String> {
        let Name { id, number, .. } = &name;
        let chooser = Chooser { id, zone, number: *number, num_tokens: self.tokens_per_instance };
        let tokens = self.choice.choose(&chooser, &self.ring, &mut self.taken)?;
        let entry = InstanceDesc { zone: zone.into(), tokens: tokens.into(), ..InstanceDesc::default() };
        self.insert(name.id, entry);
        Ok(())
    }

    fn members_of(&self, zone: &str) -> Vec<EntryId> {
        self.zones.get(zone).into_iter().flatten().map(|name| name.id.clone()).collect()
    }

    /// The zone with the fewest members, of several the first; without any zone `zone-a`.
    fn smallest_zone(&self) -> String {
        let zone = self.zones.iter().min_by_key(|(_, members)| members.len());
        zone.map_or_else(|| zone_name(0), |(zone, _)| zone.clone())
    }

    /// The name after the last one of a zone, counting on; for the first of a zone one like the others'.
    fn next_name(&self, zone: &str) -> Name {
        let last = self.zones.get(zone).and_then(BTreeSet::last);
        let (prefix, mut number) = match last {
            Some(Name { prefix, number: Some(number), .. }) => (prefix.clone(), number.saturating_add(1)),
            Some(Name { prefix, number: None, .. }) => (format!("{prefix}-"), 1),
            None if zone.is_empty() => ("ingester-".to_owned(), 0),
            None => (format!("ingester-{zone}-"), 0),
        };
        while self.ring.contains(&format!("{prefix}{number}")) {
            number = number.wrapping_add(1);
        }
        Name::of(&format!("{prefix}{number}"))
    }
}

impl Name {
    fn of(id: &str) -> Self {
        let prefix = id.trim_end_matches(|c: char| c.is_ascii_digit());
        Self { prefix: prefix.to_owned(), number: id[prefix.len()..].parse().ok(), id: id.into() }
    }
}

/// `zone-a` to `zone-z`, and numbers from there on.
fn zone_name(number: usize) -> String {
    match u8::try_from(number) {
        Ok(letter @ 0..26) => format!("zone-{}", char::from(b'a' + letter)),
        _ => format!("zone-{}", number + 1),
    }
}
