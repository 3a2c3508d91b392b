//! How a member finds the others: once when it joins, and again whenever some are lost to it. And whom it compares with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::seq::index::sample;

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
/// How many members may fail to hold a second session before it starts over.
const MAX_FAILED: usize = 8;
/// How long a seed may be no member before the others are taken for lost.
const LOST_AFTER: Duration = Duration::from_secs(60);

/// How far joining has got.
#[derive(Debug)]
pub(super) struct Join {
    /// Without this member's own addresses.
    seeds: Vec<SocketAddr>,
    /// Addresses that turned out to lead here.
    own: BTreeSet<SocketAddr>,
    next_at: Duration,
    backoff: Duration,
    /// How many rounds of asking seeds came to nothing.
    attempts: u32,
    /// The member that the first session was with.
    first: Option<u64>,
    /// How many second sessions moved something.
    seconds: u32,
    /// Members that no second session could be held with.
    failed: Vec<u64>,
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
            own: BTreeSet::new(),
            next_at: Duration::ZERO,
            backoff,
            attempts: 0,
            first: None,
            seconds: 0,
            failed: Vec::new(),
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
        self.first = None;
        self.seconds = 0;
        self.failed.clear();
        self.trouble = None;
    }

    /// Somebody answered at the address of a seed, or of somebody else.
    pub(super) fn answered(&mut self, at: SocketAddr, by: NodeId) {
        if at != by.addr && self.seeds.contains(&at) {
            self.behind.insert(at, by.name);
        }
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
        let own = self.config.addr;
        let others = seeds.iter().copied().filter(|seed| *seed != own && !self.join.own.contains(seed));
        let others: BTreeSet<SocketAddr> = others.take(MAX_SEEDS).collect();
        let is_first = self.phase == Phase::Resolving;
        // When nothing is found any more, what was found last is the better guess.
        if others.is_empty() && seeds.is_empty() && !is_first {
            return;
        }
        self.join.seeds = others.into_iter().collect();
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
        if self.phase == Phase::Joining && self.join.seeds.is_empty() {
            self.settle(now, out);
        }
    }

    /// What is stored is as good as anybody's.
    fn settle(&mut self, now: Now, out: &mut Vec<Output>) {
        self.settled = true;
        self.join.begin(now.mono, self.config.join_backoff.0);
        self.sync_at = now.mono.saturating_add(self.jittered(self.config.sync_interval, 0.0, 1.0));
        let beacon_in = self.jittered(self.config.beacon_interval, 0.0, 0.5);
        self.beacon_at = now.mono.saturating_add(beacon_in);
        if !self.synced {
            self.synced = true;
            out.push(Output::Event(Event::Synced));
        }
        if self.phase == Phase::Joining {
            self.set_phase(Phase::Active, out);
        }
    }

    /// When [`run_join`](Self::run_join) has something to do.
    pub(super) fn join_deadline(&self) -> Option<Duration> {
        if matches!(self.phase, Phase::Resolving | Phase::Leaving) {
            return None;
        }
        if !self.settled {
            return Some(self.join.next_at);
        }
        (!self.join.seeds.is_empty()).then_some(self.seed_check_at)
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
            self.ask_seeds(now, out);
            self.back_off(now);
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

    /// Asks some seeds for all they have.
    fn ask_seeds(&mut self, now: Now, out: &mut Vec<Output>) {
        let asked = self.num_seeds_asked();
        let room = self.config.join_parallel.max(1).saturating_sub(asked);
        let addrs: Vec<SocketAddr> = if self.join.seeds.is_empty() {
            // Somebody who was found by others and has to begin anew.
            let peers = self.peers.gossip_targets(&mut self.random, room, &[]);
            peers.into_iter().map(|peer| peer.addr).collect()
        } else {
            let seeds = self.join.seeds.clone();
            self.some_of(&seeds, room)
        };
        for addr in addrs {
            self.compare_with(now, addr, Why::Seed, out);
        }
        if self.num_seeds_asked() == 0 {
            self.join.came_to_nothing();
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
            self.back_off(now);
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
                self.join.first = None;
                self.join.failed.clear();
                self.join.came_to_nothing();
                self.back_off(now);
            }
            None => self.settle(now, out),
        }
    }

    /// All there is was compared with a member, and so many registers were taken from it. With `trouble`, many were not.
    pub(super) fn on_compared(
        &mut self,
        now: Now,
        why: Why,
        with: NodeId,
        moved: u64,
        trouble: Option<&'static str>,
        out: &mut Vec<Output>,
    ) {
        if self.settled || why == Why::Repair || self.phase == Phase::Leaving {
            return;
        }
        self.join.trouble = trouble;
        if let Some(trouble) = trouble {
            refuse(trouble, out);
            self.end_round(why);
            self.ask_another(now, why, out);
            return;
        }
        match self.join.first {
            None => {
                self.join.first = Some(with.name);
                self.begin_second(now, out);
            }
            // The same member again says nothing new.
            Some(first) if first == with.name => (),
            Some(_) if moved == 0 || self.join.seconds >= MAX_SECONDS => self.settle(now, out),
            Some(_) => {
                self.join.seconds += 1;
                self.begin_second(now, out);
            }
        }
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
        self.end_round(why);
        if own {
            if self.join.own.len() < MAX_SEEDS {
                self.join.own.insert(addr);
            }
            self.join.seeds.retain(|seed| *seed != addr);
            self.join.lost.remove(&addr);
            self.join.behind.remove(&addr);
            self.found_if_alone(now, out);
        }
        self.ask_another(now, why, out);
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
