//! [`Delegate`]: what a service decides about its instance's life, and ready-made decisions.
//!
//! A lifecycler with delegates asks them in their order: what to register as, what to do with tokens, whom to forget, what to
//! do before it goes. One without follows the rules of an ingester. Writing to the ring is never theirs.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use ringkit_ring::{Desc, InstanceDesc, State, Tokens};

use crate::error::Error;
use crate::forget::AutoForget;
use crate::handle::Handle;
use crate::tokens_file::{self, OnCorrupt, TokensFile};

/// What an instance registers with.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// The state that registering ends in. On the way there, tokens are shown as JOINING until nobody else claims them.
    pub state: State,
    /// The tokens to keep. Missing ones, up to the configured number, are drawn; too many are dropped.
    pub tokens: Tokens,
}

/// What there is to know when an instance registers.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Who registers.
    pub id: &'a str,
    /// The ring.
    pub ring: &'a Desc,
    /// What the ring has of the instance already, from a life before this one.
    pub entry: Option<&'a InstanceDesc>,
}

/// What a service decides about its instance's life. Every decision has a default: to decide nothing.
pub trait Delegate: fmt::Debug + Send + Sync + 'static {
    /// Before anything else: reads what it needs. May block.
    ///
    /// # Errors
    ///
    /// Those that are to prevent the start.
    fn prepare(&self, _id: &str) -> Result<(), Error> {
        Ok(())
    }

    /// What to register as, given what the delegates before decided. At first that is PENDING with the tokens of the ring's
    /// entry. Must not block.
    fn on_register(&self, _place: Place<'_>, registration: Registration) -> Registration {
        registration
    }

    /// The instance has these tokens, in this state, and the ring knows. May block.
    ///
    /// # Errors
    ///
    /// They are logged; the instance lives on.
    fn on_tokens(&self, _id: &str, _tokens: &Tokens, _state: State) -> Result<(), Error> {
        Ok(())
    }

    /// By which rules others are removed from the ring; the first that has some decides.
    fn auto_forget(&self) -> Option<AutoForget> {
        None
    }

    /// Before the instance goes; it beats on meanwhile. Delegates are asked one after the other.
    fn on_stopping<'a>(&'a self, _handle: &'a Handle) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// The delegates of an instance, in order. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Delegates(Arc<[Arc<dyn Delegate>]>);

impl Delegates {
    /// These, in this order.
    pub fn new(delegates: impl IntoIterator<Item = Arc<dyn Delegate>>) -> Self {
        Self(delegates.into_iter().collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Delegate>> {
        self.0.iter()
    }

    pub(crate) fn register(&self, place: Place<'_>) -> Registration {
        let tokens = place.entry.map(|entry| entry.tokens.normalized()).unwrap_or_default();
        let first = Registration { state: State::Pending, tokens };
        self.iter().fold(first, |registration, delegate| delegate.on_register(place, registration))
    }
}

/// Registers in one state, whatever the ring has of the instance.
#[derive(Clone, Copy, Debug)]
pub struct InstanceRegister(pub State);

impl Delegate for InstanceRegister {
    fn on_register(&self, _place: Place<'_>, registration: Registration) -> Registration {
        Registration { state: self.0, ..registration }
    }
}

/// Goes to LEAVING before it stops, so that others stop sending.
#[derive(Clone, Copy, Debug)]
pub struct LeaveOnStopping;

impl Delegate for LeaveOnStopping {
    fn on_stopping<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Err(error) = handle.change_state(State::Leaving).await {
                tracing::warn!(%error, "the ring does not know that this instance leaves");
            }
        })
    }
}

impl Delegate for AutoForget {
    fn auto_forget(&self) -> Option<AutoForget> {
        Some(*self)
    }
}

/// Keeps the tokens in a file, from which they come back if the ring has forgotten them.
#[derive(Debug)]
pub struct TokensPersistency {
    path: PathBuf,
    state: State,
    on_corrupt: OnCorrupt,
    loaded: Mutex<Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    file: Option<TokensFile>,
    /// The ring's tokens do not count either.
    regenerate: bool,
}

impl TokensPersistency {
    /// Tokens of the file at `path` come back in `state`.
    pub fn new(path: impl Into<PathBuf>, state: State, on_corrupt: OnCorrupt) -> Self {
        Self { path: path.into(), state, on_corrupt, loaded: Mutex::default() }
    }
}

impl Delegate for TokensPersistency {
    fn prepare(&self, id: &str) -> Result<(), Error> {
        let loaded = tokens_file::load_or(&self.path, id, self.on_corrupt)?;
        if let Some(problem) = &loaded.problem {
            tracing::warn!(%problem, "the tokens file is not as it was saved");
        }
        *self.loaded.lock() = Loaded { file: loaded.file, regenerate: loaded.regenerate };
        Ok(())
    }

    fn on_register(&self, place: Place<'_>, registration: Registration) -> Registration {
        let loaded = self.loaded.lock();
        if loaded.regenerate {
            return Registration { tokens: Tokens::empty(), ..registration };
        }
        if place.entry.is_some_and(|entry| !entry.tokens.is_empty()) {
            return registration;
        }
        match &loaded.file {
            Some(file) => Registration { state: self.state, tokens: file.tokens.normalized() },
            None => registration,
        }
    }

    fn on_tokens(&self, id: &str, tokens: &Tokens, _state: State) -> Result<(), Error> {
        let file = TokensFile { tokens: tokens.clone(), previous_state: State::Active };
        tokens_file::save(&self.path, id, &file)
    }
}
