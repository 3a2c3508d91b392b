//! Waiting until a ring's healthy members stay the same for a while.

use std::time::Duration;

use ringkit_ring::{Operation, Ring, State};
use tokio::time::{Instant, sleep_until};

/// How often the members are compared.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// Waits until the members of `ring` that are healthy for `op` have not changed for `stable_for`; gives up after `within`. Heartbeats do
/// not count as changes. Cancel-safe.
///
/// # Source
///
/// The stability wait of `spec/ring.md` §4.1 (Cortex's `WaitRingStability`).
pub(crate) async fn wait(ring: &Ring, op: Operation, stable_for: Duration, within: Duration) -> bool {
    let started = Instant::now();
    let mut members = fingerprint(ring, op);
    let mut since = started;
    loop {
        let now = Instant::now();
        if now - since >= stable_for {
            return true;
        }
        if now - started >= within {
            return false;
        }
        sleep_until(now + CHECK_PERIOD.min(stable_for - (now - since))).await;
        let current = fingerprint(ring, op);
        if current != members {
            (members, since) = (current, Instant::now());
        }
    }
}

/// What makes a member the same one: everything but its heartbeat.
type Fingerprint = Vec<(String, String, String, State)>;

fn fingerprint(ring: &Ring, op: Operation) -> Fingerprint {
    let now = ring.clock().now_secs();
    let members = ring.snapshot().all_healthy(op, now).unwrap_or_default();
    let mut all: Fingerprint = members
        .iter()
        .map(|member| {
            (member.id.to_string(), member.addr().to_string(), member.zone().to_string(), member.state())
        })
        .collect();
    all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringkit_ring::{Desc, InstanceDesc, RingOptions};
    use ringkit_runtime::Clock;

    const MINUTE: Duration = Duration::from_secs(60);

    fn ring(timeout: Duration) -> Ring {
        let mut desc = Desc::default();
        let entry = InstanceDesc {
            addr: "10.0.0.1:9095".into(),
            timestamp: 1_700_000_000,
            ..InstanceDesc::default()
        };
        desc.insert("gateway-1", entry);
        let options = RingOptions { heartbeat_timeout: timeout, ..RingOptions::default() };
        Ring::fixed(desc, options, Clock::paused_at(1_700_000_000_000))
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_ring_is_stable_after_exactly_the_wanted_time() {
        let started = Instant::now();
        assert!(wait(&ring(Duration::ZERO), Operation::REPORTING, MINUTE, 5 * MINUTE).await);
        assert_eq!(started.elapsed(), MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_dies_meanwhile_starts_the_wait_again() {
        let started = Instant::now();
        // Its heartbeat is too old after 30 s, which is a change of the healthy members.
        assert!(wait(&ring(MINUTE / 2), Operation::REPORTING, MINUTE, 5 * MINUTE).await);
        assert!(started.elapsed() > MINUTE + MINUTE / 2, "{:?}", started.elapsed());
        assert!(started.elapsed() < 2 * MINUTE, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_given_up_in_time() {
        let started = Instant::now();
        assert!(!wait(&ring(MINUTE / 2), Operation::REPORTING, MINUTE, MINUTE + MINUTE / 6).await);
        assert!(started.elapsed() < MINUTE + MINUTE / 3, "{:?}", started.elapsed());
    }
}
