//! [`View`]: what a whole ring and a shard of it have in common.

use crate::error::Error;
use crate::operation::Operation;
use crate::replicas::Replicas;
use crate::sets::Instances;
use crate::shard::Shard;
use crate::snapshot::Snapshot;

/// What can be asked of a whole ring and of a shard of it alike: a [`Snapshot`] or a [`Shard`].
///
/// The methods are those of the two types, where they are described.
pub trait View: sealed::Sealed + Send + Sync {
    /// The snapshot looked at.
    fn snapshot(&self) -> &Snapshot;

    /// How many members there are, whatever their state.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The healthy members that hold `token`; see [`Snapshot::get`].
    ///
    /// # Errors
    ///
    /// Those of [`Snapshot::get`].
    fn get(&self, token: u32, op: Operation, now: i64) -> Result<Replicas<'_>, Error>;

    /// The members that together hold every key; see [`Snapshot::replication_set`].
    ///
    /// # Errors
    ///
    /// Those of [`Snapshot::replication_set`].
    fn replication_set(&self, op: Operation, now: i64) -> Result<Replicas<'_>, Error>;

    /// All members that can serve `op`; see [`Snapshot::all_healthy`].
    ///
    /// # Errors
    ///
    /// Those of [`Snapshot::all_healthy`].
    fn all_healthy(&self, op: Operation, now: i64) -> Result<Instances, Error>;

    /// The members that can serve `op`, and the others; see [`Snapshot::split_by_health`].
    ///
    /// # Errors
    ///
    /// Those of [`Snapshot::split_by_health`].
    fn split_by_health(&self, op: Operation, now: i64) -> Result<(Instances, Instances), Error>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::snapshot::Snapshot {}
    impl Sealed for crate::shard::Shard<'_> {}
}

impl View for Snapshot {
    fn snapshot(&self) -> &Snapshot {
        self
    }

    fn len(&self) -> usize {
        self.members.len()
    }

    fn get(&self, token: u32, op: Operation, now: i64) -> Result<Replicas<'_>, Error> {
        self.get(token, op, now)
    }

    fn replication_set(&self, op: Operation, now: i64) -> Result<Replicas<'_>, Error> {
        self.replication_set(op, now)
    }

    fn all_healthy(&self, op: Operation, now: i64) -> Result<Instances, Error> {
        self.all_healthy(op, now)
    }

    fn split_by_health(&self, op: Operation, now: i64) -> Result<(Instances, Instances), Error> {
        self.split_by_health(op, now)
    }
}

impl View for Shard<'_> {
    fn snapshot(&self) -> &Snapshot {
        self.snapshot()
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn get(&self, token: u32, op: Operation, now: i64) -> Result<Replicas<'_>, Error> {
        self.get(token, op, now)
    }

    fn replication_set(&self, op: Operation, now: i64) -> Result<Replicas<'_>, Error> {
        self.replication_set(op, now)
    }

    fn all_healthy(&self, op: Operation, now: i64) -> Result<Instances, Error> {
        self.all_healthy(op, now)
    }

    fn split_by_health(&self, op: Operation, now: i64) -> Result<(Instances, Instances), Error> {
        self.split_by_health(op, now)
    }
}
