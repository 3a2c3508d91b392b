//! [`Outbox`]: what one end of a session has still to say, in order and piece by piece.

use std::collections::{BTreeSet, VecDeque};
use std::{mem, vec};

use smol_str::SmolStr;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{ITEM_BYTES, LIST_BYTES, PIECE_BYTES, Refusal, age_ms};
use crate::register::{EntryId, Version};
use crate::store::{HEARTBEAT_FACET, Mark, Store, id_hash, mark_of};
use crate::time::Now;
use crate::wire::{Frame, Record, RecordsWriter};

/// How many bytes of records go into one frame, if no single one is larger.
const CHUNK_BYTES: usize = 64 << 10;
/// How many bytes of registers to be asked for may wait. Who reads what it is sent tells of no more before that has gone out.
const MAX_ASKED_BYTES: usize = 16 << 20;
/// How many tasks may wait: more than the frames of two pieces can lead to, and the other one sends no more before it is read.
pub(super) const MAX_TASKS: usize = 1 << 16;
/// How many pieces of the other one may come: more than a session has bytes for.
const MAX_PIECES: u32 = 1024;

/// How many heartbeats are told of in a session, and in one frame of it; and what each of them takes, at most.
const MAX_BEATS: usize = 1 << 16;
const BEATS_PER_FRAME: usize = 1 << 14;
const BEAT_BYTES: usize = 21;

/// Something to be said.
#[derive(Debug)]
pub(super) enum Task {
    /// The digests of the parts of these keys.
    Offer(VecDeque<SmolStr>),
    /// What is in these parts of a key; in the first of them, what is behind `after`.
    List { key: SmolStr, parts: VecDeque<u8>, after: Option<Mark> },
    /// That there are these heartbeats, by keys.
    Beats(VecDeque<(SmolStr, Vec<(u64, Version)>)>),
    /// These registers.
    Send { key: SmolStr, entries: vec::IntoIter<EntryId> },
    /// That these are to be sent.
    Ask { key: SmolStr, entries: Vec<EntryId> },
    /// That this was all of a turn.
    End { moved: u64 },
}

/// What one end of a session has still to say.
#[derive(Debug)]
pub(super) struct Outbox {
    tasks: VecDeque<Task>,
    /// How many bytes of them are of registers to be asked for.
    asked_bytes: usize,
    writer: RecordsWriter,
    /// Hashes of the places that were to be sent.
    sent: BTreeSet<u64>,
    /// Most bytes of records and lists that are sent, and how many were.
    max_bytes: usize,
    bytes: usize,
    /// At how many bytes a piece ends.
    piece_end: usize,
    pieces: u64,
    /// The piece that the other one has still to say of that it came.
    awaited: Option<u64>,
    /// How many pieces of the other one have come; and whether one has since that piece was sent.
    their_pieces: u32,
    came_meanwhile: bool,
}

impl Outbox {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            tasks: VecDeque::new(),
            asked_bytes: 0,
            writer: RecordsWriter::new(CHUNK_BYTES),
            sent: BTreeSet::new(),
            max_bytes,
            bytes: 0,
            piece_end: PIECE_BYTES,
            pieces: 0,
            awaited: None,
            their_pieces: 0,
            came_meanwhile: false,
        }
    }

    /// The other one asks whether a piece of its own has come, which is answered at once.
    ///
    /// Whoever reads what it is sent has answered for our piece before it reads that answer, so that while ours is awaited it
    /// asks once and not again: more would pile up unread.
    pub(super) fn on_ping(&mut self) -> Result<(), Refusal> {
        self.their_pieces = self.their_pieces.saturating_add(1);
        let again = self.awaited.is_some() && mem::replace(&mut self.came_meanwhile, true);
        if again || self.their_pieces > MAX_PIECES { Err("too_many_pings") } else { Ok(()) }
    }

    /// Has what is in these parts of a key told.
    pub(super) fn list(&mut self, key: SmolStr, parts: VecDeque<u8>) -> Result<(), Refusal> {
        if !parts.is_empty() {
            self.make_room()?;
            self.tasks.push_back(Task::List { key, parts, after: None });
        }
        Ok(())
    }

    /// Makes sure that one more task may wait.
    fn make_room(&self) -> Result<(), Refusal> {
        if self.tasks.len() < MAX_TASKS { Ok(()) } else { Err("too_fast") }
    }

    /// Has the heartbeats that there are told: of very many, those of the first keys.
    pub(super) fn tell_beats(&mut self, store: &Store) {
        let (mut told, mut room) = (VecDeque::new(), MAX_BEATS);
        for key in store.keys() {
            let beats = store.live(key).filter(|(entry, _)| entry.facet == HEARTBEAT_FACET);
            let beats = beats.map(|(entry, slot)| (id_hash(&entry.id), slot.register().version));
            let mut beats: Vec<(u64, Version)> = beats.take(room).collect();
            room -= beats.len();
            beats.sort_unstable_by_key(|(id_hash, _)| *id_hash);
            // Which of two is meant nobody can tell.
            beats.dedup_by_key(|(id_hash, _)| *id_hash);
            told.extend(beats.chunks(BEATS_PER_FRAME).map(|some| (SmolStr::new(key), some.to_vec())));
        }
        if !told.is_empty() {
            self.push(Task::Beats(told));
        }
    }

    /// Something that there is once in a turn.
    pub(super) fn push(&mut self, task: Task) {
        self.tasks.push_back(task);
    }

    /// Has the other one asked for these registers.
    pub(super) fn ask(&mut self, key: &SmolStr, entries: Vec<EntryId>) -> Result<(), Refusal> {
        if entries.is_empty() {
            return Ok(());
        }
        self.asked_bytes += list_bytes(&entries);
        if self.asked_bytes > MAX_ASKED_BYTES {
            return Err("too_fast");
        }
        self.make_room()?;
        self.tasks.push_back(Task::Ask { key: key.clone(), entries });
        Ok(())
    }

    /// Has the registers of these places sent, or the tombstones that are remembered of them, each once in a session.
    pub(super) fn send(
        &mut self,
        store: &Store,
        key: &SmolStr,
        mut entries: Vec<EntryId>,
    ) -> Result<(), Refusal> {
        let sent = &mut self.sent;
        entries.retain(|entry| {
            let is_there = store.get(key, entry).is_some() || store.removal(key, entry).is_some();
            is_there && sent.insert(place_hash(key, entry))
        });
        if !entries.is_empty() {
            self.make_room()?;
            self.tasks.push_back(Task::Send { key: key.clone(), entries: entries.into_iter() });
        }
        Ok(())
    }

    /// Whether all has been said.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The other one says that this piece has come. False if that was not waited for.
    pub(super) fn has_come(&mut self, piece: u64) -> bool {
        let has_come = self.awaited.take_if(|awaited| *awaited == piece).is_some();
        if has_come {
            self.piece_end = self.bytes.saturating_add(PIECE_BYTES);
        }
        has_come
    }

    /// Appends what there is room for in this piece, unless the one before has still to come.
    pub(super) fn fill(&mut self, store: &Store, now: Now, out: &mut Vec<Frame>) -> Result<(), Refusal> {
        if self.awaited.is_some() {
            return Ok(());
        }
        while let Some(mut task) = self.tasks.pop_front() {
            if self.bytes >= self.piece_end {
                self.tasks.push_front(task);
                self.pieces += 1;
                self.awaited = Some(self.pieces);
                self.came_meanwhile = false;
                out.push(Frame::Ping { nonce: self.pieces });
                break;
            }
            if self.go_on(&mut task, store, now, out)? {
                self.tasks.push_front(task);
            }
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.max_bytes { Err("session_bytes") } else { Ok(()) }
    }

    /// Does a little of a task, and returns whether there may be more of it.
    fn go_on(
        &mut self,
        task: &mut Task,
        store: &Store,
        now: Now,
        out: &mut Vec<Frame>,
    ) -> Result<bool, Refusal> {
        match task {
            Task::Offer(keys) => {
                let Some(key) = keys.pop_front() else { return Ok(false) };
                let parts = (0..=u8::MAX).zip(store.buckets(&key)).map(|(part, hash)| (part, *hash));
                let buckets: Vec<(u8, u64)> = parts.filter(|(_, hash)| *hash != 0).collect();
                self.count(key.len() + ITEM_BYTES + buckets.len() * 9)?;
                out.push(Frame::Buckets { key, buckets });
            }
            Task::List { key, parts, after } => {
                let Some(part) = parts.front().copied() else { return Ok(false) };
                let (mut entries, mut bytes) = (Vec::new(), 0);
                let mut rest = store.entries_between(key, part, after.take(), None);
                let is_all = loop {
                    let Some((entry, hash, _)) = rest.next() else { break true };
                    let size = entry.id.len() + ITEM_BYTES;
                    if bytes + size > LIST_BYTES {
                        break false;
                    }
                    bytes += size;
                    entries.push((entry.clone(), hash));
                };
                if is_all {
                    parts.pop_front();
                } else {
                    *after = entries.last().map(|(entry, _)| mark_of(entry));
                }
                self.count(bytes + key.len() + ITEM_BYTES)?;
                out.push(Frame::Entries { key: key.clone(), bucket: part, entries });
            }
            Task::Beats(told) => {
                let Some((key, beats)) = told.pop_front() else { return Ok(false) };
                self.count(key.len() + ITEM_BYTES + beats.len() * BEAT_BYTES)?;
                out.push(Frame::Beats { key, beats });
            }
            Task::Send { key, entries } => {
                let Some(entry) = entries.next() else { return Ok(false) };
                self.put(store, now, key, &entry, out)?;
            }
            Task::Ask { key, entries } => {
                let bytes = list_bytes(entries);
                self.asked_bytes = self.asked_bytes.saturating_sub(bytes);
                self.count(bytes)?;
                put_fetches(key, mem::take(entries), out);
                return Ok(false);
            }
            Task::End { moved } => {
                self.flush(out)?;
                out.push(Frame::Done { moved: *moved });
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn put(
        &mut self,
        store: &Store,
        now: Now,
        key: &str,
        entry: &EntryId,
        out: &mut Vec<Frame>,
    ) -> Result<(), Refusal> {
        let removal = store.removal(key, entry);
        let record = match (store.get(key, entry), &removal) {
            (Some(slot), _) => Record::new(key, entry, slot.register(), age_ms(now, key, entry, slot)),
            (None, Some(removal)) => Record::new(key, entry, removal, None),
            (None, None) => return Ok(()),
        };
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
        let writer = mem::replace(&mut self.writer, RecordsWriter::new(CHUNK_BYTES));
        self.count(writer.len())?;
        out.push(Frame::Records(writer.finish()));
        Ok(())
    }
}

fn place_hash(key: &str, entry: &EntryId) -> u64 {
    xxh3_64_with_seed(entry.id.as_bytes(), xxh3_64(key.as_bytes()) ^ u64::from(entry.facet))
}

/// What these take in a list, at most.
fn list_bytes(entries: &[EntryId]) -> usize {
    entries.iter().map(|entry| entry.id.len() + ITEM_BYTES).sum()
}

/// Asks for these, in as many frames as it takes.
pub(super) fn put_fetches(key: &SmolStr, entries: Vec<EntryId>, out: &mut Vec<Frame>) {
    let (mut some, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        let size = entry.id.len() + ITEM_BYTES;
        if bytes + size > LIST_BYTES {
            out.push(Frame::Fetch { key: key.clone(), entries: mem::take(&mut some) });
            bytes = 0;
        }
        bytes += size;
        some.push(entry);
    }
    if !some.is_empty() {
        out.push(Frame::Fetch { key: key.clone(), entries: some });
    }
}
