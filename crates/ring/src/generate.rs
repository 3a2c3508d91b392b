//! New tokens for an instance: [`TokenStrategy`] says how they are chosen, and each way has a module of its own.
//!
//! All ways keep the rules that matter to the ring: tokens ascend, none comes twice, and none is claimed by anybody yet.
//! Which positions they are is free, so instances of one ring may choose differently.

mod minimize_spread;
mod random;
mod spread_minimizing;

use std::sync::Arc;

use ringkit_kv::EntryId;

pub use self::minimize_spread::MinimizeSpread;
pub use self::random::TokenGenerator;
pub use self::spread_minimizing::{SpreadMinimizing, SpreadMinimizingError, ZonePlacement};
use crate::desc::Desc;

/// What an instance asks of its [`TokenStrategy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRequest<'a> {
    /// Id of the instance. Its entry in the ring, if there is one, tells the tokens that it has already.
    pub id: &'a str,
    /// Its zone as configured; empty = none. What an entry in the ring says about it does not count.
    pub zone: &'a str,
    /// How many new tokens it needs, up to [`TokenStrategy::MAX_TOKENS`].
    pub n: usize,
    /// Whether it rather takes tokens that are not so well placed than waits for others.
    pub force: bool,
}

/// Why there are no tokens, or too few. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// Another instance of the zone registered earlier and has no tokens yet. Where its tokens will lie decides which are
    /// good for this one, so come back once it has them, or insist by [`TokenRequest::force`].
    #[error("instance `{before}` of the same zone registered earlier and has no tokens yet")]
    Contended {
        /// Who is to choose before.
        before: EntryId,
    },
    /// The instance before this one in the order of their indexes is not there yet; wait for it.
    #[error("the instance \"{predecessor}\" has not been registered to the ring or has no tokens yet")]
    PredecessorMissing {
        /// Its id.
        predecessor: String,
    },
    /// There are fewer free positions to choose from than tokens asked for, or no instance may have as many.
    #[error("only {} of {requested} tokens can be had", .tokens.len())]
    Exhausted {
        /// How many tokens were asked for.
        requested: usize,
        /// Those that there are, ascending. They may be taken: an instance does its work with fewer tokens too.
        tokens: Vec<u32>,
    },
}

impl GenerateError {
    /// Whether the same request may succeed later, when others have joined.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Contended { .. } | Self::PredecessorMissing { .. } => true,
            Self::Exhausted { .. } => false,
        }
    }
}

/// How an instance chooses its tokens.
#[derive(Debug)]
#[non_exhaustive]
pub enum TokenStrategy {
    /// Evenly at random. Needs many tokens per instance to even out the ring.
    Random(TokenGenerator),
    /// Where they take most from those of the zone that own most: Cortex's `minimize-spread`.
    MinimizeSpread(MinimizeSpread),
    /// Where the number in the instance's name puts them, once and for all: dskit's spread-minimizing tokens.
    SpreadMinimizing(Arc<SpreadMinimizing>),
}

impl TokenStrategy {
    /// The most tokens that one request is given. An instance's entry, at up to 5 bytes per token, then takes 320 KiB, so
    /// that even alone it fits into the 512 KiB that Consul stores under a key.
    pub const MAX_TOKENS: usize = 65_536;

    /// Exactly `request.n` tokens that nobody in `ring` claims, ascending.
    ///
    /// # Errors
    ///
    /// [`GenerateError::Contended`] if it is another's turn, which only minimize-spread minds and `force` overrules;
    /// [`GenerateError::Exhausted`], with the tokens that there are, if those are fewer.
    pub fn generate(&mut self, request: &TokenRequest<'_>, ring: &Desc) -> Result<Vec<u32>, GenerateError> {
        let bounded = TokenRequest { n: request.n.min(Self::MAX_TOKENS), ..*request };
        let tokens = match self {
            Self::Random(random) => random.generate(bounded.n, ring),
            Self::MinimizeSpread(minimize_spread) => minimize_spread.generate(&bounded, ring)?,
            Self::SpreadMinimizing(fixed) => fixed.generate(bounded.n, ring),
        };
        if tokens.len() < request.n {
            return Err(GenerateError::Exhausted { requested: request.n, tokens });
        }
        Ok(tokens)
    }

    /// Whether an instance may join `ring` now, apart from finding tokens.
    ///
    /// # Errors
    ///
    /// [`GenerateError::PredecessorMissing`] if spread-minimizing tokens are taken in turn, and it is not this one's yet.
    pub fn can_join(&self, ring: &Desc) -> Result<(), GenerateError> {
        match self {
            Self::Random(_) | Self::MinimizeSpread(_) => Ok(()),
            Self::SpreadMinimizing(fixed) => fixed.can_join(ring),
        }
    }
}
