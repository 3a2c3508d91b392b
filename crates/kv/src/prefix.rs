//! [`Prefixed`]: a store whose keys all begin with one prefix, which its callers do not see.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::Error;
use crate::store::{Applied, Change, Key, Precondition, Store, Stored, Subscription};

pub(crate) struct Prefixed {
    inner: Arc<dyn Store>,
    prefix: String,
}

impl Prefixed {
    pub(crate) fn new(inner: Arc<dyn Store>, prefix: impl Into<String>) -> Self {
        Self { inner, prefix: prefix.into() }
    }

    fn full(&self, key: &Key) -> Key {
        Key::new(format!("{}{}", self.prefix, key.name), key.codec)
    }
}

#[async_trait]
impl Store for Prefixed {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, Error> {
        self.inner.get(&self.full(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let keys = self.inner.list(&format!("{}{prefix}", self.prefix)).await?;
        Ok(keys.iter().filter_map(|key| key.strip_prefix(&self.prefix)).map(str::to_owned).collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.inner.delete(&self.full(key)).await
    }

    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error> {
        self.inner.apply(&self.full(key), change, when).await
    }

    async fn watch(&self, key: &Key) -> Result<Subscription, Error> {
        self.inner.watch(&self.full(key)).await
    }

    fn synced(&self) -> watch::Receiver<bool> {
        self.inner.synced()
    }
}
