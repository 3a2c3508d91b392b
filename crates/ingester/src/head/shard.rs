//! A share of a tenant's series with everything needed to find them, behind one lock.

use hashbrown::HashTable;
use ringkit_tsdb::matcher::Matcher;

use super::labels::{Canonical, is_form_of};
use super::postings::Postings;
use super::series::Series;
use super::symbols::{Symbol, Symbols};

/// The place of a series in its shard. Given out again once the series is gone.
pub(crate) type Slot = u32;

/// The number of series on one page: a growing shard neither copies them nor keeps a half-empty array.
const PAGE: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    /// The tenant was removed: series put here would be lost.
    pub(crate) dead: bool,
    index: HashTable<Slot>,
    pages: Vec<Vec<Option<Series>>>,
    free: Vec<Slot>,
    symbols: Symbols,
    postings: Postings,
}

impl Shard {
    /// Finds a series by the canonical form of its labels. Parses nothing and allocates nothing.
    pub(crate) fn find(&self, hash: u64, label_bytes: &[u8]) -> Option<Slot> {
        let same = |&slot: &Slot| {
            self.get(slot)
                .is_some_and(|series| series.hash == hash && is_form_of(label_bytes, self.labels_of(series)))
        };
        self.index.find(hash, same).copied()
    }

    /// Adds a series that is not there yet.
    pub(crate) fn insert(&mut self, id: u64, labels: &Canonical<'_>) -> Slot {
        let pairs = labels.pairs.iter();
        let pairs: Box<[_]> =
            pairs.map(|(name, value)| (self.symbols.intern(name), self.symbols.intern(value))).collect();
        let slot = self.free.pop().unwrap_or_else(|| self.grow());
        for &(name, value) in &pairs {
            self.postings.insert(name, value, slot);
        }
        if let Some(place) = place(&mut self.pages, slot) {
            *place = Some(Series::new(labels.hash, id, pairs));
        }
        let pages = &self.pages;
        self.index.insert_unique(labels.hash, slot, |&slot| get(pages, slot).map_or(0, |series| series.hash));
        slot
    }

    fn grow(&mut self) -> Slot {
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            // The first page grows by itself, so that a tenant with ten series does not pay for a page.
            let capacity = if self.pages.is_empty() { 0 } else { PAGE };
            self.pages.push(Vec::with_capacity(capacity));
        }
        let full = self.pages.len().saturating_sub(1) * PAGE;
        let Some(page) = self.pages.last_mut() else { return Slot::MAX };
        page.push(None);
        Slot::try_from(full + page.len() - 1).unwrap_or(Slot::MAX)
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Series> {
        get(&self.pages, slot)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Series> {
        place(&mut self.pages, slot)?.as_mut()
    }

    /// The labels of a series of this shard, sorted by name.
    pub(crate) fn labels_of<'s>(&'s self, series: &'s Series) -> impl Iterator<Item = (&'s str, &'s str)> {
        series.labels.iter().map(|&(name, value)| (self.symbols.text(name), self.symbols.text(value)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Series)> {
        let slots = self.pages.iter().flatten().zip(0..);
        slots.filter_map(|(series, slot)| Some((slot, series.as_ref()?)))
    }

    /// The series that satisfy all matchers, in the order of their slots.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> Vec<Slot> {
        self.postings.select(&self.symbols, matchers, || self.iter().map(|(slot, _)| slot).collect())
    }

    /// All label names that occur.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.postings.names().map(|name| self.symbols.text(name))
    }

    /// The values of a label, and how many series have each.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = (&str, usize)> {
        let name = self.symbols.find(name);
        let values = name.into_iter().flat_map(|name| self.postings.values(name));
        values.map(|(value, series)| (self.symbols.text(value), series))
    }

    /// Drops what ends before `bound`; hands the labels of each series that goes to `gone`. Returns the number of
    /// chunks dropped.
    pub(crate) fn expire(&mut self, bound: i64, mut gone: impl FnMut(Option<&str>)) -> usize {
        let mut chunks = 0;
        let mut idle: Vec<Slot> = Vec::new();
        for (series, slot) in self.pages.iter_mut().flatten().zip(0..) {
            let Some(series) = series else { continue };
            if series.last_time().is_none_or(|last| last < bound) {
                idle.push(slot);
                chunks += series.num_chunks();
            } else {
                chunks += series.expire(bound);
            }
        }
        self.remove(&idle, &mut gone);
        chunks
    }

    /// Removes series; `slots` must be sorted.
    fn remove(&mut self, slots: &[Slot], gone: &mut impl FnMut(Option<&str>)) {
        let mut touched: Vec<(Symbol, Symbol)> = Vec::new();
        for &slot in slots {
            let Some(series) = place(&mut self.pages, slot).and_then(Option::take) else { continue };
            if let Ok(entry) = self.index.find_entry(series.hash, |&other| other == slot) {
                entry.remove();
            }
            let metric =
                self.labels_of(&series).find(|(name, _)| *name == "__name__").map(|(_, value)| value);
            gone(metric);
            touched.extend(series.labels.iter());
            self.free.push(slot);
        }
        touched.sort_unstable();
        self.postings.remove(touched.chunk_by(|a, b| a == b).filter_map(|same| same.first().copied()), slots);
        for (name, value) in touched {
            self.symbols.release(name);
            self.symbols.release(value);
        }
        if self.index.is_empty() {
            // Nobody is left who could be found by a slot: start small again.
            *self = Self { dead: self.dead, ..Self::default() };
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self, mut gone: impl FnMut(Option<&str>)) {
        let all: Vec<Slot> = self.iter().map(|(slot, _)| slot).collect();
        self.remove(&all, &mut gone);
    }
}

fn get(pages: &[Vec<Option<Series>>], slot: Slot) -> Option<&Series> {
    pages.get(slot as usize / PAGE)?.get(slot as usize % PAGE)?.as_ref()
}

fn place(pages: &mut [Vec<Option<Series>>], slot: Slot) -> Option<&mut Option<Series>> {
    pages.get_mut(slot as usize / PAGE)?.get_mut(slot as usize % PAGE)
}
