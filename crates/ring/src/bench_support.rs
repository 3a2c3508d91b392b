//! Steps of the ring's service that benchmarks and allocation tests measure by themselves. Not part of the interface.

use ringkit_kv::EntryId;

use crate::desc::Desc;
use crate::follow::{follow, follow_changed};
pub use crate::go_rand::TABLE as GO_RAND_TABLE;
use crate::ring::Ring;

/// Compares `desc` with what `ring` shows and publishes it, as the service does with an update of which it knows that
/// only the entries of `changed` differ. Returns whether the lookup tables were kept.
pub fn publish(ring: &Ring, desc: &Desc, changed: &[EntryId]) -> bool {
    let now = ring.clock().now_secs();
    let known = ring.shared.load();
    let quick = follow_changed(&known, desc, changed, now, |_| None);
    let kept = quick.is_some();
    let followed = quick.unwrap_or_else(|| follow(&known, desc, now, |_| None));
    ring.shared.publish(followed.snapshot, followed.notable);
    kept
}
