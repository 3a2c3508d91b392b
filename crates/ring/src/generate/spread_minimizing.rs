//! [`SpreadMinimizing`]: tokens that follow from the number in an instance's name.

use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::OnceLock;

use super::GenerateError;
use crate::desc::Desc;
use crate::token::CIRCLE;

/// Tokens per instance, whatever is asked for.
const TOKENS: u32 = 512;
/// How many zones share the circle: each uses the positions that leave the same remainder.
const MAX_ZONES: usize = 8;
/// The greatest index. The work grows with it, and no zone has nearly as many instances.
const MAX_INDEX: u32 = 16_383;

/// The tokens of an instance whose name ends in its number, such as `ingester-zone-a-7`.
///
/// As long as the instances of a zone are numbered without gaps, each owns the same part of the circle to within a few
/// positions, and the tokens of one are always the same. Zones use positions of their own and never collide.
///
/// # Source
///
/// dskit's spread-minimizing token generator. It takes the first position of a zone, which is taken, where the last one
/// would be next; here it is the last one.
#[derive(Debug)]
pub struct SpreadMinimizing {
    prefix: String,
    index: u32,
    zone_index: usize,
    in_turn: bool,
    tokens: OnceLock<Box<[u32]>>,
}

/// Why an instance cannot have spread-minimizing tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpreadMinimizingError {
    /// No zones are configured, or too many.
    #[error(
        "number of zones {0} is not correct: it must be greater than 0 and less or equal than {MAX_ZONES}"
    )]
    ZoneCount(usize),
    /// The instance's name does not end in a dash and a number.
    #[error("unable to extract instance id from {0:?}")]
    InstanceId(String),
    /// The number in the instance's name is too great.
    #[error("the number of instance {id:?} is too great: the last one is {MAX_INDEX}")]
    IndexTooGreat {
        /// The instance's name.
        id: String,
    },
    /// The instance's zone is not among the configured ones.
    #[error("zone {0} is not valid")]
    UnknownZone(String),
}

impl SpreadMinimizing {
    /// The tokens of instance `id` in `zone`, one of the configured `zones`, whose order does not matter.
    ///
    /// With `in_turn` an instance waits until the one before it has tokens; see [`crate::TokenStrategy::can_join`]. It
    /// does not go together with a tokens file.
    ///
    /// # Errors
    ///
    /// [`SpreadMinimizingError`] naming what is wrong.
    pub fn try_new<S: AsRef<str>>(
        id: &str,
        zone: &str,
        zones: &[S],
        in_turn: bool,
    ) -> Result<Self, SpreadMinimizingError> {
        if zones.is_empty() || zones.len() > MAX_ZONES {
            return Err(SpreadMinimizingError::ZoneCount(zones.len()));
        }
        let (prefix, index) = split_id(id)?;
        let mut sorted: Vec<&str> = zones.iter().map(AsRef::as_ref).collect();
        sorted.sort_unstable();
        let zone_index = sorted.iter().position(|known| *known == zone);
        let zone_index = zone_index.ok_or_else(|| SpreadMinimizingError::UnknownZone(zone.to_owned()))?;
        Ok(Self { prefix: prefix.to_owned(), index, zone_index, in_turn, tokens: OnceLock::new() })
    }

    /// All 512 tokens, ascending. Computed at the first call, which places every instance before this one too: some
    /// milliseconds for instance 100, a third of a second for instance 1,000.
    pub fn tokens(&self) -> &[u32] {
        self.tokens.get_or_init(|| {
            let placement = ZonePlacement::new(self.zone_index);
            placement.into_iter().nth(self.index as usize).unwrap_or_default().into()
        })
    }

    /// The first `n` of the tokens that nobody in `ring` claims; fewer if there are not as many.
    pub(super) fn generate(&self, n: usize, ring: &Desc) -> Vec<u32> {
        let own = self.tokens();
        let taken = ring.iter().flat_map(|(_, entry)| entry.tokens.iter());
        let mut taken: Vec<u32> = taken.copied().filter(|token| own.binary_search(token).is_ok()).collect();
        taken.sort_unstable();
        own.iter().copied().filter(|token| taken.binary_search(token).is_err()).take(n).collect()
    }

    pub(super) fn can_join(&self, ring: &Desc) -> Result<(), GenerateError> {
        let Some(before) = self.index.checked_sub(1).filter(|_| self.in_turn) else { return Ok(()) };
        let predecessor = format!("{}{before}", self.prefix);
        match ring.get(&predecessor) {
            Some(entry) if !entry.tokens.is_empty() => Ok(()),
            _ => Err(GenerateError::PredecessorMissing { predecessor }),
        }
    }
}

/// What comes before the number at the end of `id`, the dash included, and the number.
fn split_id(id: &str) -> Result<(&str, u32), SpreadMinimizingError> {
    let prefix = id.trim_end_matches(|digit: char| digit.is_ascii_digit());
    let number = id.strip_prefix(prefix).unwrap_or_default();
    if !prefix.ends_with('-') || number.is_empty() {
        return Err(SpreadMinimizingError::InstanceId(id.to_owned()));
    }
    // Whatever does not fit the type is too great as well.
    let index = number.parse().ok().filter(|index| *index <= MAX_INDEX);
    let index = index.ok_or_else(|| SpreadMinimizingError::IndexTooGreat { id: id.to_owned() })?;
    Ok((prefix, index))
}

/// The tokens of one zone's instances 0, 1, 2, …: each item is one instance's 512, ascending.
///
/// Item i costs O(512 log i), and what was placed is kept: 4 KiB per instance.
#[derive(Debug)]
pub struct ZonePlacement {
    zone_index: u32,
    /// Every placed instance, the one that owns most on top; of equals the later one.
    instances: BinaryHeap<(u64, u32)>,
    /// Per instance its tokens, the one that owns most on top; of equals the higher one.
    tokens: Vec<BinaryHeap<Owned>>,
}

/// A token and what it owns, ordered by the latter, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owned(u64);

impl Owned {
    fn new(token: u32, positions: u32) -> Self {
        Self(u64::from(positions) << 32 | u64::from(token))
    }

    fn positions(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn token(self) -> u32 {
        self.0 as u32
    }

    /// The token before this one in its zone, where the positions that it owns begin.
    fn previous(self) -> u32 {
        self.token().wrapping_sub(self.positions())
    }
}

impl ZonePlacement {
    /// The zone at `zone_index` in the sorted list of zones, from 0 to 7; a greater one counts as its remainder.
    pub fn new(zone_index: usize) -> Self {
        let zone_index = (zone_index % MAX_ZONES) as u32;
        Self { zone_index, instances: BinaryHeap::new(), tokens: Vec::new() }
    }

    /// The first instance has the circle for itself, in equal parts.
    fn place_first(&mut self) -> Vec<Owned> {
        let part = (CIRCLE / u64::from(TOKENS)) as u32;
        (0..TOKENS).map(|place| Owned::new(place * part + self.zone_index, part)).collect()
    }

    /// Every further one takes an equal part of what there is, each time from the greatest range of whoever owns most.
    /// `None` once ranges are too short to be split.
    fn place_next(&mut self) -> Option<Vec<Owned>> {
        let fair = CIRCLE as f64 / (self.tokens.len() + 1) as f64;
        let mut owned = 0u64;
        let mut placed = Vec::with_capacity(TOKENS as usize);
        let mut set_aside = Vec::new();
        while placed.len() < TOKENS as usize {
            let left = TOKENS - placed.len() as u32;
            let wanted = (fair - owned as f64) as u32 / left / MAX_ZONES as u32 * MAX_ZONES as u32;
            let mut giver =
                self.instances.peek_mut().filter(|giver| wanted > 0 && giver.0 > u64::from(wanted))?;
            let (total, instance) = *giver;
            let mut range = self.tokens.get_mut(instance as usize)?.peek_mut()?;
            if range.positions() <= wanted {
                set_aside.push(PeekMut::pop(giver));
                continue;
            }
            // Less than the range is long, so it lies within.
            placed.push(Owned::new(range.previous().wrapping_add(wanted), wanted));
            *range = Owned::new(range.token(), range.positions() - wanted);
            *giver = (total - u64::from(wanted), instance);
            owned += u64::from(wanted);
        }
        self.instances.extend(set_aside);
        Some(placed)
    }
}

impl Iterator for ZonePlacement {
    type Item = Vec<u32>;

    fn next(&mut self) -> Option<Vec<u32>> {
        let placed = if self.tokens.is_empty() { self.place_first() } else { self.place_next()? };
        let owned = placed.iter().map(|owned| u64::from(owned.positions())).sum();
        self.instances.push((owned, self.tokens.len() as u32));
        let mut tokens: Vec<u32> = placed.iter().map(|owned| owned.token()).collect();
        tokens.sort_unstable();
        self.tokens.push(placed.into());
        Some(tokens)
    }
}
