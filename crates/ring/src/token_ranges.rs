//! [`TokenRanges`]: which keys one instance holds.

use smol_str::SmolStr;

use crate::snapshot::Snapshot;

/// The keys that an instance holds while everybody is healthy, as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRanges {
    /// Ascending and apart from each other; both ends belong to the range.
    ranges: Vec<(u32, u32)>,
}

/// Why the keys of an instance cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRangesError {
    /// No instance has this id.
    #[error("instance not found in the ring")]
    InstanceNotFound,
    /// The instance has no zone.
    #[error("zone not set")]
    ZoneNotSet,
    /// Which keys the instance holds depends on more than the tokens of its zone: the ring is not zone-aware, has not as
    /// many zones as replicas, or has members without a zone.
    #[error("can't use ring configuration for computing token ranges")]
    Unsupported,
}

impl TokenRanges {
    /// Whether `key` lies in one of the ranges. Costs O(log n) for n ranges.
    pub fn includes(&self, key: u32) -> bool {
        let after = self.ranges.partition_point(|&(first, _)| first <= key);
        after.checked_sub(1).and_then(|at| self.ranges.get(at)).is_some_and(|&(_, last)| key <= last)
    }

    /// First and last key of each range, ascending; no two ranges touch.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u32, u32)> {
        self.ranges.iter().copied()
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether the instance holds nothing.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many keys there are in all ranges.
    pub fn keys(&self) -> u64 {
        self.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    /// Appends a range that begins behind the last one, or goes on where that ends.
    fn push(&mut self, first: u32, last: u32) {
        match self.ranges.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
            _ => self.ranges.push((first, last)),
        }
    }
}

impl Snapshot {
    /// The keys that member `id` holds a replica of while everybody is healthy and ACTIVE.
    ///
    /// With one replica per zone each zone is a circle of its own, in which a member holds what lies before its tokens.
    /// Costs O(T) for T tokens of the ring; keep the result as long as [`Snapshot::generation`] stays.
    ///
    /// # Errors
    ///
    /// [`TokenRangesError`] for an unknown member, a member without a zone, and a ring in which there is not one replica
    /// per zone.
    ///
    /// # Source
    ///
    /// dskit's `GetTokenRangesForInstance`; of a token that several claim, here the owner holds the keys.
    pub fn token_ranges(&self, id: &str) -> Result<TokenRanges, TokenRangesError> {
        let place = self.members.place_of(id).ok_or(TokenRangesError::InstanceNotFound)?;
        if self.members[place].zone().is_empty() {
            return Err(TokenRangesError::ZoneNotSet);
        }
        let topology = &*self.topology;
        if !self.options.zone_awareness_enabled
            || topology.sharing != self.replication_factor()
            || topology.zones.iter().any(SmolStr::is_empty)
        {
            return Err(TokenRangesError::Unsupported);
        }

        let zone = topology.zone_of[place];
        let owners = (0..topology.tokens.len()).map(|position| topology.owner(position));
        let mut zonal = topology
            .tokens
            .iter()
            .zip(owners)
            .filter(|&(_, owner)| topology.zone_of[owner] == zone)
            .map(|(&token, owner)| (token, owner == place));
        let mut ranges = TokenRanges::default();
        let Some((first, owns_first)) = zonal.next() else { return Ok(ranges) };
        if owns_first && first > 0 {
            ranges.push(0, first - 1);
        }
        let mut previous = first;
        for (token, owns) in zonal {
            if owns && previous < token {
                ranges.push(previous, token - 1);
            }
            previous = token;
        }
        if owns_first {
            // Around the end of the circle to the first token.
            ranges.push(previous, u32::MAX);
        }
        Ok(ranges)
    }
}
