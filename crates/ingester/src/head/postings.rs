//! Which series have which label: sorted lists of series per name and value.

use hashbrown::HashMap;
use ringkit_tsdb::matcher::Matcher;

use super::symbols::{Symbol, Symbols};

/// The inverted index of one shard.
#[derive(Debug, Default)]
pub(crate) struct Postings {
    names: HashMap<Symbol, HashMap<Symbol, List>>,
}

/// A sorted list of series. Most values of a label like `instance` have few series, many have one: that costs no
/// allocation.
#[derive(Debug)]
enum List {
    One(u32),
    Many(Vec<u32>),
}

impl List {
    fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(slot) => std::slice::from_ref(slot),
            Self::Many(slots) => slots,
        }
    }

    fn insert(&mut self, slot: u32) {
        match self {
            Self::One(only) if *only == slot => (),
            Self::One(only) => *self = Self::Many(vec![(*only).min(slot), (*only).max(slot)]),
            // New series mostly have the largest number so far.
            Self::Many(slots) if slots.last().is_some_and(|&last| last < slot) => slots.push(slot),
            Self::Many(slots) => {
                if let Err(place) = slots.binary_search(&slot) {
                    slots.insert(place, slot);
                }
            }
        }
    }
}

impl Postings {
    /// Adds a series to the list of one of its labels.
    pub(crate) fn insert(&mut self, name: Symbol, value: Symbol, slot: u32) {
        let values = self.names.entry(name).or_default();
        values.entry(value).and_modify(|list| list.insert(slot)).or_insert(List::One(slot));
    }

    /// Takes series out of all lists of the labels they had. `gone` must be sorted.
    pub(crate) fn remove(&mut self, labels: impl IntoIterator<Item = (Symbol, Symbol)>, gone: &[u32]) {
        for (name, value) in labels {
            let Some(values) = self.names.get_mut(&name) else { continue };
            let Some(list) = values.get_mut(&value) else { continue };
            let empty = match list {
                List::One(only) => gone.binary_search(only).is_ok(),
                List::Many(slots) => {
                    slots.retain(|slot| gone.binary_search(slot).is_err());
                    slots.is_empty()
                }
            };
            if empty {
                values.remove(&value);
                if values.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
    }

    /// The series that satisfy all matchers, sorted. `all` lists every series, and is only asked if no matcher needs
    /// a label to be there.
    pub(crate) fn select(
        &self,
        symbols: &Symbols,
        matchers: &[Matcher],
        all: impl FnOnce() -> Vec<u32>,
    ) -> Vec<u32> {
        let mut wanted: Option<Vec<u32>> = None;
        let mut unwanted: Vec<Vec<u32>> = Vec::new();
        for matcher in matchers {
            // A missing label counts as empty. So a matcher that accepts the empty text is told by the values that it
            // refuses, any other by those that it accepts.
            let accepts_missing = matcher.matches_empty();
            let slots = self.having(symbols, matcher, !accepts_missing);
            if accepts_missing {
                unwanted.push(slots);
            } else {
                wanted = Some(match wanted {
                    Some(so_far) => intersect(so_far, &slots),
                    None => slots,
                });
                if wanted.as_ref().is_some_and(Vec::is_empty) {
                    return Vec::new();
                }
            }
        }
        let mut result = wanted.unwrap_or_else(all);
        for slots in unwanted.iter().filter(|slots| !slots.is_empty()) {
            result.retain(|slot| slots.binary_search(slot).is_err());
        }
        result
    }

    /// The series whose value of the matcher's label is there and makes it say `verdict`.
    fn having(&self, symbols: &Symbols, matcher: &Matcher, verdict: bool) -> Vec<u32> {
        let values = symbols.find(matcher.name()).and_then(|name| self.names.get(&name));
        let Some(values) = values else { return Vec::new() };
        let mut slots: Vec<u32> = match matcher.values() {
            Some(wanted) if verdict => {
                let lists = wanted.filter_map(|value| values.get(&symbols.find(value)?));
                lists.flat_map(List::as_slice).copied().collect()
            }
            _ => {
                let lists =
                    values.iter().filter(|(value, _)| matcher.matches(symbols.text(**value)) == verdict);
                lists.flat_map(|(_, list)| list.as_slice()).copied().collect()
            }
        };
        // A series has one value of a label, so lists have nothing in common unless a value was asked for twice.
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// All label names.
    pub(crate) fn names(&self) -> impl Iterator<Item = Symbol> {
        self.names.keys().copied()
    }

    /// The values of a label and how many series have each.
    pub(crate) fn values(&self, name: Symbol) -> impl Iterator<Item = (Symbol, usize)> {
        self.names.get(&name).into_iter().flatten().map(|(value, list)| (*value, list.as_slice().len()))
    }
}

fn intersect(mut left: Vec<u32>, right: &[u32]) -> Vec<u32> {
    if right.len() > left.len().saturating_mul(16) {
        left.retain(|slot| right.binary_search(slot).is_ok());
        return left;
    }
    let mut rest = right.iter().copied().peekable();
    left.retain(|slot| {
        while rest.next_if(|other| other < slot).is_some() {}
        rest.peek() == Some(slot)
    });
    left
}
