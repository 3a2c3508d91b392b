//! [`Choice`]: how instances of a simulated ring choose their tokens.

use std::collections::{BTreeMap, HashSet};

use ringkit_ring::{Desc, MinimizeSpread, TokenGenerator, TokenRequest, TokenStrategy, ZonePlacement};

/// How instances choose their tokens.
pub(crate) enum Choice {
    Random(TokenGenerator),
    MinimizeSpread(TokenStrategy),
    /// Per zone what is placed so far, in the order in which the zones came up.
    SpreadMinimizing(BTreeMap<String, Zone>),
}

/// The instances of a zone and their tokens, by the numbers in their names.
pub(crate) struct Zone {
    placement: ZonePlacement,
    placed: Vec<Vec<u32>>,
}

/// Whose tokens are chosen.
pub(crate) struct Chooser<'a> {
    pub(crate) id: &'a str,
    pub(crate) zone: &'a str,
    /// The number at the end of its name.
    pub(crate) number: Option<u64>,
    pub(crate) num_tokens: usize,
}

impl Choice {
    /// How they are called on the command line.
    pub(crate) const NAMES: &str = "random, minimize-spread or spread-minimizing";
    /// The tokens that a spread-minimizing instance has; a part of them does not lie evenly.
    pub(crate) const SPREAD_MINIMIZING_TOKENS: usize = 512;
    const MAX_ZONES: usize = 8;
    /// More of a zone leave no room for 512 tokens each.
    const MAX_NUMBER: usize = 16_383;

    /// The choice called `name`.
    pub(crate) fn called(name: &str, seed: u64) -> Option<Self> {
        Some(match name {
            "random" => Self::Random(TokenGenerator::random(Some(seed))),
            "minimize-spread" => {
                Self::MinimizeSpread(TokenStrategy::MinimizeSpread(MinimizeSpread::new(Some(seed))))
            }
            "spread-minimizing" => Self::SpreadMinimizing(BTreeMap::new()),
            _ => return None,
        })
    }

    /// Tokens that `ring` does not have; all of those are in `taken`, to which the new ones are added.
    pub(crate) fn choose(
        &mut self,
        who: &Chooser<'_>,
        ring: &Desc,
        taken: &mut HashSet<u32>,
    ) -> Result<Vec<u32>, String> {
        let tokens = match self {
            Self::Random(generator) => return Ok(random(generator, who.num_tokens, taken)),
            Self::MinimizeSpread(strategy) => {
                let &Chooser { id, zone, num_tokens: n, .. } = who;
                let request = TokenRequest { id, zone, n, force: true };
                strategy.generate(&request, ring).map_err(|error| format!("`{id}`: {error}"))?
            }
            Self::SpreadMinimizing(zones) => fixed(zones, who, taken)?,
        };
        taken.extend(&tokens);
        Ok(tokens)
    }
}

/// Who is asked to avoid all tokens of the ring looks at each of them, for each instance. This costs the same for any ring.
fn random(generator: &mut TokenGenerator, num_tokens: usize, taken: &mut HashSet<u32>) -> Vec<u32> {
    let mut tokens: Vec<u32> = Vec::with_capacity(num_tokens);
    while tokens.len() < num_tokens {
        let drawn = generator.generate_avoiding(num_tokens - tokens.len(), std::iter::empty);
        tokens.extend(drawn.into_iter().filter(|token| taken.insert(*token)));
    }
    tokens.sort_unstable();
    tokens
}

fn fixed(
    zones: &mut BTreeMap<String, Zone>,
    who: &Chooser<'_>,
    taken: &HashSet<u32>,
) -> Result<Vec<u32>, String> {
    let &Chooser { id, zone: name, number, num_tokens } = who;
    let number = number.and_then(|number| usize::try_from(number).ok());
    let number = number.filter(|number| *number <= Choice::MAX_NUMBER).ok_or_else(|| {
        format!("spread-minimizing wants a name with a number of at most {}, not `{id}`", Choice::MAX_NUMBER)
    })?;
    let index = zones.len();
    if index >= Choice::MAX_ZONES && !zones.contains_key(name) {
        return Err(format!("spread-minimizing knows at most {} zones", Choice::MAX_ZONES));
    }
    let zone = zones
        .entry(name.to_owned())
        .or_insert_with(|| Zone { placement: ZonePlacement::new(index), placed: Vec::new() });
    while zone.placed.len() <= number {
        let next =
            zone.placement.next().ok_or_else(|| format!("there is no room for the tokens of `{id}`"))?;
        zone.placed.push(next);
    }
    let all = zone.placed.get(number).into_iter().flatten().copied();
    Ok(all.filter(|token| !taken.contains(token)).take(num_tokens).collect())
}
