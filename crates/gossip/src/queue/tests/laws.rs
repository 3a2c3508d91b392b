//! What holds whatever is written and sent, in whatever order.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Push { place: u64, hlc: u64, own: bool, heartbeat: bool },
    Fill(usize),
    FillEagerly(usize),
    FillFar(usize),
    Members(usize),
    Zones(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let push = (0u64..8, 0u64..12, any::<bool>(), any::<bool>())
        .prop_map(|(place, hlc, own, heartbeat)| Step::Push { place, hlc, own, heartbeat });
    let step = prop_oneof![
        4 => push,
        3 => (0usize..6).prop_map(Step::Fill),
        1 => (0usize..6).prop_map(Step::FillEagerly),
        1 => (0usize..4).prop_map(Step::FillFar),
        1 => (0usize..200).prop_map(Step::Members),
        1 => any::<bool>().prop_map(Step::Zones),
    ];
    proptest::collection::vec(step, 1..150)
}

#[derive(Clone, Debug)]
struct Plain {
    place: u64,
    hlc: u64,
    own: bool,
    heartbeat: bool,
    sent: usize,
    turn: usize,
}

/// The same queue, without any order kept: it sorts whenever it is asked.
struct Model {
    items: Vec<Plain>,
    turns: usize,
    budget: usize,
    /// How many were sent by ticks and answers.
    picks: usize,
    zones: bool,
    /// What other zones were not told yet.
    far: Vec<Plain>,
}

impl Model {
    fn push(&mut self, place: u64, hlc: u64, own: bool, heartbeat: bool) -> Pushed {
        self.turns += 1;
        let mut item = Plain { place, hlc, own, heartbeat, sent: 0, turn: self.turns };
        let known = self.items.iter_mut().find(|known| known.place == place);
        let pushed = match known {
            Some(known) if hlc <= known.hlc => return Pushed::Stale,
            Some(known) => {
                if known.sent == 0 {
                    item.turn = known.turn;
                }
                *known = item.clone();
                Pushed::Replaced
            }
            None => {
                self.items.push(item.clone());
                Pushed::Added
            }
        };
        if let Some(waiting) = self.far.iter().position(|waiting| waiting.place == place) {
            item.turn = self.far.remove(waiting).turn;
        }
        if self.zones && own {
            self.far.push(item);
        }
        pushed
    }

    fn sort(&mut self) {
        self.items.sort_by_key(|item| (!item.own, item.heartbeat, item.sent, item.turn));
    }

    fn fill(&mut self, room: usize) -> Vec<(u64, u64)> {
        self.sort();
        let (mut firsts, mut repeats): (VecDeque<usize>, VecDeque<usize>) =
            (0..self.items.len()).partition(|at| self.items[*at].sent == 0);
        let mut chosen = Vec::new();
        while chosen.len() < room && !(firsts.is_empty() && repeats.is_empty()) {
            let lines =
                if self.picks % 4 == 3 { [&mut repeats, &mut firsts] } else { [&mut firsts, &mut repeats] };
            self.picks += 1;
            chosen.extend(lines.into_iter().find_map(VecDeque::pop_front));
        }
        self.send(&chosen)
    }

    fn fill_eagerly(&mut self, times: usize, room: usize) -> Vec<(u64, u64)> {
        self.sort();
        let news = |at: &usize| !self.items[*at].heartbeat && self.items[*at].sent < times;
        let mut chosen: Vec<usize> = (0..self.items.len()).filter(news).collect();
        // A stable sort.
        chosen.sort_by_key(|at| self.items[*at].sent > 0);
        chosen.truncate(room);
        self.send(&chosen)
    }

    fn fill_far(&mut self, room: usize) -> Vec<(u64, u64)> {
        self.far.sort_by_key(|item| item.turn);
        let taken = self.far.drain(..room.min(self.far.len()));
        taken.map(|item| (item.place, item.hlc)).collect()
    }

    fn send(&mut self, chosen: &[usize]) -> Vec<(u64, u64)> {
        let mut taken = Vec::new();
        for at in chosen {
            let item = &mut self.items[*at];
            item.sent += 1;
            taken.push((item.place, item.hlc));
        }
        self.forget_spent();
        taken
    }

    fn set_zones(&mut self, zones: bool) {
        if zones && !self.zones {
            let new = self.items.iter().filter(|item| item.own && item.sent == 0);
            self.far.extend(new.cloned());
        } else if !zones {
            self.far.clear();
        }
        self.zones = zones;
    }

    fn set_members(&mut self, members: usize) {
        let digits = (members as f64 + 1.0).log10().ceil() as usize;
        self.budget = 4 * digits.max(1);
        self.forget_spent();
    }

    fn forget_spent(&mut self) {
        let budget = self.budget;
        self.items.retain(|item| item.sent < if item.heartbeat { 5 } else { budget });
    }
}

fn id_of(place: u64) -> EntryId {
    EntryId::new(place.to_string(), 0)
}

fn seen(item: &Item) -> (u64, u64) {
    (item.entry.id.parse().unwrap(), item.register.version.hlc.0)
}

proptest! {
    #[test]
    fn it_does_what_a_sorted_list_would(steps in steps()) {
        let mut queue = Queue::new(Config::default());
        let mut model =
            Model { items: Vec::new(), turns: 0, budget: 4, picks: 0, zones: false, far: Vec::new() };
        for (number, step) in steps.into_iter().enumerate() {
            let now = at(number as u64);
            let mut taken = Vec::new();
            let take = |item: &Item| {
                taken.push(seen(item));
                true
            };
            match step {
                Step::Push { place, hlc, own, heartbeat } => {
                    let pushed =
                        queue.push(now, SmolStr::new(KEY), id_of(place), written(hlc), own, heartbeat);
                    prop_assert_eq!(pushed, model.push(place, hlc, own, heartbeat));
                }
                Step::Fill(room) => {
                    queue.fill(now, room, |_| 1, take);
                    prop_assert_eq!(taken, model.fill(room));
                }
                Step::FillEagerly(room) => {
                    queue.fill_eager(now, 2, room, |_| 1, take);
                    prop_assert_eq!(taken, model.fill_eagerly(2, room));
                }
                Step::FillFar(room) => {
                    queue.fill_far(now, room, |_| 1, take);
                    prop_assert_eq!(taken, model.fill_far(room));
                }
                Step::Zones(zones) => {
                    queue.set_zone_aware(zones);
                    model.set_zones(zones);
                }
                Step::Members(members) => {
                    queue.set_members(members);
                    model.set_members(members);
                }
            }
            prop_assert_eq!(queue.len(), model.items.len());
            for plain in &model.items {
                let item = queue.get(KEY, &id_of(plain.place)).unwrap();
                prop_assert_eq!(seen(item), (plain.place, plain.hlc));
                prop_assert_eq!((item.sent as usize, item.own), (plain.sent, plain.own));
            }
            let has_far = !model.far.is_empty();
            prop_assert_eq!(queue.has_far_news(), has_far);
            let has_own = model.items.iter().any(|item| item.own && !item.heartbeat);
            let has_far_news = model.far.iter().any(|item| !item.heartbeat);
            prop_assert_eq!(queue.has_own_news(), has_own || has_far_news);
            let has_news = model.items.iter().any(|item| !item.heartbeat && item.sent == 0);
            prop_assert!(has_news || has_far_news || queue.next_deadline().is_none());
            prop_assert_eq!(queue.is_empty(), queue.bytes() == 0 && !has_far);
        }
    }

    #[test]
    fn each_is_offered_as_often_as_its_budget_says(
        places in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..30),
        members in 1usize..2_000,
        room in 1usize..8,
    ) {
        let mut queue = Queue::new(Config::default());
        queue.set_members(members);
        for (place, (own, heartbeat)) in places.iter().enumerate() {
            queue.push(at(0), SmolStr::new(KEY), id_of(place as u64), written(1), *own, *heartbeat);
        }
        let mut offers = vec![0; places.len()];
        while !queue.is_empty() {
            let take = |item: &Item| {
                offers[seen(item).0 as usize] += 1;
                true
            };
            prop_assert!(queue.fill(at(0), room, |_| 1, take) > 0);
        }
        let budget = 4 * members.to_string().len();
        for ((_, heartbeat), offers) in places.iter().zip(offers) {
            prop_assert_eq!(offers, if *heartbeat { 5 } else { budget });
        }
    }

    #[test]
    fn the_bound_holds_for_what_others_wrote_and_never_costs_ours(steps in steps(), most in 0usize..8) {
        let max_bytes = most * (OVERHEAD_BYTES + 6);
        let mut queue = Queue::new(Config { max_bytes, ..Config::default() });
        // Places of ours that were not told yet as often as they should be.
        let mut own = BTreeMap::new();
        for step in steps {
            match step {
                Step::Push { place, hlc, own: by_us, heartbeat } => {
                    let pushed =
                        queue.push(at(0), SmolStr::new(KEY), id_of(place), written(hlc), by_us, heartbeat);
                    match (pushed, by_us) {
                        (Pushed::Stale, _) => (),
                        (Pushed::Dropped, by_us) => {
                            prop_assert!(!by_us);
                            own.remove(&place);
                        }
                        (_, true) => {
                            own.insert(place, hlc);
                        }
                        (_, false) => {
                            own.remove(&place);
                        }
                    }
                }
                Step::Fill(room) | Step::FillEagerly(room) => {
                    queue.fill(at(0), room, |_| 1, |item| {
                        let last = if item.heartbeat { 4 } else { 3 };
                        if item.own && item.sent == last {
                            own.remove(&seen(item).0);
                        }
                        true
                    });
                }
                Step::FillFar(_) | Step::Members(_) | Step::Zones(_) => (),
            }
            let kept = own.iter().all(|(place, hlc)| {
                queue.get(KEY, &id_of(*place)).is_some_and(|item| item.own && seen(item).1 == *hlc)
            });
            prop_assert!(kept, "{own:?}");
            prop_assert!(queue.bytes() <= max_bytes || queue.len() == own.len());
        }
    }
}
