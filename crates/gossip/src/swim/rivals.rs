//! Whether somebody else lives under our name.

use std::collections::VecDeque;
use std::time::Duration;

/// How many times somebody may outlive us within [`WINDOW`]. A member that moved and was outlived by its own past is so once.
const MOST: usize = 3;
/// Older claims are forgotten.
const WINDOW: Duration = Duration::from_secs(60);

/// When others had our name in a later life than ours.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    claims: VecDeque<Duration>,
}

impl Rivals {
    /// Notes a claim. Returns whether there are too many.
    pub(super) fn claimed(&mut self, now: Duration) -> bool {
        self.claims.push_back(now);
        self.claims.retain(|at| now.saturating_sub(*at) < WINDOW);
        self.claims.len() >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_claims_within_a_minute_are_too_many() {
        let mut rivals = Rivals::default();
        let claims = [0, 30, 61, 100, 119].map(|secs| rivals.claimed(Duration::from_secs(secs)));
        assert_eq!(claims, [false, false, false, false, true]);
    }
}
