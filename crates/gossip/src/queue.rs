//! [`Queue`]: what is still to be told to others, each register a bounded number of times.
//!
//! It holds at most one register for a place, the newest, so it is never larger than the store. What is told too seldom to
//! reach everybody is left to anti-entropy: nothing here waits for an answer.

mod far;
mod line;

use std::collections::BTreeMap;
use std::time::Duration;

use smol_str::SmolStr;

use self::far::FarNews;
use self::line::{Class, Interleaving, Rank, choose};
use crate::register::{Body, EntryId, MAX_FACETS, Register};
use crate::time::Now;

/// How many items [`Queue::fill`] looks at in vain before it gives up, so that a long line of large ones costs little.
pub const MAX_MISSES: usize = 32;

/// About what an item takes in memory beside its texts and its body.
const OVERHEAD_BYTES: usize = 320;

/// How often, how soon and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// An item is sent this many times for every decimal digit of the number of members, and at least once.
    pub retransmit_factor: u32,
    /// How often a heartbeat is sent, however many members there are: the next one is soon to come.
    pub heartbeat_transmissions: u32,
    /// The facet of an entry that holds its heartbeat.
    pub heartbeat_facet: u8,
    /// Most bytes in memory. Own items are kept beyond it.
    pub max_bytes: usize,
    /// How long news waits for other news to share a datagram with.
    pub eager_delay: Duration,
    /// Most rounds of eager sending in any second, of which a fifth may follow each other at once. 0 leaves all to the tick.
    pub eager_rounds_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retransmit_factor: 4,
            heartbeat_transmissions: 5,
            heartbeat_facet: 2,
            max_bytes: 16 << 20,
            eager_delay: Duration::from_millis(10),
            eager_rounds_per_second: 50,
        }
    }
}

impl Config {
    /// Whether this is a heartbeat, where the key's type has them in [`heartbeat_facet`](Self::heartbeat_facet). A removed one
    /// is news like any other.
    pub fn is_heartbeat(&self, entry: &EntryId, register: &Register) -> bool {
        entry.facet == self.heartbeat_facet && !register.is_tombstone()
    }
}

/// A register that is still to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key it is stored under.
    pub key: SmolStr,
    /// Its place within the key.
    pub entry: EntryId,
    /// What is to be told.
    pub register: Register,
    /// Whether this member is its author.
    pub own: bool,
    /// Whether it only says that its author still lives, and is told apart from what else there is to say of its entry.
    pub heartbeat: bool,
    /// How often it was sent, to whomever; what goes to other zones [beside that](Queue::fill_far) does not count.
    pub sent: u32,
    /// Since when it has waited to be sent for the first time, in monotonic time.
    pub since: Duration,
}

impl Item {
    fn place(&self) -> Place {
        (self.key.clone(), self.entry.clone())
    }

    fn weight(&self) -> usize {
        let body = match &self.register.body {
            Body::Live(bytes) => bytes.len(),
            Body::Tombstone => 0,
        };
        OVERHEAD_BYTES + self.key.len() + self.entry.id.len() + body
    }
}

/// What became of a register that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits in line.
    Added,
    /// It took the place of an older one, which will not be sent any more.
    Replaced,
    /// The queue has it, or a newer one: nothing changed.
    Stale,
    /// There was no room for it.
    Dropped,
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Registers that were not newer than what was waiting.
    pub stale: u64,
    /// Heartbeats of others that were dropped to keep the bound.
    pub dropped_heartbeats: u64,
    /// Other items of others that were dropped to keep the bound.
    pub dropped: u64,
    /// Eager rounds that came too soon after others and were left to the tick.
    pub eager_limited: u64,
    /// Items sent for the first time.
    pub first_sent: u64,
    /// How long those had waited for it, all together.
    pub waited: Duration,
    /// Transmissions, those to other zones included.
    pub sent: u64,
}

type Place = (SmolStr, EntryId);

/// Allows a number of rounds per second: a token bucket, kept as the time at which it is full again.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// How long a token takes to come back.
    period: Duration,
    /// How long all but one of its tokens take to come back.
    slack: Duration,
    full_at: Duration,
}

impl Bucket {
    /// What a full bucket gives at once and what comes back within a second are `per_second` together, so that no second sees
    /// more.
    fn new(per_second: u32) -> Self {
        let burst = (per_second / 5).max(1);
        let period = Duration::from_secs(1) / per_second.saturating_sub(burst).max(1);
        Self { period, slack: period * (burst - 1), full_at: Duration::ZERO }
    }

    fn take(&mut self, now: Duration) -> bool {
        if self.full_at.saturating_sub(now) > self.slack {
            return false;
        }
        self.full_at = self.full_at.max(now).saturating_add(self.period);
        true
    }
}

/// The registers that are still to be told, in the order of telling.
///
/// What was never told goes before what was, but leaves it some of the room: nobody writes so much that it no longer tells what
/// others wrote, or that it lives, nor do others keep it from telling enough of them what it wrote. Within both: own before
/// others', news before heartbeats, then what was told less often, then what has waited longer.
#[derive(Clone, Debug)]
pub struct Queue {
    config: Config,
    /// Boxed, as each transmission moves one.
    items: BTreeMap<Rank, Box<Item>>,
    /// Where in `items` the item of a place is: exactly one for each place here.
    ranks: BTreeMap<Place, Rank>,
    /// The turn of the next item.
    next_turn: u64,
    interleaving: Interleaving,
    /// Whether other zones are to be told what this member writes.
    zone_aware: bool,
    /// What they were not told yet. Empty unless `zone_aware`.
    far: FarNews,
    bytes: usize,
    /// How often an item is sent that is no heartbeat.
    budget: u32,
    /// When the next eager round is due. None while there is no item to start one.
    eager_due: Option<Duration>,
    rounds: Bucket,
    stats: Stats,
}

impl Queue {
    /// An empty queue of a member that is alone.
    pub fn new(config: Config) -> Self {
        let rounds = Bucket::new(config.eager_rounds_per_second);
        let mut queue = Self {
            config,
            items: BTreeMap::new(),
            ranks: BTreeMap::new(),
            next_turn: 0,
            interleaving: Interleaving::default(),
            zone_aware: false,
            far: FarNews::default(),
            bytes: 0,
            budget: 1,
            eager_due: None,
            rounds,
            stats: Stats::default(),
        };
        queue.set_members(1);
        queue
    }

    /// There are `n` members, this one among them. It decides how often an item is sent; what was sent that often leaves.
    ///
    /// Costs O(log n) and what it drops.
    pub fn set_members(&mut self, n: usize) {
        // The rounded up decimal logarithm of n + 1 is the number of digits of n.
        let digits = n.max(1).ilog10() + 1;
        self.budget = self.config.retransmit_factor.saturating_mul(digits).max(1);
        for class in Class::NEWS {
            let spent = self.items.range(class.sent(self.budget, u32::MAX));
            let spent: Vec<Rank> = spent.map(|(rank, _)| *rank).collect();
            for rank in spent {
                self.take_out(rank);
            }
        }
        self.disarm();
    }

    /// Whether there are zones, and what is told here stays in one of them: then what this member writes waits to be told to the
    /// others [beside that](Self::fill_far). When that begins, what was not told to anybody does so as well.
    ///
    /// Costs nothing unless it changes, and then O(log n) for each own item that was never sent.
    pub fn set_zone_aware(&mut self, zone_aware: bool) {
        if self.zone_aware == zone_aware {
            return;
        }
        self.zone_aware = zone_aware;
        if zone_aware {
            let own = [Class::Own, Class::OwnHeartbeat].into_iter();
            for (rank, item) in own.flat_map(|class| self.items.range(class.sent(0, 1))) {
                self.far.put(rank.turn, Item::clone(item));
            }
        } else {
            self.far.clear();
            self.disarm();
        }
    }

    /// Has this register told to others, unless the queue holds one that is not older.
    ///
    /// `heartbeat` says whether it only shows that its author lives; of a tombstone it is not heeded. Beside news of its entry
    /// that nobody was told yet, as when all of an entry is written at once, a heartbeat is news too: a round goes out for that
    /// anyway, which it makes hardly longer, and those who hear of the entry see all of it change at once. Costs O(log n).
    pub fn push(
        &mut self,
        now: Now,
        key: SmolStr,
        entry: EntryId,
        register: Register,
        own: bool,
        heartbeat: bool,
    ) -> Pushed {
        let place = (key, entry);
        let known = self.ranks.get(&place).copied();
        if let Some(known) = known
            && let Some(item) = self.items.get(&known)
            && !register.supersedes(&item.register)
        {
            self.stats.stale += 1;
            return Pushed::Stale;
        }
        let old = known.and_then(|rank| self.take_out(rank).map(|item| (rank, item)));
        let (turn, since) = match &old {
            // What was never sent keeps its turn: otherwise what is written faster than the line moves would never be sent.
            Some((rank, item)) if rank.sent == 0 => (rank.turn, item.since),
            _ => (self.turn(), now.mono),
        };
        let heartbeat = heartbeat && !register.is_tombstone() && !self.has_news_of(&place);
        let rank = Rank { class: Class::of(own, heartbeat), sent: 0, turn };
        let item =
            Item { key: place.0.clone(), entry: place.1.clone(), register, own, heartbeat, sent: 0, since };
        // Heartbeats, too: where a zone has few members, hardly any of what they relay would go to another one.
        if self.zone_aware && own {
            self.far.put(turn, item.clone());
        } else {
            self.far.remove(&place);
        }
        self.bytes += item.weight();
        self.items.insert(rank, Box::new(item));
        self.ranks.insert(place, rank);
        self.make_room();
        let kept = self.items.contains_key(&rank);
        if kept && !heartbeat {
            self.arm(now);
        }
        // Only now: a round that the replaced item was waiting for is not put off.
        self.disarm();
        match (kept, old) {
            (false, _) => Pushed::Dropped,
            (true, Some(_)) => Pushed::Replaced,
            (true, None) => Pushed::Added,
        }
    }

    /// Offers items for one message with room for `budget_bytes`, in the order of sending, and counts a transmission for each
    /// that `take` takes. Returns how many were taken. What was sent often enough leaves.
    ///
    /// `size_of` says how many bytes an item would add: of one that fits no message whole, what announces it. `take` returns
    /// false if an item did not fit after all; then only smaller ones are offered. After [`MAX_MISSES`] items that did not fit
    /// it ends, so it costs O(log n) for each item taken and no more than that many looks beside.
    pub fn fill(
        &mut self,
        now: Now,
        budget_bytes: usize,
        size_of: impl Fn(&Item) -> usize,
        take: impl FnMut(&Item) -> bool,
    ) -> usize {
        self.fill_of(&Class::ALL, now, budget_bytes, size_of, take)
    }

    /// As [`fill`](Self::fill), but offers no heartbeat.
    ///
    /// For those that a tick tells after it has told somebody all heartbeats. A heartbeat is in no hurry, as its age goes with
    /// it: told to one member at a tick, it travels with those of more ticks in one datagram, and reaches as many.
    pub fn fill_news(
        &mut self,
        now: Now,
        budget_bytes: usize,
        size_of: impl Fn(&Item) -> usize,
        take: impl FnMut(&Item) -> bool,
    ) -> usize {
        self.fill_of(&Class::NEWS, now, budget_bytes, size_of, take)
    }

    fn fill_of(
        &mut self,
        classes: &[Class],
        now: Now,
        budget_bytes: usize,
        size_of: impl Fn(&Item) -> usize,
        take: impl FnMut(&Item) -> bool,
    ) -> usize {
        let firsts = self.line(classes, 0, 1);
        let repeats = self.line(classes, 1, u32::MAX);
        let taken = choose(self.interleaving.merge(firsts, repeats), budget_bytes, size_of, take);
        self.interleaving.advance(taken.len());
        self.count(now, &taken);
        taken.len()
    }

    /// As [`fill`](Self::fill), for a datagram of an eager round: offers no heartbeat, and nothing sent `times` times already.
    ///
    /// With a round's number of receivers as `times`, each of them is told the news, and the rest of an item's transmissions
    /// is left to the tick, so that one moment of loss does not take them all.
    pub fn fill_eager(
        &mut self,
        now: Now,
        times: u32,
        budget_bytes: usize,
        size_of: impl Fn(&Item) -> usize,
        take: impl FnMut(&Item) -> bool,
    ) -> usize {
        let firsts = self.line(&Class::NEWS, 0, times.min(1));
        let repeats = self.line(&Class::NEWS, 1, times.max(1));
        let taken = choose(firsts.chain(repeats), budget_bytes, size_of, take);
        self.count(now, &taken);
        // More news than fits a round deserves another one. If nothing fitted, another would not help.
        if !taken.is_empty() && self.has_news() {
            self.arm(now);
        }
        taken.len()
    }

    /// As [`fill`](Self::fill), for a datagram to other zones: offers what this member wrote and they were not told yet,
    /// however often it was sent here, and each only once. To be called in eager rounds, and in ticks, as rounds are limited.
    pub fn fill_far(
        &mut self,
        now: Now,
        budget_bytes: usize,
        size_of: impl Fn(&Item) -> usize,
        take: impl FnMut(&Item) -> bool,
    ) -> usize {
        let taken = choose(self.far.line(), budget_bytes, size_of, take);
        self.far.sent(&taken);
        self.stats.sent += taken.len() as u64;
        // As in a round near by: there is more than fits, but something did.
        if !taken.is_empty() && self.far.has_news() {
            self.arm(now);
        }
        self.disarm();
        taken.len()
    }

    /// Whether there is something for [`fill_far`](Self::fill_far), be it heartbeats.
    pub fn has_far_news(&self) -> bool {
        !self.far.is_empty()
    }

    /// Whether an eager round is due: there is news that has waited as long as it may.
    pub fn eager(&self, now: Now) -> bool {
        self.eager_due.is_some_and(|due| due <= now.mono)
    }

    /// Begins an eager round if one is due. False if none is, or if there were too many of late; then the news waits for the
    /// tick, or for a round that later news starts.
    pub fn take_eager(&mut self, now: Now) -> bool {
        if !self.eager(now) {
            return false;
        }
        self.eager_due = None;
        let allowed = self.rounds.take(now.mono);
        if !allowed {
            self.stats.eager_limited += 1;
        }
        allowed
    }

    /// When to call [`take_eager`](Self::take_eager), in monotonic time.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.eager_due
    }

    /// Takes the item of a place out, for a register that the store no longer has.
    pub fn remove(&mut self, key: &str, entry: &EntryId) -> Option<Item> {
        let place = (SmolStr::new(key), entry.clone());
        let far = self.far.remove(&place);
        let rank = self.ranks.get(&place).copied();
        let item = rank.and_then(|rank| self.take_out(rank));
        self.disarm();
        item.or(far)
    }

    /// The item of a place, unless it waits for other zones only.
    pub fn get(&self, key: &str, entry: &EntryId) -> Option<&Item> {
        self.items.get(self.ranks.get(&(SmolStr::new(key), entry.clone()))?).map(|item| &**item)
    }

    /// Whether news of this member, which heartbeats are not, was not yet sent as often as it should be, or not yet to other
    /// zones. It ends, whatever else there is to send, unless there is ever more of it.
    pub fn has_own_news(&self) -> bool {
        // Its class is the first.
        let near = self.items.first_key_value().is_some_and(|(rank, _)| rank.class == Class::Own);
        near || self.far.has_news()
    }

    /// How many items wait, without those that wait for other zones only.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether everything has been told.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.far.is_empty()
    }

    /// How many of [them](Self::len) this member wrote. Costs as much.
    pub fn num_own(&self) -> usize {
        self.items.keys().take_while(|rank| rank.class <= Class::OwnHeartbeat).count()
    }

    /// About how much memory they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What happened since the start.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The items of some classes that were sent at least `from` times, but fewer than `below`.
    fn line<'a>(
        &'a self,
        classes: &'a [Class],
        from: u32,
        below: u32,
    ) -> impl Iterator<Item = (&'a Rank, &'a Item)> {
        let lines = classes.iter().flat_map(move |class| self.items.range(class.sent(from, below)));
        lines.map(|(rank, item)| (rank, &**item))
    }

    fn turn(&mut self) -> u64 {
        let turn = self.next_turn;
        self.next_turn += 1;
        turn
    }

    fn take_out(&mut self, rank: Rank) -> Option<Item> {
        let item = self.items.remove(&rank)?;
        self.ranks.remove(&item.place());
        self.bytes -= item.weight();
        Some(*item)
    }

    /// Drops items of others, the last in line first, until the rest is within the bound.
    fn make_room(&mut self) {
        while self.bytes > self.config.max_bytes {
            let Some((&rank, _)) = self.items.last_key_value() else { return };
            match rank.class {
                // Nobody else would tell them, and there are only as many as this member wrote.
                Class::Own | Class::OwnHeartbeat => return,
                Class::Foreign => self.stats.dropped += 1,
                Class::ForeignHeartbeat => self.stats.dropped_heartbeats += 1,
            }
            self.take_out(rank);
        }
    }

    /// A transmission of each of these.
    fn count(&mut self, now: Now, taken: &[Rank]) {
        for rank in taken {
            let Some(mut item) = self.items.remove(rank) else { continue };
            if item.sent == 0 {
                self.stats.first_sent += 1;
                let waited = now.mono.saturating_sub(item.since);
                self.stats.waited = self.stats.waited.saturating_add(waited);
            }
            self.stats.sent += 1;
            item.sent += 1;
            let budget = if item.heartbeat { self.config.heartbeat_transmissions } else { self.budget };
            if item.sent >= budget {
                self.ranks.remove(&item.place());
                self.bytes -= item.weight();
            } else {
                let rank = Rank { sent: item.sent, ..*rank };
                if let Some(known) = self.ranks.get_mut(&item.place()) {
                    *known = rank;
                }
                self.items.insert(rank, item);
            }
        }
        self.disarm();
    }

    /// Whether there is an item to send eagerly to those near.
    fn has_news(&self) -> bool {
        Class::NEWS.into_iter().any(|class| self.items.range(class.sent(0, 1)).next().is_some())
    }

    /// Whether another part of this entry is news that was not sent yet.
    fn has_news_of(&self, (key, entry): &Place) -> bool {
        let part = |facet| (key.clone(), EntryId::new(entry.id.clone(), facet));
        let mut parts = self.ranks.range(part(0)..part(MAX_FACETS));
        parts.any(|(_, rank)| rank.sent == 0 && Class::NEWS.contains(&rank.class))
    }

    fn arm(&mut self, now: Now) {
        if self.eager_due.is_none() && self.config.eager_rounds_per_second > 0 {
            self.eager_due = Some(now.mono.saturating_add(self.config.eager_delay));
        }
    }

    /// Calls the eager round off if the news has gone out otherwise.
    fn disarm(&mut self) {
        if self.eager_due.is_some() && !self.far.has_news() && !self.has_news() {
            self.eager_due = None;
        }
    }
}

#[cfg(test)]
mod tests;
