//! [`Session`]: what two members say to each other to become equal, without streams and without time.
//!
//! The two take turns, and `Done` ends a turn. Whoever opened the stream asks with the digests of its keys. Then:
//!
//! 1. the other one tells its members, if the two know different ones, and the digests of the parts of the keys that differ;
//! 2. the opener tells its members too, what is in the parts that differ, and which heartbeats it has;
//! 3. the other one sends the registers that differ or that the opener lacks, and later heartbeats, and asks for those it lacks
//!    itself;
//! 4. the opener sends those, and those of which it has a later version than it was sent;
//! 5. the other one says how much moved.
//!
//! Keys come in order, and so do the parts of a key and the registers of a part, by their [marks](crate::store::Mark): nothing
//! is told or asked for twice. A part may take several frames. Each stands for what is behind the one before it, up to its last
//! register, and the last one for the rest of the part, too.
//!
//! Heartbeats are written all the time, so digests do not tell them apart, and they do not count as moved. Where datagrams get
//! through, those bring them; where they do not, sessions have to.
//!
//! What is [remembered to be removed](Store::removal) is not asked for: its tombstone is sent instead. Who joins is sent all of
//! those, so that it remembers them as well.
//!
//! What takes more than [`PIECE_BYTES`] is sent in pieces. Behind each of them `Ping` asks whether it came, and `Pong` lets the
//! next one follow. So little waits to be sent, whatever somebody asks for that does not read it.

mod outbox;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smol_str::SmolStr;

use self::outbox::{Outbox, Task, put_fetches};
use crate::register::{EntryId, Version};
use crate::store::{BUCKETS, HEARTBEAT_FACET, Mark, Slot, Store, bucket_of, mark_of};
use crate::time::Now;
use crate::wire::{Frame, MemberEntry, Record, RecordList};

/// How many bytes are sent before the other one has to say that they came, about.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
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
    /// It is known.
    Known,
    /// A later one is known.
    Older,
    /// It is not stored, because the clock of its author, who lives, is ahead of ours.
    Ahead,
    /// It is not stored, because there is no room.
    Full,
    /// It is not stored, and is not missed.
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

/// Whether all that a register does is to take the place of an older heartbeat.
fn only_beats(store: &Store, record: &Record<'_>) -> bool {
    record.facet == HEARTBEAT_FACET
        && record.body.is_some()
        && store.get(record.key, &record.entry()).is_some_and(|slot| !slot.register().is_tombstone())
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

/// A part of a key of which the other one is telling what it has.
#[derive(Debug)]
struct Told {
    key: SmolStr,
    part: u8,
    /// Up to where all of it was told, and answered.
    upto: Option<Mark>,
}

/// One end of a session.
#[derive(Debug)]
pub(crate) struct Session {
    turn: Turn,
    /// Whether all there is gets compared, and not only some of it sent.
    compares: bool,
    /// Whether the other one is joining, so that it takes what there is.
    joins: bool,
    outbox: Outbox,
    told_members: bool,
    /// The last key whose parts were offered to us.
    offered: Option<SmolStr>,
    told: Option<Told>,
    /// The last heartbeat that was told to us: its key, and the hash of its entry's id.
    last_beat: Option<(SmolStr, u64)>,
    moved_here: u64,
    moved: u64,
    /// Of what was refused: by whom it was whose clock is ahead of ours, and how much there was no room for.
    ahead: BTreeSet<u64>,
    full: u64,
}

/// Why a session goes no further: a word for metrics.
type Refusal = &'static str;

impl Session {
    fn new(turn: Turn, max_bytes: usize) -> Self {
        Self {
            turn,
            compares: turn == Turn::Offer,
            joins: false,
            outbox: Outbox::new(max_bytes),
            told_members: false,
            offered: None,
            told: None,
            last_beat: None,
            moved_here: 0,
            moved: 0,
            ahead: BTreeSet::new(),
            full: 0,
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

    /// The other one asks whether what it said has come.
    ///
    /// # Errors
    ///
    /// If it does not read the answers.
    pub(crate) fn on_ping(&mut self) -> Result<(), Refusal> {
        self.outbox.on_ping()
    }

    /// How many registers were taken in here.
    pub(crate) fn moved_here(&self) -> u64 {
        self.moved_here
    }

    /// How many registers were taken in at either end.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.max(self.moved_here)
    }

    /// How many live members wrote something that was refused because their clocks are ahead of ours.
    pub(crate) fn num_ahead(&self) -> usize {
        self.ahead.len()
    }

    /// How many registers there was no room for here.
    pub(crate) fn num_full(&self) -> u64 {
        self.full
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
        match frame {
            Frame::Pong { nonce, .. } if self.outbox.has_come(nonce) => (),
            Frame::Error { .. } => return Err("peer_error"),
            frame => self.take_in(frame, host, out)?,
        }
        self.outbox.fill(host.store(), host.now(), out)?;
        Ok(self.turn == Turn::Over && self.outbox.is_empty())
    }

    /// What comes next is known at once; what is said comes when there is room, in the order of the turns.
    fn take_in(&mut self, frame: Frame, host: &mut impl Host, out: &mut Vec<Frame>) -> Result<(), Refusal> {
        match (self.turn, frame) {
            (Turn::Request, Frame::SyncRequest { join, member_hash, roots }) => {
                (self.compares, self.joins) = (true, join);
                self.offer(host, member_hash, roots, out);
                self.end_turn(Turn::Contents);
            }
            (Turn::Request | Turn::Fetches, Frame::Fetch { key, entries }) => {
                self.turn = Turn::Fetches;
                self.outbox.send(host.store(), &key, entries)?;
            }
            (Turn::Fetches, Frame::Done { .. }) => self.end_turn(Turn::Over),
            (Turn::Fetched | Turn::Answers | Turn::Returns, Frame::Records(records)) => {
                self.take(host, &records)?;
            }
            (Turn::Fetched, Frame::Done { .. }) => self.turn = Turn::Over,
            (Turn::Offer, Frame::Members(members)) => {
                host.take_members(members);
                self.tell_members(host, out);
            }
            (Turn::Offer, Frame::Buckets { key, buckets }) => self.list(host, key, &buckets)?,
            (Turn::Offer, Frame::Done { .. }) => {
                self.outbox.tell_beats(host.store());
                self.end_turn(Turn::Answers);
            }
            (Turn::Contents, Frame::Members(members)) => host.take_members(members),
            (Turn::Contents, Frame::Entries { key, bucket, entries }) => {
                self.answer(host, key, bucket, entries)?;
            }
            (Turn::Contents, Frame::Beats { key, beats }) => self.answer_beats(host, key, &beats)?,
            (Turn::Contents, Frame::Done { .. }) => {
                self.answer_rest(host)?;
                if self.joins {
                    self.send_removals(host)?;
                }
                self.end_turn(Turn::Returns);
            }
            (Turn::Answers, Frame::Fetch { key, entries }) => {
                self.outbox.send(host.store(), &key, entries)?;
            }
            (Turn::Answers, Frame::Done { .. }) => {
                self.moved = self.moved_here;
                self.end_turn(Turn::End);
            }
            (Turn::Returns, Frame::Done { moved }) => {
                self.moved = self.moved_here.saturating_add(moved);
                self.end_turn(Turn::Over);
            }
            (Turn::End, Frame::Done { moved }) => {
                self.moved = moved;
                self.turn = Turn::Over;
            }
            _ => return Err("out_of_turn"),
        }
        Ok(())
    }

    fn end_turn(&mut self, next: Turn) {
        self.outbox.push(Task::End { moved: self.moved });
        self.turn = next;
    }

    fn tell_members(&mut self, host: &impl Host, out: &mut Vec<Frame>) {
        if !std::mem::replace(&mut self.told_members, true) {
            let members = host.members();
            out.extend(members.chunks(MEMBERS_PER_FRAME).map(|some| Frame::Members(some.to_vec())));
        }
    }

    /// The digests of the parts of keys that differ.
    fn offer(
        &mut self,
        host: &impl Host,
        member_hash: u64,
        roots: Vec<(SmolStr, u128)>,
        out: &mut Vec<Frame>,
    ) {
        if member_hash != host.member_hash() {
            self.tell_members(host, out);
        }
        let store = host.store();
        let theirs: BTreeMap<SmolStr, u128> = roots.into_iter().collect();
        let ours = store.keys().filter(|key| !theirs.contains_key(*key)).map(SmolStr::new);
        let mut differing: Vec<SmolStr> = ours.collect();
        let both = theirs.into_iter().filter(|(key, root)| store.key_digest(key) != *root);
        differing.extend(both.map(|(key, _)| key));
        differing.sort_unstable();
        self.outbox.push(Task::Offer(differing.into()));
    }

    /// Has told what is in the parts of a key that differ from the other one's.
    fn list(&mut self, host: &impl Host, key: SmolStr, buckets: &[(u8, u64)]) -> Result<(), Refusal> {
        if self.offered.as_ref().is_some_and(|last| *last >= key) {
            return Err("repeated");
        }
        let mut theirs = [0; BUCKETS];
        for (bucket, hash) in buckets {
            theirs[usize::from(*bucket)] = *hash;
        }
        let parts = (0..=u8::MAX).zip(host.store().buckets(&key).iter().zip(&theirs));
        let parts: VecDeque<u8> =
            parts.filter(|(_, (ours, theirs))| ours != theirs).map(|(part, _)| part).collect();
        self.outbox.list(key.clone(), parts)?;
        self.offered = Some(key);
        Ok(())
    }

    /// The other one has this in a part of a key.
    fn answer(
        &mut self,
        host: &impl Host,
        key: SmolStr,
        part: u8,
        entries: Vec<(EntryId, u64)>,
    ) -> Result<(), Refusal> {
        let told = match self.told.take() {
            Some(told) if (&told.key, told.part) == (&key, part) => told,
            Some(told) if (&told.key, told.part) > (&key, part) => return Err("repeated"),
            before => {
                self.told = before;
                self.answer_rest(host)?;
                Told { key, part, upto: None }
            }
        };
        let after = told.upto.clone();
        let mut upto = told.upto;
        for (entry, _) in &entries {
            let mark = mark_of(entry);
            if bucket_of(&entry.id) != part || upto.as_ref().is_some_and(|upto| *upto >= mark) {
                return Err("repeated");
            }
            upto = Some(mark);
        }
        if !entries.is_empty() {
            self.answer_between(host, &told.key, part, (after, upto.clone()), entries)?;
        }
        self.told = Some(Told { upto, ..told });
        Ok(())
    }

    /// All that the other one has in a part of a key was told.
    fn answer_rest(&mut self, host: &impl Host) -> Result<(), Refusal> {
        if let Some(Told { key, part, upto }) = self.told.take() {
            let rest = host.store().entries_between(&key, part, upto, None);
            let rest: Vec<EntryId> = rest.map(|(entry, ..)| entry.clone()).collect();
            self.outbox.send(host.store(), &key, rest)?;
        }
        Ok(())
    }

    /// Between these marks, the other one has this.
    fn answer_between(
        &mut self,
        host: &impl Host,
        key: &SmolStr,
        part: u8,
        (after, upto): (Option<Mark>, Option<Mark>),
        entries: Vec<(EntryId, u64)>,
    ) -> Result<(), Refusal> {
        let store = host.store();
        let mut theirs: BTreeMap<EntryId, u64> = entries.into_iter().collect();
        let mut to_send = Vec::new();
        for (entry, hash, _) in store.entries_between(key, part, after, upto) {
            if theirs.remove(entry) != Some(hash) {
                to_send.push(entry.clone());
            }
        }
        let is_removed = |entry: &EntryId| store.removal(key, entry).is_some();
        let (removed, lacking): (Vec<EntryId>, Vec<EntryId>) = theirs.into_keys().partition(is_removed);
        to_send.extend(removed);
        self.outbox.send(store, key, to_send)?;
        self.outbox.ask(key, lacking)
    }

    /// The other one has these heartbeats of a key. Those that only one of us has are found by digests.
    fn answer_beats(
        &mut self,
        host: &impl Host,
        key: SmolStr,
        beats: &[(u64, Version)],
    ) -> Result<(), Refusal> {
        let (Some((first, _)), Some((last, _))) = (beats.first(), beats.last()) else { return Ok(()) };
        if self.last_beat.as_ref().is_some_and(|(told, id_hash)| (told, id_hash) >= (&key, first)) {
            return Err("repeated");
        }
        let store = host.store();
        let (mut later, mut lacking) = (Vec::new(), Vec::new());
        for (id_hash, theirs) in beats {
            let Some(entry) = store.find(&key, *id_hash, HEARTBEAT_FACET) else { continue };
            let Some(ours) = store.get(&key, entry).map(Slot::register) else { continue };
            if ours.is_tombstone() {
                continue;
            }
            match ours.version.cmp(theirs) {
                Ordering::Greater => later.push(entry.clone()),
                Ordering::Less => lacking.push(entry.clone()),
                Ordering::Equal => (),
            }
        }
        self.outbox.send(store, &key, later)?;
        self.outbox.ask(&key, lacking)?;
        self.last_beat = Some((key, *last));
        Ok(())
    }

    fn send_removals(&mut self, host: &impl Host) -> Result<(), Refusal> {
        let store = host.store();
        let mut by_key: BTreeMap<&SmolStr, Vec<EntryId>> = BTreeMap::new();
        for (key, entry) in store.removals() {
            by_key.entry(key).or_default().push(entry.clone());
        }
        for (key, entries) in by_key {
            self.outbox.send(store, key, entries)?;
        }
        Ok(())
    }

    fn take(&mut self, host: &mut impl Host, records: &RecordList) -> Result<(), Refusal> {
        for record in records {
            let record = record.map_err(|_| "bad_record")?;
            let beats = only_beats(host.store(), &record);
            match host.take(&record) {
                Taken::Changed => self.moved_here += u64::from(!beats),
                // The other one does not know what we have; it waits for our registers only if it did not open the stream.
                Taken::Older if self.turn == Turn::Answers => {
                    self.outbox.send(host.store(), &SmolStr::new(record.key), vec![record.entry()])?;
                }
                Taken::Ahead => {
                    self.ahead.insert(record.author);
                }
                Taken::Full => self.full += 1,
                Taken::Known | Taken::Older | Taken::Refused => (),
            }
        }
        Ok(())
    }
}
