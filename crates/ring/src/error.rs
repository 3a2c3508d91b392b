//! Why a ring cannot answer.

/// Why a ring cannot answer.
///
/// The texts are Cortex's where it has one, because dashboards and tests look for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There are no instances, or none with tokens. Retry once instances have joined.
    #[error("empty ring")]
    EmptyRing,
    /// Fewer healthy replicas of a key than a quorum needs.
    #[error(
        "at least {required} live replicas required{}, could only find {found}{}",
        if *.zone_aware { " across different availability zones" } else { "" },
        Unhealthy(.unhealthy)
    )]
    TooFewReplicas {
        /// How many are needed.
        required: usize,
        /// How many are healthy.
        found: usize,
        /// Whether replicas are spread over zones.
        zone_aware: bool,
        /// Addresses of the replicas that are not healthy, in walk order, joined by commas.
        unhealthy: String,
    },
    /// No healthy replica of a key at all, where one is enough.
    #[error("at least 1 healthy replica required, could only find 0{}", Unhealthy(.unhealthy))]
    NoHealthyReplica {
        /// Addresses of the replicas that are not healthy, in walk order, joined by commas.
        unhealthy: String,
    },
    /// Too many instances, or zones, are unhealthy for any key to be sure of a quorum.
    #[error("too many unhealthy instances in the ring")]
    TooManyUnhealthyInstances,
    /// A call asked for more replicas than the ring keeps, where a quorum of them would mean nothing.
    #[error(
        "per-call replication factor {factor} cannot exceed the configured replication factor {configured} with this replication strategy"
    )]
    FactorTooLarge {
        /// What the call asked for.
        factor: usize,
        /// What the ring is set to.
        configured: usize,
    },
    /// No instance has this id or address.
    #[error("instance not found in the ring")]
    InstanceNotFound,
}

impl Error {
    /// Whether the same call may succeed later without anyone changing the request.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::EmptyRing
            | Self::TooFewReplicas { .. }
            | Self::NoHealthyReplica { .. }
            | Self::TooManyUnhealthyInstances => true,
            Self::InstanceNotFound | Self::FactorTooLarge { .. } => false,
        }
    }
}

struct Unhealthy<'a>(&'a str);

impl std::fmt::Display for Unhealthy<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " - unhealthy instances: {}", self.0) }
    }
}
