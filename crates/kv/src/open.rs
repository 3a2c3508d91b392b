//! [`Stores`]: from configuration to a running store.

use std::sync::Arc;

use ringkit_config::{KvStore, KvStoreConfig};
use ringkit_runtime::{Clock, Meter};

use crate::client::Client;
use crate::error::Error;
use crate::inmemory::InMemory;
use crate::metered::Metered;
use crate::prefix::Prefixed;
use crate::store::Store;
use crate::value::Value;

/// The opened backends of a process, or of a test's cluster. Clones share them.
///
/// The in-memory store lives here, so that several apps in one process can, but need not, see each other.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    inmemory: InMemory,
}

impl Stores {
    /// No backend is open, and the in-memory store is empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the configured store: the backend, then the key prefix, then request metrics.
    ///
    /// `kv_name` is the metric label, such as `ingester-lifecycler` or `ingester-ring`.
    ///
    /// # Errors
    ///
    /// [`Error::NotBuilt`] for a backend that this build lacks.
    pub fn open(
        &self,
        config: &KvStoreConfig,
        kv_name: &str,
        meter: &Meter,
        _clock: &Clock,
    ) -> Result<Arc<dyn Store>, Error> {
        let backend: Arc<dyn Store> = match &config.store {
            KvStore::Inmemory => Arc::new(self.inmemory.clone()),
            other => {
                return Err(Error::NotBuilt { store: other.to_string(), kv_name: kv_name.to_owned() });
            }
        };
        let prefixed: Arc<dyn Store> = match config.prefix.as_str() {
            "" => backend,
            prefix => Arc::new(Prefixed::new(backend, prefix)),
        };
        Ok(Arc::new(Metered::new(prefixed, "primary", kv_name, meter)))
    }

    /// Opens the configured store and puts a typed client on it, whose counters carry `kv_name` too.
    ///
    /// # Errors
    ///
    /// As [`Stores::open`].
    pub fn client<V: Value>(
        &self,
        config: &KvStoreConfig,
        kv_name: &str,
        meter: &Meter,
        clock: &Clock,
    ) -> Result<Client<V>, Error> {
        let store = self.open(config, kv_name, meter, clock)?;
        Ok(Client::new(store, &meter.with("kv_name", kv_name.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use ringkit_config::KvStoreConfig;

    use super::*;
    use crate::client::Decision;
    use crate::value::Text;

    fn config(store: KvStore, prefix: &str) -> KvStoreConfig {
        KvStoreConfig { store, prefix: prefix.into(), ..KvStoreConfig::default() }
    }

    fn text(stores: &Stores, prefix: &str) -> Client<Text> {
        stores
            .client(&config(KvStore::Inmemory, prefix), "test", &Meter::disabled(), &Clock::system())
            .unwrap()
    }

    #[tokio::test]
    async fn clones_share_the_in_memory_store_and_others_do_not() {
        let stores = Stores::new();
        let writer = text(&stores, "a/");
        writer.cas("k", |_| Decision::Write(Text::new("hello"), ())).await.unwrap();
        let read = async |client: Client<Text>| client.get("k").await.unwrap().is_some();
        assert!(read(text(&stores.clone(), "a/")).await);
        assert!(!read(text(&stores, "b/")).await, "another prefix is another key");
        assert!(!read(text(&Stores::new(), "a/")).await);
        assert_eq!(text(&stores, "").list("").await.unwrap(), ["a/k"]);
    }

    #[test]
    fn a_backend_that_is_not_built_is_named_with_what_to_do() {
        for store in [KvStore::Consul, KvStore::Etcd, KvStore::Memberlist, KvStore::Multi] {
            let opened =
                Stores::new().open(&config(store, ""), "ingester-ring", &Meter::disabled(), &Clock::system());
            let error = opened.err().unwrap().to_string();
            assert!(error.contains(&store.to_string()) && error.contains("inmemory"), "{error}");
            assert!(error.contains("ingester-ring"), "{error}");
        }
    }
}
