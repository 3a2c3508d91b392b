//! [`Strategy`]: how many of a key's replicas must be healthy, and how many of those may fail.

/// How many of a key's replicas must be healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// More than half of the replicas, so that any two operations share one.
    #[default]
    Quorum,
    /// One is enough.
    IgnoreUnhealthy,
}

impl Strategy {
    /// How many of `healthy` replicas may fail, at a replication factor of `factor`.
    ///
    /// # Errors
    ///
    /// How many healthy replicas are needed, if there are fewer.
    ///
    /// # Source
    ///
    /// Cortex's default and ignore-unhealthy strategies: a quorum is taken of the factor or of the healthy replicas,
    /// whichever is more.
    pub fn tolerated(self, factor: usize, healthy: usize) -> Result<usize, usize> {
        self.tolerated_of(factor, healthy, healthy)
    }

    /// As [`Strategy::tolerated`], with a quorum of the factor or of `counted` replicas, whichever is more.
    #[inline]
    pub(crate) fn tolerated_of(self, factor: usize, counted: usize, healthy: usize) -> Result<usize, usize> {
        let needed = match self {
            Self::Quorum => factor.max(counted) / 2 + 1,
            Self::IgnoreUnhealthy => 1,
        };
        healthy.checked_sub(needed).ok_or(needed)
    }
}
