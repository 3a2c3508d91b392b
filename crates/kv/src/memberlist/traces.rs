//! What registers say of a key beyond its entries: who brought them, and what was removed.

use std::time::Duration;

use ringkit_gossip::driver::Access;

use super::views::{Views, is_relay_mark};
use crate::store::Traces;

/// What is known of a key. Removals count up to an age of `removed_for`.
pub(super) fn traces(access: &Access<'_, Views>, key: &str, removed_for: Duration) -> Traces {
    let (node, now) = (access.node(), access.now());
    let mut traces = Traces::default();
    for (place, slot) in node.store().registers(key) {
        match slot.register().is_tombstone() {
            true if place.facet == 0 => {
                let age = slot.age(now);
                if age <= removed_for {
                    traces.removed.insert(place.id.clone(), age);
                }
            }
            false if is_relay_mark(place) => {
                traces.relayed.insert(place.id.clone());
            }
            _ => (),
        }
    }
    traces
}
