//! How a set of instances is asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use crate::cancel::Cancellation;

/// Tells apart the errors of calls. It runs on the task of the request, for each error.
pub type ErrorTest<E> = Arc<dyn Fn(&E) -> bool + Send + Sync>;

/// How [`do_until_quorum`](super::do_until_quorum) asks. A clone shares the [`Cancellation`].
pub struct UntilQuorumOptions<E> {
    /// Calls only as many instances, or zones, as are needed, and further ones when calls fail or take long.
    pub minimize_requests: bool,
    /// With `minimize_requests`: every so often one more instance, or zone, is called as long as there is no quorum.
    /// `None` and zero = only after failures.
    pub hedging_delay: Option<Duration>,
    /// Whether an error speaks for all instances: it is returned at once, and nobody else is called.
    pub is_terminal_error: ErrorTest<E>,
    /// With `minimize_requests`, in a set that answers by zone: which zones are called first.
    pub zone_order: ZoneOrder,
    /// What `minimize_requests` draws with; one seed gives one choice. `None` = seeded by the operating system.
    pub seed: Option<u64>,
    /// Ends the request from outside with a cause. Dropping the future ends it too.
    pub stop: Cancellation,
}

impl<E> Default for UntilQuorumOptions<E> {
    /// Everybody is called, no error is terminal, nobody else stops the request.
    fn default() -> Self {
        Self {
            minimize_requests: false,
            hedging_delay: None,
            is_terminal_error: Arc::new(|_| false),
            zone_order: ZoneOrder::Random,
            seed: None,
            stop: Cancellation::new(),
        }
    }
}

// Not derived: the errors themselves need be neither cloned nor shown.
impl<E> Clone for UntilQuorumOptions<E> {
    fn clone(&self) -> Self {
        Self {
            is_terminal_error: Arc::clone(&self.is_terminal_error),
            zone_order: self.zone_order.clone(),
            stop: self.stop.clone(),
            ..*self
        }
    }
}

impl<E> fmt::Debug for UntilQuorumOptions<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { minimize_requests, hedging_delay, is_terminal_error: _, zone_order, seed, stop } = self;
        f.debug_struct("UntilQuorumOptions")
            .field("minimize_requests", minimize_requests)
            .field("hedging_delay", hedging_delay)
            .field("zone_order", zone_order)
            .field("seed", seed)
            .field("stop", stop)
            .finish_non_exhaustive()
    }
}

/// Sorts the names of zones.
pub type ZoneSorter = Arc<dyn Fn(&mut Vec<SmolStr>) + Send + Sync>;

/// In which order zones are called when not all are.
#[derive(Clone, Default)]
pub enum ZoneOrder {
    /// Drawn anew for each request, which spreads the load.
    #[default]
    Random,
    /// These first, in this order; then the others, drawn. Names of no zone are ignored.
    Preferred(Vec<SmolStr>),
    /// As the function leaves the names, which it gets in an order drawn anew. Names that it drops come last.
    By(ZoneSorter),
}

impl fmt::Debug for ZoneOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => f.write_str("Random"),
            Self::Preferred(zones) => f.debug_tuple("Preferred").field(zones).finish(),
            Self::By(_) => f.write_str("By(..)"),
        }
    }
}

/// How [`do_all`](super::do_all) asks. A clone shares the [`Cancellation`].
pub struct DoAllOptions<E> {
    /// In a set that answers by instance, as many instances as may fail, the last ones, are called only after this delay,
    /// and one of them earlier for each failure. Zero = all are called at once.
    pub delay: Duration,
    /// In a set that answers by zone: only results from zones of which every instance has replied.
    pub zone_results_quorum: bool,
    /// Whether an incomplete answer is better than none when too many have failed.
    pub partial_data: bool,
    /// Whether an error says that the request itself is over a limit: it is returned at once.
    pub is_limit_error: ErrorTest<E>,
    /// Ends the request from outside with a cause. Dropping the future ends it too.
    pub stop: Cancellation,
}

impl<E> Default for DoAllOptions<E> {
    /// Everybody is called at once, and all or nothing is returned.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            zone_results_quorum: false,
            partial_data: false,
            is_limit_error: Arc::new(|_| false),
            stop: Cancellation::new(),
        }
    }
}

impl<E> Clone for DoAllOptions<E> {
    fn clone(&self) -> Self {
        Self { is_limit_error: Arc::clone(&self.is_limit_error), stop: self.stop.clone(), ..*self }
    }
}

impl<E> fmt::Debug for DoAllOptions<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delay, zone_results_quorum, partial_data, is_limit_error: _, stop } = self;
        f.debug_struct("DoAllOptions")
            .field("delay", delay)
            .field("zone_results_quorum", zone_results_quorum)
            .field("partial_data", partial_data)
            .field("stop", stop)
            .finish_non_exhaustive()
    }
}
