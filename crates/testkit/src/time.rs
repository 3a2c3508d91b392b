//! Waiting for something to become true, with a deadline instead of a guess.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Pause between two tries.
pub const POLL_PERIOD: Duration = Duration::from_millis(20);

/// Tries until `attempt` says `Ok` and returns its value. Works on tokio's clock, so also under paused time.
///
/// # Panics
///
/// After `within`, with the last thing that `attempt` complained about: a test that waits in vain has failed.
pub async fn eventually<T, E, F, Fut>(within: Duration, mut attempt: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: std::fmt::Display,
{
    let deadline = Instant::now() + within;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(problem) if Instant::now() >= deadline => panic!("not within {within:?}: {problem}"),
            Err(_) => sleep(POLL_PERIOD).await,
        }
    }
}

/// Waits until `condition` holds.
///
/// # Panics
///
/// After `within`, with `what`.
pub async fn eventually_true<F, Fut>(within: Duration, what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    eventually(within, || {
        let holds = condition();
        async move { if holds.await { Ok(()) } else { Err(what) } }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_until_it_is_so() {
        let start = Instant::now();
        let done = eventually(Duration::from_secs(5), || async {
            if start.elapsed() >= Duration::from_secs(2) { Ok(7) } else { Err("not yet") }
        });
        assert_eq!(done.await, 7);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 1s: still wrong")]
    async fn gives_up_with_the_last_complaint() {
        eventually(Duration::from_secs(1), || async { Err::<(), _>("still wrong") }).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "the moon is green")]
    async fn names_the_condition_that_never_held() {
        eventually_true(Duration::from_secs(1), "the moon is green", || async { false }).await;
    }
}
