//! [`Prefixed`]: a store whose keys all begin with one prefix, which its callers do not see.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::Error;
use crate::shared::Trouble;
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

    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, Error> {
        self.inner.delete_at(&self.full(key), version).await
    }

    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error> {
        self.inner.apply(&self.full(key), change, when).await
    }

    async fn watch(&self, key: &Key) -> Result<Subscription, Error> {
        self.inner.watch(&self.full(key)).await
    }

    fn answers_whole(&self) -> bool {
        self.inner.answers_whole()
    }

    fn synced(&self) -> watch::Receiver<bool> {
        self.inner.synced()
    }

    fn proceed_unsynced(&self) {
        self.inner.proceed_unsynced();
    }

    fn removals_are_meant(&self) -> bool {
        self.inner.removals_are_meant()
    }

    fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.inner.trouble()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::StringCodec;
    use crate::inmemory::InMemory;

    crate::conformance_tests!(Prefixed::new(Arc::new(InMemory::default()), "prefix/"));

    #[tokio::test]
    async fn the_backend_sees_the_prefix_and_the_caller_does_not() {
        let backend = InMemory::default();
        let store = Prefixed::new(Arc::new(backend.clone()), "collectors/");
        for name in ["ring", "rulers"] {
            let key = Key::new(name, &StringCodec);
            store.apply(&key, Change::upsert("value", "x"), Precondition::None).await.unwrap();
        }
        assert_eq!(backend.list("").await.unwrap(), ["collectors/ring", "collectors/rulers"]);
        assert_eq!(store.list("ri").await.unwrap(), ["ring"]);
    }
}
