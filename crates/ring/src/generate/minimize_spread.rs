//! [`MinimizeSpread`]: tokens that take most from those that own most.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::{GenerateError, TokenGenerator, TokenRequest};
use crate::desc::{Desc, State};
use crate::token::distance;

/// Chooses tokens so that the instances of a zone own equal parts of the circle.
///
/// A newcomer looks at the members of its zone alone, and splits ranges of whoever owns most until it owns its fair
/// part. Without a zone that owns anything yet, and once nothing is left to split, tokens are drawn at random.
///
/// Two that choose at the same time would choose alike, so of those without tokens the one that registered first has its
/// turn first. That is all that is looked at: whoever is in the zone, has no tokens and is not LEFT counts as waiting and
/// as one to share with, be it dead, ACTIVE without tokens or LEAVING. Who knows better leaves such entries out of the
/// ring that it asks with, as the lifecycler does. Of equal instances the lesser id counts as first, of equal ranges the
/// lower one.
///
/// # Source
///
/// Cortex's minimize-spread generator, which breaks ties in no particular order. A token that several claim counts here
/// once, for the greatest id, as lookups have it.
#[derive(Debug)]
pub struct MinimizeSpread {
    random: TokenGenerator,
}

impl MinimizeSpread {
    /// Falls back on tokens drawn with `seed`; without one the operating system seeds.
    pub fn new(seed: Option<u64>) -> Self {
        Self { random: TokenGenerator::random(seed) }
    }

    /// As [`crate::TokenStrategy::generate`].
    ///
    /// Costs O(T log T) for the T tokens of the ring.
    pub(super) fn generate(
        &mut self,
        request: &TokenRequest<'_>,
        ring: &Desc,
    ) -> Result<Vec<u32>, GenerateError> {
        let &TokenRequest { id, zone, n, force } = request;
        if n == 0 {
            return Ok(Vec::new());
        }
        if let Some(before) = whose_turn(ring, id, zone) {
            if force {
                return Ok(self.random.generate(n, ring));
            }
            return Err(GenerateError::Contended { before: before.into() });
        }
        let claims = claims(ring);
        let mut market = Market::new(ring, &claims, id, zone);
        let mut tokens = market.buy(n, |token| is_claimed(&claims, token));
        if tokens.len() < n {
            let taken = || claims.iter().map(|&claim| token_of(claim)).chain(tokens.iter().copied());
            let rest = self.random.generate_avoiding(n - tokens.len(), taken);
            tokens.extend(rest);
        }
        tokens.sort_unstable();
        Ok(tokens)
    }
}

/// Who of `zone` without tokens registered first, whatever its state and heartbeat, if that is not `id`. An instance that
/// is not in the ring is the last; one that has left wants nothing any more.
fn whose_turn<'a>(ring: &'a Desc, id: &str, zone: &str) -> Option<&'a str> {
    let mine = ring.get(id).map_or(i64::MAX, |entry| entry.registered_at());
    let waiting = ring
        .iter()
        .filter(|(_, entry)| entry.zone == zone && entry.tokens.is_empty() && entry.state != State::Left)
        .map(|(other, entry)| (entry.registered_at(), other.as_str()));
    waiting
        .filter(|(_, other)| *other != id)
        .min()
        .filter(|&first| first < (mine, id))
        .map(|(_, first)| first)
}

/// All tokens of the ring in ascending order, each with the place of its owner in the low half.
fn claims(ring: &Desc) -> Vec<u64> {
    let mut claims = Vec::with_capacity(ring.iter().map(|(_, entry)| entry.tokens.len()).sum());
    for (place, (_, entry)) in (0u64..).zip(ring) {
        claims.extend(entry.tokens.iter().map(|&token| u64::from(token) << 32 | place));
    }
    claims.sort_unstable();
    // Of those that claim the same token the greatest id is last: it stays.
    claims.dedup_by(|next, kept| {
        let same = token_of(*next) == token_of(*kept);
        if same {
            *kept = *next;
        }
        same
    });
    claims
}

fn token_of(claim: u64) -> u32 {
    (claim >> 32) as u32
}

fn is_claimed(claims: &[u64], token: u32) -> bool {
    claims.binary_search_by_key(&token, |&claim| token_of(claim)).is_ok()
}

/// The ranges of a zone, of which a newcomer gets its part.
struct Market {
    /// Those who can still give, the one with most first; of equals the one with the least place, which is the least id.
    sellers: BinaryHeap<(u64, Reverse<usize>)>,
    /// Per place in the ring, what it can give, longest ranges first.
    ranges: Vec<Vec<Range>>,
    /// What the newcomer owns, and what it should own at the end.
    owned: u64,
    target: u64,
}

/// The positions from `previous` on that a token owns.
#[derive(Clone, Copy)]
struct Range {
    previous: u32,
    length: u64,
}

impl Market {
    fn new(ring: &Desc, claims: &[u64], id: &str, zone: &str) -> Self {
        // Per place: whether it belongs to the zone, the newcomer first of all.
        let (mut in_zone, mut newcomer, mut others) = (Vec::with_capacity(ring.len()), usize::MAX, 0u32);
        for (place, (other, entry)) in ring.iter().enumerate() {
            let is_newcomer = other == id;
            if is_newcomer {
                newcomer = place;
            }
            let is_member = is_newcomer || entry.zone == zone && entry.state != State::Left;
            others += u32::from(is_member && !is_newcomer);
            in_zone.push(is_member);
        }
        let place_of = |claim: u64| claim as u32 as usize;
        let zonal = || claims.iter().copied().filter(|&claim| in_zone.get(place_of(claim)) == Some(&true));

        let (mut ranges, mut totals) = (vec![Vec::new(); ring.len()], vec![0; ring.len()]);
        let mut previous = zonal().next_back().map(token_of);
        for claim in zonal() {
            let (place, token) = (place_of(claim), token_of(claim));
            let length = previous.map_or(0, |previous| distance(previous, token));
            if let (Some(list), Some(total)) = (ranges.get_mut(place), totals.get_mut(place)) {
                list.push(Range { previous: previous.unwrap_or(token), length });
                *total += length;
            }
            previous = Some(token);
        }
        // The sort is stable: of equal ranges the lower one stays first.
        ranges.iter_mut().for_each(|list| list.sort_by_key(|range| Reverse(range.length)));
        let owned = totals.get(newcomer).copied().unwrap_or(0);
        let sellers = totals.iter().enumerate().filter(|&(place, &total)| total > 0 && place != newcomer);
        let sellers = sellers.map(|(place, &total)| (total, Reverse(place))).collect();
        // As Cortex computes it, the last position of the circle left out.
        let target = (1.0 / f64::from(others + 1) * f64::from(u32::MAX)) as u64;
        Self { sellers, ranges, owned, target }
    }

    /// Up to `n` tokens; fewer if nobody has anything left to give, or the newcomer has more than its part.
    fn buy(&mut self, n: usize, is_taken: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut bought = BTreeSet::new();
        while bought.len() < n && self.owned <= self.target {
            let Some((mut total, Reverse(seller))) = self.sellers.pop() else { break };
            let Some(list) = self.ranges.get_mut(seller) else { break };
            let mut step = self.target.saturating_sub(self.owned) / (n - bought.len()) as u64;
            let chosen = list.iter().position(|range| range.length > step).unwrap_or(0);
            if list.is_empty() {
                continue;
            }
            let Range { previous, length } = list.remove(chosen);
            if length < step {
                step = length.saturating_sub(1);
            }
            let token = step_up(previous, step);
            if !is_taken(token) && bought.insert(token) {
                let given = distance(previous, token);
                self.owned += given;
                // A step around the end of the circle may lie one beyond the range, which is used up then: nothing is left
                // to give, of the range or of its seller.
                total = total.saturating_sub(given);
                let length = length.saturating_sub(given);
                if length > step {
                    list.push(Range { previous: token, length });
                }
            }
            if !list.is_empty() {
                self.sellers.push((total, Reverse(seller)));
            }
        }
        bought.into_iter().collect()
    }
}

/// The position `step` above `from`. Around the end of the circle it lies one too high, as in Cortex.
fn step_up(from: u32, step: u64) -> u32 {
    let to = u64::from(from) + step;
    let last = u64::from(u32::MAX);
    (if to > last { to - last } else { to }) as u32
}
