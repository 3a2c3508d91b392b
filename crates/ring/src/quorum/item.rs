//! One item written to several replicas.

use crate::options::Dialect;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// The caller's (codes 400–499): repeating the call does not help.
    Client,
    /// The replica's, or nobody's.
    Server,
}

/// Counts the replies for one item.
///
/// Replies are told apart by numbers of the caller's choice, so that the error to return can be named without keeping a
/// copy per item.
#[derive(Clone, Debug)]
pub struct ItemTracker {
    min_success: u32,
    max_failures: u32,
    remaining: u32,
    succeeded: u32,
    client: Errors,
    server: Errors,
    last: (Family, u32),
    dialect: Dialect,
}

#[derive(Clone, Copy, Debug, Default)]
struct Errors {
    count: u32,
    last: u32,
}

/// What a reply meant for the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is decided, or it was before.
    Pending,
    /// This reply made the item safe. Said once.
    Satisfied,
    /// This reply made it impossible to write the item.
    Failed(Failure),
}

/// Why an item could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How the replies so far decided it.
    pub reason: FailureReason,
    /// Which family's error to report.
    pub family: Family,
    /// The reply that holds the error to report.
    pub reply: u32,
}

/// How replies decide that an item cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// More errors of one family than the item tolerates.
    TooManyErrors,
    /// All replicas have answered, too few with success.
    NoneRemaining,
}

impl ItemTracker {
    /// An item on `replicas` instances of which `max_errors` may fail; one has to take it in any case.
    pub fn new(replicas: usize, max_errors: usize) -> Self {
        Self::in_dialect(replicas, max_errors, Dialect::Cortex)
    }

    /// As [`ItemTracker::new`], with the error to report chosen as `dialect` does: both decide at the same reply.
    pub fn in_dialect(replicas: usize, max_errors: usize, dialect: Dialect) -> Self {
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            min_success: clamp(replicas.saturating_sub(max_errors)).max(1),
            max_failures: clamp(max_errors),
            remaining: clamp(replicas),
            succeeded: 0,
            client: Errors::default(),
            server: Errors::default(),
            last: (Family::Client, 0),
            dialect,
        }
    }

    /// Takes a success.
    pub fn success(&mut self) -> Verdict {
        self.succeeded += 1;
        if self.succeeded >= self.min_success {
            let first = self.succeeded == self.min_success;
            return if first { Verdict::Satisfied } else { Verdict::Pending };
        }
        self.one_less()
    }

    /// Takes error number `reply`.
    ///
    /// # Source
    ///
    /// Cortex's `batchTracker.record`: an item fails when one family exceeds the tolerated errors, or when nobody is left
    /// to answer. The error reported is the last 5xx if those are in the majority, else the last 4xx; in dskit whichever came
    /// last.
    pub fn error(&mut self, family: Family, reply: u32) -> Verdict {
        let errors = match family {
            Family::Client => &mut self.client,
            Family::Server => &mut self.server,
        };
        *errors = Errors { count: errors.count + 1, last: reply };
        self.last = (family, reply);
        if errors.count > self.max_failures {
            return self.failed(FailureReason::TooManyErrors);
        }
        self.one_less()
    }

    fn one_less(&mut self) -> Verdict {
        self.remaining = self.remaining.saturating_sub(1);
        if self.remaining == 0 && self.succeeded < self.min_success {
            self.failed(FailureReason::NoneRemaining)
        } else {
            Verdict::Pending
        }
    }

    fn failed(&self, reason: FailureReason) -> Verdict {
        if self.dialect == Dialect::Dskit {
            let (family, reply) = self.last;
            return Verdict::Failed(Failure { reason, family, reply });
        }
        let (family, errors) = if self.server.count > self.client.count {
            (Family::Server, self.server)
        } else {
            (Family::Client, self.client)
        };
        Verdict::Failed(Failure { reason, family, reply: errors.last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_may_lose_every_replica_is_safe_with_the_first_one_all_the_same() {
        for max_errors in [2, 3, usize::MAX] {
            let mut item = ItemTracker::new(2, max_errors);
            assert_eq!(item.error(Family::Server, 0), Verdict::Pending);
            assert_eq!(item.success(), Verdict::Satisfied);
            let mut lost = ItemTracker::new(2, max_errors);
            assert_eq!(lost.error(Family::Server, 0), Verdict::Pending);
            let Verdict::Failed(failure) = lost.error(Family::Server, 1) else { panic!("nobody has it") };
            assert_eq!((failure.reason, failure.reply), (FailureReason::NoneRemaining, 1));
        }
    }
}
