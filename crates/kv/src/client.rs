//! [`Client`]: typed get, compare-and-swap, own-entry writes and watches on any [`Store`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ringkit_runtime::{Backoff, Cause, Meter};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::Error;
use crate::metrics::ClientMetrics;
use crate::shared::Trouble;
use crate::store::{Applied, Change, EntryId, Key, Precondition, Store, Stored};
use crate::value::Value;
use crate::view::{Decoded, Decoder, View};
use crate::watch::{Watch, difference};

/// How often a write is tried before it is given up, the first attempt included.
pub const MAX_ATTEMPTS: u32 = 10;

const MIN_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// What a compare-and-swap decides after looking at the current value.
#[derive(Debug)]
#[non_exhaustive]
pub enum Decision<V, T> {
    /// Make the key hold this value. Entries equal to the current ones are not written again.
    Write(V, T),
    /// Leave the key alone; this is success.
    Keep(T),
    /// Not now: read again and ask again, while attempts remain.
    Retry(Cause),
    /// Stop and fail with [`Error::Aborted`].
    Abort(Cause),
}

/// How a compare-and-swap went.
#[derive(Clone, Debug, PartialEq)]
pub struct CasOutcome<V, T> {
    /// What the last decision handed out.
    pub result: T,
    /// Whether the key was changed.
    pub written: bool,
    /// The value afterwards; `None` = the key is absent.
    pub view: Option<View<V>>,
    /// How many attempts it took.
    pub attempts: u32,
}

/// Typed access to a [`Store`]. Cheap to clone; clones share decoded entries.
///
/// Every call has a deadline: 10 s for one round trip, 30 s for a compare-and-swap with all its attempts.
pub struct Client<V: Value> {
    store: Arc<dyn Store>,
    decoder: Arc<Decoder<V>>,
    metrics: ClientMetrics,
    deadlines: Deadlines,
}

#[derive(Clone, Copy)]
struct Deadlines {
    call: Duration,
    whole: Duration,
}

impl<V: Value> Client<V> {
    /// A client of `store`. Its counters inherit the labels of `meter`.
    pub fn new(store: Arc<dyn Store>, meter: &Meter) -> Self {
        let metrics = ClientMetrics::register(meter);
        let deadlines = Deadlines { call: Duration::from_secs(10), whole: Duration::from_secs(30) };
        Self { store, decoder: Arc::new(Decoder::new(metrics.clone())), metrics, deadlines }
    }

    /// The same client with other deadlines: `call` for one round trip, `whole` for all attempts of a write together.
    #[must_use]
    pub fn with_deadlines(self, call: Duration, whole: Duration) -> Self {
        Self { deadlines: Deadlines { call, whole }, ..self }
    }

    /// Reads a key. `None` = absent.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] names the key and the first entry that cannot be read; else as the backend fails.
    pub async fn get(&self, key: &str) -> Result<Option<View<V>>, Error> {
        let key = self.key(key);
        let stored = self.limited("GET", &key.name, self.deadlines.call, self.store.get(&key)).await?;
        stored.map(|stored| self.strict(&key, &stored)).transpose()
    }

    /// Reads, decides, writes if nothing moved in between, else begins again: at most [`MAX_ATTEMPTS`] times.
    ///
    /// `f` is called with the freshly read value on each attempt, also after one whose write may have landed: what it decides
    /// must be right to decide twice. Only entries that differ between what it got and what
    /// it returns are written. Writing an empty value to an absent key does not create it.
    /// Dropping the future half-way leaves it open whether a write landed.
    ///
    /// # Errors
    ///
    /// [`Error::Aborted`] on [`Decision::Abort`]; [`Error::Contended`], or the last failure, after too many attempts;
    /// [`Error::Deadline`] when all of it took too long; [`Error::Decode`] if the value cannot be read.
    pub async fn cas<F, T>(&self, key: &str, f: F) -> Result<CasOutcome<V, T>, Error>
    where
        F: FnMut(Option<&V>) -> Decision<V, T> + Send,
        T: Send,
    {
        let key = self.key(key);
        let outcome = self.limited("CAS", &key.name, self.deadlines.whole, self.cas_attempts(&key, f)).await;
        self.metrics.ended(outcome.as_ref().map(|outcome| outcome.written));
        outcome
    }

    /// Writes one's own entry, whatever else the key holds: never loses to writers of other entries.
    ///
    /// The view afterwards leaves out entries of others that cannot be read.
    ///
    /// # Errors
    ///
    /// The backend's last failure after [`MAX_ATTEMPTS`], or [`Error::Deadline`].
    pub async fn upsert_own(&self, key: &str, id: &str, entry: &V::Entry) -> Result<View<V>, Error> {
        let stored = self.change_own(key, &Change::upsert(id, V::encode_entry(entry))).await?;
        Ok(self.decoder.decode(&self.key(key).name, &stored).view.clone())
    }

    /// As [`Client::upsert_own`], and the view shows what others had written by the time of the write, at the cost of a read
    /// where each entry has a key of its own.
    ///
    /// # Errors
    ///
    /// As [`Client::upsert_own`]; if the read fails, the write has landed.
    pub async fn upsert_own_and_read(&self, key: &str, id: &str, entry: &V::Entry) -> Result<View<V>, Error> {
        let written = self.upsert_own(key, id, entry).await?;
        if self.store.answers_whole() {
            return Ok(written);
        }
        let key = self.key(key);
        let stored = self.limited("GET", &key.name, self.deadlines.call, self.store.get(&key)).await?;
        Ok(stored.map_or(written, |stored| self.decoder.decode(&key.name, &stored).view.clone()))
    }

    /// Removes one's own entry. An entry or key that is absent already is success.
    ///
    /// # Errors
    ///
    /// As [`Client::upsert_own`].
    pub async fn remove_own(&self, key: &str, id: &str) -> Result<(), Error> {
        self.change_own(key, &Change::remove(id)).await.map(drop)
    }

    /// Removes the key. An absent key is success.
    ///
    /// # Errors
    ///
    /// As the backend fails, or [`Error::Deadline`].
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        let key = self.key(key);
        self.limited("Delete", &key.name, self.deadlines.call, self.store.delete(&key)).await?;
        self.decoder.forget(&key.name);
        Ok(())
    }

    /// Names of the present keys that begin with `prefix`, sorted.
    ///
    /// # Errors
    ///
    /// As the backend fails, or [`Error::Deadline`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        self.limited("List", prefix, self.deadlines.call, self.store.list(prefix)).await
    }

    /// Follows a key, starting with its current value.
    ///
    /// # Errors
    ///
    /// As the backend fails, or [`Error::Deadline`]; once it runs, a watch resumes by itself.
    pub async fn watch(&self, key: &str) -> Result<Watch<V>, Error> {
        let key = self.key(key);
        let subscription =
            self.limited("WatchKey", &key.name, self.deadlines.call, self.store.watch(&key)).await?;
        Ok(Watch::new(subscription, Arc::clone(&self.decoder), key.name))
    }

    /// True once reads reflect the cluster.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.store.synced()
    }

    /// From now on calls no longer wait until the store is [`synced`](Client::synced), if they did. That holds for all clients
    /// of the store.
    pub fn proceed_unsynced(&self) {
        self.store.proceed_unsynced();
    }

    /// Whether an entry that is gone was removed by somebody, and not lost by the store.
    pub fn removals_are_meant(&self) -> bool {
        self.store.removals_are_meant()
    }

    /// Whether what is behind the store answers; `Some` while it does not.
    pub fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.store.trouble()
    }

    /// Short name of the backend, for logs and metrics.
    pub fn backend(&self) -> &'static str {
        self.store.backend()
    }

    async fn cas_attempts<F, T>(&self, key: &Key, mut f: F) -> Result<CasOutcome<V, T>, Error>
    where
        F: FnMut(Option<&V>) -> Decision<V, T> + Send,
        T: Send,
    {
        let mut attempts = Attempts::new(&key.name);
        loop {
            self.metrics.cas_attempts.increment(1);
            let error = match self.cas_once(key, &mut f).await {
                Ok(Attempt::Done { result, written, view }) => {
                    return Ok(CasOutcome { result, written, view, attempts: attempts.made + 1 });
                }
                Ok(Attempt::Retry(error)) => error,
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(error),
            };
            attempts.pause_after(error).await?;
        }
    }

    async fn cas_once<F, T>(&self, key: &Key, f: &mut F) -> Result<Attempt<V, T>, Error>
    where
        F: FnMut(Option<&V>) -> Decision<V, T> + Send,
    {
        let stored = self.limited("GET", &key.name, self.deadlines.call, self.store.get(key)).await?;
        let current = stored.as_ref().map(|stored| self.strict(key, stored)).transpose()?;
        let (value, result) = match f(current.as_ref().map(|view| &*view.value)) {
            Decision::Write(value, result) => (value, result),
            Decision::Keep(result) => return Ok(Attempt::Done { result, written: false, view: current }),
            Decision::Retry(cause) => return Ok(Attempt::Retry(aborted(key, cause))),
            Decision::Abort(cause) => return Err(aborted(key, cause)),
        };
        let change = change_between(current.as_ref().map(|view| &*view.value), &value);
        if change.is_empty() {
            return Ok(Attempt::Done { result, written: false, view: current });
        }
        // Taken from this attempt's read, never kept: a key deleted meanwhile must not fail all further attempts.
        let when = Precondition::Version(current.map(|view| view.version));
        let apply = self.store.apply(key, change, when);
        match self.limited("CAS", &key.name, self.deadlines.call, apply).await? {
            Applied::Done(stored) => {
                let view = self.decoder.decode(&key.name, &stored).view.clone();
                Ok(Attempt::Done { result, written: true, view: Some(view) })
            }
            Applied::Conflict => {
                Ok(Attempt::Retry(Error::Contended { key: key.name.to_string(), attempts: 1 }))
            }
        }
    }

    async fn change_own(&self, key: &str, change: &Change) -> Result<Stored, Error> {
        let key = self.key(key);
        let tries = async {
            let mut attempts = Attempts::new(&key.name);
            loop {
                self.metrics.cas_attempts.increment(1);
                let apply = self.store.apply(&key, change.clone(), Precondition::None);
                let error = match self.limited("CAS", &key.name, self.deadlines.call, apply).await {
                    Ok(Applied::Done(stored)) => return Ok(stored),
                    Ok(Applied::Conflict) => Error::Contended { key: key.name.to_string(), attempts: 1 },
                    Err(error) if error.is_retryable() => error,
                    Err(error) => return Err(error),
                };
                attempts.pause_after(error).await?;
            }
        };
        let outcome = self.limited("CAS", &key.name, self.deadlines.whole, tries).await;
        self.metrics.ended(outcome.as_ref().map(|_| true));
        outcome
    }

    fn key(&self, name: &str) -> Key {
        Key::new(name, V::codec())
    }

    fn strict(&self, key: &Key, stored: &Stored) -> Result<View<V>, Error> {
        let decoded: Arc<Decoded<V>> = self.decoder.decode(&key.name, stored);
        match decoded.hostile.iter().next() {
            None => Ok(decoded.view.clone()),
            Some((entry, cause)) => Err(Error::Decode {
                key: key.name.to_string(),
                entry: Some(entry.clone()),
                cause: cause.clone(),
            }),
        }
    }

    async fn limited<T>(
        &self,
        operation: &'static str,
        key: &str,
        after: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        timeout(after, call).await.unwrap_or_else(|_| {
            Err(Error::Deadline { operation, key: key.to_owned(), backend: self.backend(), after })
        })
    }
}

impl<V: Value> Clone for Client<V> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            decoder: Arc::clone(&self.decoder),
            metrics: self.metrics.clone(),
            deadlines: self.deadlines,
        }
    }
}

impl<V: Value> fmt::Debug for Client<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("backend", &self.backend()).finish_non_exhaustive()
    }
}

enum Attempt<V, T> {
    Done { result: T, written: bool, view: Option<View<V>> },
    Retry(Error),
}

/// Counts the attempts of one write and pauses between them.
struct Attempts<'a> {
    key: &'a str,
    made: u32,
    backoff: Backoff,
}

impl<'a> Attempts<'a> {
    fn new(key: &'a str) -> Self {
        Self { key, made: 0, backoff: Backoff::new(MIN_BACKOFF, MAX_BACKOFF) }
    }

    /// Sleeps before the next attempt, or gives up with `error` if this was the last one.
    async fn pause_after(&mut self, error: Error) -> Result<(), Error> {
        self.made += 1;
        if self.made < MAX_ATTEMPTS {
            tokio::time::sleep(self.backoff.next()).await;
            return Ok(());
        }
        Err(match error {
            Error::Contended { .. } => Error::Contended { key: self.key.to_owned(), attempts: self.made },
            other => other,
        })
    }
}

fn aborted(key: &Key, cause: Cause) -> Error {
    Error::Aborted { key: key.name.to_string(), cause }
}

/// What turns `before` into `after`: only entries that differ.
fn change_between<V: Value>(before: Option<&V>, after: &V) -> Change {
    let empty = V::default();
    let (changed, removed) = difference(before.unwrap_or(&empty), after);
    let encode = |id: EntryId| after.entries().get(&id).map(|entry| (id, V::encode_entry(entry)));
    Change {
        upserts: changed.into_iter().filter_map(encode).collect::<BTreeMap<_, _>>(),
        removals: removed.into_iter().collect::<BTreeSet<_>>(),
        ..Change::default()
    }
}

#[cfg(test)]
mod tests;
