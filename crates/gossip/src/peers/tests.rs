use std::collections::BTreeSet;

use foca::Identity as _;
use proptest::prelude::*;
use rand::SeedableRng as _;

use super::*;

/// This member. The others have other numbers for names.
const OWN: u64 = 0;

/// A life of a member, each at an address of its own.
fn id(name: u64, generation: u64) -> NodeId {
    let [.., high, low] = name.to_be_bytes();
    let addr = SocketAddr::from(([10, generation.to_be_bytes()[7], high, low], 7946));
    NodeId { name, generation, addr }
}

fn zone(name: &str) -> Option<SmolStr> {
    Some(SmolStr::new(name))
}

fn random(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

fn names(chosen: &[NodeId]) -> BTreeSet<u64> {
    let names: BTreeSet<u64> = chosen.iter().map(|id| id.name).collect();
    assert_eq!(names.len(), chosen.len(), "chosen twice: {chosen:?}");
    names
}

/// Members 1 to 15, five in each of the zones a, b and c, seen from one in zone a.
fn in_three_zones() -> Peers {
    let mut peers = Peers::new(OWN, zone("a"), Config::default());
    for name in 1..=15 {
        let zone = zone(["a", "b", "c"][(name as usize - 1) / 5]);
        assert_eq!(peers.update(id(name, 1), zone, true), Updated::Added);
    }
    peers
}

fn in_no_zone(members: u64) -> Peers {
    let mut peers = Peers::new(OWN, None, Config::default());
    for name in 1..=members {
        peers.update(id(name, 1), None, true);
    }
    peers
}

fn is_in(peers: &Peers, chosen: NodeId, name: &str) -> bool {
    peers.get(chosen.name).unwrap().zone == zone(name)
}

#[test]
fn members_are_found_by_name_and_by_address_while_they_live() {
    let mut peers = Peers::new(OWN, None, Config::default());
    assert_eq!(peers.update(id(1, 1), zone("a"), true), Updated::Added);
    assert_eq!(peers.update(id(1, 1), zone("a"), true), Updated::Same);
    assert_eq!(peers.by_addr(id(1, 1).addr), peers.get(1));
    assert_eq!(peers.update(id(1, 1), zone("a"), false), Updated::Changed);
    assert_eq!((peers.len(), peers.num_dead(), peers.is_live(1)), (0, 1, false));
    assert!(peers.get(1).is_some() && peers.by_addr(id(1, 1).addr).is_none());
    assert!(peers.gossip_targets(&mut random(1), 3, &[]).is_empty());
    assert_eq!(peers.sync_target(&mut random(1), &[]), None);
    assert_eq!(peers.remove(id(1, 1)).map(|peer| peer.id), Some(id(1, 1)));
    assert!(peers.get(1).is_none() && peers.remove(id(1, 1)).is_none());
    assert_eq!(peers.update(id(OWN, 9), None, true), Updated::Own);
    assert!(peers.is_empty());
}

#[test]
fn a_later_life_takes_the_place_of_an_earlier_one() {
    let mut peers = in_three_zones();
    assert!(!peers.rename(id(99, 2)), "nobody knows it");
    assert!(peers.rename(id(1, 2)));
    assert!(!peers.rename(id(1, 2)) && !peers.rename(id(1, 1)));
    let expected = Peer { id: id(1, 2), zone: zone("a"), alive: true };
    assert_eq!(peers.by_addr(id(1, 2).addr), Some(&expected));
    assert_eq!((peers.by_addr(id(1, 1).addr), peers.len()), (None, 15));
    // What is said of the earlier life comes too late.
    assert_eq!(peers.update(id(1, 1), zone("a"), false), Updated::Stale);
    assert_eq!(peers.remove(id(1, 1)), None);
    assert_eq!(peers.get(1), Some(&expected));
    // One that is dead is so under its new name, until it is said to live.
    peers.update(id(2, 1), zone("a"), false);
    assert!(peers.rename(id(2, 2)) && !peers.is_live(2));
    assert_eq!(peers.update(id(2, 2), zone("b"), true), Updated::Changed);
    assert!(peers.is_live(2));
}

#[test]
fn an_address_belongs_to_whom_it_was_last_said_to() {
    let mut peers = in_no_zone(1);
    let addr = id(1, 1).addr;
    peers.update(NodeId { addr, ..id(2, 1) }, None, true);
    assert_eq!(peers.by_addr(addr).unwrap().id.name, 2);
    peers.update(id(1, 1), None, false);
    assert_eq!(peers.by_addr(addr).unwrap().id.name, 2);
    peers.remove(id(2, 1));
    assert_eq!(peers.by_addr(addr), None);
}

#[test]
fn who_claims_the_address_of_another_makes_it_no_stranger_by_dying() {
    let mut peers = in_no_zone(1);
    let addr = id(1, 1).addr;
    let claimed = |name, generation| NodeId { addr, ..id(name, generation) };
    let owner = |peers: &Peers| peers.by_addr(addr).map(|peer| peer.id.name);
    for name in [2, 3] {
        assert_eq!(peers.update(claimed(name, 1), None, true), Updated::Added);
        assert_eq!(owner(&peers), Some(name));
    }
    // Whoever claims it twice does so once.
    assert_eq!(peers.update(claimed(3, 2), None, true), Updated::Changed);
    peers.update(claimed(3, 2), None, false);
    assert_eq!(owner(&peers), Some(2));
    peers.remove(claimed(2, 1));
    assert_eq!(owner(&peers), Some(1));
    // It moves, and the one that is said to be there now does as well.
    peers.update(claimed(4, 1), None, true);
    peers.rename(id(1, 2));
    peers.rename(id(4, 2));
    assert_eq!((owner(&peers), peers.by_addr.contains_key(&addr)), (None, false));
    assert_eq!(peers.by_addr(id(1, 2).addr).map(|peer| peer.id.name), Some(1));
}

#[test]
fn of_equal_lives_the_one_counts_that_the_membership_engine_keeps() {
    let lives = [1, 2].map(|number| NodeId { addr: id(number, 9).addr, ..id(1, 1) });
    let [smaller, larger] = lives;
    assert!(larger.win_addr_conflict(&smaller) && !smaller.win_addr_conflict(&larger));
    let mut peers = Peers::new(OWN, None, Config::default());
    peers.update(smaller, zone("a"), true);
    // It is renamed, or heard of anew.
    let mut renamed = peers.clone();
    assert!(renamed.rename(larger));
    assert_eq!(peers.update(larger, zone("a"), true), Updated::Changed);
    for peers in [&mut peers, &mut renamed] {
        let expected = Peer { id: larger, zone: zone("a"), alive: true };
        assert_eq!((peers.by_addr(larger.addr), peers.by_addr(smaller.addr)), (Some(&expected), None));
        assert_eq!(peers.update(smaller, zone("a"), false), Updated::Stale);
        assert!(!peers.rename(smaller) && peers.remove(smaller).is_none());
        assert_eq!(peers.update(larger, zone("a"), false), Updated::Changed);
        assert!(!peers.is_live(1));
    }
}

#[test]
fn a_full_table_gives_up_the_dead_for_the_living_and_nothing_else() {
    let mut peers = Peers::new(OWN, None, Config { max_members: 3, ..Config::default() });
    for (name, alive) in [(1, true), (2, false), (3, true)] {
        assert_eq!(peers.update(id(name, 1), None, alive), Updated::Added);
    }
    assert_eq!(peers.update(id(4, 1), None, false), Updated::Refused);
    assert_eq!(peers.update(id(4, 1), None, true), Updated::Added);
    assert!(peers.get(2).is_none());
    assert_eq!(peers.update(id(5, 1), None, true), Updated::Refused);
    assert_eq!(peers.update(id(4, 2), None, true), Updated::Changed);
    assert_eq!((peers.len(), peers.num_refused()), (3, 2));
}

#[test]
fn each_is_as_likely_as_any_other() {
    let peers = in_no_zone(10);
    let mut random = random(7);
    let mut counts = [0_u32; 11];
    for _ in 0..10_000 {
        for chosen in peers.gossip_targets(&mut random, 3, &[4, 99]) {
            counts[chosen.name as usize] += 1;
        }
    }
    assert_eq!((counts[OWN as usize], counts[4]), (0, 0));
    for name in [1, 2, 3, 5, 6, 7, 8, 9, 10] {
        assert!(counts[name].abs_diff(3_333) < 300, "{counts:?}");
    }
}

#[test]
fn relays_stay_in_their_zone_and_authors_tell_two_of_each_other() {
    let peers = in_three_zones();
    let mut random = random(3);
    let mut first = BTreeSet::new();
    for _ in 0..500 {
        let near = names(&peers.gossip_targets(&mut random, 3, &[2]));
        assert!(near.len() == 3 && near.iter().all(|name| [1, 3, 4, 5].contains(name)), "{near:?}");
        let targets = names(&peers.first_targets_of_other_zones(&mut random, 2));
        assert_eq!(
            (targets.range(6_u64..=10).count(), targets.range(11_u64..=15).count(), targets.len()),
            (2, 2, 4)
        );
        first.extend(targets);
    }
    assert_eq!(first.len(), 10, "each has its turn");
    // Fewer than were asked for, where there are no more.
    assert_eq!(names(&peers.gossip_targets(&mut random, 9, &[2])), BTreeSet::from([1, 3, 4, 5]));
    assert_eq!(
        names(&peers.first_targets_of_other_zones(&mut random, 9)),
        (6..=15).collect::<BTreeSet<u64>>()
    );
}

#[test]
fn some_ticks_and_more_rounds_of_comparing_go_to_another_zone() {
    let peers = in_three_zones();
    let mut random = random(5);
    let (mut ticks, mut syncs, mut in_b) = (0_usize, 0_usize, 0_usize);
    for _ in 0..10_000 {
        let targets = peers.tick_targets(&mut random, 3, &[]);
        assert_eq!(names(&targets).len(), 3);
        let far = targets.iter().filter(|chosen| !is_in(&peers, **chosen, "a")).count();
        assert!(far == 0 || far == 3, "a tick goes to one zone");
        ticks += far / 3;
        let target = peers.sync_target(&mut random, &[1]).unwrap();
        assert_ne!(target.name, 1);
        syncs += usize::from(!is_in(&peers, target, "a"));
        in_b += usize::from(is_in(&peers, target, "b"));
    }
    assert!(ticks.abs_diff(500) < 150, "{ticks}");
    assert!(syncs.abs_diff(2_000) < 300 && in_b.abs_diff(1_000) < 200, "{syncs}, {in_b}");
}

#[test]
fn zones_matter_where_there_are_others() {
    let mut random = random(9);
    // In none of them, and alone in that.
    let mut peers = in_three_zones();
    peers.set_own_zone(zone(""));
    assert!(peers.is_zone_aware() && peers.own_zone().is_none());
    assert_eq!(peers.gossip_targets(&mut random, 20, &[]).len(), 15);
    assert_eq!(peers.first_targets_of_other_zones(&mut random, 2).len(), 6);
    // With others that are in none, these are near.
    peers.update(id(98, 1), None, true);
    assert_eq!(names(&peers.gossip_targets(&mut random, 20, &[])), BTreeSet::from([98]));
    assert_eq!(peers.first_targets_of_other_zones(&mut random, 2).len(), 6);
    // In one, but the only one; those who have not said theirs do not count.
    let mut peers = Peers::new(OWN, zone("a"), Config::default());
    peers.update(id(1, 1), zone("a"), true);
    peers.update(id(2, 1), None, true);
    peers.update(id(3, 1), zone("b"), false);
    assert!(!peers.is_zone_aware());
    assert_eq!(names(&peers.gossip_targets(&mut random, 3, &[])), BTreeSet::from([1, 2]));
    // A second zone appears; those who have not said theirs are reached like a third.
    peers.update(id(3, 1), zone("b"), true);
    assert!(peers.is_zone_aware());
    assert_eq!(names(&peers.gossip_targets(&mut random, 3, &[])), BTreeSet::from([1]));
    assert_eq!(names(&peers.first_targets_of_other_zones(&mut random, 2)), BTreeSet::from([2, 3]));
    let counts = [(None, 1), (zone("a"), 1), (zone("b"), 1)];
    assert_eq!(peers.count_by_zone(), BTreeMap::from(counts));
    // And they move when they have said it.
    assert!(peers.set_zone(2, zone("a")) && !peers.set_zone(2, zone("a")) && !peers.set_zone(98, None));
    assert_eq!(names(&peers.gossip_targets(&mut random, 3, &[])), BTreeSet::from([1, 2]));
    assert_eq!(peers.count_by_zone(), BTreeMap::from([(zone("a"), 2), (zone("b"), 1)]));
}

#[test]
fn who_is_alone_in_its_zone_tells_anybody() {
    let mut random = random(2);
    let mut peers = in_three_zones();
    peers.set_own_zone(zone("d"));
    assert!(peers.is_zone_aware());
    assert_eq!(peers.gossip_targets(&mut random, 20, &[]).len(), 15);
    assert_eq!(peers.first_targets_of_other_zones(&mut random, 2).len(), 6);
    assert!(peers.sync_target(&mut random, &[]).is_some());
    // Stores are compared with somebody, even if nobody near is left to choose.
    peers.set_own_zone(zone("a"));
    let near = [1, 2, 3, 4, 5];
    for _ in 0..100 {
        assert!(peers.gossip_targets(&mut random, 3, &near).is_empty());
        assert!(peers.sync_target(&mut random, &near).unwrap().name > 5);
    }
}

#[test]
fn a_zone_for_each_member_does_not_make_one_message_many() {
    let mut peers = Peers::new(OWN, zone("own"), Config::default());
    for name in 1..=1_000 {
        peers.update(id(name, 1), zone(&name.to_string()), true);
    }
    assert_eq!(names(&peers.first_targets_of_other_zones(&mut random(1), 2)).len(), MAX_FIRST_ZONES);
    for name in 1..=1_000 {
        peers.update(id(name, 1), zone(&name.to_string()), false);
    }
    assert!(peers.count_by_zone().is_empty() && !peers.is_zone_aware());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Update { name: u64, generation: u64, zone: u8, alive: bool },
    Rename { name: u64, generation: u64 },
    Remove { name: u64, generation: u64 },
    Zone { name: u64, zone: u8 },
    OwnZone(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0_u64..10;
    let generation = 0_u64..4;
    let step = prop_oneof![
        6 => (name.clone(), generation.clone(), 0_u8..4, any::<bool>())
            .prop_map(|(name, generation, zone, alive)| Step::Update { name, generation, zone, alive }),
        1 => (name.clone(), generation.clone())
            .prop_map(|(name, generation)| Step::Rename { name, generation }),
        1 => (name.clone(), generation)
            .prop_map(|(name, generation)| Step::Remove { name, generation }),
        1 => (name, 0_u8..4).prop_map(|(name, zone)| Step::Zone { name, zone }),
        1 => (0_u8..4).prop_map(Step::OwnZone),
    ];
    proptest::collection::vec(step, 1..100)
}

/// Three zones, and none.
fn numbered(number: u8) -> Option<SmolStr> {
    (number > 0).then(|| SmolStr::new(number.to_string()))
}

/// The same table, without anything that makes it fast.
#[derive(Default)]
struct Model {
    own_zone: Option<SmolStr>,
    members: BTreeMap<u64, Peer>,
}

impl Model {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Update { name, generation, zone, alive } => {
                let is_later = self.members.get(&name).is_none_or(|known| known.id.generation <= generation);
                if name != OWN && is_later {
                    let peer = Peer { id: id(name, generation), zone: numbered(zone), alive };
                    self.members.insert(name, peer);
                }
            }
            Step::Rename { name, generation } => {
                if let Some(peer) = self.members.get_mut(&name)
                    && peer.id.generation < generation
                {
                    peer.id = id(name, generation);
                }
            }
            Step::Remove { name, generation } => {
                self.members.retain(|known, peer| *known != name || peer.id.generation > generation);
            }
            Step::Zone { name, zone } => {
                if let Some(peer) = self.members.get_mut(&name) {
                    peer.zone = numbered(zone);
                }
            }
            Step::OwnZone(zone) => self.own_zone = numbered(zone),
        }
    }

    fn live(&self, is_among: impl Fn(&Option<SmolStr>) -> bool) -> BTreeSet<u64> {
        let live = self.members.iter().filter(|(_, peer)| peer.alive && is_among(&peer.zone));
        live.map(|(name, _)| *name).collect()
    }
}

fn apply(peers: &mut Peers, step: Step) {
    match step {
        Step::Update { name, generation, zone, alive } => {
            peers.update(id(name, generation), numbered(zone), alive);
        }
        Step::Rename { name, generation } => {
            peers.rename(id(name, generation));
        }
        Step::Remove { name, generation } => {
            peers.remove(id(name, generation));
        }
        Step::Zone { name, zone } => {
            peers.set_zone(name, numbered(zone));
        }
        Step::OwnZone(zone) => peers.set_own_zone(numbered(zone)),
    }
}

proptest! {
    #[test]
    fn the_table_is_what_was_reported_and_choices_keep_the_rules(
        steps in steps(),
        seed: u64,
        k in 0_usize..5,
        excluded in proptest::collection::vec(0_u64..12, 0..4),
    ) {
        let (mut peers, mut model) = (Peers::new(OWN, None, Config::default()), Model::default());
        let mut random = random(seed);
        for step in steps {
            apply(&mut peers, step);
            model.apply(step);

            let all = model.live(|_| true);
            prop_assert_eq!((peers.len(), peers.num_dead()), (all.len(), model.members.len() - all.len()));
            prop_assert_eq!(&peers.live().map(|peer| peer.id.name).collect::<BTreeSet<u64>>(), &all);
            for name in 0..10 {
                prop_assert_eq!(peers.get(name), model.members.get(&name));
                for generation in 0..4 {
                    let life = id(name, generation);
                    let known = model.members.get(&name).filter(|peer| peer.alive && peer.id == life);
                    prop_assert_eq!(peers.by_addr(life.addr), known);
                }
            }
            let in_own = model.live(|zone| *zone == model.own_zone);
            let is_aware = !model.live(|zone| zone.is_some() && *zone != model.own_zone).is_empty();
            prop_assert_eq!(peers.is_zone_aware(), is_aware);

            let near = if is_aware && !in_own.is_empty() { &in_own } else { &all };
            let is_free = |name: &&u64| !excluded.contains(name);
            let chosen = names(&peers.gossip_targets(&mut random, k, &excluded));
            prop_assert!(chosen.is_subset(near) && !chosen.iter().any(|name| excluded.contains(name)));
            prop_assert_eq!(chosen.len(), near.iter().filter(is_free).count().min(k));

            let chosen = names(&peers.tick_targets(&mut random, k, &excluded));
            prop_assert!(chosen.is_subset(&all) && !chosen.iter().any(|name| excluded.contains(name)));
            let zones: BTreeSet<_> = chosen.iter().map(|name| model.members[name].zone.clone()).collect();
            prop_assert!(!is_aware || in_own.is_empty() || zones.len() <= 1);

            let target = peers.sync_target(&mut random, &excluded);
            prop_assert_eq!(target.is_some(), all.iter().any(|name| !excluded.contains(name)));
            prop_assert!(target.is_none_or(|id| all.contains(&id.name) && !excluded.contains(&id.name)));

            let first = names(&peers.first_targets_of_other_zones(&mut random, 2));
            let mut expected = 0;
            for other in (0..4).map(numbered).filter(|zone| is_aware && *zone != model.own_zone) {
                let live = model.live(|zone| *zone == other);
                prop_assert_eq!(first.intersection(&live).count(), live.len().min(2));
                expected += live.len().min(2);
            }
            prop_assert_eq!(first.len(), expected);
        }
    }

    #[test]
    fn the_same_reports_and_seed_lead_to_the_same_choices(steps in steps(), seed: u64) {
        let choices = || {
            let (mut peers, mut random) = (Peers::new(OWN, zone("1"), Config::default()), random(seed));
            let mut choices = Vec::new();
            for step in &steps {
                apply(&mut peers, *step);
                choices.extend(peers.gossip_targets(&mut random, 3, &[1]));
                choices.extend(peers.tick_targets(&mut random, 2, &[]));
                choices.extend(peers.sync_target(&mut random, &[2]));
                choices.extend(peers.first_targets_of_other_zones(&mut random, 2));
            }
            choices
        };
        prop_assert_eq!(choices(), choices());
    }
}
