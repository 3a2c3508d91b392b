//! Whether an instance is ready to serve, and if not, why: in words that say what to look at.

use std::sync::Arc;
use std::time::Duration;

use ringkit_ring::{Desc, Tokens};

/// What readiness depends on. Once ready, an instance stays ready: later trouble of others must not take it out of
/// rotation.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    latched: bool,
    ready_since: Option<Duration>,
    /// The ring as last seen; the inner `None` = there is no such key.
    ring: Option<Option<Arc<Desc>>>,
    store_problem: Option<String>,
}

/// Whose readiness is asked for.
pub(crate) struct Subject<'a> {
    pub(crate) id: &'a str,
    pub(crate) tokens: &'a Tokens,
    pub(crate) heartbeat_timeout: Duration,
    pub(crate) min_ready_duration: Duration,
    pub(crate) check_ring_health: bool,
}

impl Readiness {
    pub(crate) fn saw_ring(&mut self, ring: Option<Arc<Desc>>) {
        self.ring = Some(ring);
    }

    /// The store's present problem, or none. True if this is news.
    pub(crate) fn set_store_problem(&mut self, problem: Option<String>) -> bool {
        let is_news = self.store_problem.is_some() != problem.is_some();
        self.store_problem = problem;
        is_news
    }

    /// `elapsed` is monotonic time since any fixed moment, `unix_secs` wall time.
    pub(crate) fn check(
        &mut self,
        subject: &Subject<'_>,
        elapsed: Duration,
        unix_secs: i64,
    ) -> Result<(), String> {
        if self.latched {
            return Ok(());
        }
        if let Err(reason) = self.check_now(subject, unix_secs) {
            self.ready_since = None;
            return Err(reason);
        }
        let since = *self.ready_since.get_or_insert(elapsed);
        let waited = elapsed.saturating_sub(since);
        if waited < subject.min_ready_duration {
            let (left, whole) = (subject.min_ready_duration - waited, subject.min_ready_duration);
            return Err(format!("waiting for {whole:?} after being ready, {left:.0?} left"));
        }
        self.latched = true;
        Ok(())
    }

    fn check_now(&self, subject: &Subject<'_>, unix_secs: i64) -> Result<(), String> {
        if let Some(problem) = &self.store_problem {
            return Err(format!("error talking to the KV store, trying again: {problem}"));
        }
        if subject.tokens.is_empty() {
            return Err("this instance owns no tokens: it has not joined the ring yet".into());
        }
        let Some(ring) = &self.ring else {
            return Err("the KV store has not answered yet".into());
        };
        let Some(ring) = ring else {
            return Err("no ring returned from the KV store".into());
        };
        let result = if subject.check_ring_health {
            ring.check_ready(unix_secs, subject.heartbeat_timeout)
        } else {
            let Some(own) = ring.get(subject.id) else {
                return Err(format!("instance {} not found in the ring", subject.id));
            };
            own.check_ready(unix_secs, subject.heartbeat_timeout)
        };
        result.map_err(|reason| reason.to_string())
    }
}

#[cfg(test)]
mod tests;
