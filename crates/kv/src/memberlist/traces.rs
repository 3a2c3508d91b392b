//! What registers say of a key beyond its entries: who wrote them, and what was removed.

use std::time::Duration;

use ringkit_gossip::driver::Access;
use ringkit_gossip::store::HEARTBEAT_FACET;

use super::views::Views;
use crate::store::Traces;

/// What is known of a key. Removals count up to an age of `removed_for`.
pub(super) fn traces(access: &Access<'_, Views>, key: &str, removed_for: Duration) -> Traces {
    let (node, now) = (access.node(), access.now());
    let this = node.id().name;
    let mut traces = Traces::default();
    // The parts of an entry follow each other.
    for (place, slot) in node.store().registers(key) {
        let register = slot.register();
        match place.facet {
            0 if register.is_tombstone() => {
                let age = slot.age(now);
                if age <= removed_for {
                    traces.removed.insert(place.id.clone(), age);
                }
            }
            // Who wrote the last sign of life has the entry, whoever wrote the rest of it.
            0 | HEARTBEAT_FACET if !register.is_tombstone() => {
                if register.author == this {
                    traces.own.insert(place.id.clone());
                } else {
                    traces.own.remove(&place.id);
                }
            }
            _ => (),
        }
    }
    traces
}
