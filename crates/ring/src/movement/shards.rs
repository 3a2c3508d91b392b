//! [`ShardMovement`]: what a change of a ring does to tenants' shards.

use std::cmp::Ordering;

use crate::snapshot::Snapshot;

/// How the shards of some tenants change when one ring becomes another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardMovement {
    /// How many tenants were looked at.
    pub tenants: usize,
    /// How many of them have a shard with other members than before.
    pub changed: usize,
    /// Members of all these shards together, in the new ring.
    pub members: usize,
    /// How many of those are new to their shard.
    pub joined: usize,
    /// How many members have left a shard.
    pub left: usize,
    /// How many members the shard that changed most has got.
    pub most_joined: usize,
}

impl ShardMovement {
    /// Compares the shards of `size` members that `tenants` have in the two rings; see [`Snapshot::shuffle_shard`].
    ///
    /// Costs two shards per tenant.
    pub fn between<T: AsRef<str>>(
        before: &Snapshot,
        after: &Snapshot,
        tenants: impl IntoIterator<Item = T>,
        size: i64,
    ) -> Self {
        let mut movement = Self::default();
        for tenant in tenants {
            let (was, is) =
                (before.shuffle_shard(tenant.as_ref(), size), after.shuffle_shard(tenant.as_ref(), size));
            let stayed =
                num_common(was.instances().map(|member| &member.id), is.instances().map(|member| &member.id));
            let (left, joined) = (was.len() - stayed, is.len() - stayed);
            movement.tenants += 1;
            movement.changed += usize::from(left + joined > 0);
            movement.members += is.len();
            movement.joined += joined;
            movement.left += left;
            movement.most_joined = movement.most_joined.max(joined);
        }
        movement
    }
}

/// How many elements two ascending lists share.
fn num_common<T: Ord>(a: impl Iterator<Item = T>, b: impl Iterator<Item = T>) -> usize {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    let mut common = 0;
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let order = x.cmp(y);
        common += usize::from(order == Ordering::Equal);
        if order.is_le() {
            a.next();
        }
        if order.is_ge() {
            b.next();
        }
    }
    common
}
