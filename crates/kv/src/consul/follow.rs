//! Watches: blocking queries, and the rules of the index that they wait with.

use std::num::NonZeroU32;
use std::time::Duration;

use consulrs::api::Features;
use consulrs::api::features::{Blocking, ConsistencyMode};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use ringkit_config::ConsulConfig;
use ringkit_runtime::Backoff;
use tracing::{info, warn};

use super::answer::{Failure, unavailable};
use super::{Consul, Polled};
use crate::error::Error;
use crate::flat::{News, Scope};
use crate::shared::Pulse;

/// How long a blocking query waits for a change.
const WAIT: Duration = Duration::from_secs(10);
/// What Consul adds to that at most, and the way there and back.
const WAIT_SLACK: Duration = Duration::from_secs(5);
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

impl Consul {
    /// Tells what is in the scope, at once and after every change. Never ends.
    pub(super) async fn watch(&self, scope: &Scope, pulse: &Pulse, news: &(dyn Fn(News) + Send + Sync)) {
        let pace = pace(&self.config);
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        // The highest index that was heard, and the one to wait for a change of; 0 = do not wait.
        let (mut highest, mut index) = (0, 0);
        loop {
            if let Some(pace) = &pace {
                pace.until_ready().await;
            }
            let blocking =
                (index > 0).then(|| Blocking { index, wait: Some(format!("{}ms", WAIT.as_millis())) });
            let deadline = self.config.http_client_timeout.max(WAIT + WAIT_SLACK);
            let features = Features { blocking, cached: None, filter: None, mode: Some(self.mode()) };
            let mut polled = self.poll(scope, Some(features), deadline).await;
            if let Ok(Polled { index: Some(now), .. }) = &polled
                && *now < highest
            {
                // A server that lags behind, or one that began anew: the leader knows.
                let mode = Some(ConsistencyMode::CONSISTENT);
                let features = Features { blocking: None, cached: None, filter: None, mode };
                polled = self.poll(scope, Some(features), self.patience()).await;
            }
            match polled {
                Ok(Polled { page, index: told, leaderless }) => {
                    if leaderless {
                        pulse.fails(&unavailable("the server that answers knows no leader".into()).error);
                    } else {
                        pulse.beats();
                    }
                    backoff.reset();
                    let Some(now) = told else {
                        // There is nothing to wait for.
                        let now = page.index;
                        news(if now < highest { News::Restarted(page) } else { News::Page(page) });
                        (highest, index) = (now, 0);
                        tokio::time::sleep(MIN_BACKOFF).await;
                        continue;
                    };
                    if now < highest {
                        news(News::Restarted(page));
                    } else if now != index {
                        news(News::Page(page));
                    }
                    (highest, index) = (now, now);
                }
                Err(Failure { error, retry_after }) => {
                    let refused = matches!(error, Error::Refused { .. });
                    pulse.fails(&error);
                    let wait = backoff.next().max(retry_after.unwrap_or_default()).min(MAX_BACKOFF);
                    warn!(?scope, %error, ?wait, "a watch cannot reach its store and will try again");
                    // Whoever else reaches the server ends the wait, but not at once: a watch that fails by itself must
                    // not spin. Not if the server asked for the wait, or said no to this watch alone.
                    let floor = wait.min(MIN_BACKOFF / 4);
                    tokio::time::sleep(floor).await;
                    let mut beats = pulse.subscribe();
                    tokio::select! {
                        () = tokio::time::sleep(wait.saturating_sub(floor)) => (),
                        _ = beats.wait_for(Option::is_none), if retry_after.is_none() && !refused => {
                            info!(?scope, "the store answers again");
                        }
                    }
                    // What happened meanwhile is asked for without waiting for more.
                    index = 0;
                }
            }
        }
    }
}

/// The pace of a watch; `None` = as fast as it goes.
fn pace(config: &ConsulConfig) -> Option<DefaultDirectRateLimiter> {
    if config.watch_rate_limit <= 0.0 {
        return None;
    }
    let period = Duration::try_from_secs_f64(1.0 / config.watch_rate_limit).ok()?;
    let burst = u32::try_from(config.watch_burst_size).unwrap_or(u32::MAX);
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    Some(RateLimiter::direct(Quota::with_period(period)?.allow_burst(burst)))
}
