//! Whether an instance is ready to serve, and if not, why: in words that say what to look at.

use std::sync::Arc;
use std::time::Duration;

use ringkit_config::ReadinessCheck;
use ringkit_ring::{Desc, Tokens};

/// What readiness depends on. Once ready, an instance stays ready: later trouble of others must not take it out of
/// rotation.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    latched: bool,
    ready_since: Option<Duration>,
    /// The ring as last seen; the inner `None` = there is no such key.
    ring: Option<Option<Arc<Desc>>>,
    watch_problem: Option<String>,
    write_problem: Option<String>,
}

/// What of a store can fail by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Watch,
    Write,
}

/// Whose readiness is asked for.
pub(crate) struct Subject<'a> {
    pub(crate) id: &'a str,
    pub(crate) tokens: &'a Tokens,
    pub(crate) heartbeat_timeout: Duration,
    pub(crate) min_ready_duration: Duration,
    pub(crate) zone: &'a str,
    pub(crate) check: ReadinessCheck,
}

impl Readiness {
    pub(crate) fn saw_ring(&mut self, ring: Option<Arc<Desc>>) {
        self.ring = Some(ring);
    }

    /// The present problem of a part of the store, or none. True if that is news: the store began or ceased to fail.
    pub(crate) fn set_store_problem(&mut self, part: Part, problem: Option<String>) -> bool {
        let failed = self.store_problem().is_some();
        match part {
            Part::Watch => self.watch_problem = problem,
            Part::Write => self.write_problem = problem,
        }
        failed != self.store_problem().is_some()
    }

    fn store_problem(&self) -> Option<&String> {
        self.write_problem.as_ref().or(self.watch_problem.as_ref())
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
        if let Some(problem) = self.store_problem() {
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
        let own =
            || ring.get(subject.id).ok_or_else(|| format!("instance {} not found in the ring", subject.id));
        match subject.check {
            ReadinessCheck::Ring => {
                ring.check_ready(unix_secs, subject.heartbeat_timeout).map_err(|reason| reason.to_string())
            }
            ReadinessCheck::Own => {
                own()?.check_ready(unix_secs, subject.heartbeat_timeout).map_err(|reason| reason.to_string())
            }
            ReadinessCheck::Zone => {
                own()?;
                let neighbours = ring.iter().filter(|(_, entry)| entry.zone == subject.zone);
                neighbours.into_iter().try_for_each(|(id, entry)| {
                    let ready = entry.check_ready(unix_secs, subject.heartbeat_timeout);
                    ready.map_err(|reason| format!("in the zone `{}`, instance {id}: {reason}", subject.zone))
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;
