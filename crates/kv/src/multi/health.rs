//! [`Health`]: whether a store answers, by the last word of whoever asked it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::Error;
use crate::shared::Trouble;

/// Whether a store answers.
#[derive(Debug)]
pub(super) struct Health {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    heard: Instant,
    trouble: Option<Trouble>,
    /// The store itself says that it is in trouble, and will say when it no longer is.
    reported: bool,
}

impl Health {
    /// Until the opposite is known, it does.
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { heard: Instant::now(), trouble: None, reported: false }) }
    }

    /// It answered, whatever it said. Returns whether that is news.
    pub(super) fn answers(&self) -> bool {
        let mut state = self.state.lock();
        state.heard = Instant::now();
        state.reported = false;
        state.trouble.take().is_some()
    }

    /// It did not answer. Returns whether that is news.
    pub(super) fn fails(&self, error: &Error) -> bool {
        self.note(error.to_string().into(), None)
    }

    /// What the store says of itself. Returns whether that is news.
    pub(super) fn reports(&self, trouble: Option<&Trouble>) -> bool {
        match trouble {
            Some(trouble) => {
                let is_news = self.note(Arc::clone(&trouble.cause), Some(trouble));
                self.state.lock().reported = true;
                is_news
            }
            None => {
                let mut state = self.state.lock();
                std::mem::take(&mut state.reported) && state.trouble.take().is_some()
            }
        }
    }

    fn note(&self, cause: Arc<str>, reported: Option<&Trouble>) -> bool {
        let mut state = self.state.lock();
        let is_news = state.trouble.is_none();
        let since = match (&state.trouble, reported) {
            (Some(known), _) => known.since,
            (None, Some(reported)) => reported.since,
            (None, None) => Instant::now(),
        };
        state.trouble = Some(Trouble { heard: state.heard, since, cause });
        is_news
    }

    /// Why it does not answer; `None` if it does.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.state.lock().trouble.clone()
    }

    pub(super) fn is_down(&self) -> bool {
        self.state.lock().trouble.is_some()
    }
}

/// Whether an error says that a store does not answer, and not that it said no.
pub(super) fn is_outage(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. } | Error::Deadline { .. } | Error::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_down_from_its_first_failure_to_its_next_answer() {
        let health = Health::new();
        let silent = Error::Unavailable { backend: "consul", cause: "refused".into() };
        assert!(!health.is_down());
        assert!(health.fails(&silent) && !health.fails(&Error::Closed));
        let trouble = health.trouble().unwrap();
        assert!(trouble.since >= trouble.heard && trouble.cause.contains("closed"), "{trouble:?}");
        // It never said so itself, so its silence about it means nothing.
        assert!(!health.reports(None) && health.is_down());
        assert!(health.answers() && !health.is_down() && !health.answers());

        let said = Trouble { heard: Instant::now(), since: Instant::now(), cause: "busy".into() };
        assert!(health.reports(Some(&said)) && !health.reports(Some(&said)));
        assert!(health.is_down() && health.reports(None) && !health.is_down());
    }

    #[test]
    fn a_store_that_says_no_is_there() {
        let refused = Error::Refused { backend: "consul", reason: "no".into() };
        assert!(!is_outage(&refused) && is_outage(&Error::Closed));
    }
}
