//! [`Stores`]: from configuration to a running store.

use std::fmt;
use std::sync::Arc;

#[cfg(any(feature = "consul", feature = "etcd"))]
use parking_lot::Mutex;
#[cfg(any(feature = "consul", feature = "etcd"))]
use ringkit_config::Layout;
use ringkit_config::{KvStore, KvStoreConfig};
use ringkit_runtime::{Clock, Meter};

use crate::client::Client;
use crate::error::Error;
use crate::inmemory::InMemory;
use crate::metered::Metered;
use crate::prefix::Prefixed;
use crate::shared::Trouble;
use crate::store::Store;
use crate::value::Value;

/// The opened backends of a process, or of a test's cluster. Clones share them.
///
/// The in-memory store lives here, so that several apps in one process can, but need not, see each other.
#[derive(Clone, Default)]
pub struct Stores {
    inmemory: InMemory,
    #[cfg(any(feature = "consul", feature = "etcd"))]
    remote: Arc<Mutex<Vec<Remote>>>,
}

#[cfg(any(feature = "consul", feature = "etcd"))]
/// A connected backend: whoever configures the same one shares it, and with it one watch per key.
struct Remote {
    config: RemoteConfig,
    layout: Layout,
    store: Arc<dyn Store>,
}

#[cfg(any(feature = "consul", feature = "etcd"))]
#[derive(Clone, PartialEq)]
enum RemoteConfig {
    #[cfg(feature = "consul")]
    Consul(ringkit_config::ConsulConfig),
    #[cfg(feature = "etcd")]
    Etcd(ringkit_config::EtcdConfig),
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").field("inmemory", &self.inmemory).finish_non_exhaustive()
    }
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
    /// [`Error::NotBuilt`] for a backend that this build lacks; [`Error::Misconfigured`] names the key at fault. Whether
    /// the server can be reached is not asked.
    pub fn open(
        &self,
        config: &KvStoreConfig,
        kv_name: &str,
        meter: &Meter,
        _clock: &Clock,
    ) -> Result<Arc<dyn Store>, Error> {
        let backend: Arc<dyn Store> = match &config.store {
            KvStore::Inmemory => Arc::new(self.inmemory.clone()),
            #[cfg(feature = "consul")]
            KvStore::Consul => {
                let remote = RemoteConfig::Consul(config.consul.clone());
                self.remote(remote, config.layout, kv_name, meter)?
            }
            #[cfg(feature = "etcd")]
            KvStore::Etcd => {
                let remote = RemoteConfig::Etcd(config.etcd.clone());
                self.remote(remote, config.layout, kv_name, meter)?
            }
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

    /// The opened backends that do not answer at the moment, and why: what everybody serves meanwhile is what was last
    /// known.
    pub fn in_trouble(&self) -> Vec<(&'static str, Trouble)> {
        #[cfg(any(feature = "consul", feature = "etcd"))]
        return self
            .remote
            .lock()
            .iter()
            .filter_map(|remote| Some((remote.store.backend(), remote.store.trouble().borrow().clone()?)))
            .collect();
        #[cfg(not(any(feature = "consul", feature = "etcd")))]
        Vec::new()
    }

    #[cfg(any(feature = "consul", feature = "etcd"))]
    fn remote(
        &self,
        config: RemoteConfig,
        layout: Layout,
        kv_name: &str,
        meter: &Meter,
    ) -> Result<Arc<dyn Store>, Error> {
        let mut remote = self.remote.lock();
        let same = |open: &&Remote| open.config == config && open.layout == layout;
        if let Some(open) = remote.iter().find(same) {
            return Ok(Arc::clone(&open.store));
        }
        let store: Arc<dyn Store> = match &config {
            #[cfg(feature = "consul")]
            RemoteConfig::Consul(consul) => Arc::new(crate::consul::open(consul, layout, kv_name, meter)?),
            #[cfg(feature = "etcd")]
            RemoteConfig::Etcd(etcd) => Arc::new(crate::etcd::open(etcd, layout, meter)?),
        };
        remote.push(Remote { config, layout, store: Arc::clone(&store) });
        Ok(store)
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
        for store in [KvStore::Memberlist, KvStore::Multi] {
            let opened =
                Stores::new().open(&config(store, ""), "ingester-ring", &Meter::disabled(), &Clock::system());
            let error = opened.err().unwrap().to_string();
            assert!(error.contains(&store.to_string()) && error.contains("inmemory"), "{error}");
            assert!(error.contains("ingester-ring"), "{error}");
        }
    }
}
