//! How a member finds the others: once when it joins, and again whenever some are lost to it. And whom it compares with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::seq::index::sample;

use super::rounds::Rounds;
use super::streams::Why;
use super::{Node, SEED_CHECK, refuse};
use crate::api::{Event, Output, Phase};
use crate::id::NodeId;
use crate::swim::SwimOut;
use crate::time::Now;

/// How many seeds are heeded.
const MAX_SEEDS: usize = 1024;
/// How many second sessions may move something: among many who write, there may be none that does not.
const MAX_SECONDS: u32 = 5;
/// How many members may fail to hold a second session before it waits and asks them again, and how often it does.
const MAX_FAILED: usize = 8;
const MAX_FRUITLESS: u32 = 2;
/// How often in a row an address has to lead to this member itself until nobody else is expected there: a service leads to
/// whoever is next.
const MAX_OWN_HITS: u32 = 3;
/// After how long it is asked again nevertheless.
const OWN_AGAIN: Duration = Duration::from_secs(60);
/// How long a seed may be no member before the others are taken for lost.
const LOST_AFTER: Duration = Duration::from_secs(60);

/// What came of comparing all there is with a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared {
    pub(super) with: NodeId,
    /// Whether it had joined itself.
    pub(super) settled: bool,
    /// How many registers were taken from it.
    pub(super) moved: u64,
    /// Why many were not.
    pub(super) trouble: Option<&'static str>,
}

/// How far joining has got.
#[derive(Debug)]
pub(super) struct Join {
    /// Without this member's own addresses.
    seeds: Vec<SocketAddr>,
    /// Seeds that turned out to lead here, and when to ask them again.
    own: BTreeMap<SocketAddr, Duration>,
    /// Seeds that led here the last time, and how often in a row.
    own_hits: BTreeMap<SocketAddr, u32>,
    rounds: Rounds,
    next_at: Duration,
    rejoin_at: Duration,
    backoff: Duration,
    /// How many rounds of asking seeds came to nothing.
    attempts: u32,
    /// The member that the first session was with.
    first: Option<u64>,
    /// Whether it had not joined itself, and nobody who has was found: this is a cluster that begins.
    cold: bool,
    /// How many second sessions moved something.
    seconds: u32,
    /// Members that no second session could be held with.
    failed: Vec<u64>,
    /// How often there were so many of them that they were asked again.
    fruitless: u32,
    /// Why the last session left this member without what the others have.
    trouble: Option<&'static str>,
    /// Seeds that are no members, and since when.
    lost: BTreeMap<SocketAddr, Duration>,
    /// Who answered last at a seed that is not where it says to be: behind a name of its own, or behind a service.
    behind: BTreeMap<SocketAddr, u64>,
}

impl Join {
    pub(super) fn new(backoff: Duration) -> Self {
        Self {
            seeds: Vec::new(),
            own: BTreeMap::new(),
            own_hits: BTreeMap::new(),
            rounds: Rounds::default(),
            next_at: Duration::ZERO,
            rejoin_at: Duration::ZERO,
            backoff,
            attempts: 0,
            first: None,
            cold: false,
            seconds: 0,
            failed: Vec::new(),
            fruitless: 0,
            trouble: None,
            lost: BTreeMap::new(),
            behind: BTreeMap::new(),
        }
    }

    /// Starts over.
    pub(super) fn begin(&mut self, now: Duration, backoff: Duration) {
        self.next_at = now;
        self.backoff = backoff;
        self.attempts = 0;
        self.forget_first();
        self.seconds = 0;
        self.fruitless = 0;
        self.trouble = None;
        self.rounds.begin();
    }

    fn forget_first(&mut self) {
        self.first = None;
        self.cold = false;
        self.failed.clear();
    }

    /// Somebody else answered at the address of a seed, or of a member, and has joined itself or not.
    pub(super) fn answered(&mut self, now: Duration, at: SocketAddr, by: NodeId, settled: bool) {
        self.own_hits.remove(&at);
        if self.own.remove(&at).is_some() {
            self.seeds.push(at);
        }
        if !self.seeds.contains(&at) {
            return;
        }
        if at != by.addr {
            self.behind.insert(at, by.name);
        }
        self.rounds.answered(now, at, settled);
    }

    /// A seed led to this member itself. While it looks for others, it asks there some more times.
    fn led_here(&mut self, now: Duration, at: SocketAddr, joins: bool) {
        let is_seed = self.seeds.contains(&at);
        if joins && is_seed {
            let hits = self.own_hits.entry(at).or_default();
            *hits += 1;
            if *hits < MAX_OWN_HITS {
                return;
            }
        }
        if is_seed || self.own.contains_key(&at) {
            self.take_for_own(now, at);
        }
    }

    fn take_for_own(&mut self, now: Duration, at: SocketAddr) {
        self.own.insert(at, now.saturating_add(OWN_AGAIN));
        self.own_hits.remove(&at);
        self.seeds.retain(|seed| *seed != at);
        self.lost.remove(&at);
        self.behind.remove(&at);
    }

    /// The addresses that led here long ago.
    fn own_to_ask(&self, now: Duration) -> Vec<SocketAddr> {
        self.own.iter().filter(|(_, at)| **at <= now).map(|(addr, _)| *addr).collect()
    }

    /// See [`Status::join_trouble`](crate::api::Status::join_trouble).
    pub(super) fn trouble(&self) -> Option<&'static str> {
        self.trouble
    }

    pub(super) fn num_lost(&self) -> usize {
        self.lost.len()
    }

    /// See [`Status::join_attempts`](crate::api::Status::join_attempts).
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The seeds, and since when each of them is no member.
    pub(super) fn seeds(&self) -> impl Iterator<Item = (SocketAddr, Option<Duration>)> {
        self.seeds.iter().map(|seed| (*seed, self.lost.get(seed).copied()))
    }

    fn came_to_nothing(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }
}

impl Node {
    pub(super) fn on_seeds(&mut self, now: Now, seeds: &[SocketAddr], out: &mut Vec<Output>) {
        let (own, is_empty) = (self.config.addr, seeds.is_empty());
        let seeds: BTreeSet<SocketAddr> = seeds.iter().copied().filter(|seed| *seed != own).collect();
        let others = seeds.iter().copied().filter(|seed| !self.join.own.contains_key(seed));
        let others: Vec<SocketAddr> = others.take(MAX_SEEDS).collect();
        let is_first = self.phase == Phase::Resolving;
        // When nothing is found any more, what was found last is the better guess.
        if is_empty && !is_first {
            return;
        }
        self.join.own.retain(|addr, _| seeds.contains(addr));
        self.join.own_hits.retain(|addr, _| seeds.contains(addr));
        self.join.seeds = others;
        let Join { seeds, lost, behind, .. } = &mut self.join;
        lost.retain(|seed, _| seeds.contains(seed));
        behind.retain(|seed, _| seeds.contains(seed));
        if is_first {
            self.set_phase(Phase::Joining, out);
            self.join.begin(now.mono, self.config.join_backoff.0);
        }
        self.found_if_alone(now, out);
    }

    /// Nobody is to be asked: this is where a new cluster begins.
    fn found_if_alone(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.phase == Phase::Joining && self.join.seeds.is_empty() && self.peers.is_empty() {
            self.settle(now, out);
        }
    }

    /// What is stored is as good as anybody's.
    fn settle(&mut self, now: Now, out: &mut Vec<Output>) {
        self.settled = true;
        self.join.begin(now.mono, self.config.join_backoff.0);
        for addr in std::mem::take(&mut self.join.own_hits).into_keys() {
            self.join.take_for_own(now.mono, addr);
        }
        self.plan_rejoin(now);
        self.sync_at = now.mono.saturating_add(self.jittered(self.config.sync_interval, 0.0, 1.0));
        let beacon_in = self.jittered(self.config.beacon_interval, 0.0, 0.5);
        self.beacon_at = now.mono.saturating_add(beacon_in);
        if !self.synced {
            self.synced = true;
            out.push(Output::Event(Event::Synced));
        }
        if matches!(self.phase, Phase::Resolving | Phase::Joining) {
            self.set_phase(Phase::Active, out);
        }
    }

    fn plan_rejoin(&mut self, now: Now) {
        let wait = self.jittered(self.config.rejoin_interval, 0.88, 1.12);
        self.join.rejoin_at = now.mono.saturating_add(wait);
    }

    /// When [`run_join`](Self::run_join) has something to do.
    pub(super) fn join_deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Leaving => None,
            // Without seeds, whoever was found by others asks those.
            Phase::Resolving if self.peers.is_empty() => None,
            _ if !self.settled => Some(self.join.next_at),
            _ => (!self.join.seeds.is_empty() || !self.join.own.is_empty()).then_some(self.seed_check_at),
        }
    }

    pub(super) fn run_join(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.join_deadline().is_none_or(|at| at > now.mono) {
            return;
        }
        if self.settled {
            self.seed_check_at = now.mono.saturating_add(SEED_CHECK);
            self.check_seeds(now, out);
        } else if self.join.first.is_some() {
            self.begin_second(now, out);
        } else {
            self.found_if_alone(now, out);
            if !self.settled {
                self.ask_seeds(now, out);
                self.back_off(now);
            }
        }
    }

    /// Nobody is heard any more: the seeds are asked at once.
    pub(super) fn seek_at_once(&mut self, now: Now) {
        self.seed_check_at = now.mono;
        if self.settled {
            self.join.begin(now.mono, self.config.join_backoff.0);
        }
    }

    /// Puts the next attempt off, each time for longer.
    fn back_off(&mut self, now: Now) {
        let wait = self.jittered(self.join.backoff, 0.75, 1.25);
        self.join.next_at = now.mono.saturating_add(wait);
        self.join.backoff = self.join.backoff.saturating_mul(2).min(self.config.join_backoff.1);
    }

    /// Asks some seeds for all they have, and some member if there are any: seeds may all be gone.
    fn ask_seeds(&mut self, now: Now, out: &mut Vec<Output>) {
        let room = self.room_for_seeds();
        let seeds = self.seeds_to_ask(now);
        let mut addrs = self.some_of(&seeds, room);
        // Nobody but members may be left to ask.
        let num_peers = if self.join.seeds.is_empty() { room } else { room.min(1) };
        let peers = self.peers.gossip_targets(&mut self.random, num_peers, &[]);
        addrs.extend(peers.into_iter().map(|peer| peer.addr));
        for addr in addrs {
            self.compare_with(now, addr, Why::Seed, out);
        }
        if self.num_seeds_asked() == 0 {
            self.join.came_to_nothing();
        }
    }

    fn room_for_seeds(&self) -> usize {
        self.config.join_parallel.max(1).saturating_sub(self.num_seeds_asked())
    }

    /// While this member joins, the seeds that it has not asked in this round; when all were, another round begins.
    fn seeds_to_ask(&mut self, now: Now) -> Vec<SocketAddr> {
        if self.settled {
            return self.join.seeds.clone();
        }
        for addr in self.join.own_to_ask(now.mono) {
            self.join.own.remove(&addr);
            self.join.seeds.push(addr);
        }
        let left = self.seeds_left();
        let asks = self.join.seeds.iter().any(|seed| self.is_comparing_with(*seed));
        if !left.is_empty() || asks {
            return left;
        }
        self.join.rounds.begin();
        self.join.seeds.clone()
    }

    /// The seeds that were not asked in this round.
    fn seeds_left(&self) -> Vec<SocketAddr> {
        let seeds = self.join.seeds.iter().copied();
        seeds.filter(|seed| !self.join.rounds.is_known(*seed) && !self.is_comparing_with(*seed)).collect()
    }

    /// Somebody who has not joined either was compared with. That is as good as anything if nobody has joined, which is not known
    /// before all seeds were asked.
    fn weigh_candidate(&mut self, now: Now, out: &mut Vec<Output>) {
        let waits = self.join.first.is_none() && !matches!(self.phase, Phase::Resolving | Phase::Leaving);
        let Some(candidate) = self.join.rounds.candidate().filter(|_| waits && !self.settled) else { return };
        if self.join.rounds.is_cold(&self.join.seeds) {
            self.join.first = Some(candidate);
            self.join.cold = true;
            self.begin_second(now, out);
            return;
        }
        let left = self.seeds_left();
        for addr in self.some_of(&left, self.room_for_seeds()) {
            self.compare_with(now, addr, Why::Seed, out);
        }
    }

    fn some_of(&mut self, addrs: &[SocketAddr], most: usize) -> Vec<SocketAddr> {
        let drawn = sample(&mut self.random, addrs.len(), addrs.len().min(most));
        drawn.into_iter().map(|place| addrs[place]).collect()
    }

    /// Compares with a member that was not the first, to have what the first one may have missed.
    fn begin_second(&mut self, now: Now, out: &mut Vec<Output>) {
        let mut exclude = self.join.failed.clone();
        exclude.extend(self.join.first);
        if exclude.len() > MAX_FAILED {
            self.join.failed.clear();
            self.join.came_to_nothing();
            self.join.fruitless = self.join.fruitless.saturating_add(1);
            if self.join.fruitless >= MAX_FRUITLESS && self.join.trouble.is_none() {
                // One had all there is, as far as anybody can say.
                refuse("no_second", out);
                self.settle(now, out);
            } else {
                self.back_off(now);
            }
            return;
        }
        match self.peers.sync_target(&mut self.random, &exclude) {
            Some(target) => {
                // By then it has failed or is done.
                let timeout = self.config.session_timeout.saturating_add(self.config.join_backoff.0);
                self.join.next_at = now.mono.saturating_add(timeout);
                self.compare_with(now, target.addr, Why::Second(target.name), out);
            }
            // Nobody is left to ask, but what was asked for is not here.
            None if self.join.trouble.is_some() => {
                self.join.forget_first();
                self.join.came_to_nothing();
                self.back_off(now);
            }
            None => self.settle(now, out),
        }
    }

    /// A comparison of all there is, which this member began, is done.
    pub(super) fn on_compared(&mut self, now: Now, why: Why, did: Compared, out: &mut Vec<Output>) {
        if self.settled || self.phase == Phase::Leaving {
            return;
        }
        let Compared { with, settled, moved, trouble } = did;
        self.join.trouble = trouble;
        if let Some(trouble) = trouble {
            refuse(trouble, out);
            self.end_round(why);
            self.ask_another(now, why, out);
            self.weigh_candidate(now, out);
            return;
        }
        match self.join.first {
            None if settled => self.begin_with(now, with, out),
            None => {
                self.join.rounds.compared(now.mono, with.name);
                self.weigh_candidate(now, out);
                if !self.settled {
                    self.end_round(why);
                }
            }
            // Somebody has joined after all.
            Some(_) if settled && self.join.cold => self.begin_with(now, with, out),
            // The same member again says nothing new.
            Some(first) if first == with.name => (),
            // It may have missed what the first one has missed.
            Some(_) if !settled && !self.join.cold => {
                self.join.failed.push(with.name);
                self.begin_second(now, out);
            }
            Some(_) if moved == 0 || self.join.seconds >= MAX_SECONDS => self.settle(now, out),
            Some(_) => {
                self.join.seconds += 1;
                self.begin_second(now, out);
            }
        }
    }

    /// The first session was with a member that has joined.
    fn begin_with(&mut self, now: Now, with: NodeId, out: &mut Vec<Output>) {
        self.join.forget_first();
        self.join.first = Some(with.name);
        self.begin_second(now, out);
    }

    /// A comparison that this member began came to nothing; `own` if the address leads here.
    pub(super) fn on_not_compared(
        &mut self,
        now: Now,
        why: Why,
        addr: SocketAddr,
        own: bool,
        out: &mut Vec<Output>,
    ) {
        if self.join.seeds.contains(&addr) {
            self.join.rounds.failed(now.mono, addr);
        }
        self.end_round(why);
        if own {
            self.join.led_here(now.mono, addr, !self.settled);
            self.found_if_alone(now, out);
        }
        self.ask_another(now, why, out);
        self.weigh_candidate(now, out);
    }

    /// Asking a seed came to nothing.
    fn end_round(&mut self, why: Why) {
        // It may be the last of a round.
        if why == Why::Seed && self.join.first.is_none() && self.num_seeds_asked() == 0 {
            self.join.came_to_nothing();
        }
    }

    /// A session that this member began left it without what the other one has.
    fn ask_another(&mut self, now: Now, why: Why, out: &mut Vec<Output>) {
        if self.settled || self.join.first.is_none() || self.phase == Phase::Leaving {
            return;
        }
        if let Why::Second(name) = why {
            self.join.failed.push(name);
        }
        // A second session may have waited for this one.
        self.begin_second(now, out);
    }

    /// Looks whether the seeds are members, and looks for those that are not.
    fn check_seeds(&mut self, now: Now, out: &mut Vec<Output>) {
        // Whoever is behind a service may have been somebody else by now.
        for addr in self.join.own_to_ask(now.mono) {
            self.join.take_for_own(now.mono, addr);
            self.compare_with(now, addr, Why::Repair, out);
        }
        if !self.config.rejoin_interval.is_zero() && self.join.rejoin_at <= now.mono {
            self.plan_rejoin(now);
            let seeds = self.join.seeds.clone();
            for addr in self.some_of(&seeds, self.config.join_parallel.max(1)) {
                self.compare_with(now, addr, Why::Repair, out);
            }
        }
        let Self { join, peers, .. } = self;
        for seed in &join.seeds {
            let behind = join.behind.get(seed).is_some_and(|name| peers.is_live(*name));
            if behind || peers.by_addr(*seed).is_some() {
                join.lost.remove(seed);
            } else {
                join.lost.entry(*seed).or_insert(now.mono);
            }
        }
        let lost = join.lost.iter().filter(|(_, since)| now.mono.saturating_sub(**since) >= LOST_AFTER);
        let lost: Vec<SocketAddr> = lost.map(|(seed, _)| *seed).collect();
        let alone = self.peers.is_empty();
        if alone && self.join.seeds.is_empty() {
            return;
        }
        if !alone && lost.is_empty() {
            self.join.begin(now.mono, self.config.join_backoff.0);
            if self.phase == Phase::Lonely {
                self.set_phase(Phase::Active, out);
            }
            return;
        }
        if self.phase == Phase::Active {
            self.set_phase(Phase::Lonely, out);
        }
        if self.join.next_at > now.mono {
            return;
        }
        self.back_off(now);
        if alone {
            self.ask_seeds(now, out);
            return;
        }
        for addr in self.some_of(&lost, self.config.join_parallel.max(1)) {
            let mut did = SwimOut::default();
            self.swim.announce_at(now, addr, &mut did);
            self.follow_swim(now, did, out);
            // Whoever answers says who it is.
            self.compare_with(now, addr, Why::Repair, out);
        }
    }

    /// Compares digests with some member now and then, and all there is with one that differs or does not answer.
    pub(super) fn run_syncs(&mut self, now: Now, out: &mut Vec<Output>) {
        if let Some((addr, _)) = self.asked.take_if(|(_, until)| *until <= now.mono) {
            self.compare_with(now, addr, Why::Repair, out);
        }
        if let Some((_, last)) = self.resync.take_if(|(at, _)| *at <= now.mono)
            && let Some(target) = self.peers.sync_target(&mut self.random, &[last])
        {
            self.compare_with(now, target.addr, Why::Repair, out);
        }
        if self.settled && self.sync_at <= now.mono && !self.peers.is_empty() {
            self.sync_at = now.mono.saturating_add(self.jittered(self.config.sync_interval, 0.88, 1.12));
            if let Some(target) = self.peers.sync_target(&mut self.random, &[]) {
                self.send_digest(now, target.addr, out);
            }
        }
    }

    /// A member answered to a digest, in whatever way.
    pub(super) fn was_answered(&mut self, addr: SocketAddr) {
        if self.asked.is_some_and(|(asked, _)| asked == addr) {
            self.asked = None;
        }
    }
}
