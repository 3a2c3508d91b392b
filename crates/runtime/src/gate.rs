//! A gate that lets users in until it closes, then waits for the last one to leave. Lock-free while open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts those inside and closes in an orderly way. Clones share one gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Lowest bit: closed. The rest: twice the number of passes.
    state: AtomicUsize,
    empty: Notify,
}

const CLOSED: usize = 1;
const ONE_PASS: usize = 2;

/// The gate was closed: whatever is behind it is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopping: no new work is accepted")]
pub struct Closed;

impl Gate {
    /// An open gate with nobody inside.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes in; leaving is dropping the pass.
    ///
    /// # Errors
    ///
    /// [`Closed`] once [`close`](Self::close) was called.
    pub fn enter(&self) -> Result<Pass, Closed> {
        let entered = self.0.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            (state & CLOSED == 0).then_some(state.wrapping_add(ONE_PASS))
        });
        entered.map(|_| Pass(Arc::clone(&self.0))).map_err(|_| Closed)
    }

    /// Closes the gate at once and waits until everybody has left. Cancel-safe: dropping the future leaves the gate
    /// closed, and it may be called again.
    pub async fn close(&self) {
        self.0.state.fetch_or(CLOSED, Ordering::AcqRel);
        loop {
            // Made before the count is read: it hears of everything from here on, polled or not.
            let empty = self.0.empty.notified();
            if self.passes() == 0 {
                return;
            }
            empty.await;
        }
    }

    /// How many are inside.
    pub fn passes(&self) -> usize {
        self.0.state.load(Ordering::Acquire) / ONE_PASS
    }

    /// Whether the gate was closed.
    pub fn is_closed(&self) -> bool {
        self.0.state.load(Ordering::Acquire) & CLOSED != 0
    }
}

/// Proof of being inside a [`Gate`].
#[derive(Debug)]
#[must_use = "dropping the pass means leaving"]
pub struct Pass(Arc<Inner>);

impl Drop for Pass {
    fn drop(&mut self) {
        if self.0.state.fetch_sub(ONE_PASS, Ordering::AcqRel) == ONE_PASS | CLOSED {
            self.0.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn closing_waits_for_the_last_one_and_lets_nobody_in() {
        let gate = Gate::new();
        let passes = [gate.enter().unwrap(), gate.enter().unwrap()];
        let mut closing = Box::pin(gate.close());
        assert!(closing.as_mut().now_or_never().is_none());
        assert_eq!(gate.enter().unwrap_err(), Closed);
        assert_eq!(gate.passes(), 2);
        let [first, second] = passes;
        drop(first);
        assert!(closing.as_mut().now_or_never().is_none());
        drop(second);
        closing.await;
        gate.close().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_departure_is_missed_under_contention() {
        for _ in 0..200 {
            let gate = Gate::new();
            let users: Vec<_> = (0..4)
                .map(|_| {
                    let gate = gate.clone();
                    tokio::spawn(async move {
                        let pass = gate.enter();
                        tokio::task::yield_now().await;
                        drop(pass);
                    })
                })
                .collect();
            gate.close().await;
            assert_eq!(gate.passes(), 0);
            for user in users {
                user.await.unwrap();
            }
        }
    }
}
