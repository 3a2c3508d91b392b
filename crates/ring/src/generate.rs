//! New tokens for an instance.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::desc::Desc;

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
    /// Fewer only if hardly a position is left free.
    pub fn generate(&mut self, n: usize, taken: &Desc) -> Vec<u32> {
        self.generate_avoiding(n, || taken.iter().flat_map(|(_, entry)| entry.tokens.iter().copied()))
    }

    /// As [`TokenGenerator::generate`], for tokens taken from elsewhere; `taken` is iterated once per round of drawing,
    /// which is once as a rule.
    pub fn generate_avoiding<I: Iterator<Item = u32>>(
        &mut self,
        n: usize,
        taken: impl Fn() -> I,
    ) -> Vec<u32> {
        /// On a circle that is half full this many rounds fail together once in 2⁶⁴ tokens.
        const MAX_ROUNDS: usize = 64;
        let mut chosen = HashSet::with_capacity(n);
        for _ in 0..MAX_ROUNDS {
            // A bounded number of draws, in case more is asked for than the circle holds.
            for _ in 0..2 * n {
                if chosen.len() == n {
                    break;
                }
                chosen.insert(self.random.random());
            }
            if chosen.is_empty() {
                break;
            }
            // Looking the few new tokens up for each taken one is cheaper than collecting all taken ones.
            let drawn = chosen.len();
            for token in taken() {
                chosen.remove(&token);
            }
            if chosen.len() == drawn && drawn == n {
                break;
            }
        }
        let mut tokens: Vec<_> = chosen.into_iter().collect();
        tokens.sort_unstable();
        tokens
    }
}
