//! [`Session`]: what two members say to each other to become equal, without streams and without time.
//!
//! The two take turns, and `Done` ends a turn. Whoever opened the stream asks with the digests of its keys. Then:
//!
//! 1. the other one tells its members, if the two know different ones, and the digests of the parts of the keys that differ;
//! 2. the opener tells its members too, and what is in the parts that differ;
//! 3. the other one sends the registers that differ or that the opener lacks, and asks for those it lacks itself;
//! 4. the opener sends those, and those of which it has a later version than it was sent;
//! 5. the other one says how much moved.
//!
//! What the receiver knows to be removed long ago is refused, and said to be gone.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use crate::register::{EntryId, Version};
use crate::store::{BUCKETS, HEARTBEAT_FACET, Slot, Store, bucket_of};
use crate::time::Now;
use crate::wire::{Frame, MemberEntry, Record, RecordList, RecordsWriter};

/// How many bytes of records go into one frame, if no single one is larger.
const CHUNK_BYTES: usize = 64 << 10;
/// How many bytes of a list go into one frame, about.
const LIST_BYTES: usize = 512 << 10;
/// What an item of a list takes beside its texts, at most.
const ITEM_BYTES: usize = 40;
/// How many members are told in one frame.
const MEMBERS_PER_FRAME: usize = 10_000;

/// What became of a register that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is stored.
    Changed,
    /// It was stored already.
    Known,
    /// A later one is stored.
    Older,
    /// It was removed so long ago that the removal is forgotten.
    Gone,
    /// It is not stored.
    Refused,
}

/// The member that a session is for.
pub(crate) trait Host {
    /// The time.
    fn now(&self) -> Now;
    /// What it has.
    fn store(&self) -> &Store;
    /// Takes in a register.
    fn take(&mut self, record: &Record<'_>) -> Taken;
    /// The other one says that this register is gone.
    fn gone(&mut self, key: &str, entry: &EntryId, version: Version);
    /// Of the members it knows.
    fn member_hash(&self) -> u64;
    /// The members it knows.
    fn members(&self) -> Vec<MemberEntry>;
    /// Takes in the members that the other one knows.
    fn take_members(&mut self, members: Vec<MemberEntry>);
}

/// Whether it matters how old a register of this place is, so that its age is told with it.
pub(crate) fn carries_age(key: &str, entry: &EntryId) -> bool {
    entry.facet == HEARTBEAT_FACET || key == crate::node::BEACON_KEY
}

/// The age to tell with a register.
pub(crate) fn age_ms(now: Now, key: &str, entry: &EntryId, slot: &Slot) -> Option<u64> {
    carries_age(key, entry).then(|| u64::try_from(slot.age(now).as_millis()).unwrap_or(u64::MAX))
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The other one's first word.
    Request,
    /// The opener: digests of parts.
    Offer,
    /// The other one: what is in the parts that differ.
    Contents,
    /// The opener: registers, and which are asked for.
    Answers,
    /// The other one: the registers that it asked for.
    Returns,
    /// The opener: how much moved.
    End,
    /// The other one: what else is asked for.
    Fetches,
    /// The opener, which only asked for some registers.
    Fetched,
    Over,
}

/// One end of a session.
#[derive(Debug)]
pub(crate) struct Session {
    turn: Turn,
    /// Whether all there is gets compared, and not only some of it sent.
    compares: bool,
    writer: RecordsWriter,
    /// Most bytes of records and lists that are sent, and how many were.
    max_bytes: usize,
    bytes: usize,
    gone: BTreeMap<SmolStr, Vec<(EntryId, Version)>>,
    moved_here: u64,
    moved: u64,
}

/// Why a session goes no further: a word for metrics.
type Refusal = &'static str;

impl Session {
    fn new(turn: Turn, max_bytes: usize) -> Self {
        Self {
            turn,
            compares: turn == Turn::Offer,
            writer: RecordsWriter::new(CHUNK_BYTES),
            max_bytes,
            bytes: 0,
            gone: BTreeMap::new(),
            moved_here: 0,
            moved: 0,
        }
    }

    /// The end of the one who waits for the other's first word.
    pub(crate) fn accept(max_bytes: usize) -> Self {
        Self::new(Turn::Request, max_bytes)
    }

    /// The end of the one who wants to compare all there is, and its first word.
    pub(crate) fn open(host: &impl Host, join: bool, max_bytes: usize) -> (Self, Frame) {
        let mut room = LIST_BYTES;
        // A key that is not told counts as one that is not there: more digests are compared then, and nothing else happens.
        let roots = host.store().digests().map_while(|(key, root)| {
            room = room.checked_sub(key.len() + ITEM_BYTES)?;
            Some((SmolStr::new(key), root))
        });
        let request = Frame::SyncRequest { join, member_hash: host.member_hash(), roots: roots.collect() };
        (Self::new(Turn::Offer, max_bytes), request)
    }

    /// The end of the one who wants these registers, and what it says.
    pub(crate) fn fetch(wanted: BTreeMap<SmolStr, Vec<EntryId>>, max_bytes: usize) -> (Self, Vec<Frame>) {
        let mut frames = Vec::new();
        for (key, entries) in wanted {
            put_fetches(&key, entries, &mut frames);
        }
        frames.push(Frame::Done { moved: 0 });
        (Self::new(Turn::Fetched, max_bytes), frames)
    }

    /// Whether all there is gets compared.
    pub(crate) fn compares(&self) -> bool {
        self.compares
    }

    /// Whether a first word has been said.
    pub(crate) fn has_begun(&self) -> bool {
        self.turn != Turn::Request
    }

    /// How many registers were taken in here.
    pub(crate) fn moved_here(&self) -> u64 {
        self.moved_here
    }

    /// How many registers were taken in at either end.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.max(self.moved_here)
    }

    /// Takes in what the other one said, appends what is to be said, and returns whether that was all.
    ///
    /// # Errors
    ///
    /// If this goes no further.
    pub(crate) fn on_frame(
        &mut self,
        frame: Frame,
        host: &mut impl Host,
        out: &mut Vec<Frame>,
    ) -> Result<bool, Refusal> {
        match (self.turn, frame) {
            (Turn::Request, Frame::SyncRequest { join: _, member_hash, roots }) => {
                self.compares = true;
                self.offer(host, member_hash, roots, out)?;
                self.end_turn(Turn::Contents, out);
            }
            (Turn::Request | Turn::Fetches, Frame::Fetch { key, entries }) => {
                self.turn = Turn::Fetches;
                self.send_all(host, &key, &entries, out)?;
            }
            (Turn::Fetches, Frame::Done { .. }) => {
                self.flush(out)?;
                self.end_turn(Turn::Over, out);
            }
            (Turn::Fetched, Frame::Records(records)) => self.take(host, &records, out)?,
            (Turn::Fetched, Frame::Done { .. }) => self.turn = Turn::Over,
            (Turn::Offer, Frame::Members(members)) => {
                host.take_members(members);
                self.tell_members(host, out);
            }
            (Turn::Offer, Frame::Buckets { key, buckets }) => {
                self.tell_contents(host, &key, &buckets, out)?;
            }
            (Turn::Offer, Frame::Done { .. }) => self.end_turn(Turn::Answers, out),
            (Turn::Contents, Frame::Members(members)) => host.take_members(members),
            (Turn::Contents, Frame::Entries { key, bucket, entries }) => {
                self.answer(host, &key, bucket, entries, out)?;
            }
            (Turn::Contents, Frame::Done { .. }) => {
                self.flush(out)?;
                self.end_turn(Turn::Returns, out);
            }
            (Turn::Answers, Frame::Fetch { key, entries }) => self.send_all(host, &key, &entries, out)?,
            (Turn::Answers | Turn::Returns, Frame::Records(records)) => self.take(host, &records, out)?,
            (Turn::Returns | Turn::End, Frame::Gone { key, entries }) => {
                for (entry, version) in entries {
                    host.gone(&key, &entry, version);
                }
            }
            (Turn::Answers, Frame::Done { .. }) => {
                self.flush(out)?;
                self.tell_gone(out);
                self.moved = self.moved_here;
                self.end_turn(Turn::End, out);
            }
            (Turn::Returns, Frame::Done { moved }) => {
                self.tell_gone(out);
                self.moved = self.moved_here.saturating_add(moved);
                self.end_turn(Turn::Over, out);
            }
            (Turn::End, Frame::Done { moved }) => {
                self.moved = moved;
                self.turn = Turn::Over;
            }
            (_, Frame::Error { .. }) => return Err("peer_error"),
            _ => return Err("out_of_turn"),
        }
        Ok(self.turn == Turn::Over)
    }

    fn end_turn(&mut self, next: Turn, out: &mut Vec<Frame>) {
        out.push(Frame::Done { moved: self.moved });
        self.turn = next;
    }

    fn count(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.max_bytes { Err("session_bytes") } else { Ok(()) }
    }

    fn tell_members(&self, host: &impl Host, out: &mut Vec<Frame>) {
        let members = host.members();
        out.extend(members.chunks(MEMBERS_PER_FRAME).map(|some| Frame::Members(some.to_vec())));
    }

    /// The digests of the parts of keys that differ.
    fn offer(
        &mut self,
        host: &impl Host,
        member_hash: u64,
        roots: Vec<(SmolStr, u128)>,
        out: &mut Vec<Frame>,
    ) -> Result<(), Refusal> {
        if member_hash != host.member_hash() {
            self.tell_members(host, out);
        }
        let store = host.store();
        let theirs: BTreeMap<SmolStr, u128> = roots.into_iter().collect();
        let unknown = store.keys().filter(|key| !theirs.contains_key(*key)).map(SmolStr::new);
        let differing: Vec<SmolStr> = theirs
            .iter()
            .filter(|(key, root)| store.key_digest(key) != **root)
            .map(|(key, _)| key.clone())
            .chain(unknown)
            .collect();
        for key in differing {
            let buckets = (0..=u8::MAX).zip(store.buckets(&key)).map(|(bucket, hash)| (bucket, *hash));
            let buckets: Vec<(u8, u64)> = buckets.filter(|(_, hash)| *hash != 0).collect();
            self.count(key.len() + buckets.len() * 9)?;
            out.push(Frame::Buckets { key, buckets });
        }
        Ok(())
    }

    /// What is in the parts of a key that differ from the other one's.
    fn tell_contents(
        &mut self,
        host: &impl Host,
        key: &SmolStr,
        buckets: &[(u8, u64)],
        out: &mut Vec<Frame>,
    ) -> Result<(), Refusal> {
        let mut theirs = [0; BUCKETS];
        for (bucket, hash) in buckets {
            theirs[usize::from(*bucket)] = *hash;
        }
        let store = host.store();
        for (bucket, (ours, theirs)) in (0..=u8::MAX).zip(store.buckets(key).iter().zip(&theirs)) {
            if ours == theirs {
                continue;
            }
            let (mut entries, mut bytes) = (Vec::new(), 0);
            for (entry, hash, _) in store.entries_of_bucket(key, bucket) {
                let size = entry.id.len() + ITEM_BYTES;
                if bytes + size > LIST_BYTES {
                    // Of a part that is told in several frames, the other one takes each for all there is, and sends more than
                    // it need.
                    self.count(bytes)?;
                    let entries = std::mem::take(&mut entries);
                    out.push(Frame::Entries { key: key.clone(), bucket, entries });
                    bytes = 0;
                }
                bytes += size;
                entries.push((entry.clone(), hash));
            }
            self.count(bytes + key.len() + ITEM_BYTES)?;
            out.push(Frame::Entries { key: key.clone(), bucket, entries });
        }
        Ok(())
    }

    /// The other one has this in a part of a key.
    fn answer(
        &mut self,
        host: &impl Host,
        key: &SmolStr,
        bucket: u8,
        entries: Vec<(EntryId, u64)>,
        out: &mut Vec<Frame>,
    ) -> Result<(), Refusal> {
        let mut theirs: BTreeMap<EntryId, u64> = entries.into_iter().collect();
        let mut differing = Vec::new();
        for (entry, hash, _) in host.store().entries_of_bucket(key, bucket) {
            if theirs.remove(entry) != Some(hash) {
                differing.push(entry.clone());
            }
        }
        self.send_all(host, key, &differing, out)?;
        let lacking: Vec<EntryId> =
            theirs.into_keys().filter(|entry| bucket_of(&entry.id) == bucket).collect();
        self.count(lacking.iter().map(|entry| entry.id.len() + ITEM_BYTES).sum())?;
        put_fetches(key, lacking, out);
        Ok(())
    }

    fn send_all(
        &mut self,
        host: &impl Host,
        key: &str,
        entries: &[EntryId],
        out: &mut Vec<Frame>,
    ) -> Result<(), Refusal> {
        entries.iter().try_for_each(|entry| self.send(host, key, entry, out))
    }

    /// Sends a register, if there is one.
    fn send(
        &mut self,
        host: &impl Host,
        key: &str,
        entry: &EntryId,
        out: &mut Vec<Frame>,
    ) -> Result<(), Refusal> {
        let Some(slot) = host.store().get(key, entry) else { return Ok(()) };
        let record = Record::new(key, entry, slot.register(), age_ms(host.now(), key, entry, slot));
        if self.writer.try_push(&record) {
            return Ok(());
        }
        self.flush(out)?;
        if !self.writer.try_push(&record) {
            // Larger than what is sent at once: alone.
            let mut alone = RecordsWriter::new(usize::MAX);
            if alone.try_push(&record) {
                self.count(alone.len())?;
                out.push(Frame::Records(alone.finish()));
            }
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut Vec<Frame>) -> Result<(), Refusal> {
        if self.writer.is_empty() {
            return Ok(());
        }
        let writer = std::mem::replace(&mut self.writer, RecordsWriter::new(CHUNK_BYTES));
        self.count(writer.len())?;
        out.push(Frame::Records(writer.finish()));
        Ok(())
    }

    fn take(
        &mut self,
        host: &mut impl Host,
        records: &RecordList,
        out: &mut Vec<Frame>,
    ) -> Result<(), Refusal> {
        for record in records {
            let record = record.map_err(|_| "bad_record")?;
            match host.take(&record) {
                Taken::Changed => self.moved_here += 1,
                // The other one does not know what we have; it waits for our registers only if it did not open the stream.
                Taken::Older if self.turn == Turn::Answers => {
                    self.send(host, record.key, &record.entry(), out)?;
                }
                Taken::Gone if self.turn != Turn::Fetched => {
                    let gone = self.gone.entry(SmolStr::new(record.key)).or_default();
                    gone.push((record.entry(), record.version));
                }
                Taken::Known | Taken::Older | Taken::Gone | Taken::Refused => (),
            }
        }
        Ok(())
    }

    fn tell_gone(&mut self, out: &mut Vec<Frame>) {
        for (key, entries) in std::mem::take(&mut self.gone) {
            for some in split(entries, |(entry, _)| entry.id.len()) {
                out.push(Frame::Gone { key: key.clone(), entries: some });
            }
        }
    }
}

fn put_fetches(key: &SmolStr, entries: Vec<EntryId>, out: &mut Vec<Frame>) {
    for some in split(entries, |entry| entry.id.len()) {
        out.push(Frame::Fetch { key: key.clone(), entries: some });
    }
}

/// Cuts a list into parts that each fit a frame. None of an empty one.
fn split<T>(items: Vec<T>, text_bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for item in items {
        let size = text_bytes(&item) + ITEM_BYTES;
        if bytes + size > LIST_BYTES {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += size;
        part.push(item);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}
