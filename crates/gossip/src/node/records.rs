//! What a member stores, takes in, and says of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use smol_str::SmolStr;

use super::{About, BEACON_KEY, MEMBERS_KEY, Node, is_internal, refuse};
use crate::api::{Event, Output, Phase};
use crate::id::name_hash;
use crate::register::{Body, EntryId, Register};
use crate::store::{Contested, HEARTBEAT_FACET, Merged, Reason, Slot, Ticked};
use crate::sync::Taken;
use crate::time::Now;
use crate::wire::Record;

/// How soon what others have of this member is put right: not at once, in case two members insist.
const ABOUT_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often one register is written again that another process under this member's name has replaced, so that two of them do
/// not fight as fast as they can.
const REISSUE_PERIOD: Duration = Duration::from_secs(1);

/// What is to be [written again](Node::run_reissues).
#[derive(Debug)]
pub(super) struct Reissue {
    /// When, or if there is nothing at present, from when on.
    at: Duration,
    contested: Option<Contested>,
}

impl Node {
    /// Takes in a register from another member, and has it told to others if it is news. `relayed` is false for what everybody
    /// is likely to have.
    pub(super) fn take_record(
        &mut self,
        now: Now,
        record: &Record<'_>,
        relayed: bool,
        out: &mut Vec<Output>,
    ) -> Taken {
        let entry = record.entry();
        // Four of five that come in are known, which can be seen without a copy of them.
        if self.store.get(record.key, &entry).is_some_and(|held| record.holds(held.register())) {
            return Taken::Known;
        }
        let register = record.register();
        let contested = self.store.contested(record.key, &entry, &register);
        let age = record.age_ms.map(Duration::from_millis);
        let beat_age_ms = record.age_ms.filter(|_| self.is_beat(record.key, &entry, &register));
        match self.store.merge(now, record.key, &entry, &register, age) {
            Merged::New | Merged::Changed => {
                if let Some(age_ms) = beat_age_ms {
                    self.clocks.note(now, register.author, register.version.hlc, age_ms);
                }
                self.note_internal(now, record.key, &entry, &register, out);
                if let Some(contested) = contested {
                    self.contest(now, record.key, &entry, contested);
                }
                if relayed {
                    self.push(now, record.key, &entry, register);
                }
                Taken::Changed
            }
            Merged::Same => Taken::Known,
            Merged::Older => Taken::Older,
            // Who joins is told what was removed before.
            Merged::Refused(Reason::TombstoneTooOld)
                if !self.settled && self.store.get(record.key, &entry).is_none() =>
            {
                self.store.remember(record.key, &entry, &register);
                Taken::Known
            }
            Merged::Refused(reason) => self.refused(now, record, reason, out),
        }
    }

    /// A register was not stored.
    fn refused(&mut self, now: Now, record: &Record<'_>, reason: Reason, out: &mut Vec<Output>) -> Taken {
        refuse(reason.label(), out);
        match reason {
            Reason::ClockAhead => {
                let ahead_ms = record.version.hlc.ms().saturating_sub(now.wall_ms);
                let ahead = Duration::from_millis(ahead_ms);
                out.push(Output::Event(Event::Quarantined { author: record.author, ahead }));
                if self.peers.is_live(record.author) { Taken::Ahead } else { Taken::Refused }
            }
            // What was written later than that is here.
            Reason::TombstoneTooOld if self.store.get(record.key, &record.entry()).is_some() => Taken::Older,
            reason if reason.is_full() => Taken::Full,
            _ => Taken::Refused,
        }
    }

    /// Whether a register that is about to be merged is a heartbeat whose time is the one at which it was written. Of the first
    /// one of an entry nobody can tell; what was restamped has the body of the one before, and what overrules another one has
    /// another author or epoch than that.
    fn is_beat(&self, key: &str, entry: &EntryId, register: &Register) -> bool {
        if entry.facet != HEARTBEAT_FACET || register.is_tombstone() || !self.peers.is_live(register.author) {
            return false;
        }
        let held = self.store.get(key, entry).map(Slot::register);
        held.is_some_and(|held| {
            held.author == register.author
                && held.version.epoch == register.version.epoch
                && held.body != register.body
        })
    }

    /// What this process wrote was replaced by something from a former life, which is to be overruled in turn.
    fn contest(&mut self, now: Now, key: &str, entry: &EntryId, contested: Contested) {
        if is_internal(key) {
            return;
        }
        let place = (SmolStr::new(key), entry.clone());
        let reissue = self.reissues.entry(place).or_insert(Reissue { at: now.mono, contested: None });
        reissue.contested = Some(contested);
    }

    /// When [`run_reissues`](Self::run_reissues) has something to do.
    pub(super) fn reissue_deadline(&self) -> Option<Duration> {
        self.reissues.values().map(|reissue| reissue.at).min()
    }

    /// Writes again what this process wrote and a former life has replaced.
    fn run_reissues(&mut self, now: Now) {
        let due = self.reissues.iter().filter(|(_, reissue)| reissue.at <= now.mono);
        let due: Vec<(SmolStr, EntryId)> = due.map(|(place, _)| place.clone()).collect();
        for place in due {
            let Some(reissue) = self.reissues.get_mut(&place) else { continue };
            let Some(contested) = reissue.contested.take() else {
                self.reissues.remove(&place);
                continue;
            };
            reissue.at = now.mono.saturating_add(REISSUE_PERIOD);
            let (key, entry) = &place;
            if let Some(register) = self.store.reissue(now, key, entry, contested, &mut self.clock) {
                self.push(now, key, entry, register);
            }
        }
    }

    /// Has a register told to others.
    pub(super) fn push(&mut self, now: Now, key: &str, entry: &EntryId, register: Register) {
        if self.queue.is_empty() {
            // The tick has rested. If it came at once, what comes next would have to wait for another one.
            self.gossip_at = self.gossip_at.max(now.mono.saturating_add(self.config.gossip_interval));
        }
        let own = register.author == self.own_name;
        // Others wait for the first heartbeat of an entry as they do for its other parts: nobody shows the entry without it.
        let heartbeat = self.config.queue.is_heartbeat(entry, &register)
            && self.store.get(key, entry).is_some_and(Slot::only_beats);
        if own && !heartbeat {
            self.wrote_more();
        }
        self.queue.push(now, SmolStr::new(key), entry.clone(), register, own, heartbeat);
    }

    /// Tells what changed in the store.
    pub(super) fn tell_changes(&mut self, out: &mut Vec<Output>) {
        let changes = self.store.take_changes();
        if changes.everything {
            let keys = self.store.keys().map(SmolStr::new);
            out.extend(keys.map(|key| Output::Event(Event::Changed { key, entries: Vec::new() })));
            return;
        }
        let mut by_key: BTreeMap<SmolStr, Vec<EntryId>> = BTreeMap::new();
        for (key, entry) in changes.entries {
            by_key.entry(key).or_default().push(entry);
        }
        let events = by_key.into_iter().map(|(key, entries)| Event::Changed { key, entries });
        out.extend(events.map(Output::Event));
    }

    /// What time does to what is stored.
    pub(super) fn run_store(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.store_tick_at <= now.mono {
            self.store_tick_at = now.mono.saturating_add(self.config.limits.until_tick(now));
            let Ticked { restamped, expired } = self.store.tick(now, &mut self.clock);
            // Nobody may ever have been there to be told.
            for (key, entry) in &expired {
                self.queue.remove(key, entry);
            }
            for (key, entry) in restamped {
                let register = self.store.get(&key, &entry).map(|slot| slot.register().clone());
                if let Some(register) = register {
                    self.push(now, &key, &entry, register);
                }
            }
            self.clocks.forget_old(now);
            self.forget_members(now);
        }
        self.run_reissues(now);
        if self.about_at.take_if(|at| *at <= now.mono).is_some() {
            self.write_about(now, out);
        }
        if self.has_beacons() && self.beacon_at <= now.mono {
            self.run_beacon(now, out);
        }
    }

    /// Writes registers of a key anew: those of one entry, or those that are ahead of our clock.
    ///
    /// This member is their author from then on, until their owner writes them again.
    pub(super) fn heal(&mut self, now: Now, key: &SmolStr, id: Option<&SmolStr>, out: &mut Vec<Output>) {
        if is_internal(key) {
            refuse("internal_key", out);
            return;
        }
        if self.phase == Phase::Leaving {
            refuse("leaving", out);
            return;
        }
        let to_heal = self.store.live(key).filter(|(entry, slot)| match id {
            Some(id) => entry.id == *id,
            None => slot.register().version.hlc.ms() > now.wall_ms,
        });
        let to_heal: Vec<EntryId> = to_heal.map(|(entry, _)| entry.clone()).collect();
        for entry in to_heal {
            if let Some(register) = self.store.heal(now, key, &entry, &mut self.clock) {
                self.totals.healed = self.totals.healed.saturating_add(1);
                self.push(now, key, &entry, register);
            }
        }
    }

    /// Says what this member is.
    pub(super) fn write_about(&mut self, now: Now, out: &mut Vec<Output>) {
        let (entry, about) = (self.about_place(), self.about().encode());
        self.write_own(now, MEMBERS_KEY, &entry, about, out);
    }

    /// Says that this member is no more.
    pub(super) fn remove_about(&mut self, now: Now) {
        let entry = self.about_place();
        if let Some(register) = self.store.remove(now, MEMBERS_KEY, &entry, &mut self.clock) {
            self.push(now, MEMBERS_KEY, &entry, register);
        }
    }

    /// Removes what members said about themselves that are long gone. Everybody sees that, and it is enough if one does it: so
    /// each does it as rarely as makes it about one in every round.
    fn forget_members(&mut self, now: Now) {
        // Who is alone lost the others, not the others themselves.
        if !self.settled || self.phase == Phase::Leaving || self.peers.is_empty() {
            self.absent.clear();
            return;
        }
        let mut absent = BTreeMap::new();
        let mut due = Vec::new();
        for (entry, _) in self.store.live(MEMBERS_KEY) {
            let name = name_hash(&entry.id);
            if name == self.own_name || self.peers.is_live(name) || self.swim.knows(name) {
                continue;
            }
            let since = self.absent.get(&name).copied().unwrap_or(now.mono);
            absent.insert(name, since);
            if now.mono.saturating_sub(since) >= self.config.forget_members_after {
                due.push(entry.clone());
            }
        }
        self.absent = absent;
        for entry in due {
            let lot = self.random.random_range(0..=self.peers.len());
            if lot == 0
                && let Some(register) = self.store.remove(now, MEMBERS_KEY, &entry, &mut self.clock)
            {
                self.push(now, MEMBERS_KEY, &entry, register);
            }
        }
    }

    /// What the member with this name has said about itself.
    pub(super) fn about_of(&self, name: u64) -> Option<About> {
        // The hash of a name is that of an entry's id.
        let entry = self.store.find(MEMBERS_KEY, name, 0)?;
        let register = self.store.get(MEMBERS_KEY, entry)?.register();
        about_said(name, register)
    }

    /// The zone that the member with this name has said to be in.
    pub(super) fn zone_of(&self, name: u64) -> Option<SmolStr> {
        self.about_of(name).map(|about| about.zone)
    }

    pub(super) fn has_beacons(&self) -> bool {
        let takes_part = matches!(self.phase, Phase::Active | Phase::Lonely);
        takes_part && self.settled && !self.config.beacon_interval.is_zero()
    }

    /// Sends out a beacon if nobody else did.
    fn run_beacon(&mut self, now: Now, out: &mut Vec<Output>) {
        let interval = self.config.beacon_interval;
        let entry = beacon_place();
        let age = self.store.get(BEACON_KEY, &entry).map_or(Duration::MAX, |slot| slot.age(now));
        if age >= interval {
            self.totals.beacons = self.totals.beacons.saturating_add(1);
            self.write_own(now, BEACON_KEY, &entry, Bytes::new(), out);
            self.await_beacon(now, Duration::ZERO);
        } else {
            self.await_beacon(now, age);
        }
    }

    /// The last beacon is this old: the next one is due an interval after it, by whoever draws the shortest wait.
    pub(super) fn await_beacon(&mut self, now: Now, age: Duration) {
        let interval = self.config.beacon_interval;
        let jitter = self.jittered(interval, 0.0, 0.5);
        self.beacon_at = now.mono.saturating_add(interval.saturating_sub(age)).saturating_add(jitter);
    }

    pub(super) fn about(&self) -> About {
        let config = &self.config;
        About { name: config.name.clone(), zone: config.zone.clone(), build: config.build.clone() }
    }

    fn about_place(&self) -> EntryId {
        EntryId::new(self.config.name.clone(), 0)
    }

    fn write_own(&mut self, now: Now, key: &str, entry: &EntryId, bytes: Bytes, out: &mut Vec<Output>) {
        match self.store.upsert(now, key, entry, bytes, &mut self.clock) {
            Ok(register) => self.push(now, key, entry, register),
            Err(reason) => refuse(reason.label(), out),
        }
    }

    /// Heeds what was taken in if it is for members and not for their users.
    fn note_internal(
        &mut self,
        now: Now,
        key: &str,
        entry: &EntryId,
        register: &Register,
        out: &mut Vec<Output>,
    ) {
        if key == MEMBERS_KEY && entry.facet == 0 {
            let name = name_hash(&entry.id);
            if name != self.own_name {
                self.peers.set_zone(name, about_said(name, register).map(|about| about.zone));
            } else if self.phase != Phase::Leaving && register.body != Body::Live(self.about().encode()) {
                // From a former life, or from nobody who should.
                self.about_at = Some(now.mono.saturating_add(ABOUT_AGAIN_AFTER));
            }
        } else if key == BEACON_KEY && *entry == beacon_place() && !register.is_tombstone() {
            let took = self.store.get(key, entry).map_or(Duration::ZERO, |slot| slot.age(now));
            if self.settled {
                out.push(Output::Event(Event::Propagation { took }));
            }
            self.await_beacon(now, took);
        }
    }
}

fn beacon_place() -> EntryId {
    EntryId::new("", 0)
}

/// What the member with this name says about itself, if the register is its own.
fn about_said(name: u64, register: &Register) -> Option<About> {
    match &register.body {
        Body::Live(bytes) if register.author == name => About::decode(bytes),
        _ => None,
    }
}
