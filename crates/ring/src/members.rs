//! [`Members`]: the members of a snapshot, in storage of which snapshots share what did not change.

use std::ops::{Index, Range};
use std::sync::Arc;

use crate::snapshot::Instance;

/// The members of a ring in the byte order of their ids.
#[derive(Clone, Debug)]
pub struct Members(Chunked<Arc<Instance>>);

/// Iterates over [`Members`].
pub type MembersIter<'a> = ChunkedIter<'a, Arc<Instance>>;

impl Members {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// The member at `place`.
    pub fn get(&self, place: usize) -> Option<&Arc<Instance>> {
        self.0.get(place)
    }

    /// The members in order.
    pub fn iter(&self) -> MembersIter<'_> {
        self.0.iter()
    }

    /// The place of the member called `id`.
    pub fn place_of(&self, id: &str) -> Option<usize> {
        let (mut from, mut to) = (0, self.0.len);
        while from < to {
            let middle = from.midpoint(to);
            match self.0.get(middle)?.id.as_str().cmp(id) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    pub(crate) fn replace(&mut self, place: usize, member: Arc<Instance>) {
        self.0.replace(place, member);
    }
}

impl FromIterator<Arc<Instance>> for Members {
    fn from_iter<I: IntoIterator<Item = Arc<Instance>>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl Index<usize> for Members {
    type Output = Arc<Instance>;

    #[inline]
    fn index(&self, place: usize) -> &Arc<Instance> {
        &self.0[place]
    }
}

impl<'a> IntoIterator for &'a Members {
    type Item = &'a Arc<Instance>;
    type IntoIter = MembersIter<'a>;

    fn into_iter(self) -> MembersIter<'a> {
        self.iter()
    }
}

/// A list in chunks that clones share: a clone with one element replaced costs one chunk, not the whole list.
#[derive(Clone, Debug)]
pub(crate) struct Chunked<T> {
    chunks: Box<[Arc<[T]>]>,
    len: usize,
}

/// Elements per chunk: about as many as there are chunks in a ring of some thousand instances.
const CHUNK: usize = 128;

impl<T> Chunked<T> {
    #[inline]
    fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    fn iter(&self) -> ChunkedIter<'_, T> {
        ChunkedIter { chunks: &self.chunks, left: 0..self.len }
    }
}

impl<T: Clone> Chunked<T> {
    /// Puts `value` in place of the element at `at`; nothing happens beyond the end.
    pub(crate) fn replace(&mut self, at: usize, value: T) {
        let chunk = self.chunks.get_mut(at / CHUNK).map(Arc::make_mut);
        if let Some(old) = chunk.and_then(|chunk| chunk.get_mut(at % CHUNK)) {
            *old = value;
        }
    }
}

impl<T> FromIterator<T> for Chunked<T> {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        let mut iter = iter.into_iter().peekable();
        let (mut chunks, mut len) = (Vec::new(), 0);
        while iter.peek().is_some() {
            let chunk: Arc<[T]> = iter.by_ref().take(CHUNK).collect();
            len += chunk.len();
            chunks.push(chunk);
        }
        Self { chunks: chunks.into(), len }
    }
}

impl<T> Index<usize> for Chunked<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: usize) -> &T {
        &self.chunks[at / CHUNK][at % CHUNK]
    }
}

/// When each member was heard last, with the oldest time of each chunk: whether everybody was heard lately is seen there.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    times: Chunked<i64>,
    oldest: Box<[i64]>,
}

impl Heard {
    /// Puts `time` in place of the one at `place`; nothing happens beyond the end.
    pub(crate) fn replace(&mut self, place: usize, time: i64) {
        self.times.replace(place, time);
        if let (Some(chunk), Some(oldest)) =
            (self.times.chunks.get(place / CHUNK), self.oldest.get_mut(place / CHUNK))
        {
            *oldest = min(chunk);
        }
    }

    /// The times in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        self.times.chunks.iter().flat_map(|chunk| chunk.iter().copied())
    }

    /// Whether nobody was heard before `from`.
    pub(crate) fn all_since(&self, from: i64) -> bool {
        self.oldest.iter().all(|&oldest| oldest >= from)
    }
}

impl FromIterator<i64> for Heard {
    fn from_iter<I: IntoIterator<Item = i64>>(iter: I) -> Self {
        let times: Chunked<i64> = iter.into_iter().collect();
        let oldest = times.chunks.iter().map(|chunk| min(chunk)).collect();
        Self { times, oldest }
    }
}

impl Index<usize> for Heard {
    type Output = i64;

    #[inline]
    fn index(&self, place: usize) -> &i64 {
        &self.times[place]
    }
}

fn min(times: &[i64]) -> i64 {
    times.iter().copied().min().unwrap_or(i64::MAX)
}

/// Iterates over a list in chunks.
#[derive(Clone, Debug)]
pub struct ChunkedIter<'a, T> {
    chunks: &'a [Arc<[T]>],
    left: Range<usize>,
}

impl<'a, T> Iterator for ChunkedIter<'a, T> {
    type Item = &'a T;

    #[inline]
    fn next(&mut self) -> Option<&'a T> {
        self.left.next().map(|at| &self.chunks[at / CHUNK][at % CHUNK])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl<T> DoubleEndedIterator for ChunkedIter<'_, T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left.next_back().map(|at| &self.chunks[at / CHUNK][at % CHUNK])
    }
}

impl<T> ExactSizeIterator for ChunkedIter<'_, T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_in_chunks_reads_like_a_list() {
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
            let list: Chunked<usize> = (0..len).collect();
            assert_eq!((list.len, list.iter().len()), (len, len));
            assert!(list.iter().copied().eq(0..len));
            assert!(list.iter().rev().copied().eq((0..len).rev()));
            assert!((0..len).all(|at| list[at] == at && list.get(at) == Some(&at)));
            assert_eq!(list.get(len), None);
        }
    }

    #[test]
    fn a_replaced_element_costs_its_own_chunk_and_is_not_seen_by_others() {
        let list: Chunked<usize> = (0..3 * CHUNK).collect();
        let mut next = list.clone();
        next.replace(CHUNK + 5, 9_999);
        assert_eq!((list[CHUNK + 5], next[CHUNK + 5]), (CHUNK + 5, 9_999));
        let shared: Vec<_> = list.chunks.iter().zip(&next.chunks).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
        assert_eq!(shared, [true, false, true]);
        next.replace(3 * CHUNK, 0);
        assert_eq!(next.len, 3 * CHUNK);
    }

    #[test]
    fn the_oldest_time_is_known_after_every_change() {
        let mut heard: Heard = (0..3 * CHUNK as i64).map(|place| 1000 - place).collect();
        for (place, time) in
            [(CHUNK + 5, -7), (CHUNK + 5, 2000), (3 * CHUNK - 1, 2000), (0, 3000), (7 * CHUNK, 0)]
        {
            heard.replace(place, time);
            let oldest = heard.iter().min().unwrap();
            assert!(heard.all_since(oldest) && !heard.all_since(oldest + 1));
        }
        assert!(Heard::from_iter([]).all_since(i64::MAX));
    }
}
