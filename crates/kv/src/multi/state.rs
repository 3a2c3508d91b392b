//! [`State`]: what is known of one key, and what its readers are shown. Takes in what was heard, read and written; asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::compare::{self, Comparison};
use super::delta::{self, Op, Plan};
use super::held::{Held, How, Landing};
use super::marks::{Ages, Marks};
use super::mode::{Context, Mode};
use super::place::{Both, Place};
use super::queue::{Batch, Queue};
use super::reconcile::{self, Pushes};
use super::union::{Facts, Known, Pair};
use super::versions::Versions;
use super::written::Written;
use crate::codec::{Codec, Stamp};
use crate::entries::Entries;
use crate::store::{Change, EntryBytes, EntryId, Precondition, Stored, Traces};

static NO_MARKS: Marks = Marks::new();

/// What is known of one key.
#[derive(Default)]
pub(super) struct State {
    held: Both<Held>,
    ages: Ages,
    marks: Marks,
    written: Written,
    /// The key was deleted, and nobody was seen to write it since.
    deleted: bool,
    /// What readers see of the entries.
    union: Arc<Entries<EntryBytes>>,
    /// How things stood when that was made.
    mode: Option<Mode>,
    /// It differs from what they were shown.
    changed: bool,
    /// They are to be shown it in any case.
    forced: bool,
    /// What they were shown; `None` = nothing yet.
    shown: Option<Option<Stored>>,
    versions: Versions,
    compared: Option<Comparison>,
    reconciled: Option<Reconciled>,
    /// Why each store last refused a change.
    refused: Both<Option<String>>,
    /// Since when both stores are followed.
    both_since: Option<Instant>,
}

/// When both stores were read and told what they lacked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reconciled {
    pub(super) at: Instant,
    /// Milliseconds since 1970.
    pub(super) at_ms: i64,
}

/// A write that is about to be made.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    /// The store that was the primary when it began. It ends there, whatever happens meanwhile.
    pub(super) place: Place,
    /// As that store has it.
    pub(super) when: Precondition,
    /// If that store does not answer, the other one will do.
    pub(super) fails_over: bool,
    mirror: bool,
    /// What is to be removed, and when it had been written.
    removed: BTreeMap<EntryId, i64>,
    /// What was on its way when it began.
    queued: Both<u64>,
    /// How often it had been learned what each store holds, up to which version anything was known of it, and what this process
    /// had written: what is beyond that may be from after this write, whenever this is answered.
    learned: Both<u64>,
    latest: Both<u64>,
    written: u64,
}

impl Begun {
    /// The same of a part of the change.
    pub(super) fn of(&self, change: &Change) -> Self {
        let mut begun = self.clone();
        begun.removed.retain(|id, _| change.removals.contains(id));
        begun
    }
}

impl State {
    /// Makes what readers see anew if things stand otherwise than when it was made.
    pub(super) fn adopt(&mut self, context: &Context) {
        if self.mode != Some(context.mode) {
            self.forced |= self.mode.is_some_and(|mode| mode.epoch != context.mode.epoch);
            if self.mode.is_some_and(|mode| mode.mirror) && !context.mode.mirror {
                // Nobody is to be told any more, and if it came back in a month, least of all this.
                let queue = &mut self.held[context.mode.secondary()].queue;
                queue.drop_all_until(queue.last());
            }
            self.mode = Some(context.mode);
            self.refresh_all(context);
        }
    }

    /// What readers are to be shown, if it is news; at first once the primary was heard, or need not be waited for.
    pub(super) fn publish(
        &mut self,
        context: &Context,
        next_version: impl FnOnce() -> u64,
    ) -> Option<Option<Stored>> {
        let primary = context.mode.primary;
        let heard = |place: Place| self.held[place].snapshot.is_some();
        let stands_in = context.mode.union && context.mode.stands_in;
        if !(heard(primary) || stands_in && heard(primary.other())) {
            return None;
        }
        let present = self.pair(context).is_present(&self.union);
        let theirs = self.held[primary].version();
        let changed = std::mem::take(&mut self.changed) && present;
        let is_same = self.shown.as_ref().is_some_and(|shown| shown.is_some() == present) && !changed;
        if is_same && !std::mem::take(&mut self.forced) {
            if present {
                self.versions.move_last(primary, theirs);
            }
            return None;
        }
        self.forced = false;
        let value = present.then(|| Stored { version: next_version(), entries: Arc::clone(&self.union) });
        if let Some(stored) = &value {
            self.versions.add(stored, primary, theirs);
        }
        self.shown = Some(value.clone());
        Some(value)
    }

    /// What readers are shown; `None` = nothing yet.
    pub(super) fn shown(&self) -> Option<Option<Stored>> {
        self.shown.clone()
    }

    /// What a store holds as far as it is known; `None` = it was never heard.
    pub(super) fn snapshot(&self, place: Place) -> Option<Option<Stored>> {
        self.held[place].snapshot.clone()
    }

    /// To be asked before a store is read, and given back with what was read.
    pub(super) fn begin_read(&self, place: Place) -> How {
        How::Read(self.held[place].moves())
    }

    /// Begins a write; `None` if what it builds on is no longer so.
    pub(super) fn begin(&self, context: &Context, change: &Change, when: Precondition) -> Option<Begun> {
        let primary = context.mode.primary;
        let (when, seen) = match when {
            Precondition::None => (Precondition::None, None),
            Precondition::Version(None) | Precondition::Entries(None) => {
                if matches!(self.shown, Some(Some(_))) {
                    return None;
                }
                (Precondition::Version(self.held[primary].version()), None)
            }
            Precondition::Version(Some(ours)) | Precondition::Entries(Some(ours)) => {
                let version = self.versions.find(ours).filter(|version| version.place == primary)?;
                // The primary may not have heard yet of what changed in the other store.
                let bytes = |entry: Option<&EntryBytes>| entry.map(|entry| entry.bytes.clone());
                let moved = |id: &EntryId| bytes(version.entries.get(id)) != bytes(self.union.get(id));
                if change.upserts.keys().chain(&change.removals).any(moved) {
                    return None;
                }
                (Precondition::Version(version.theirs), Some(Arc::clone(&version.entries)))
            }
        };
        let stamp = |id: &EntryId, entry: &EntryBytes| context.codec.stamp(id, &entry.bytes);
        let removed = change.removals.iter().filter(|id| !change.upserts.contains_key(*id)).map(|id| {
            let seen = seen.as_ref().and_then(|entries| entries.get(id)).and_then(|entry| stamp(id, entry));
            let timestamp = seen.map(|stamp| stamp.timestamp).or_else(|| self.ages.timestamp(id));
            (id.clone(), timestamp.unwrap_or(context.now))
        });
        let is_decision = when != Precondition::None;
        let heard = self.held[primary].snapshot.is_some() || context.mode.stands_in;
        Some(Begun {
            place: primary,
            when,
            fails_over: context.mode.mirror && heard && !is_decision,
            mirror: context.mode.mirror,
            removed: removed.collect(),
            queued: Both::of(|place| self.held[place].queue.last()),
            learned: Both::of(|place| self.held[place].learned),
            latest: Both::of(|place| self.held[place].latest()),
            written: self.written.last(),
        })
    }

    /// Begins to remove the key; `None` if it is not what readers were given with the version that `when` says.
    pub(super) fn begin_deletion(&self, context: &Context, when: Precondition) -> Option<Begun> {
        let shown = self.shown.as_ref().and_then(Option::as_ref).map(|stored| stored.version);
        if matches!(when, Precondition::Version(version) if version != shown) {
            return None;
        }
        let ids = self.ids().into_iter();
        let removed =
            ids.filter_map(|id| self.ages.timestamp(&id).map(|timestamp| (id, timestamp))).collect();
        Some(Begun { removed, ..self.begin(context, &Change::default(), when)? })
    }

    /// What of a change, when the primary does not answer, is to be written to the other store: what is not older than what is
    /// there.
    pub(super) fn fail_over(&self, context: &Context, begun: &Begun, change: &Change) -> Change {
        // Of a store that was never heard it is not known what is older.
        let Some(known) = &self.held[begun.place.other()].snapshot else { return change.clone() };
        let mut queue = Queue::default();
        enqueue(&mut queue, context, begun, change, 0, &|_| true);
        let entries = known.as_ref().map(|stored| &*stored.entries);
        let batch = queue.batch(usize::MAX);
        let plan = batch.map(|batch| delta::plan(context.codec, &batch, entries, &NO_MARKS, &|_| true));
        plan.unwrap_or_default().change
    }

    /// A change was written: to the primary, or to the other store in its stead. The one that has it not yet is to be told;
    /// returns under which number.
    pub(super) fn commit(
        &mut self,
        context: &Context,
        begun: &Begun,
        change: &Change,
        stored: Stored,
        landing: Landing,
        is_own: &dyn Fn(&str) -> bool,
    ) -> Option<u64> {
        for (id, timestamp) in &begun.removed {
            self.marks.set(id, *timestamp, context.remembered_until());
        }
        for (id, bytes) in &change.upserts {
            self.marks.lift(id);
            self.deleted = false;
            if let Some(stamp) = context.codec.stamp(id, bytes) {
                self.ages.see(id, stamp.timestamp, context.now, false);
                self.ages.wrote(id, context.now);
            }
        }
        self.written.note(change.upserts.keys());
        let (place, version) = (landing.place, stored.version);
        self.take_answer(context, change, stored, landing);
        for id in change.upserts.keys().chain(&change.removals) {
            self.held[place].queue.drop_until(id, begun.queued[place]);
        }
        change.upserts.keys().for_each(|id| self.held[place].queue.spare(id));
        self.clear_away(context, place, begun.removed.keys());
        // What was written to a store that is the primary no longer is not to be lost, mirrored or not.
        let mirrors = context.mode.mirror || begun.mirror && place != context.mode.primary;
        let number = mirrors.then(|| {
            let queue = &mut self.held[place.other()].queue;
            enqueue(queue, context, begun, change, version, is_own);
            queue.last()
        });
        self.refresh(context, change.upserts.keys().chain(&change.removals).cloned());
        number
    }

    /// What of a change a store holds as it was to be, by the latest that is known of it: what this process has done since is in it,
    /// although a read that began before is not.
    pub(super) fn landed(&self, codec: &dyn Codec, place: Place, change: &Change) -> Change {
        let side = self.held[place].side_without_queue();
        delta::landed(codec, change, |id| side.entry(codec, id).map(|entry| entry.bytes))
    }

    /// What came to a store although it was removed, because it was under way to it meanwhile, goes from it again.
    fn clear_away<'a>(&mut self, context: &Context, place: Place, ids: impl Iterator<Item = &'a EntryId>) {
        let now = Instant::now();
        for id in ids {
            let Some(timestamp) = self.marks.timestamp(id) else { continue };
            let held = &mut self.held[place];
            let entry = held.side_without_queue().entry(context.codec, id);
            let stamp = entry.and_then(|entry| context.codec.stamp(id, &entry.bytes));
            if stamp.is_some_and(|stamp| stamp.timestamp <= timestamp) {
                held.queue.push(context.codec, id.clone(), Op::Remove { timestamp }, false, 0, now);
            }
        }
    }

    /// Takes in what a store answered to a change.
    fn take_answer(&mut self, context: &Context, change: &Change, stored: Stored, landing: Landing) {
        let Landing { place, whole } = landing;
        if stored.version == 0 {
            // Nothing was changed. Whoever has made the key meanwhile is heard of.
            if !self.held[place].is_present() {
                self.learn(context, place, None, How::Write);
            }
        } else if whole {
            self.learn(context, place, Some(stored), How::Write);
        } else {
            let held = &mut self.held[place];
            // What others wrote meanwhile is not in it: that is for the watch to tell.
            if stored.version > held.newest {
                held.push_unseen(stored.version, change.clone());
                self.refresh(context, change.upserts.keys().chain(&change.removals).cloned());
            }
        }
    }

    /// The key was deleted: in the primary, or in the other store in its stead. The one that has it still is to be told; returns
    /// under which number.
    pub(super) fn commit_deletion(&mut self, context: &Context, begun: &Begun, place: Place) -> Option<u64> {
        // What was written since it began comes after it, in whatever order both were answered.
        let spared = self.written.since(begun.written);
        let mut removed = begun.removed.clone();
        removed.retain(|id, _| !spared.contains(id));
        for (id, timestamp) in &removed {
            self.marks.set(id, *timestamp, context.remembered_until());
        }
        self.deleted |= spared.is_empty();
        let held = &mut self.held[place];
        held.unseen.retain(|(version, _)| *version > begun.latest[place]);
        held.queue.drop_all_until(begun.queued[place]);
        // What was learned since may be from before or from after: that is for the watch to tell.
        if held.learned == begun.learned[place] {
            self.learn(context, place, None, How::Write);
        }
        let mirrors = context.mode.mirror || begun.mirror && place != context.mode.primary;
        let (queue, began) = (&mut self.held[place.other()].queue, begun.queued[place.other()]);
        let number = mirrors.then(|| queue.push_deletion(removed, spared, began, Instant::now()));
        self.refresh_all(context);
        number
    }

    /// Takes in what a store holds; older news is dropped. Returns whether the store lost something that nobody removed.
    pub(super) fn learn(&mut self, context: &Context, place: Place, value: Option<Stored>, how: How) -> bool {
        if !self.held[place].accepts(value.as_ref(), how) {
            return false;
        }
        if self.both_since.is_none() && self.held[place.other()].snapshot.is_some() {
            self.both_since = Some(Instant::now());
        }
        let held = &mut self.held[place];
        held.learned += 1;
        let is_new = value.as_ref().is_some_and(|stored| stored.version > held.newest);
        // Whoever read the key as absent, and heard of no write meanwhile, read it after all of them.
        let is_gone = value.is_none() && matches!(how, How::Read(_));
        held.newest = held.newest.max(value.as_ref().map_or(0, |stored| stored.version));
        let entries = |stored: &Option<Stored>| stored.as_ref().map(|stored| Arc::clone(&stored.entries));
        let (first, new, is_present) = (held.snapshot.is_none(), entries(&value), value.is_some());
        let before = held.snapshot.replace(value).flatten();
        let old = entries(&before);
        let mut ids: Vec<EntryId> = Vec::new();
        let newest = held.newest;
        held.unseen.retain(|(version, change)| {
            let is_unseen = *version > newest && !is_gone;
            if !is_unseen {
                ids.extend(change.upserts.keys().chain(&change.removals).cloned());
            }
            is_unseen
        });
        let nothing = Entries::new();
        let (old, new) = (old.as_deref().unwrap_or(&nothing), new.as_deref().unwrap_or(&nothing));
        let mut lost = false;
        Entries::compare(old, new, |id, was, is| {
            if was == is {
                return;
            }
            ids.push(id.clone());
            let Some(stamp) = is.or(was).and_then(|entry| context.codec.stamp(id, &entry.bytes)) else {
                return;
            };
            if is.is_some() {
                let is_sign = self.ages.see(id, stamp.timestamp, context.now, first);
                // What is there although it was removed there was written since.
                if is_sign || was.is_none() && context.removals_are_meant[place] {
                    self.marks.heard(id);
                }
                return;
            }
            let stamp = last_known(&self.held, context, place, id, stamp);
            let silent = !self.ages.is_fresh(id, context.now, context.freshness.heartbeat_timeout);
            if context.removals_are_meant[place] || stamp.left || stamp.passing || silent {
                self.marks.set(id, stamp.timestamp, context.remembered_until());
            }
            lost |= !self.marks.hide(id, stamp.timestamp);
        });
        if is_new && place == context.mode.primary {
            self.deleted = false;
        } else if !is_present && before.is_some() && context.removals_are_meant[place] {
            self.deleted = true;
        }
        self.refresh(context, ids);
        lost
    }

    /// What a store is to be told next, no more than so many entries.
    pub(super) fn batch(&self, place: Place, most: usize) -> Option<Batch> {
        self.held[place].queue.batch(most)
    }

    /// The number of the last change that was to be told to a store.
    pub(super) fn last_queued(&self, place: Place) -> u64 {
        self.held[place].queue.last()
    }

    /// A store does not take these changes, for this reason.
    pub(super) fn refuse(&mut self, place: Place, batch: &Batch, why: String) {
        self.held[place].queue.refuse(batch);
        self.refused[place] = Some(why);
    }

    /// Why a store does not take what is on its way to it; `None` if it does, as far as that is known.
    pub(super) fn refusal(&self, place: Place) -> Option<&str> {
        self.refused[place].as_deref().filter(|_| self.held[place].queue.has_refused())
    }

    /// Whether nothing in `batch` was replaced, or told otherwise, since.
    pub(super) fn is_current(&self, place: Place, batch: &Batch) -> bool {
        self.held[place].queue.holds(batch)
    }

    /// What `batch` does to what a store holds.
    pub(super) fn plan(
        &self,
        context: &Context,
        batch: &Batch,
        current: Option<&Stored>,
        is_own: &dyn Fn(&str) -> bool,
    ) -> Plan {
        let entries = current.map(|stored| &*stored.entries);
        delta::plan(context.codec, batch, entries, &self.marks, is_own)
    }

    /// A store was told of a batch; it answered `stored` to `change`, unless there was nothing to tell.
    pub(super) fn told(
        &mut self,
        context: &Context,
        batch: &Batch,
        answer: Option<(Change, Stored)>,
        landing: Landing,
    ) {
        let queue = &mut self.held[landing.place].queue;
        queue.settle(batch);
        queue.settle_deletion(batch);
        if let Some((change, stored)) = answer {
            self.take_answer(context, &change, stored, landing);
            self.clear_away(context, landing.place, change.upserts.keys());
        }
        self.refresh(context, batch.items.keys().cloned());
    }

    /// A store was told that the key is deleted, which it held as this version.
    pub(super) fn told_deletion(&mut self, context: &Context, batch: &Batch, place: Place, version: u64) {
        let held = &mut self.held[place];
        held.queue.settle_deletion(batch);
        held.unseen.retain(|(written, _)| *written > version);
        // What is newer than that was written after it was gone, although it may have been heard of before.
        if held.newest <= version {
            held.newest = version;
            self.learn(context, place, None, How::Write);
        }
        self.refresh_all(context);
    }

    /// Tells both stores what they lack, once both have been heard. What comes back to the primary only if nobody else brings it
    /// is told if `foreign` says so; returns whether there is such a thing.
    pub(super) fn reconcile(&mut self, context: &Context, foreign: bool) -> bool {
        if !context.mode.mirror {
            // It ended while the stores were read.
            return false;
        }
        let Some(pushes) = self.pushes(context) else { return false };
        let (primary, now) = (context.mode.primary, Instant::now());
        let is_foreign = !pushes.foreign.is_empty();
        let mut tell = |place: Place, ops: Vec<(EntryId, Op)>| {
            for (id, op) in ops {
                self.held[place].queue.push(context.codec, id, op, false, 0, now);
            }
        };
        if foreign {
            tell(primary, pushes.foreign);
        } else {
            tell(primary.other(), pushes.to_secondary);
            tell(primary, pushes.to_primary);
        }
        self.refresh_all(context);
        is_foreign
    }

    fn pushes(&self, context: &Context) -> Option<Pushes> {
        let nothing = Entries::new();
        let entries = |place: Place| match self.held[place].known() {
            Known::Unheard => None,
            Known::Absent => Some(&nothing),
            Known::Entries(entries) => Some(entries),
        };
        let primary = context.mode.primary;
        let max_lag = context.freshness.heartbeat_period.saturating_mul(3).as_secs();
        let facts = self.facts(context, &self.marks);
        let mut pushes = reconcile::pushes(entries(primary)?, entries(primary.other())?, max_lag, &facts);
        // What was only brought there from here is no sign that its owner is still to be here.
        let relayed = &self.held[primary.other()].traces.relayed;
        pushes.foreign.retain(|(id, _)| !relayed.contains(id));
        Some(pushes)
    }

    pub(super) fn set_reconciled(&mut self, at_ms: i64) {
        self.reconciled = Some(Reconciled { at: Instant::now(), at_ms });
    }

    pub(super) fn reconciled(&self) -> Option<Reconciled> {
        self.reconciled
    }

    /// Compares both stores, once both have been heard.
    pub(super) fn compare(&mut self, context: &Context) {
        let heard = Place::BOTH.iter().all(|place| self.held[*place].snapshot.is_some());
        let found = heard.then(|| {
            let held = Both::of(|place| self.held[place].known().entries());
            let relayed = Both::of(|place| &self.held[place].traces.relayed);
            compare::compare(&held, context.mode.primary, &relayed, &self.facts(context, &self.marks))
        });
        self.compared = found;
    }

    /// How both stores differed when they were last compared.
    pub(super) fn compared(&self) -> Option<&Comparison> {
        self.compared.as_ref()
    }

    /// Takes in what a store knows beyond its entries.
    pub(super) fn trace(&mut self, context: &Context, place: Place, traces: Traces) {
        let held = self.held[place].known().entries();
        for (id, ago) in &traces.removed {
            let gone = held.is_none_or(|entries| !entries.contains_key(id));
            let removed_at = context.now.saturating_sub_unsigned(ago.as_secs());
            let until = removed_at.saturating_add(context.freshness.remembered_secs());
            // Both are whole seconds: it may have been in the one before.
            let not_before = removed_at.saturating_sub(i64::from(ago.subsec_nanos() > 0));
            let is_back = self.ages.moved_since(id, not_before);
            if gone && !is_back && until >= context.now {
                self.marks.set_weak(id, removed_at, until);
            }
        }
        self.held[place].traces = traces;
        self.refresh_all(context);
    }

    /// Time has passed: what was remembered long enough is forgotten, and who was silent too long no longer counts.
    pub(super) fn pass_time(&mut self, context: &Context) {
        self.marks.expire(context.now);
        let known: BTreeSet<EntryId> = self.ids();
        self.ages.retain(|id| known.contains(id));
        self.written.retain(|id| known.contains(id));
        self.refresh_all(context);
    }

    /// How many changes are on their way to a store, and since when the oldest is.
    pub(super) fn queued(&self, place: Place) -> (usize, Option<Instant>) {
        let queue = &self.held[place].queue;
        (queue.len(), queue.oldest())
    }

    pub(super) fn num_marks(&self) -> usize {
        self.marks.len()
    }

    fn ids(&self) -> BTreeSet<EntryId> {
        let held = self.held.iter().flat_map(Held::ids);
        held.chain(self.union.keys()).cloned().collect()
    }

    fn facts<'a>(&'a self, context: &Context, marks: &'a Marks) -> Facts<'a> {
        let timeout = context.freshness.heartbeat_timeout;
        Facts {
            codec: context.codec,
            marks,
            ages: &self.ages,
            deleted: self.deleted,
            watched: self.both_since.is_some_and(|since| !timeout.is_zero() && since.elapsed() > timeout),
            now: context.now,
            timeout,
        }
    }

    fn pair(&self, context: &Context) -> Pair<'_> {
        let side = |place: Place| self.held[place].side();
        let Mode { primary, union, secondary_counts, .. } = context.mode;
        // Whoever sees the primary alone sees it as it is.
        let marks = if union { &self.marks } else { &NO_MARKS };
        let secondary = (union && secondary_counts).then(|| side(primary.other()));
        Pair { primary: side(primary), secondary, facts: self.facts(context, marks) }
    }

    fn refresh_all(&mut self, context: &Context) {
        let ids = self.ids();
        self.refresh(context, ids);
    }

    fn refresh(&mut self, context: &Context, ids: impl IntoIterator<Item = EntryId>) {
        let pair = self.pair(context);
        let news = ids.into_iter().filter_map(|id| {
            let entry = pair.entry(&id);
            (entry.as_ref() != self.union.get(&id)).then_some((id, entry))
        });
        let news: Vec<(EntryId, Option<EntryBytes>)> = news.collect();
        if news.is_empty() {
            return;
        }
        self.changed = true;
        let union = Arc::make_mut(&mut self.union);
        for (id, entry) in news {
            match entry {
                Some(entry) => drop(union.insert(id, entry)),
                None => drop(union.remove(&id)),
            }
        }
    }
}

/// When the entry was written that is gone from a store which held it as of `was`, and how it was: as it was there, unless it is
/// known from the other store alone that its owner is about to go. What this process is still to write there itself is not gone.
fn last_known(held: &Both<Held>, context: &Context, place: Place, id: &EntryId, was: Stamp) -> Stamp {
    let elsewhere = held[place.other()].side_without_queue().entry(context.codec, id);
    let elsewhere = elsewhere.and_then(|entry| context.codec.stamp(id, &entry.bytes));
    let goes = elsewhere.filter(|stamp| stamp.passing && stamp.timestamp > was.timestamp);
    goes.filter(|_| !held[place].queue.is_own(id)).unwrap_or(was)
}

/// Puts a change, which was committed to the other store as its version `order`, on its way.
fn enqueue(
    queue: &mut Queue,
    context: &Context,
    begun: &Begun,
    change: &Change,
    order: u64,
    is_own: &dyn Fn(&str) -> bool,
) {
    let now = Instant::now();
    for (id, bytes) in &change.upserts {
        let own = is_own(id);
        let op = Op::Upsert { bytes: bytes.clone(), wins_ties: own };
        queue.push(context.codec, id.clone(), op, own, order, now);
    }
    for (id, timestamp) in &begun.removed {
        let op = Op::Remove { timestamp: *timestamp };
        queue.push(context.codec, id.clone(), op, is_own(id), order, now);
    }
}

#[cfg(test)]
mod tests;
