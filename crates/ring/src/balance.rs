//! [`Balance`]: how evenly something lies on the instances of a ring.

use crate::snapshot::Snapshot;
use crate::token::CIRCLE;

/// How evenly something lies on instances: 1, 1 and 0 if all have the same. All 0 if there are none or they have nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Balance {
    /// What the instance with the most has, as a multiple of the mean.
    pub max_over_mean: f64,
    /// What the instance with the least has, as a multiple of the mean.
    pub min_over_mean: f64,
    /// Coefficient of variation: the standard deviation as a multiple of the mean.
    pub variation: f64,
}

impl Balance {
    /// The balance of `shares`, one per instance, none negative, in any unit.
    pub fn of(shares: impl IntoIterator<Item = f64>) -> Self {
        let shares: Vec<f64> = shares.into_iter().collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        // Not a number without instances.
        if mean.is_nan() || mean <= 0.0 {
            return Self::default();
        }
        let squares: f64 = shares.iter().map(|share| (share - mean).powi(2)).sum();
        Self {
            max_over_mean: shares.iter().copied().fold(0.0, f64::max) / mean,
            min_over_mean: shares.iter().copied().fold(f64::INFINITY, f64::min) / mean,
            variation: (squares / shares.len() as f64).sqrt() / mean,
        }
    }

    /// How evenly the ranges of the circle that belong to tokens lie on the instances that have any: what a token owns up
    /// to its predecessor, in a zone-aware ring up to its predecessor of the same zone. Each instance is compared with
    /// the mean of its zone, so that zones of different sizes are not taken for unevenness.
    ///
    /// Costs O(n) for n instances once [`Snapshot::ownership`] is known.
    pub fn of_ranges(ring: &Snapshot) -> Self {
        let zone_aware = ring.options().zone_awareness_enabled;
        let shares = if zone_aware { ring.ownership().of_zone() } else { ring.ownership().of_circle() };
        let zone = |member: usize| if zone_aware { ring.topology.zone_of[member] as usize } else { 0 };
        let mut owners = vec![0.0; ring.zones().len().max(1)];
        for member in (0..shares.len()).filter(|&member| shares[member].tokens > 0) {
            owners[zone(member)] += 1.0;
        }
        let owning = shares.iter().enumerate().filter(|(_, share)| share.tokens > 0);
        Self::of(owning.map(|(member, share)| {
            // A token that is claimed twice counts a whole circle more for its owner: that is taken off again. Nobody
            // has less than one position or more than all.
            let positions = (share.positions.max(1) - 1) % CIRCLE + 1;
            positions as f64 * owners[zone(member)]
        }))
    }
}
