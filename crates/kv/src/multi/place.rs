//! [`Place`]: which of the two stores, whatever part they play at the moment. And [`Both`]: one of something for each.

use std::ops::{Index, IndexMut};

/// One of the two stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The one that is configured as the primary.
    First,
    /// The other.
    Second,
}

impl Place {
    pub(super) const BOTH: [Self; 2] = [Self::First, Self::Second];

    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// One of something for each store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Both<T> {
    first: T,
    second: T,
}

impl<T> Both<T> {
    pub(super) fn new(first: T, second: T) -> Self {
        Self { first, second }
    }

    /// What `make` makes for each.
    pub(super) fn of(mut make: impl FnMut(Place) -> T) -> Self {
        Self { first: make(Place::First), second: make(Place::Second) }
    }

    /// Those of both, the first store's first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.first, &self.second].into_iter()
    }
}

impl<T> Index<Place> for Both<T> {
    type Output = T;

    fn index(&self, place: Place) -> &T {
        match place {
            Place::First => &self.first,
            Place::Second => &self.second,
        }
    }
}

impl<T> IndexMut<Place> for Both<T> {
    fn index_mut(&mut self, place: Place) -> &mut T {
        match place {
            Place::First => &mut self.first,
            Place::Second => &mut self.second,
        }
    }
}
