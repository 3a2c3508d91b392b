//! [`TokenGenerator`]: tokens drawn evenly from the whole circle.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::desc::Desc;

/// The most tokens of one call, as many as 131,072 instances of 128 have: further ones are not drawn, so that a number out
/// of the blue costs 64 MiB and not all memory.
const MAX_TOKENS: usize = 1 << 24;

/// Chooses tokens that nobody in the ring claims.
#[derive(Debug)]
pub struct TokenGenerator {
    random: StdRng,
}

impl TokenGenerator {
    /// Tokens drawn evenly from the whole circle. The same seed gives the same tokens for the same rings; without one the
    /// operating system seeds.
    pub fn random(seed: Option<u64>) -> Self {
        Self { random: StdRng::seed_from_u64(seed.unwrap_or_else(rand::random)) }
    }

    /// `n` distinct tokens that no instance of `taken` claims, ascending.
    ///
    /// Fewer only if hardly a position is left free, or beyond 2²⁴.
    pub fn generate(&mut self, n: usize, taken: &Desc) -> Vec<u32> {
        self.generate_avoiding(n, || taken.iter().flat_map(|(_, entry)| entry.tokens.iter().copied()))
    }

    /// As [`TokenGenerator::generate`], for tokens taken from elsewhere; `taken` is iterated once per round of drawing,
    /// which is once or twice as a rule.
    pub fn generate_avoiding<I: Iterator<Item = u32>>(
        &mut self,
        n: usize,
        taken: impl Fn() -> I,
    ) -> Vec<u32> {
        /// On a circle that is half full, one token in 2⁶⁴ is still missing after so many rounds.
        const MAX_ROUNDS: usize = 64;
        let n = n.min(MAX_TOKENS);
        let mut tokens = Vec::with_capacity(n);
        for _ in 0..MAX_ROUNDS {
            if tokens.len() == n {
                break;
            }
            let missing = n - tokens.len();
            tokens.extend(std::iter::repeat_with(|| self.random.random::<u32>()).take(missing));
            tokens.sort_unstable();
            tokens.dedup();
            remove_taken(&mut tokens, taken());
        }
        tokens
    }
}

/// Removes from the ascending `tokens` those that are taken.
///
/// The few new tokens are looked up for each taken one, which is cheaper than collecting all that are taken.
fn remove_taken(tokens: &mut Vec<u32>, taken: impl Iterator<Item = u32>) {
    // One bit per 65,536 positions: nearly all taken tokens are told apart from the new ones by that alone.
    let mut near = [0u64; 1024];
    tokens.iter().for_each(|token| near[(token >> 22) as usize] |= 1 << (token >> 16 & 63));
    let mut lost: Vec<u32> = taken
        .filter(|token| near[(token >> 22) as usize] >> (token >> 16 & 63) & 1 == 1)
        .filter(|token| tokens.binary_search(token).is_ok())
        .collect();
    lost.sort_unstable();
    tokens.retain(|token| lost.binary_search(token).is_err());
}
