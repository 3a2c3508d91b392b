//! How a key is removed with all that is kept for it.

use ringkit_config::Layout;
use ringkit_runtime::Backoff;

use super::{Core, Known, MAX_RACE_BACKOFF, MIN_RACE_BACKOFF};
use crate::error::Error;
use crate::flat::{Batch, Committed, Flat, Guard};
use crate::layout::EntryKeys;
use crate::store::{Change, Key, Precondition};

const MAX_ATTEMPTS: u32 = 10;

impl<F: Flat> Core<F> {
    /// Removes a key, whatever it holds.
    pub(super) async fn delete(&self, key: &Key) -> Result<(), Error> {
        let mut backoff = Backoff::new(MIN_RACE_BACKOFF, MAX_RACE_BACKOFF);
        for _ in 0..MAX_ATTEMPTS {
            let batch = match self.layout {
                Layout::Single => match self.single(key).await? {
                    None => return Ok(()),
                    Some(item) => removal_at(key, item.index),
                },
                Layout::PerInstance => self.removal_below(key).await?,
            };
            if self.carry_out(key, &batch).await? {
                return Ok(());
            }
            tokio::time::sleep(backoff.next()).await;
        }
        Err(Error::Contended { key: key.name.to_string(), attempts: MAX_ATTEMPTS })
    }

    /// Removes a key that is at this version; returns whether it was.
    pub(super) async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, Error> {
        let Some(known) = self.read(key).await?.filter(|known| known.stored.version == version) else {
            return Ok(false);
        };
        match self.layout {
            Layout::Single => self.carry_out(key, &removal_at(key, known.index)).await,
            Layout::PerInstance => self.delete_entries_at(key, known).await,
        }
    }

    /// Removes a key whose entries have keys of their own, if they are as they are known: first those, each as it was looked at,
    /// then what is left, unless somebody came meanwhile, who wrote the marker anew.
    async fn delete_entries_at(&self, key: &Key, known: Known) -> Result<bool, Error> {
        let when = Precondition::Entries(Some(known.stored.version));
        let removals = known.stored.entries.keys().cloned().collect();
        let change = Change { removals, ..Change::default() };
        let emptied = if change.is_empty() {
            Some(known)
        } else {
            match self.write(key, Some(known), change, when).await {
                Ok(Some(_)) => self.read(key).await?,
                Ok(None) | Err(Error::Partly { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        };
        match emptied {
            // Somebody else removed what was left.
            None => Ok(true),
            Some(emptied) if emptied.stored.entries.is_empty() => {
                let mut batch = self.removal_below(key).await?;
                let marker = EntryKeys::of(&key.name).marker().to_owned();
                batch.guards.push(Guard::At(marker, emptied.index));
                self.carry_out(key, &batch).await
            }
            Some(_) => Ok(false),
        }
    }

    /// What removes all that is kept for a key in the layout `per_instance`, and never a part of what is kept in the other one.
    async fn removal_below(&self, key: &Key) -> Result<Batch, Error> {
        let notice = self.single(key).await?;
        let batch = notice.map_or_else(Batch::default, |notice| removal_at(key, notice.index));
        Ok(Batch { delete_below: Some(EntryKeys::of(&key.name).marker().to_owned()), ..batch })
    }

    /// Whether nobody was faster.
    async fn carry_out(&self, key: &Key, batch: &Batch) -> Result<bool, Error> {
        let is_done = self.observed(self.flat.commit(batch).await)? != Committed::Lost;
        if is_done {
            self.known.lock().remove(&key.name);
        }
        Ok(is_done)
    }
}

/// What removes what is under the key itself, as it was looked at.
fn removal_at(key: &Key, index: u64) -> Batch {
    let name = key.name.to_string();
    let guards = vec![Guard::At(name.clone(), index)];
    Batch { guards, deletes: vec![name], ..Batch::default() }
}
