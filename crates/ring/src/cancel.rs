//! [`Cancellation`]: a request to stop that says why.
//!
//! Tokens alone tell that somebody gave up, not who or what for; the answer to a caller should.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, OnceLock};

use ringkit_runtime::CancellationToken;

type Reason = Arc<dyn Error + Send + Sync>;

/// Ends work from outside, with a cause. Clones are one and the same.
///
/// ```
/// use ringkit_ring::Cancellation;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let stop = Cancellation::new();
/// stop.cancel("the client hung up");
/// let outcome = stop.until(async { "never begun" }).await;
/// assert_eq!(outcome.unwrap_err().to_string(), "the client hung up");
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancellation {
    token: CancellationToken,
    reason: Arc<OnceLock<Reason>>,
}

/// The work was given up, and what its owner said about it.
#[derive(Clone, Debug, Default)]
pub struct Cancelled {
    reason: Option<Reason>,
}

impl Cancellation {
    /// One that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end. The first cause is kept.
    pub fn cancel(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        if !self.token.is_cancelled() {
            // Before the token, so that whoever sees that finds this.
            let _ = self.reason.set(Arc::from(cause.into()));
            self.token.cancel();
        }
    }

    /// The token behind it, for work that needs no cause.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The cause, if the end was asked for.
    pub fn reason(&self) -> Option<Cancelled> {
        self.token.is_cancelled().then(|| Cancelled { reason: self.reason.get().cloned() })
    }

    /// Waits until the end is asked for. Cancel-safe.
    pub async fn cancelled(&self) -> Cancelled {
        self.token.cancelled().await;
        self.reason().unwrap_or_default()
    }

    /// Runs `work` until it is done or the end is asked for; in the second case it is dropped, and never polled if that
    /// was before. Cancel-safe if `work` is.
    ///
    /// # Errors
    ///
    /// [`Cancelled`] with the cause.
    pub async fn until<F: Future>(&self, work: F) -> Result<F::Output, Cancelled> {
        tokio::select! {
            biased;
            cancelled = self.cancelled() => Err(cancelled),
            output = work => Ok(output),
        }
    }
}

/// Without a cause of its own: a token carries none.
impl From<CancellationToken> for Cancellation {
    fn from(token: CancellationToken) -> Self {
        Self { token, reason: Arc::default() }
    }
}

impl Cancelled {
    /// What the owner said; `None` if it cancelled the token alone.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.reason.as_deref()
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => reason.fmt(f),
            None => f.write_str("cancelled"),
        }
    }
}

impl Error for Cancelled {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The text is the cause's own, so what comes next is what is behind that.
        self.reason.as_ref().and_then(|reason| reason.source())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_cause_is_kept() {
        let stop = Cancellation::new();
        assert!(stop.reason().is_none());
        stop.cancel("first");
        stop.clone().cancel("second");
        assert_eq!(stop.cancelled().await.to_string(), "first");
        assert_eq!(stop.cancelled().await.cause().unwrap().to_string(), "first");
    }

    #[tokio::test]
    async fn a_token_alone_says_that_but_not_why() {
        let token = CancellationToken::new();
        let stop = Cancellation::from(token.clone());
        assert_eq!(stop.until(async { 7 }).await.unwrap(), 7);
        token.cancel();
        let cancelled = stop.until(std::future::pending::<()>()).await.unwrap_err();
        assert!(cancelled.cause().is_none());
        assert_eq!(cancelled.to_string(), "cancelled");
    }
}
