//! What a member sends and takes in by datagrams.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use smol_str::SmolStr;

use super::streams::Why;
use super::{ANSWER_KEY, ANSWER_WITHIN, ConfigError, MIN_PACKET_BYTES, Node, SECTION_BYTES, refuse};
use crate::api::Output;
use crate::queue::Item;
use crate::register::{Body, MAX_BODY_BYTES};
use crate::seal::TAG_BYTES;
use crate::store::{HEARTBEAT_FACET, Slot, Store, id_hash};
use crate::swim::{SwimError, SwimOut};
use crate::sync::{age_ms, carries_age};
use crate::time::Now;
use crate::wire::{
    Advert, Adverts, Datagram, DatagramWriter, Digest, Fault, HEADER_BYTES, Header, MAX_DATAGRAM_BYTES,
    Record, Section, Stale, WireError,
};

/// What a record takes beside its texts and its body, at most.
const RECORD_BYTES: usize = 48;
/// What most records take beside the entry's id and their body, where the key was named before and no number is large.
const USUAL_RECORD_BYTES: usize = 24;
/// How many heartbeats are asked for at a time.
const MAX_STALE: usize = 100;
/// In how many keys a heartbeat is looked for that is known by a hash only.
const MAX_STALE_KEYS: usize = 256;
/// How many large registers are waiting to be asked for.
const MAX_WANTED: usize = 1024;
/// Members of each other zone that are told of what is written here.
const FIRST_PER_ZONE: usize = 2;

/// How items are put into datagrams.
#[derive(Clone, Copy)]
struct Packing {
    /// Room behind the header of a section in an empty datagram.
    room: usize,
    max_pushed: usize,
}

impl Packing {
    fn body_bytes(item: &Item) -> usize {
        match &item.register.body {
            Body::Live(bytes) => bytes.len(),
            Body::Tombstone => 0,
        }
    }

    /// Whether the register itself is sent, and how many bytes that takes, or word of it.
    fn plan(self, item: &Item) -> (bool, usize) {
        let word = RECORD_BYTES + item.key.len() + item.entry.id.len();
        let body = Self::body_bytes(item);
        let pushed = body <= self.max_pushed && word + body <= self.room;
        // Not at most but as a rule: what does not fit after all is noticed, room that is left for nothing is not.
        let usual = USUAL_RECORD_BYTES + item.entry.id.len();
        (pushed, if pushed { usual + body } else { usual })
    }

    fn put(self, writer: &mut DatagramWriter, item: &Item, store: &Store, now: Now) -> bool {
        let Item { key, entry, register, .. } = item;
        if self.plan(item).0 {
            // Without an age it would pass for one that was just written.
            let age = store.get(key, entry).map_or_else(
                || carries_age(key, entry).then_some(u64::MAX),
                |slot| age_ms(now, key, entry, slot),
            );
            return writer.try_push_record(&Record::new(key, entry, register, age));
        }
        writer.try_push_advert(&Advert {
            key,
            id: &entry.id,
            facet: entry.facet,
            version: register.version,
            author: register.author,
            size: Self::body_bytes(item) as u64,
        })
    }
}

impl Node {
    pub(super) fn on_datagram(&mut self, now: Now, from: SocketAddr, bytes: &[u8], out: &mut Vec<Output>) {
        if bytes.len() > MAX_DATAGRAM_BYTES {
            refuse("too_long", out);
            return;
        }
        let datagram = match Datagram::parse(bytes) {
            Ok(datagram) => datagram,
            Err(error) => {
                refuse(word_for(&error), out);
                return;
            }
        };
        self.take_datagram(now, from, datagram, out);
    }

    fn take_datagram(&mut self, now: Now, from: SocketAddr, datagram: Datagram<'_>, out: &mut Vec<Output>) {
        if !self.takes_label_hash(datagram.header.label) {
            refuse("label", out);
            return;
        }
        if datagram.header.session == self.session {
            refuse("own_datagram", out);
            return;
        }
        self.heard_at = now.mono;
        for section in datagram.sections {
            if let Err(error) = section.and_then(|section| self.on_section(now, from, section, out)) {
                // What was read before stands for itself.
                refuse(word_for(&error), out);
                return;
            }
            if self.is_over() {
                return;
            }
        }
    }

    fn on_section(
        &mut self,
        now: Now,
        from: SocketAddr,
        section: Section<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), WireError> {
        match section {
            Section::Swim(bytes) => {
                let mut did = SwimOut::default();
                let result = self.swim.handle_datagram(now, bytes, &mut did);
                self.follow_swim(now, did, out);
                if let Err(error) = result {
                    refuse(word_for_swim(&error), out);
                }
            }
            Section::Records(records) => {
                for record in records {
                    self.take_record(now, &record?, true, out);
                }
            }
            Section::Adverts(adverts) => self.on_adverts(from, adverts, out)?,
            Section::Digest(digest) => self.on_digest(now, from, digest, out)?,
            Section::Stale(stale) => self.on_stale(now, from, stale, out)?,
            // Beacons come as registers.
            Section::Beacon(_) => (),
        }
        Ok(())
    }

    fn on_adverts(
        &mut self,
        from: SocketAddr,
        adverts: Adverts<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), WireError> {
        // Streams are opened to members only, whoever says to be what.
        let known = self.peers.by_addr(from).is_some();
        for advert in adverts {
            let advert = advert?;
            let entry = advert.entry();
            let held = self.store.get(advert.key, &entry).map(Slot::register);
            if held.is_some_and(|held| (held.version, held.author) >= (advert.version, advert.author)) {
                continue;
            }
            if !known || advert.size > MAX_BODY_BYTES as u64 {
                refuse("advert", out);
                continue;
            }
            let was_removed = self.store.was_removed(advert.key, &entry, advert.version);
            if was_removed || self.is_wanted(advert.key, &entry) {
                continue;
            }
            if self.num_wanted() >= MAX_WANTED {
                refuse("too_many_adverts", out);
                continue;
            }
            let wanted = self.wanted.entry(from).or_default();
            wanted.entry(SmolStr::new(advert.key)).or_default().push(entry);
        }
        Ok(())
    }

    fn num_wanted(&self) -> usize {
        self.wanted.values().flat_map(BTreeMap::values).map(Vec::len).sum()
    }

    fn on_digest(
        &mut self,
        now: Now,
        from: SocketAddr,
        digest: Digest<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), WireError> {
        self.was_answered(from);
        let known = self.peers.by_addr(from).is_some();
        let (mut asks, mut equal) = (false, true);
        for root in digest.roots {
            let (key, root) = root?;
            if key == ANSWER_KEY {
                // If it differs, the other one is about to compare all there is.
                if known {
                    let equal = root == self.store.root();
                    self.totals.count_root(equal);
                    if equal {
                        self.was_kept();
                    }
                }
                return Ok(());
            }
            asks = true;
            let ours = if key.is_empty() { self.store.root() } else { self.store.key_digest(key) };
            equal &= ours == root;
        }
        if !asks {
            return Ok(());
        }
        // Members ask members, and one that this one does not know yet asks again over a stream. Whoever forges where a question
        // comes from does not get to have others answered.
        if !known {
            refuse("stranger", out);
            return Ok(());
        }
        self.totals.count_root(equal);
        let member_hash = self.swim.digest();
        let mut writer = self.writer();
        writer.try_push_digest(member_hash, &[(SmolStr::new(ANSWER_KEY), self.store.root())]);
        out.push(Output::Datagram { to: from, bytes: writer.finish() });
        if equal {
            self.was_kept();
        }
        if equal && digest.member_hash == member_hash {
            return Ok(());
        }
        if self.settled {
            self.compare_with(now, from, Why::Repair, out);
        }
        Ok(())
    }

    fn on_stale(
        &mut self,
        now: Now,
        from: SocketAddr,
        stale: Stale<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), WireError> {
        if self.peers.by_addr(from).is_none() {
            // As for digests, which these come with.
            return Ok(());
        }
        let fresh = self.stale_after();
        let mut writer = self.writer();
        'all: for hash in stale.take(MAX_STALE) {
            let hash = hash?;
            for key in self.store.keys().take(MAX_STALE_KEYS) {
                let Some(entry) = self.store.find(key, hash, HEARTBEAT_FACET) else { continue };
                let Some(slot) = self.store.get(key, entry) else { continue };
                if slot.register().is_tombstone() || slot.age(now) >= fresh {
                    continue;
                }
                let age = age_ms(now, key, entry, slot);
                if !writer.try_push_record(&Record::new(key, entry, slot.register(), age)) {
                    break 'all;
                }
            }
        }
        send(writer, from, out);
        Ok(())
    }

    /// From what age on a heartbeat is asked for.
    fn stale_after(&self) -> Duration {
        self.config.sync_interval.saturating_mul(5) / 2
    }

    /// The heartbeats of others that this member misses. Those that stopped last come first: they are the likeliest to go on
    /// elsewhere.
    fn stale_heartbeats(&self, now: Now) -> Vec<u64> {
        let from = self.stale_after();
        let mut stale = Vec::new();
        for key in self.store.keys() {
            for (entry, slot) in self.store.live(key) {
                let age = slot.age(now);
                let foreign = slot.register().author != self.own_name;
                if entry.facet == HEARTBEAT_FACET && foreign && age >= from {
                    stale.push((age, id_hash(&entry.id)));
                }
            }
        }
        stale.sort_unstable();
        stale.into_iter().map(|(_, hash)| hash).take(MAX_STALE).collect()
    }

    /// Tells somebody what this member has, in short.
    pub(super) fn send_digest(&mut self, now: Now, to: SocketAddr, out: &mut Vec<Output>) {
        let mut writer = self.writer();
        writer.try_push_digest(self.swim.digest(), &[(SmolStr::default(), self.store.root())]);
        for hash in self.stale_heartbeats(now) {
            if !writer.try_push_stale(hash) {
                break;
            }
        }
        send(writer, to, out);
        // Whoever was asked before still has its time: if no datagram gets through, a stream may.
        self.asked.get_or_insert((to, now.mono.saturating_add(ANSWER_WITHIN)));
    }

    /// Sends what the membership engine has to say, and in the rest of the room what else there is to tell.
    pub(super) fn send_swim(&mut self, now: Now, to: SocketAddr, bytes: &[u8], out: &mut Vec<Output>) {
        let mut writer = self.writer();
        if writer.try_push_swim(bytes) {
            // Of the members that are probed most are in other zones, and heartbeats wait in line for some ticks: they would make
            // up most of what goes between zones.
            if self.peers.is_near(to) {
                self.fill(now, &mut writer);
            } else {
                self.fill_news(now, &mut writer);
            }
            send(writer, to, out);
        }
    }

    /// Tells some members what is new.
    pub(super) fn run_gossip(&mut self, now: Now, out: &mut Vec<Output>) {
        self.queue.set_zone_aware(self.peers.is_zone_aware());
        if self.queue.take_eager(now) {
            self.send_eager(now, out);
        }
        if self.gossip_at > now.mono {
            return;
        }
        self.gossip_at = now.mono.saturating_add(self.config.gossip_interval);
        if self.queue.is_empty() {
            return;
        }
        // Heartbeats start no eager round, and there may have been too many rounds of late.
        self.send_far(now, out);
        // With so few in all that a tick tells each of them, there is nobody left for another one. Of a zone with so few there is
        // not, and yet heartbeats go to one at a time: others of the zone relay them.
        let are_many = self.peers.len() > self.config.gossip_nodes;
        let mut beats_are_told = false;
        for to in self.peers.tick_targets(&mut self.random, self.config.gossip_nodes, &[]) {
            let mut writer = self.writer();
            let waiting = self.queue.len();
            let taken =
                if beats_are_told { self.fill_news(now, &mut writer) } else { self.fill(now, &mut writer) };
            if taken == 0 {
                break;
            }
            beats_are_told |= are_many && taken == waiting;
            send(writer, to.addr, out);
        }
    }

    fn send_eager(&mut self, now: Now, out: &mut Vec<Output>) {
        self.send_far(now, out);
        let near = self.peers.gossip_targets(&mut self.random, self.config.gossip_nodes, &[]);
        let times = u32::try_from(near.len()).unwrap_or(u32::MAX);
        for to in near {
            let mut writer = self.writer();
            self.fill_eager(now, &mut writer, times);
            send(writer, to.addr, out);
        }
    }

    /// Tells some members of each other zone what was written here and nobody there was told.
    fn send_far(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.queue.has_far_news() {
            return;
        }
        let far = self.peers.first_targets_of_other_zones(&mut self.random, FIRST_PER_ZONE);
        let mut writer = self.writer();
        if !far.is_empty() && self.fill_far(now, &mut writer) > 0 {
            let bytes = writer.finish();
            out.extend(far.iter().map(|to| Output::Datagram { to: to.addr, bytes: bytes.clone() }));
        }
    }

    fn fill(&mut self, now: Now, writer: &mut DatagramWriter) -> usize {
        let packing = self.packing();
        let Self { queue, store, .. } = self;
        let store = &*store;
        queue.fill(
            now,
            writer.room(),
            |item| packing.plan(item).1,
            |item| packing.put(writer, item, store, now),
        )
    }

    fn fill_news(&mut self, now: Now, writer: &mut DatagramWriter) -> usize {
        let packing = self.packing();
        let Self { queue, store, .. } = self;
        let store = &*store;
        let size_of = |item: &Item| packing.plan(item).1;
        queue.fill_news(now, writer.room(), size_of, |item| packing.put(writer, item, store, now))
    }

    fn fill_eager(&mut self, now: Now, writer: &mut DatagramWriter, times: u32) {
        let packing = self.packing();
        let Self { queue, store, .. } = self;
        let store = &*store;
        let size_of = |item: &Item| packing.plan(item).1;
        queue.fill_eager(now, times, writer.room(), size_of, |item| packing.put(writer, item, store, now));
    }

    fn fill_far(&mut self, now: Now, writer: &mut DatagramWriter) -> usize {
        let packing = self.packing();
        let Self { queue, store, .. } = self;
        let store = &*store;
        let size_of = |item: &Item| packing.plan(item).1;
        queue.fill_far(now, writer.room(), size_of, |item| packing.put(writer, item, store, now))
    }

    fn packing(&self) -> Packing {
        let room = self.config.packet_size.saturating_sub(HEADER_BYTES + SECTION_BYTES);
        Packing { room, max_pushed: self.config.max_pushed_bytes }
    }

    fn writer(&self) -> DatagramWriter {
        DatagramWriter::new(self.config.packet_size, Header::new(self.label, self.session))
    }
}

/// For those who seal what is sent, and open what comes.
impl Node {
    /// As [`handle`](Self::handle) of a datagram that was sealed, and has been opened.
    pub(crate) fn handle_opened(
        &mut self,
        now: Now,
        from: SocketAddr,
        datagram: Datagram<'_>,
        out: &mut Vec<Output>,
    ) {
        if self.is_over() {
            return;
        }
        self.take_datagram(now, from, datagram, out);
        self.run_due(now, out);
        self.tell_changes(out);
    }

    /// How long datagrams may be before they are sealed, so that none is longer than `packet_size` afterwards. Without a key a
    /// small size is not refused: if one is added later, the longest datagrams become too long by a few bytes.
    pub(crate) fn size_to_seal(
        packet_size: usize,
        has_key: bool,
        require_sealed: bool,
    ) -> Result<usize, ConfigError> {
        if require_sealed && !has_key {
            return Err(ConfigError(
                "there is no key to seal with, but what is not sealed is refused".to_owned(),
            ));
        }
        // What is too little or too much anyway is refused elsewhere.
        if !(MIN_PACKET_BYTES..=MAX_DATAGRAM_BYTES).contains(&packet_size) {
            return Ok(packet_size);
        }
        let size = packet_size - TAG_BYTES;
        if has_key && size < MIN_PACKET_BYTES {
            let min = MIN_PACKET_BYTES + TAG_BYTES;
            return Err(ConfigError(format!(
                "a datagram that is sealed has at least {min} bytes, and {packet_size} is less"
            )));
        }
        Ok(size.max(MIN_PACKET_BYTES))
    }
}

/// Sends a datagram, unless there is nothing in it.
fn send(writer: DatagramWriter, to: SocketAddr, out: &mut Vec<Output>) {
    if !writer.is_empty() {
        out.push(Output::Datagram { to, bytes: writer.finish() });
    }
}

/// Why a datagram cannot be read, as a word.
fn word_for(error: &WireError) -> &'static str {
    match error.fault {
        Fault::Magic(_) => "not_ours",
        Fault::Version(_) => "version",
        Fault::Flags(_) => "flags",
        Fault::Sealed(_) => "sealed",
        Fault::Checksum => "checksum",
        Fault::Short => "short",
        _ => "malformed",
    }
}

fn word_for_swim(error: &SwimError) -> &'static str {
    match error {
        SwimError::TooLong { .. } => "swim_too_long",
        SwimError::Malformed(_) => "swim_malformed",
        SwimError::OwnName => "own_name",
        SwimError::FarAhead => "life_far_ahead",
        SwimError::TooFast => "new_members_too_fast",
        SwimError::TooManyMembers => "too_many_members",
        SwimError::Engine(_) => "swim_engine",
    }
}

#[cfg(test)]
mod tests;
