//! [`Stores`]: from configuration to a running store.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
#[cfg(any(feature = "consul", feature = "etcd"))]
use ringkit_config::Layout;
use ringkit_config::{KvStore, KvStoreConfig};
use ringkit_runtime::{Clock, Meter};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::error::Error;
use crate::inmemory::InMemory;
#[cfg(feature = "memberlist")]
use crate::memberlist::{Memberlist, MemberlistOptions};
use crate::metered::Metered;
use crate::multi::{self, Child, Control, Freshness, Multi, MultiOptions, MultiRuntime};
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
    #[cfg(feature = "memberlist")]
    gossip: Arc<Mutex<Gossip>>,
    multis: Arc<Mutex<Multis>>,
}

/// What the process says to its multi stores, and which were opened.
#[derive(Default)]
struct Multis {
    control: Control,
    open: Vec<Arc<Multi>>,
}

impl Multis {
    /// Those that somebody uses or watches, and those that have still to mirror what was written by whoever did. The others end.
    fn in_use(&mut self) -> &mut Vec<Arc<Multi>> {
        let is_used = |multi: &Arc<Multi>| Arc::strong_count(multi) > 1 || multi.is_watched();
        self.open.retain(|multi| is_used(multi) || !multi.is_mirrored());
        &mut self.open
    }
}

/// How this process is a member of a gossip cluster, and the member once it is one.
#[cfg(feature = "memberlist")]
#[derive(Default)]
struct Gossip {
    options: Option<MemberlistOptions>,
    member: Option<Memberlist>,
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
    /// `kv_name` is the metric label, such as `ingester-lifecycler` or `ingester-ring`. Of a multi store, whose requests are timed
    /// beside those of its two, it is also the name that the runtime configuration has for it.
    ///
    /// # Errors
    ///
    /// [`Error::NotBuilt`] for a backend that this build lacks; [`Error::Misconfigured`] names the key at fault. Whether
    /// the server can be reached is not asked. The first store on `memberlist` starts the member: for that there must be a
    /// tokio runtime, and [`Stores::set_memberlist`] must have been called. A multi store needs a runtime, too.
    pub fn open(
        &self,
        config: &KvStoreConfig,
        kv_name: &str,
        meter: &Meter,
        clock: &Clock,
    ) -> Result<Arc<dyn Store>, Error> {
        let backend = match config.store {
            KvStore::Multi => self.multi(config, kv_name, meter, clock)?,
            single => self.single(single, config, kv_name, meter)?,
        };
        let prefixed: Arc<dyn Store> = match config.prefix.as_str() {
            "" => backend,
            prefix => Arc::new(Prefixed::new(backend, prefix)),
        };
        Ok(Arc::new(Metered::new(prefixed, "primary", kv_name, meter)))
    }

    /// The backend called `store`, as its own block in `config` has it.
    fn single(
        &self,
        store: KvStore,
        config: &KvStoreConfig,
        kv_name: &str,
        meter: &Meter,
    ) -> Result<Arc<dyn Store>, Error> {
        // Both are for stores behind a network.
        #[cfg(not(any(feature = "consul", feature = "etcd")))]
        let _ = (config, meter);
        let backend: Arc<dyn Store> = match store {
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
            #[cfg(feature = "memberlist")]
            KvStore::Memberlist => Arc::new(self.member()?),
            other => {
                return Err(Error::NotBuilt { store: other.to_string(), kv_name: kv_name.to_owned() });
            }
        };
        Ok(backend)
    }

    fn multi(
        &self,
        config: &KvStoreConfig,
        kv_name: &str,
        meter: &Meter,
        clock: &Clock,
    ) -> Result<Arc<dyn Store>, Error> {
        let (Some(primary), Some(secondary)) = (config.multi.primary, config.multi.secondary) else {
            let key = if config.multi.primary.is_none() { "primary" } else { "secondary" };
            let reason = "is not set: primary or secondary store not set".to_owned();
            return Err(Error::Misconfigured { backend: "multi", key, reason });
        };
        // Before anything is opened, such as a member of a cluster.
        multi::check(primary, secondary)?;
        let child = |name: KvStore, role: &'static str| {
            let store = self.single(name, config, kv_name, meter)?;
            let timed = |store| Arc::new(Metered::new(store, role, kv_name, meter)) as Arc<dyn Store>;
            Ok::<_, Error>(Child::new(name, store).through(timed))
        };
        let options = MultiOptions {
            config: config.multi.clone(),
            kv_name: kv_name.to_owned(),
            control: self.multis.lock().control.clone(),
            meter: meter.clone(),
            clock: clock.clone(),
        };
        let multi = Multi::start(child(primary, "primary")?, child(secondary, "secondary")?, options)?;
        let multi = Arc::new(multi);
        self.multis.lock().in_use().push(Arc::clone(&multi));
        Ok(multi)
    }

    /// Has the multi stores that are opened from now on follow what `runtime` holds. Without it, what they are configured for
    /// holds.
    pub fn set_multi_runtime(&self, runtime: watch::Receiver<MultiRuntime>) {
        let mut multis = self.multis.lock();
        multis.control = multis.control.with_runtime(runtime);
    }

    /// Says how owners of entries give signs of life that a multi store called `kv_name` holds. To be said before it is opened;
    /// otherwise Cortex's defaults hold.
    pub fn set_multi_freshness(&self, kv_name: &str, freshness: Freshness) {
        self.multis.lock().control.set_freshness(kv_name, freshness);
    }

    /// The multi stores that were opened, in the order in which they were: as long as they have clients or watches, and
    /// after that until everything is mirrored.
    pub fn multis(&self) -> Vec<Arc<Multi>> {
        self.multis.lock().in_use().clone()
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

    /// Says how this process is to be a member of a gossip cluster. Starts nothing, and does not change a member that was
    /// started.
    #[cfg(feature = "memberlist")]
    pub fn set_memberlist(&self, options: MemberlistOptions) {
        self.gossip.lock().options = Some(options);
    }

    /// The member that was started for the stores on `memberlist`.
    #[cfg(feature = "memberlist")]
    pub fn memberlist(&self) -> Option<Memberlist> {
        self.gossip.lock().member.clone()
    }

    /// Leaves what can be left, before the process ends: the gossip cluster, if it is in one. What is on such a store cannot be
    /// read or written afterwards. Before that, what multi stores have still to mirror is waited for, as long as they are
    /// configured to.
    pub async fn leave(&self) {
        let mut drains = JoinSet::new();
        for multi in self.multis() {
            drains.spawn(async move { multi.drain().await });
        }
        while drains.join_next().await.is_some() {}
        #[cfg(feature = "memberlist")]
        if let Some(member) = self.memberlist() {
            member.leave().await;
        }
    }

    /// What an operator should know of the opened stores although they answer, a sentence each.
    pub fn remarks(&self) -> Vec<String> {
        #[cfg(feature = "memberlist")]
        let mut remarks = self.memberlist().map(|member| member.remarks()).unwrap_or_default();
        #[cfg(not(feature = "memberlist"))]
        let mut remarks = Vec::new();
        remarks.extend(self.multis().iter().flat_map(|multi| multi.remarks()));
        remarks
    }

    #[cfg(feature = "memberlist")]
    fn member(&self) -> Result<Memberlist, Error> {
        let mut gossip = self.gossip.lock();
        if let Some(member) = &gossip.member {
            return Ok(member.clone());
        }
        let Some(options) = &gossip.options else {
            let reason = "names gossip, but this process was not told how to be a member of its cluster: \
                          programs that are none, and do not call `Stores::set_memberlist`, cannot use it";
            return Err(Error::Misconfigured {
                backend: "memberlist",
                key: "store",
                reason: reason.to_owned(),
            });
        };
        let member = Memberlist::start(options)?;
        gossip.member = Some(member.clone());
        Ok(member)
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
    #[cfg(not(feature = "consul"))]
    fn a_backend_that_is_not_built_is_named_with_what_to_do() {
        let store = KvStore::Consul;
        let opened =
            Stores::new().open(&config(store, ""), "ingester-ring", &Meter::disabled(), &Clock::system());
        let error = opened.err().unwrap().to_string();
        assert!(error.contains(&store.to_string()) && error.contains("inmemory"), "{error}");
        assert!(error.contains("ingester-ring"), "{error}");
    }

    #[tokio::test]
    #[cfg(feature = "memberlist")]
    async fn gossip_without_a_member_is_refused_and_with_one_is_shared() {
        let stores = Stores::new();
        let open = |prefix: &str| {
            let config = config(KvStore::Memberlist, prefix);
            stores.client::<Text>(&config, "test", &Meter::disabled(), &Clock::system())
        };
        let error = open("").err().unwrap().to_string();
        assert!(error.contains("memberlist") && error.contains("set_memberlist"), "{error}");
        assert!(stores.memberlist().is_none() && stores.remarks().is_empty());
        stores.leave().await;

        let gossip = ringkit_config::MemberlistConfig {
            bind_addr: vec!["127.0.0.1".into()],
            bind_port: 0,
            ..ringkit_config::MemberlistConfig::default()
        };
        stores.set_memberlist(MemberlistOptions {
            config: gossip,
            zone: String::new(),
            build: String::new(),
            meter: Meter::disabled(),
            clock: Clock::system(),
            proceed_after: None,
        });
        assert!(stores.memberlist().is_none(), "nobody needs it yet");
        let (one, other) = (open("a/").unwrap(), open("").unwrap());
        one.cas("k", |_| Decision::Write(Text::new("hello"), ())).await.unwrap();
        assert_eq!(other.list("").await.unwrap(), ["a/k"]);
        assert!(one.removals_are_meant());
        stores.leave().await;
        assert!(matches!(other.get("a/k").await, Err(Error::Closed)));
    }
}
