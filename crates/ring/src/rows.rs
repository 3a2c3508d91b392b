//! [`Rows`]: per token, whom a walk that begins there takes while nobody extends it. So a lookup reads a few numbers in place
//! of walking.
//!
//! A row follows from the owner of its token and the next row: those whom a walk from the next token takes, with the owner
//! put in front and whoever no longer has a place left out. (The quotas make a matroid, and a walk takes its greedy basis:
//! one element more in front exchanges at most one.) So all rows are made in one pass from the last to the first, and a
//! change is mended by going back from it until a row comes out as it was.

use std::hint::black_box;

use smol_str::SmolStr;

use crate::walk::Quota;

/// How many members a row holds at most; walks for more are not precomputed.
pub(crate) const MAX_WIDTH: usize = 8;

/// What rows depend on besides the tokens and their owners.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// Zone of each member.
    pub(crate) zone_of: &'a [u32],
    /// Names of the zones; the empty one has no limit.
    pub(crate) zones: &'a [SmolStr],
    /// How many members a zone gives; `None` without zone awareness.
    pub(crate) quota: Option<Quota>,
    /// How many members a walk takes at most.
    pub(crate) factor: usize,
}

/// Per token the first members of its walk, the owner first.
#[derive(Debug)]
pub(crate) enum Rows {
    /// Places as narrow as the number of members allows: half the memory is half the cache misses.
    Narrow(Table<u16>),
    /// Places of more than 65,535 members.
    Wide(Table<u32>),
}

/// Tokens that came and went, and where members are now.
#[derive(Debug)]
pub(crate) struct Edit<'a> {
    /// Per old place of a member its new one; `u32::MAX` for members whose tokens all went.
    pub(crate) keep: &'a [u32],
    /// In order; of several at one position, what is added comes before what is removed.
    pub(crate) changes: &'a [Change],
    /// How many tokens there are afterwards, at least one.
    pub(crate) count: usize,
}

/// A token that came or went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// Where it went, or before which it came, in the old list.
    pub(crate) position: usize,
    /// The new place of its owner if it came.
    pub(crate) added: Option<u32>,
}

/// A place of a member, in few bytes.
pub(crate) trait Place: Copy + Eq + std::fmt::Debug {
    /// No member.
    const NOBODY: Self;
    fn new(member: usize) -> Self;
    fn get(self) -> usize;
}

impl Place for u16 {
    const NOBODY: Self = Self::MAX;

    #[inline]
    fn new(member: usize) -> Self {
        member as Self
    }

    #[inline]
    fn get(self) -> usize {
        usize::from(self)
    }
}

impl Place for u32 {
    const NOBODY: Self = Self::MAX;

    #[inline]
    fn new(member: usize) -> Self {
        member as Self
    }

    #[inline]
    fn get(self) -> usize {
        self as usize
    }
}

/// Rows of one width.
#[derive(Debug)]
pub(crate) struct Table<P> {
    cells: Box<[P]>,
    width: usize,
    /// Whether a row is the whole walk.
    complete: bool,
}

impl Rows {
    /// The rows of tokens owned by `owners`, in order.
    pub(crate) fn build(owners: impl ExactSizeIterator<Item = u32> + Clone, rules: &Rules<'_>) -> Self {
        if rules.zone_of.len() <= usize::from(u16::MAX) {
            Self::Narrow(Table::build(owners, rules))
        } else {
            Self::Wide(Table::build(owners, rules))
        }
    }

    /// The rows after `edit`; `None` if they must be built anew.
    ///
    /// Costs a copy, and work for the rows around the changes only.
    pub(crate) fn edited(&self, edit: &Edit<'_>, rules: &Rules<'_>) -> Option<Self> {
        let narrow = rules.zone_of.len() <= usize::from(u16::MAX);
        match self {
            Self::Narrow(table) if narrow => table.edited(edit, rules).map(Self::Narrow),
            Self::Wide(table) if !narrow => table.edited(edit, rules).map(Self::Wide),
            Self::Narrow(_) | Self::Wide(_) => None,
        }
    }

    /// The owner of the token at `position`.
    #[inline]
    pub(crate) fn owner(&self, position: usize) -> usize {
        match self {
            Self::Narrow(table) => table.cells[position * table.width].get(),
            Self::Wide(table) => table.cells[position * table.width].get(),
        }
    }

    /// Reads a little of the rows from `from` up to `to`, to have them at hand.
    #[inline]
    pub(crate) fn touch(&self, from: usize, to: usize) {
        match self {
            Self::Narrow(table) => table.touch(from, to),
            Self::Wide(table) => table.touch(from, to),
        }
    }

    /// How many members a row holds.
    #[inline]
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Narrow(table) => table.width,
            Self::Wide(table) => table.width,
        }
    }

    /// Whether a row is the whole walk.
    #[inline]
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Self::Narrow(table) => table.complete,
            Self::Wide(table) => table.complete,
        }
    }

    /// Calls `take` with the members of the row at `position`, in order, until it says no; whether it never did.
    #[inline]
    pub(crate) fn all(&self, position: usize, mut take: impl FnMut(usize) -> bool) -> bool {
        match self {
            Self::Narrow(table) => table.row(position).iter().all(|place| take(place.get())),
            Self::Wide(table) => table.row(position).iter().all(|place| take(place.get())),
        }
    }
}

impl<P: Place> Table<P> {
    fn build(owners: impl ExactSizeIterator<Item = u32> + Clone, rules: &Rules<'_>) -> Self {
        let count = owners.len();
        let (mut table, last) = match rules.longest(owners.clone()) {
            Some(last) => {
                let cells = vec![P::NOBODY; count * last.len()].into();
                (Self { cells, width: last.len(), complete: true }, last)
            }
            None => (Self { cells: vec![P::NOBODY; count].into(), width: 1, complete: false }, Vec::new()),
        };
        for (position, owner) in owners.enumerate() {
            table.cells[position * table.width] = P::new(owner as usize);
        }
        if table.complete && table.width > 1 && count > 0 {
            table.set(count - 1, &last);
            for position in (0..count - 1).rev() {
                table.derive(position, rules);
            }
        }
        table
    }

    /// The table after `edit`, whose members are told by their new places; `None` if rows are now of another width.
    fn edited(&self, edit: &Edit<'_>, rules: &Rules<'_>) -> Option<Self> {
        let keep: Vec<P> = edit.keep.iter().map(|&place| P::new(place as usize)).collect();
        let in_place = (0u32..).zip(edit.keep).all(|(old, &new)| old == new);
        let width = self.width;
        let mut cells: Vec<P> = Vec::with_capacity(edit.count * width);
        // Rows that are new, or whose successor is.
        let mut marks = Vec::with_capacity(edit.changes.len());
        let mut copied = 0;
        for change in edit.changes {
            let run = &self.cells[copied * width..change.position * width];
            if in_place {
                cells.extend_from_slice(run);
            } else {
                // Whoever is gone was in the rows that are mended below.
                let moved = |place: &P| keep.get(place.get()).copied().unwrap_or(P::NOBODY);
                cells.extend(run.iter().map(moved));
            }
            copied = change.position;
            match change.added {
                Some(owner) => {
                    marks.push(cells.len() / width);
                    cells.push(P::new(owner as usize));
                    cells.extend(std::iter::repeat_n(P::NOBODY, width - 1));
                }
                None => {
                    copied += 1;
                    marks.extend((cells.len() / width).checked_sub(1));
                }
            }
        }
        let run = &self.cells[copied * width..];
        cells.extend(run.iter().map(|place| keep.get(place.get()).copied().unwrap_or(P::NOBODY)));
        let mut table = Self { cells: cells.into(), width, complete: self.complete };
        table.mend(marks, edit.count, rules).then_some(table)
    }

    /// Makes the rows at `marks` anew, and those before each until one comes out as it was; false if the width is wrong.
    fn mend(&mut self, mut marks: Vec<usize>, count: usize, rules: &Rules<'_>) -> bool {
        let last = rules.longest((0..count).map(|position| self.cells[position * self.width].get() as u32));
        let fits = last
            .as_ref()
            .map_or(!self.complete && self.width == 1, |last| self.complete && last.len() == self.width);
        if !fits || self.width <= 1 {
            return fits;
        }
        // The last row is walked for, so that it is right whatever changed at the start of the circle.
        let before = self.row(count - 1).to_vec();
        self.set(count - 1, &last.unwrap_or_default());
        let (mut position, mut changed) = (count - 1, self.row(count - 1) != before);
        loop {
            if changed && position > 0 {
                position -= 1;
            } else {
                while marks.pop_if(|mark| *mark >= position).is_some() {}
                let Some(mark) = marks.pop() else { return true };
                position = mark;
            }
            changed = self.derive(position, rules);
        }
    }

    #[inline]
    fn touch(&self, from: usize, to: usize) {
        let middle = from.midpoint(to);
        for position in [from, middle, to] {
            black_box(self.cells.get(position * self.width).copied());
        }
    }

    #[inline]
    fn row(&self, position: usize) -> &[P] {
        &self.cells[position * self.width..][..self.width]
    }

    fn set(&mut self, position: usize, row: &[u32]) {
        let cells = &mut self.cells[position * self.width..][..self.width];
        cells.iter_mut().zip(row).for_each(|(cell, &place)| *cell = P::new(place as usize));
    }

    /// Makes the row at `position` from its owner and the row behind it; whether it changed.
    #[inline]
    fn derive(&mut self, position: usize, rules: &Rules<'_>) -> bool {
        let (head, tail) = self.cells.split_at_mut((position + 1) * self.width);
        let (row, next) = (&mut head[position * self.width..], &tail[..self.width]);
        let owner = row[0];
        let mut made = [P::NOBODY; MAX_WIDTH];
        made[0] = owner;
        let mut len = 1;
        match rules.quota {
            None => {
                for &place in next {
                    if place != owner && len < row.len() {
                        made[len] = place;
                        len += 1;
                    }
                }
            }
            Some(mut quota) => {
                for &place in next {
                    if place == owner || len == row.len() {
                        continue;
                    }
                    if rules.limits(place.get()) {
                        let zone = rules.zone_of[place.get()];
                        let same = |other: &&P| rules.zone_of[other.get()] == zone;
                        let taken = made[..len].iter().filter(same).count();
                        if quota.is_full(taken) {
                            continue;
                        }
                        quota.take(taken);
                    }
                    made[len] = place;
                    len += 1;
                }
            }
        }
        let made = &made[..row.len()];
        let changed = row != made;
        row.copy_from_slice(made);
        changed
    }
}

impl Rules<'_> {
    #[inline]
    fn limits(&self, member: usize) -> bool {
        !self.zones[self.zone_of[member] as usize].is_empty()
    }

    /// The walk that begins at the last of the tokens owned by `owners`; `None` if it is too long for a row.
    ///
    /// All walks are as long as this one: each ends with a basis.
    fn longest(&self, owners: impl ExactSizeIterator<Item = u32> + Clone) -> Option<Vec<u32>> {
        if self.factor > MAX_WIDTH {
            return None;
        }
        let count = owners.len();
        let around = owners.clone().skip(count.saturating_sub(1)).chain(owners.take(count.saturating_sub(1)));
        let mut walk: Vec<u32> = Vec::with_capacity(MAX_WIDTH);
        let mut quota = self.quota;
        for owner in around {
            if walk.len() == self.factor {
                break;
            }
            if walk.contains(&owner) {
                continue;
            }
            if let Some(quota) = quota.as_mut().filter(|_| self.limits(owner as usize)) {
                let zone = self.zone_of[owner as usize];
                let taken = walk.iter().filter(|other| self.zone_of[**other as usize] == zone).count();
                if quota.is_full(taken) {
                    continue;
                }
                quota.take(taken);
            }
            walk.push(owner);
        }
        Some(walk)
    }
}
