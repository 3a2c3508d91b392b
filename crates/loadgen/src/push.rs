//! Sending one batch: where to, how often, and what an answer means. The rules are those of Prometheus' remote write.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Url};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::error::Error;
use crate::http;
use crate::load::LoadOptions;
use crate::summary::Stats;

/// First pause after a failure; doubled each time up to [`MAX_BACKOFF`].
pub const MIN_BACKOFF: Duration = Duration::from_millis(30);
/// Longest pause that we choose ourselves.
pub const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Longest `Retry-After` that is honoured in full.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How a batch ended. (One that is still being tried when the load ends did not end at all.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 2xx.
    Acked,
    /// 4xx other than 429: the server will never take it.
    Refused,
}

/// What one attempt brought.
enum Answer {
    Acked,
    Refused(u16),
    Retry {
        reason: String,
        after: Option<Duration>,
    },
    /// The connection was refused or cut: another target may do better at once.
    Broken(&'static str),
}

/// Sends batches to one or more targets.
pub(crate) struct Pusher {
    client: Client,
    /// Never empty.
    targets: RwLock<Arc<[Url]>>,
    tenant: Option<String>,
    next: AtomicUsize,
    slots: Semaphore,
}

impl Pusher {
    pub(crate) fn new(options: &LoadOptions) -> Result<Self, Error> {
        let targets = RwLock::new(parse(&options.urls)?);
        if options.concurrency == 0 {
            return Err(Error::option("concurrency", "must be at least 1"));
        }
        Ok(Self {
            client: http::client(options.timeout)?,
            targets,
            tenant: options.tenant.clone(),
            next: AtomicUsize::new(0),
            slots: Semaphore::new(options.concurrency.min(Semaphore::MAX_PERMITS)),
        })
    }

    /// Rounds that begin from now on go to these.
    pub(crate) fn set_targets(&self, urls: &[String]) -> Result<(), Error> {
        *self.targets.write() = parse(urls)?;
        Ok(())
    }

    fn targets(&self) -> Arc<[Url]> {
        Arc::clone(&self.targets.read())
    }

    /// Sends a batch until it is taken or refused for good. Dropping the future gives up; the batch may have arrived then.
    ///
    /// One round is an attempt on one target, plus one on the next target if the connection was refused or cut. Between
    /// rounds the pause doubles, or is what the server asked for. A pause occupies no slot.
    pub(crate) async fn deliver(&self, body: &Bytes, stats: &Stats) -> Outcome {
        let mut target = self.next.fetch_add(1, Ordering::Relaxed);
        let mut backoff = MIN_BACKOFF;
        loop {
            let (reason, after) = match self.round(target, body, stats).await {
                Answer::Acked => return Outcome::Acked,
                Answer::Refused(status) => {
                    stats.failed(&status.to_string());
                    return Outcome::Refused;
                }
                Answer::Retry { reason, after } => (reason, after),
                Answer::Broken(reason) => (reason.to_owned(), None),
            };
            stats.failed(&reason);
            sleep(after.unwrap_or(backoff).min(MAX_RETRY_AFTER)).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
            target += 1;
        }
    }

    async fn round(&self, target: usize, body: &Bytes, stats: &Stats) -> Answer {
        // The semaphore is never closed; if it were, going on unbounded would be the lesser evil.
        let _slot = self.slots.acquire().await.ok();
        stats.round();
        let targets = self.targets();
        let answer = self.attempt(&targets, target, body).await;
        if matches!(answer, Answer::Broken(_)) && targets.len() > 1 {
            stats.failover();
            return self.attempt(&targets, target + 1, body).await;
        }
        answer
    }

    async fn attempt(&self, targets: &[Url], target: usize, body: &Bytes) -> Answer {
        let Some(url) = targets.get(target % targets.len().max(1)) else {
            return Answer::Broken("no target");
        };
        let mut request = self
            .client
            .post(url.clone())
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "snappy")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .body(body.clone());
        if let Some(tenant) = &self.tenant {
            request = request.header(http::TENANT_HEADER, tenant);
        }
        match request.send().await {
            Ok(mut response) => {
                let status = response.status().as_u16();
                let after =
                    response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
                // Read to the end (bounded), so that the connection can be used again.
                let mut left = 64 << 10;
                while let Ok(Some(part)) = response.chunk().await {
                    left = usize::saturating_sub(left, part.len());
                    if left == 0 {
                        break;
                    }
                }
                classify(status, after)
            }
            Err(error) if error.is_timeout() => Answer::Retry { reason: "timeout".to_owned(), after: None },
            Err(error) if error.is_connect() => Answer::Broken("connect"),
            Err(_) => Answer::Broken("cut"),
        }
    }
}

fn parse(urls: &[String]) -> Result<Arc<[Url]>, Error> {
    if urls.is_empty() {
        return Err(Error::option("url", "at least one address is needed, such as http://localhost:9009"));
    }
    urls.iter().map(|url| http::endpoint("url", url, "/api/v1/push")).collect()
}

fn classify(status: u16, after: Option<Duration>) -> Answer {
    match status {
        200..=299 => Answer::Acked,
        429 | 500..=599 => Answer::Retry { reason: status.to_string(), after },
        _ => Answer::Refused(status),
    }
}

/// Seconds only; the form with a date is treated as absent.
fn retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_errors_and_429_are_retried_and_nothing_else() {
        let kind = |status| match classify(status, None) {
            Answer::Acked => "acked",
            Answer::Refused(_) => "refused",
            Answer::Retry { .. } => "retry",
            Answer::Broken(_) => "broken",
        };
        assert!([200, 202, 204].iter().all(|status| kind(*status) == "acked"));
        assert!([429, 500, 502, 503, 504].iter().all(|status| kind(*status) == "retry"));
        assert!([301, 400, 401, 404, 409, 413, 415, 422].iter().all(|status| kind(*status) == "refused"));
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(retry_after("-1"), None);
    }
}
