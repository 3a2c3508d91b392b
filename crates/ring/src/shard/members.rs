//! Which places a shard has, in little memory.

use std::sync::atomic::{AtomicU8, Ordering};

use smallvec::SmallVec;

use crate::shard::facts::Headcount;
use crate::snapshot::Snapshot;

/// A set of members being put together: a bit per place, and how many are set.
#[derive(Clone, Debug)]
pub(crate) struct PlaceSet {
    words: SmallVec<[u64; 16]>,
    len: usize,
}

impl PlaceSet {
    /// No member of `members` in all.
    pub(crate) fn new(members: usize) -> Self {
        Self { words: SmallVec::from_elem(0, members.div_ceil(64)), len: 0 }
    }

    #[inline]
    pub(crate) fn contains(&self, place: usize) -> bool {
        has_bit(&self.words, place)
    }

    #[inline]
    pub(crate) fn insert(&mut self, place: usize) {
        let (word, bit) = (&mut self.words[place / 64], 1 << (place % 64));
        self.len += usize::from(*word & bit == 0);
        *word |= bit;
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// The members of a shard, and how they lie in zones. Belongs to the topology it was made for.
#[derive(Debug)]
pub(crate) struct ShardMembers {
    places: Places,
    len: usize,
    zones: Box<[ZoneMembers]>,
    /// How many own a token.
    with_tokens: usize,
    /// Whether the tokens of each member ascend and are claimed by nobody else; looked into by the first lookups that want
    /// to know.
    form: AtomicU8,
}

const UNKNOWN: u8 = 0;
const CLEAN: u8 = 1;
const MESSY: u8 = 2;

/// In one of two forms.
#[derive(Debug)]
enum Places {
    /// Ascending.
    List(Box<[u32]>),
    /// A bit per place.
    Bits(Box<[u64]>),
}

/// A zone in which a shard has members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ZoneMembers {
    /// Its place among the zones of the ring.
    pub(crate) zone: u32,
    pub(crate) count: Headcount,
}

impl ShardMembers {
    pub(crate) fn new(set: PlaceSet, snapshot: &Snapshot) -> Self {
        let topology = &*snapshot.topology;
        // Sorted, not inserted one by one: there may be as many zones as members.
        let mut met: SmallVec<[(u32, bool); 16]> =
            bits(&set.words).map(|place| (topology.zone_of[place], topology.walkable[place])).collect();
        met.sort_unstable();
        let zones = met.chunk_by(|a, b| a.0 == b.0).map(|there| {
            let mut count = Headcount::default();
            there.iter().for_each(|(_, walkable)| count.add(*walkable));
            ZoneMembers { zone: there[0].0, count }
        });
        let zones: Box<[_]> = zones.collect();
        let with_tokens = zones.iter().map(|there| there.count.with_tokens).sum();
        let len = set.len;
        // Bits are faster to look into, so a list has to save much.
        let places = if len * size_of::<u32>() * 8 <= set.words.len() * size_of::<u64>() {
            Places::List(bits(&set.words).map(|place| place as u32).collect())
        } else {
            Places::Bits(set.words.into_vec().into())
        };
        Self { places, len, with_tokens, zones, form: AtomicU8::new(UNKNOWN) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn contains(&self, place: usize) -> bool {
        match &self.places {
            Places::List(list) => list.binary_search_by(|of| (*of as usize).cmp(&place)).is_ok(),
            Places::Bits(words) => has_bit(words, place),
        }
    }

    /// The places, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        let (list, words): (&[u32], &[u64]) = match &self.places {
            Places::List(list) => (list, &[]),
            Places::Bits(words) => (&[], words),
        };
        list.iter().map(|place| *place as usize).chain(bits(words))
    }

    /// The zones with at least one member, in the order of their names.
    pub(crate) fn zones(&self) -> &[ZoneMembers] {
        &self.zones
    }

    /// Whether anybody owns a token.
    #[inline]
    pub(crate) fn has_tokens(&self) -> bool {
        self.with_tokens > 0
    }

    /// How many members own a token.
    #[inline]
    pub(crate) fn with_tokens(&self) -> usize {
        self.with_tokens
    }

    /// The place of `zone` among those with members.
    #[inline]
    pub(crate) fn slot(&self, zone: u32) -> Option<usize> {
        match &*self.zones {
            // Few as a rule, and then a look at each is quickest.
            few if few.len() <= 8 => few.iter().position(|there| there.zone == zone),
            many => many.binary_search_by_key(&zone, |there| there.zone).ok(),
        }
    }

    /// How many zones share the replicas of a key.
    #[inline]
    pub(crate) fn sharing(&self, with_tokens_only: bool) -> usize {
        let shares = |there: &&ZoneMembers| !with_tokens_only || there.count.with_tokens > 0;
        self.zones.iter().filter(shares).count()
    }

    /// Whether a lookup does better to search the tokens of each member than to walk along those of the ring.
    ///
    /// A search costs some steps per member, the walk passes a number of others per member. Stored lists need not be
    /// sorted, and of tokens claimed twice only the ring's table knows the owner.
    #[inline]
    pub(crate) fn is_searched(&self, snapshot: &Snapshot) -> bool {
        4 * self.len * self.len < snapshot.members.len()
            && match self.form.load(Ordering::Relaxed) {
                UNKNOWN => self.look_into(snapshot),
                known => known == CLEAN,
            }
    }

    #[cold]
    fn look_into(&self, snapshot: &Snapshot) -> bool {
        let is_clean = self.iter().all(|place| {
            let circles = snapshot.shards.circles();
            snapshot.members[place].desc.tokens.is_sorted() && !circles.is_rival(snapshot, place)
        });
        self.form.store(if is_clean { CLEAN } else { MESSY }, Ordering::Relaxed);
        is_clean
    }

    /// Memory taken, in bytes.
    pub(crate) fn size(&self) -> usize {
        let places = match &self.places {
            Places::List(list) => size_of_val(&**list),
            Places::Bits(words) => size_of_val(&**words),
        };
        size_of_val(self) + places + size_of_val(&*self.zones)
    }
}

#[inline]
fn has_bit(words: &[u64], place: usize) -> bool {
    words.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
}

/// The places of the bits set, ascending.
fn bits(words: &[u64]) -> impl Iterator<Item = usize> {
    words.iter().enumerate().flat_map(|(at, &word)| {
        let rests = std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)));
        rests.take_while(|rest| *rest != 0).map(move |rest| at * 64 + rest.trailing_zeros() as usize)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Desc, InstanceDesc, RingOptions};

    fn ring(members: usize) -> Snapshot {
        let entry = |place: usize| InstanceDesc {
            zone: format!("z{}", place % 3).into(),
            tokens: if place.is_multiple_of(5) { vec![] } else { vec![place as u32] }.into(),
            ..InstanceDesc::default()
        };
        let desc: Desc = (0..members).map(|place| (format!("i{place:05}"), entry(place))).collect();
        Snapshot::first_sight(&desc, 0, &RingOptions::default())
    }

    proptest! {
        #[test]
        fn either_form_holds_what_was_put_in(
            members in 1..300usize, picked in prop::collection::btree_set(0..300usize, 0..300),
        ) {
            let snapshot = ring(members);
            let picked: Vec<_> = picked.into_iter().filter(|place| *place < members).collect();
            let mut set = PlaceSet::new(members);
            picked.iter().for_each(|place| set.insert(*place));
            picked.iter().for_each(|place| set.insert(*place));
            prop_assert_eq!(set.len(), picked.len());
            let shard = ShardMembers::new(set, &snapshot);
            prop_assert!(shard.iter().eq(picked.iter().copied()));
            prop_assert_eq!(shard.len(), picked.len());
            prop_assert!((0..members + 64).all(|place| shard.contains(place) == picked.contains(&place)));
            for there in shard.zones() {
                let inside = || picked.iter().filter(|place| *place % 3 == there.zone as usize);
                let with_tokens = inside().filter(|place| !place.is_multiple_of(5)).count();
                prop_assert_eq!(there.count, Headcount { members: inside().count(), with_tokens });
                prop_assert!(there.count.members > 0);
            }
            let counted: usize = shard.zones().iter().map(|there| there.count.members).sum();
            prop_assert_eq!(counted, picked.len());
        }
    }

    #[test]
    fn a_shard_of_nine_takes_less_than_a_kilobyte_in_any_ring() {
        for members in [10, 100, 1_000, 10_000, 50_000] {
            let mut set = PlaceSet::new(members);
            (0..9).for_each(|n| set.insert(n * (members / 10)));
            assert!(ShardMembers::new(set, &ring(members)).size() <= 512, "{members}");
        }
    }
}
