//! Cortex's and dskit's selection as they write it, over maps and lists of tokens.

use super::*;
use crate::go_rand::GoRand;
use crate::shard::select::{Limits, Mode, Request, select_within};
use crate::shard::shard_seed;

struct Plain<'a> {
    desc: &'a Desc,
    dskit: bool,
    /// Start of the window; `None` without look-back.
    until: Option<i64>,
    chosen: BTreeSet<String>,
}

impl Plain<'_> {
    fn is_eligible(&self, entry: &InstanceDesc) -> bool {
        let changed = entry.read_only_updated_timestamp;
        !self.dskit || !entry.read_only || self.until.is_some_and(|until| !(0 < changed && changed < until))
    }

    fn extends(&self, entry: &InstanceDesc) -> bool {
        let in_window = |at: i64| self.until.is_some_and(|until| at > 0 && at >= until);
        if self.dskit {
            let read_only = self.until.is_some() && entry.read_only;
            in_window(entry.registered_timestamp) || in_window(entry.read_only_updated_timestamp) || read_only
        } else {
            in_window(entry.registered_timestamp) || entry.state == State::ReadOnly
        }
    }

    fn take_eligible(&mut self, of_zone: impl Fn(&InstanceDesc) -> bool) {
        for (id, entry) in self.desc {
            if of_zone(entry) && self.is_eligible(entry) {
                self.chosen.insert(id.to_string());
            }
        }
    }

    fn draw(&mut self, identifier: &str, zone: Option<&str>, share: usize) {
        let of_zone = |entry: &InstanceDesc| zone.is_none_or(|zone| entry.zone == zone);
        let members = || self.desc.iter().filter(|(_, entry)| of_zone(entry));
        // Only with zone awareness; else who owns no token is never drawn.
        if self.dskit && zone.is_some() && share >= members().count() {
            return self.take_eligible(of_zone);
        }
        let mut tokens: Vec<_> = members().flat_map(|(_, entry)| entry.tokens.iter().copied()).collect();
        tokens.sort_unstable();
        let all = self.desc.iter();
        let owners: BTreeMap<_, _> =
            all.flat_map(|(id, entry)| entry.tokens.iter().map(move |token| (*token, id))).collect();
        let mut rand = GoRand::new(shard_seed(identifier, zone.unwrap_or_default()));
        for _ in 0..share {
            let start = crate::search_token(&tokens, rand.next_u32());
            let walk = tokens[start..].iter().chain(&tokens[..start]);
            let mut found = false;
            for token in walk {
                let entry = self.desc.get(owners[token]).unwrap();
                if self.chosen.contains(owners[token].as_str()) || !self.is_eligible(entry) {
                    continue;
                }
                self.chosen.insert(owners[token].to_string());
                if !self.extends(entry) {
                    found = true;
                    break;
                }
            }
            if !found {
                break;
            }
        }
    }
}

/// The ids in the shard; everybody for the ring itself.
fn select(
    desc: &Desc,
    options: &RingOptions,
    identifier: &str,
    size: usize,
    asked: Asked,
) -> BTreeSet<String> {
    let dskit = options.dialect == Dialect::Dskit;
    let until = match asked {
        Asked::Lookback(period) if !period.is_zero() => {
            Some((f64::from(NOW as u32) - period.as_secs_f64()).floor() as i64)
        }
        _ => None,
    };
    let everybody = || desc.iter().map(|(id, _)| id.to_string()).collect();
    if !dskit && (size == 0 || desc.len() <= size) {
        return everybody();
    }
    if dskit
        && size > 0
        && let Some(until) = until
    {
        let oldest = desc.iter().map(|(_, entry)| entry.registered_timestamp).min();
        if oldest.is_some_and(|oldest| oldest > 0 && oldest >= until) {
            return everybody();
        }
    }
    let mut plain = Plain { desc, dskit, until, chosen: BTreeSet::new() };
    let zones: BTreeSet<_> = desc.iter().map(|(_, entry)| entry.zone.clone()).collect();
    if size == 0 {
        plain.take_eligible(|_| true);
    } else if !options.zone_awareness_enabled {
        plain.draw(identifier, None, size);
    } else {
        for (place, zone) in zones.iter().enumerate() {
            let share = match asked {
                Asked::ZoneStable => size / zones.len() + usize::from(place < size % zones.len()),
                _ => size.div_ceil(zones.len()),
            };
            plain.draw(identifier, Some(zone), share);
        }
    }
    plain.chosen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn the_members_selected_are_those_of_a_plain_rendering(
        desc in any_ring(), zone_aware: bool, dialect in dialect(), identifier in "[a-z]{0,3}", size in 0..20usize,
        asked in asked(),
    ) {
        let options = options(zone_aware, dialect, false);
        let snapshot = Snapshot::first_sight(&desc, NOW, &options);
        prop_assert_eq!(
            ids(&snapshot, &identifier, size as i64, asked, NOW),
            select(&desc, &options, &identifier, size, asked)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn every_way_to_walk_finds_the_same_members(
        desc in any_ring(), zone_aware: bool, dialect in dialect(), identifier in "[a-z]{0,3}", size in 1..20usize,
        asked in asked(), zones in 0..4usize, passed in 0..6usize, rounds in 0..2usize,
    ) {
        let options = options(zone_aware, dialect, false);
        let snapshot = Snapshot::first_sight(&desc, NOW, &options);
        let mode = match asked {
            Asked::Plain => Mode::Plain,
            Asked::ZoneStable => Mode::ZoneStable,
            Asked::Lookback(period) if period.is_zero() => Mode::Plain,
            Asked::Lookback(period) => Mode::Lookback(period),
        };
        let request = Request::new(&identifier, size as i64, mode, NOW);
        prop_assume!(!request.wants_all(&snapshot, snapshot.shards.facts()));
        let found = select_within(&snapshot, &snapshot.shards, &request, Limits { zones, passed, rounds });
        let plain = select(&desc, &options, &identifier, size, asked);
        let members = snapshot.members.iter().enumerate();
        let found: BTreeSet<_> =
            members.filter(|(place, _)| found.members.contains(*place)).map(|(_, member)| member.id.to_string()).collect();
        prop_assert_eq!(found, plain);
    }
}

#[test]
fn without_zone_awareness_dskit_draws_nobody_without_tokens() {
    let mut ring = even_ring(5, 1, 4, 1);
    ring.insert("pending".into(), InstanceDesc { state: State::Pending, ..InstanceDesc::default() });
    let desc: Desc = ring.into_iter().collect();
    let snapshot = Snapshot::first_sight(&desc, NOW, &options(false, Dialect::Dskit, true));
    let shard = snapshot.shuffle_shard("tenant", 10);
    assert_eq!((shard.len(), shard.contains("pending")), (5, false));
    let set = shard.replication_set(crate::Operation::DSKIT_WRITE, NOW).unwrap();
    assert_eq!((set.len(), set.max_errors()), (5, 1));
}
