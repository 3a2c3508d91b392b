//! Waiting for something to become true, with a deadline instead of a guess.

use std::convert::Infallible;
use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::Error;

/// Pause between two tries.
pub const POLL_PERIOD: Duration = Duration::from_millis(20);

/// Tries until `condition` holds. Works on tokio's clock, so also under paused time.
///
/// # Errors
///
/// [`Error::Late`] after `within`; for a better message than that use [`eventually_ok`].
pub async fn eventually<F, Fut>(within: Duration, mut condition: F) -> Result<(), Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    poll(within, async || if condition().await { Ok(()) } else { Err(None::<Infallible>) }).await
}

/// Tries until `attempt` says `Ok` and returns its value. Works on tokio's clock, so also under paused time.
///
/// # Errors
///
/// [`Error::Late`] after `within`, with the last thing that `attempt` complained about.
pub async fn eventually_ok<T, E, F, Fut>(within: Duration, mut attempt: F) -> Result<T, Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: Display,
{
    poll(within, async || attempt().await.map_err(Some)).await
}

async fn poll<T, E: Display>(
    within: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, Option<E>>,
) -> Result<T, Error> {
    let deadline = Instant::now() + within;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(problem) if Instant::now() >= deadline => {
                let detail = problem.map_or_else(String::new, |problem| format!(", at last: {problem}"));
                return Err(Error::Late {
                    what: "what was waited for did not happen".to_owned(),
                    within,
                    detail,
                });
            }
            Err(_) => sleep(POLL_PERIOD).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_until_it_is_so() {
        let start = Instant::now();
        eventually(Duration::from_secs(5), || async { start.elapsed() >= Duration::from_secs(2) })
            .await
            .unwrap();
        assert!(start.elapsed() < Duration::from_secs(3));
        let value = eventually_ok(Duration::from_secs(5), || async { Ok::<_, &str>(7) }).await.unwrap();
        assert_eq!(value, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_with_the_last_complaint() {
        let late = eventually_ok(Duration::from_secs(1), || async { Err::<(), _>("still wrong") }).await;
        let text = late.unwrap_err().to_string();
        assert!(text.contains("not within 1s") && text.contains("still wrong"), "{text}");
        let late = eventually(Duration::from_secs(1), || async { false }).await;
        assert!(matches!(late, Err(Error::Late { .. })));
    }
}
