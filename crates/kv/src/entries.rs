//! [`Entries`]: a sorted map of entries whose clones share what did not change.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use crate::store::EntryId;

/// A map from id to entry, in the byte order of the ids, whose clones share what did not change.
///
/// A key holds thousands of entries, of which a write changes one. So they lie in chunks behind counted pointers: a clone
/// with one entry changed costs a pointer per chunk and one chunk, a small part of n; and two versions are compared by
/// looking into those chunks only that they do not share.
#[derive(Clone)]
pub struct Entries<T> {
    // Neither empty nor overlapping, in order.
    chunks: Vec<Arc<Chunk<T>>>,
    len: usize,
}

type Chunk<T> = Vec<(EntryId, T)>;

/// Most entries in a chunk: few, as a heartbeat copies and compares all of one. A ring of a thousand instances has
/// sixty to a hundred and thirty, and from some thousands on the pointers cost more than the chunk.
const MAX_CHUNK: usize = 16;

/// Chunks below this are joined with a neighbour.
const MIN_CHUNK: usize = MAX_CHUNK / 4;

impl<T> Entries<T> {
    /// No entries.
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry called `id`. O(log n).
    pub fn get(&self, id: &str) -> Option<&T> {
        let chunk = self.chunks.get(self.chunk_of(id))?;
        let at = place(chunk, id).ok()?;
        chunk.get(at).map(|(_, entry)| entry)
    }

    /// Whether there is an entry called `id`.
    pub fn contains_key(&self, id: &str) -> bool {
        self.get(id).is_some()
    }

    /// The entries in the order of their ids.
    pub fn iter(&self) -> EntriesIter<'_, T> {
        EntriesIter { chunks: self.chunks.iter(), front: [].iter(), back: [].iter(), left: self.len }
    }

    /// The ids in order.
    pub fn keys(&self) -> impl Iterator<Item = &EntryId> {
        self.iter().map(|(id, _)| id)
    }

    /// The entries without their ids, in order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, entry)| entry)
    }

    /// Calls `each` with whatever differs between two versions, in the order of ids: the id and its entry `before` and
    /// `after`. It may also be called for entries that are the same.
    ///
    /// Costs a look at each chunk, and at the entries of those chunks that the versions do not share.
    pub fn compare<'a>(
        before: &'a Self,
        after: &'a Self,
        mut each: impl FnMut(&'a EntryId, Option<&'a T>, Option<&'a T>),
    ) {
        let (mut old, mut new) = (Cursor::new(before), Cursor::new(after));
        loop {
            if old.skips_with(&mut new) {
                continue;
            }
            match (old.peek(), new.peek()) {
                (None, None) => return,
                (Some((id, entry)), None) => {
                    each(id, Some(entry), None);
                    old.advance();
                }
                (None, Some((id, entry))) => {
                    each(id, None, Some(entry));
                    new.advance();
                }
                (Some((old_id, was)), Some((new_id, is))) => match old_id.cmp(new_id) {
                    Ordering::Less => {
                        each(old_id, Some(was), None);
                        old.advance();
                    }
                    Ordering::Greater => {
                        each(new_id, None, Some(is));
                        new.advance();
                    }
                    Ordering::Equal => {
                        each(new_id, Some(was), Some(is));
                        old.advance();
                        new.advance();
                    }
                },
            }
        }
    }

    /// The chunk that holds `id` if any does.
    fn chunk_of(&self, id: &str) -> usize {
        let begins_after =
            |chunk: &Arc<Chunk<T>>| chunk.first().is_some_and(|(first, _)| first.as_str() > id);
        self.chunks.partition_point(|chunk| !begins_after(chunk)).saturating_sub(1)
    }
}

impl<T: Clone> Entries<T> {
    /// Sets the entry called `id` and returns the one it replaces.
    pub fn insert(&mut self, id: EntryId, entry: T) -> Option<T> {
        let at_chunk = self.chunk_of(&id);
        let Some(shared) = self.chunks.get_mut(at_chunk) else {
            self.chunks.push(Arc::new(vec![(id, entry)]));
            self.len = 1;
            return None;
        };
        let found = place(shared, &id);
        // Filled from the front, chunks become full instead of half full.
        if found == Err(MAX_CHUNK) {
            self.chunks.insert(at_chunk + 1, Arc::new(vec![(id, entry)]));
            self.len += 1;
            return None;
        }
        let chunk = Arc::make_mut(shared);
        match found {
            Ok(at) => chunk.get_mut(at).map(|(_, old)| std::mem::replace(old, entry)),
            Err(at) => {
                chunk.insert(at, (id, entry));
                self.len += 1;
                if chunk.len() > MAX_CHUNK {
                    let rest = chunk.split_off(MAX_CHUNK / 2);
                    self.chunks.insert(at_chunk + 1, Arc::new(rest));
                }
                None
            }
        }
    }

    /// Removes the entry called `id` and returns it.
    pub fn remove(&mut self, id: &str) -> Option<T> {
        let at_chunk = self.chunk_of(id);
        let shared = self.chunks.get_mut(at_chunk)?;
        let at = place(shared, id).ok()?;
        let (_, entry) = Arc::make_mut(shared).remove(at);
        self.len -= 1;
        self.join_if_small(at_chunk);
        Some(entry)
    }

    /// The entry called `id`, to be changed.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        let at_chunk = self.chunk_of(id);
        let shared = self.chunks.get_mut(at_chunk)?;
        let at = place(shared, id).ok()?;
        Arc::make_mut(shared).get_mut(at).map(|(_, entry)| entry)
    }

    /// Keeps the entries for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&EntryId, &T) -> bool) {
        // Chunks from which nothing goes stay shared.
        let going: Vec<EntryId> =
            self.iter().filter(|(id, entry)| !keep(id, entry)).map(|(id, _)| id.clone()).collect();
        going.iter().for_each(|id| drop(self.remove(id)));
    }

    fn join_if_small(&mut self, at: usize) {
        let len = |at: usize| self.chunks.get(at).map(|chunk| chunk.len());
        let Some(own) = len(at).filter(|len| *len < MIN_CHUNK) else { return };
        if own == 0 {
            self.chunks.remove(at);
            return;
        }
        // With the next, else with the one before; left alone where both are full.
        let fits = |at: usize| len(at).is_some_and(|len| own + len <= MAX_CHUNK / 2);
        let first = if fits(at + 1) {
            at
        } else if at > 0 && fits(at - 1) {
            at - 1
        } else {
            return;
        };
        let second = self.chunks.remove(first + 1);
        if let Some(joined) = self.chunks.get_mut(first) {
            Arc::make_mut(joined).extend(second.iter().cloned());
        }
    }
}

fn place<T>(chunk: &Chunk<T>, id: &str) -> Result<usize, usize> {
    chunk.binary_search_by(|(known, _)| known.as_str().cmp(id))
}

/// A place in a map under comparison.
struct Cursor<'a, T> {
    chunks: &'a [Arc<Chunk<T>>],
    at: usize,
}

impl<'a, T> Cursor<'a, T> {
    fn new(entries: &'a Entries<T>) -> Self {
        Self { chunks: &entries.chunks, at: 0 }
    }

    fn peek(&self) -> Option<(&'a EntryId, &'a T)> {
        self.chunks.first()?.get(self.at).map(|(id, entry)| (id, entry))
    }

    fn advance(&mut self) {
        self.at += 1;
        if let [chunk, rest @ ..] = self.chunks
            && self.at == chunk.len()
        {
            (self.chunks, self.at) = (rest, 0);
        }
    }

    /// Passes over the chunk at which both are, if it is the same one. Shared chunks always meet: until its first id is
    /// reached on both sides, only smaller ids are advanced over.
    fn skips_with(&mut self, other: &mut Self) -> bool {
        match (self.chunks, other.chunks) {
            ([own, own_rest @ ..], [others, others_rest @ ..])
                if self.at == 0 && other.at == 0 && Arc::ptr_eq(own, others) =>
            {
                (self.chunks, other.chunks) = (own_rest, others_rest);
                true
            }
            _ => false,
        }
    }
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: PartialEq> PartialEq for Entries<T> {
    fn eq(&self, other: &Self) -> bool {
        if self.len != other.len {
            return false;
        }
        let mut equal = true;
        Self::compare(self, other, |_, a, b| equal = equal && a == b);
        equal
    }
}

impl<T: Eq> Eq for Entries<T> {}

impl<T: fmt::Debug> fmt::Debug for Entries<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<T: Clone> FromIterator<(EntryId, T)> for Entries<T> {
    /// Of several entries of one id the last one stays.
    fn from_iter<I: IntoIterator<Item = (EntryId, T)>>(iter: I) -> Self {
        let mut entries = Self::new();
        entries.extend(iter);
        entries
    }
}

impl<T: Clone> Extend<(EntryId, T)> for Entries<T> {
    fn extend<I: IntoIterator<Item = (EntryId, T)>>(&mut self, iter: I) {
        for (id, entry) in iter {
            self.insert(id, entry);
        }
    }
}

impl<T> Index<&str> for Entries<T> {
    type Output = T;

    /// # Panics
    ///
    /// If there is no entry called `id`.
    fn index(&self, id: &str) -> &T {
        #[expect(clippy::expect_used, reason = "the contract of indexing, as in the maps of std")]
        self.get(id).expect("there is an entry of this id")
    }
}

impl<'a, T> IntoIterator for &'a Entries<T> {
    type Item = (&'a EntryId, &'a T);
    type IntoIter = EntriesIter<'a, T>;

    fn into_iter(self) -> EntriesIter<'a, T> {
        self.iter()
    }
}

/// Iterates over [`Entries`] in the order of ids.
#[derive(Clone, Debug)]
pub struct EntriesIter<'a, T> {
    chunks: std::slice::Iter<'a, Arc<Chunk<T>>>,
    front: std::slice::Iter<'a, (EntryId, T)>,
    back: std::slice::Iter<'a, (EntryId, T)>,
    left: usize,
}

impl<'a, T> Iterator for EntriesIter<'a, T> {
    type Item = (&'a EntryId, &'a T);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((id, entry)) = self.front.next() {
                self.left -= 1;
                return Some((id, entry));
            }
            match self.chunks.next() {
                Some(chunk) => self.front = chunk.iter(),
                None => self.front = std::mem::replace(&mut self.back, [].iter()),
            }
            if self.left == 0 {
                return None;
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> DoubleEndedIterator for EntriesIter<'_, T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((id, entry)) = self.back.next_back() {
                self.left -= 1;
                return Some((id, entry));
            }
            match self.chunks.next_back() {
                Some(chunk) => self.back = chunk.iter(),
                None => self.back = std::mem::replace(&mut self.front, [].iter()),
            }
            if self.left == 0 {
                return None;
            }
        }
    }
}

impl<T> ExactSizeIterator for EntriesIter<'_, T> {}

#[cfg(test)]
mod tests;
