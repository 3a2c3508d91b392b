//! [`GoRand`]: the random numbers that Go's `math/rand` draws from a seed, to the last bit.
//!
//! Every reader of a ring must pick the same shard for a tenant, and Cortex picks with this generator.

/// Words of the generator's state.
const LEN: usize = 607;
/// How far back the other summand of a step lies.
const LAG: usize = 273;
/// The modulus of the sequence that seeds are stretched with.
const MODULUS: u64 = (1 << 31) - 1;
/// How many terms of that sequence are thrown away first.
const SKIPPED: usize = 20;

/// What Go mixes into the words that come from the seed; computed by the build script.
pub static TABLE: [u64; LEN] = include!(concat!(env!("OUT_DIR"), "/go_rand_table.rs"));

/// 48271 to the power of each place, modulo [`MODULUS`].
static POWERS: [u32; SKIPPED + 3 * LEN + 1] = {
    let mut powers = [1; SKIPPED + 3 * LEN + 1];
    let mut k = 1;
    while k < powers.len() {
        powers[k] = (powers[k - 1] as u64 * 48_271 % MODULUS) as u32;
        k += 1;
    }
    powers
};

/// Draws what Go's `rand.New(rand.NewSource(seed))` draws.
///
/// The first 273 draws need two words of the initial state each, which are computed when they are asked for; so a few
/// draws cost a few nanoseconds, not the seeding of 607 words. A later draw sets up the whole state, once.
///
/// # Source
///
/// The additive lagged Fibonacci generator of Go's `math/rand`, version 1.
#[derive(Clone, Debug)]
pub(crate) struct GoRand {
    seed: u64,
    drawn: usize,
    state: Option<Box<[u64; LEN]>>,
}

impl GoRand {
    pub(crate) fn new(seed: i64) -> Self {
        let seed = match seed.rem_euclid(MODULUS as i64) as u64 {
            0 => 89_482_311,
            seed => seed,
        };
        Self { seed, drawn: 0, state: None }
    }

    /// What Go's `Uint32` returns next.
    pub(crate) fn next_u32(&mut self) -> u32 {
        // Go takes the upper bits of a number of 63 bits.
        (self.next_u64() >> 31) as u32
    }

    /// What Go's `Uint64` returns next; without the topmost bit it is Go's `Int63`.
    pub(crate) fn next_u64(&mut self) -> u64 {
        let draw = self.drawn;
        self.drawn += 1;
        if draw < LAG {
            // Neither summand was written yet.
            let (feed, tap) = places(draw);
            return self.word(feed).wrapping_add(self.word(tap));
        }
        let mut state = self.state.take().unwrap_or_else(|| self.state_before(draw));
        let drawn = step(&mut state, draw);
        self.state = Some(state);
        drawn
    }

    /// The word at `place` of the state before the first draw.
    #[inline]
    fn word(&self, place: usize) -> u64 {
        let term = |k: usize| u64::from(POWERS[k]) * self.seed % MODULUS;
        let first = SKIPPED + 1 + 3 * place;
        (term(first) << 40) ^ (term(first + 1) << 20) ^ term(first + 2) ^ TABLE[place]
    }

    fn state_before(&self, draw: usize) -> Box<[u64; LEN]> {
        let mut state = Box::new([0; LEN]);
        state.iter_mut().enumerate().for_each(|(place, word)| *word = self.word(place));
        for earlier in 0..draw {
            step(&mut state, earlier);
        }
        state
    }
}

/// Where a draw reads its summands; the first is where it writes the sum.
#[inline]
fn places(draw: usize) -> (usize, usize) {
    let down_from = |place: usize| (place + LEN - draw % LEN) % LEN;
    (down_from(LEN - LAG - 1), down_from(LEN - 1))
}

fn step(state: &mut [u64; LEN], draw: usize) -> u64 {
    let (feed, tap) = places(draw);
    state[feed] = state[feed].wrapping_add(state[tap]);
    state[feed]
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::shard::shard_seed;

    fn vectors() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/go_rand.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
        value[field].as_array().unwrap()
    }

    #[test]
    fn the_table_is_the_one_go_has() {
        let bytes: Vec<u8> = TABLE.iter().flat_map(|word| word.to_le_bytes()).collect();
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let checks = &vectors()["cooked_table"];
        assert_eq!(digest, checks["sha256_of_entries_as_u64_little_endian"].as_str().unwrap());
        for (word, expected) in TABLE.iter().zip(list(checks, "first_u64")) {
            assert_eq!(word.to_string(), expected.as_str().unwrap());
        }
    }

    #[test]
    fn a_seed_draws_what_it_draws_in_go() {
        let vectors = vectors();
        for case in list(&vectors, "seeds") {
            let new = || GoRand::new(case["seed"].as_i64().unwrap());
            let mut rand = new();
            assert_eq!(rand.seed, case["normalised_seed"].as_u64().unwrap());
            for expected in list(case, "uint32") {
                assert_eq!(u64::from(rand.next_u32()), expected.as_u64().unwrap(), "{case}");
            }
            let mut rand = new();
            for expected in list(case, "int63_from_same_seed") {
                assert_eq!(
                    (rand.next_u64() & i64::MAX as u64).to_string(),
                    expected.as_str().unwrap(),
                    "{case}"
                );
            }
        }
    }

    #[test]
    fn late_draws_are_exact_too() {
        let mut rand = GoRand::new(12_345);
        let drawn: Vec<_> = (0..=100_000).map(|_| rand.next_u32()).collect();
        for (index, expected) in vectors()["seed_12345_uint32_at_index"].as_object().unwrap() {
            assert_eq!(
                u64::from(drawn[index.parse::<usize>().unwrap()]),
                expected.as_u64().unwrap(),
                "{index}"
            );
        }
    }

    #[test]
    fn the_seed_of_a_shard_is_that_of_cortex() {
        for case in list(&vectors(), "shuffle_shard_seed") {
            let text = |field: &str| case[field].as_str().unwrap();
            let seed = shard_seed(text("identifier"), text("zone"));
            assert_eq!(seed.to_string(), text("seed"), "{case}");
            let mut rand = GoRand::new(seed);
            for expected in list(case, "first_uint32") {
                assert_eq!(u64::from(rand.next_u32()), expected.as_u64().unwrap(), "{case}");
            }
        }
    }
}
