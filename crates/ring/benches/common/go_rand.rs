//! Go's seeded generator, and how it is used: a register of 607 words filled anew for every seed.

use hashbrown::HashSet;
use ringkit_ring::bench_support::GO_RAND_TABLE;

const LENGTH: usize = 607;
const TAP: usize = 273;
const MODULUS: i32 = i32::MAX;

/// The state of `math/rand`'s source.
pub(crate) struct GoRand {
    words: [u64; LENGTH],
    tap: usize,
    feed: usize,
}

/// One step of the generator that fills the register, in Schrage's form.
#[inline]
fn step(x: i32) -> i32 {
    let (high, low) = (x / 44_488, x % 44_488);
    let x = 48_271 * low - 3_399 * high;
    if x < 0 { x + MODULUS } else { x }
}

impl GoRand {
    pub(crate) fn new(seed: i64) -> Self {
        let mut x = (seed % i64::from(MODULUS)) as i32;
        if x < 0 {
            x += MODULUS;
        }
        if x == 0 {
            x = 89_482_311;
        }
        let mut words = [0; LENGTH];
        for _ in 0..20 {
            x = step(x);
        }
        for (place, word) in words.iter_mut().enumerate() {
            x = step(x);
            let mut filled = (x as u64) << 40;
            x = step(x);
            filled ^= (x as u64) << 20;
            x = step(x);
            *word = filled ^ x as u64 ^ GO_RAND_TABLE[place];
        }
        Self { words, tap: 0, feed: LENGTH - TAP }
    }

    pub(crate) fn next_u32(&mut self) -> u32 {
        self.tap = self.tap.checked_sub(1).unwrap_or(LENGTH - 1);
        self.feed = self.feed.checked_sub(1).unwrap_or(LENGTH - 1);
        let word = self.words[self.feed].wrapping_add(self.words[self.tap]);
        self.words[self.feed] = word;
        ((word & (u64::MAX >> 1)) >> 31) as u32
    }
}

/// New tokens for one instance, none of them in `taken`.
pub(crate) fn generate_tokens(count: usize, taken: &[u32], seed: i64) -> Vec<u32> {
    let mut random = GoRand::new(seed);
    let mut used = HashSet::with_capacity(taken.len());
    used.extend(taken.iter().copied());
    let mut tokens = Vec::with_capacity(count);
    while tokens.len() < count {
        let token = random.next_u32();
        if used.insert(token) {
            tokens.push(token);
        }
    }
    tokens.sort_unstable();
    tokens
}
