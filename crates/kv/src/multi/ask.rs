//! [`Asking`]: the last question before a switch, and before mirroring ends. Whether a store answers is known from when it was asked last, and one that fell
//! silent since looks as if it did. So it is asked once more what it holds, and decides only if it says so.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::core::Core;
use super::key::OpenKey;
use super::place::Place;

/// How long it holds that a store did not answer, before it is asked again.
const REFUSAL_HOLDS: Duration = Duration::from_secs(5);
/// How many keys are asked for at once.
const MAX_AT_ONCE: usize = 32;

/// What is asked, and for what: an answer to another question says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The store that is to be the primary, or the only one.
    pub(super) place: Place,
    /// As it was when that was found possible.
    pub(super) epoch: u64,
    /// Since when it is asked for.
    pub(super) since: Instant,
}

/// What came of it; the error is why the store is not to be that, in a sentence.
type Said = Result<(), String>;

/// Asks a store, and keeps what it answered. Dropped with whatever it asks.
#[derive(Default)]
pub(super) struct Asking {
    running: Option<Running>,
    answer: Option<Answer>,
}

struct Running {
    question: Question,
    said: Pin<Box<dyn Future<Output = Said> + Send>>,
}

struct Answer {
    question: Question,
    at: Instant,
    said: Said,
}

impl Asking {
    /// Asks, unless just that is being asked already.
    pub(super) fn ask(&mut self, core: &Arc<Core>, question: Question) {
        if self.running.as_ref().is_none_or(|running| running.question != question) {
            let said = Box::pin(ask(Arc::clone(core), question.place));
            self.running = Some(Running { question, said });
        }
    }

    /// Waits for the next answer; for ever if nothing is asked. Cancel safe: what is asked goes on when it is waited for again.
    pub(super) async fn answered(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let said = running.said.as_mut().await;
        self.answer = Some(Answer { question: running.question, at: Instant::now(), said });
        self.running = None;
    }

    /// What was answered to this; `None` if it is still to be asked. A good answer is given once: what was so a while ago says
    /// nothing.
    pub(super) fn answer(&mut self, question: Question) -> Option<Said> {
        let answer = self.answer.take()?;
        if answer.question != question || answer.at.elapsed() >= REFUSAL_HOLDS {
            return None;
        }
        let said = answer.said.clone();
        if said.is_err() {
            self.answer = Some(answer);
        }
        Some(said)
    }
}

/// Asks a store what it holds of all keys in use, and takes in what it says.
async fn ask(core: Arc<Core>, place: Place) -> Said {
    let mut asked = JoinSet::new();
    for open in core.open_keys() {
        if asked.len() >= MAX_AT_ONCE
            && let Some(said) = asked.join_next().await
        {
            flat(said)?;
        }
        let core = Arc::clone(&core);
        asked.spawn(async move { ask_for(&core, &open, place).await });
    }
    while let Some(said) = asked.join_next().await {
        flat(said)?;
    }
    Ok(())
}

async fn ask_for(core: &Core, open: &OpenKey, place: Place) -> Said {
    let (store, key) = (core.children[place].name(), &open.key.name);
    if let Err(error) = core.read(open, place).await {
        return Err(format!("{store} does not say what `{key}` holds: {error}"));
    }
    // Also who wrote what is there.
    if !core.trace(open, place).await {
        return Err(format!("{store} does not say who wrote `{key}`"));
    }
    Ok(())
}

fn flat(said: Result<Said, JoinError>) -> Said {
    said.unwrap_or_else(|error| Err(format!("the store could not be asked: {error}")))
}
