//! What a member stores, takes in, and says of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;

use super::{About, BEACON_KEY, MEMBERS_KEY, Node, refuse};
use crate::api::{Event, Output, Phase};
use crate::id::name_hash;
use crate::register::{Body, EntryId, Register};
use crate::store::Merged;
use crate::sync::Taken;
use crate::time::Now;
use crate::wire::Record;

/// How soon what others have of this member is put right: not at once, in case two members insist.
const ABOUT_AGAIN_AFTER: Duration = Duration::from_secs(1);

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
        if self.settled && self.store.is_gone(now, record.key, &entry, record.version) {
            refuse("gone", out);
            return Taken::Gone;
        }
        let register = record.register();
        let age = record.age_ms.map(Duration::from_millis);
        match self.store.merge(now, record.key, &entry, &register, age) {
            Merged::New | Merged::Changed => {
                self.note_internal(now, record.key, &entry, &register, out);
                if relayed {
                    self.push(now, record.key, &entry, register);
                }
                Taken::Changed
            }
            Merged::Same => Taken::Known,
            Merged::Older => Taken::Older,
            Merged::Refused(reason) => {
                refuse(reason.label(), out);
                Taken::Refused
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
        let heartbeat = self.config.queue.is_heartbeat(entry, &register);
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
            self.store_tick_at = now.mono.saturating_add(self.config.limits.tick_period());
            if !self.peers.is_empty() {
                self.ensure_fresh(now);
            }
            for (key, entry) in self.store.tick(now, &mut self.clock) {
                let register = self.store.get(&key, &entry).map(|slot| slot.register().clone());
                if let Some(register) = register {
                    self.push(now, &key, &entry, register);
                }
            }
        }
        if self.about_at.take_if(|at| *at <= now.mono).is_some() {
            self.write_about(now, out);
        }
        if self.has_beacons() && self.beacon_at <= now.mono {
            self.run_beacon(now, out);
        }
    }

    /// A member that was cut off for long can no longer tell what was removed meanwhile: it begins anew before it tells others
    /// what it has.
    pub(super) fn ensure_fresh(&mut self, now: Now) {
        let cut_off = now.mono.saturating_sub(self.compared_at);
        if self.settled && cut_off > self.config.limits.tombstone_horizon / 2 {
            self.compared_at = now.mono;
            if self.store.forget_foreign() > 0 {
                self.settled = false;
                self.join.begin(now.mono, self.config.join_backoff.0);
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

    /// The zone that the member with this name has said to be in.
    pub(super) fn zone_of(&self, name: u64) -> Option<SmolStr> {
        // The hash of a name is that of an entry's id.
        let entry = self.store.find(MEMBERS_KEY, name, 0)?;
        let register = self.store.get(MEMBERS_KEY, entry)?.register();
        zone_said(name, register)
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

    fn about(&self) -> About {
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
                self.peers.set_zone(name, zone_said(name, register));
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

/// The zone that the member with this name says to be in, if the register is its own.
fn zone_said(name: u64, register: &Register) -> Option<SmolStr> {
    match &register.body {
        Body::Live(bytes) if register.author == name => About::decode(bytes).map(|about| about.zone),
        _ => None,
    }
}
