//! The store that a command talks to, by its flags.

use std::sync::Arc;
use std::time::Duration;

use ringkit_config::{ConsulConfig, EtcdConfig, KvStore, KvStoreConfig, Layout, RingName, Secret};
use ringkit_kv::{Client, Error, Store, Stores};
use ringkit_ring::Desc;
use ringkit_runtime::{Clock, Meter};

use crate::Failure;
use crate::args::{BadFlag, Parsed};

/// A store that does not answer for this long has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The flags of one store, and of a second one, followed by a command's own.
macro_rules! store_flags {
    ($($own:expr),* $(,)?) => {
        &[
            $crate::args::Flag { name: "config", value: "FILE", help: "take the store from this configuration of a process, with TLS,\nlogin and all" },
            $crate::args::Flag { name: "store", value: "NAME", help: "without --config: consul or etcd" },
            $crate::args::Flag { name: "host", value: "ADDR", help: "Consul's address [localhost:8500]" },
            $crate::args::Flag { name: "endpoints", value: "LIST", help: "etcd's addresses, separated by commas [localhost:2379]" },
            $crate::args::Flag { name: "prefix", value: "TEXT", help: "what all keys begin with [collectors/]" },
            $crate::args::Flag { name: "layout", value: "NAME", help: "single or per_instance [single]" },
            $crate::args::Flag { name: "acl-token-file", value: "FILE", help: "Consul's ACL token" },
            $($own),*
        ]
    };
    (two; $($own:expr),* $(,)?) => {
        store_flags!(
            $crate::args::Flag { name: "to-config", value: "FILE", help: "the second store, as --config" },
            $crate::args::Flag { name: "to-store", value: "NAME", help: "the second store: consul or etcd" },
            $crate::args::Flag { name: "to-host", value: "ADDR", help: "as --host" },
            $crate::args::Flag { name: "to-endpoints", value: "LIST", help: "as --endpoints" },
            $crate::args::Flag { name: "to-prefix", value: "TEXT", help: "as --prefix" },
            $crate::args::Flag { name: "to-layout", value: "NAME", help: "as --layout" },
            $crate::args::Flag { name: "to-acl-token-file", value: "FILE", help: "as --acl-token-file" },
            $($own),*
        )
    };
}
pub(crate) use store_flags;

/// Names of the flags that say more about the one store.
pub(crate) const STORE_FLAGS: &[&str] = &["host", "endpoints", "prefix", "layout", "acl-token-file"];

/// Which of two stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    First,
    Second,
}

impl Which {
    fn flag(self, name: &str) -> String {
        if self == Self::First { name.to_owned() } else { format!("to-{name}") }
    }
}

/// The layout of the store.
pub(crate) fn layout(args: &Parsed, which: Which) -> Result<Layout, Failure> {
    Ok(config(args, which)?.layout)
}

fn flagged_layout(args: &Parsed, which: Which) -> Result<Layout, Failure> {
    match args.text(&which.flag("layout")) {
        None | Some("single") => Ok(Layout::Single),
        Some("per_instance") => Ok(Layout::PerInstance),
        Some(other) => {
            let problem = format!("`{other}` is neither single nor per_instance");
            Err(BadFlag::new(which.flag("layout"), problem).into())
        }
    }
}

/// Whether the flags name a store at all.
pub(crate) fn is_given(args: &Parsed, which: Which) -> bool {
    args.has(&which.flag("store")) || args.has(&which.flag("config"))
}

/// The store of a process that is started with `file`, for the ring that `--ring` names.
fn configured(args: &Parsed, which: Which, file: &str) -> Result<KvStoreConfig, Failure> {
    let flag = which.flag("config");
    let others = STORE_FLAGS.iter().chain(&["store"]).map(|name| which.flag(name));
    if let Some(stray) = others.into_iter().find(|name| args.has(name)) {
        return Err(BadFlag::new(stray, format!("does not go with --{flag}")).into());
    }
    let loaded = ringkit_config::load([format!("-config.file={file}")], std::env::vars())?;
    let ring = match args.text("ring") {
        Some("distributor") => RingName::Distributor,
        Some("store-gateway") => RingName::StoreGateway,
        _ => RingName::Ingester,
    };
    let kvstore = loaded.config.kv(ring);
    match kvstore.store {
        KvStore::Consul | KvStore::Etcd => Ok(kvstore),
        other => {
            let problem = format!("{file}: the ring is on `{other}`, which only its processes can reach");
            Err(BadFlag::new(flag, problem).into())
        }
    }
}

/// What the flags say, before any default of a backend.
fn config(args: &Parsed, which: Which) -> Result<KvStoreConfig, Failure> {
    match args.text(&which.flag("config")) {
        Some(file) => configured(args, which, file),
        None => by_flags(args, which),
    }
}

/// Opens the store that the flags name.
pub(crate) fn open(args: &Parsed, which: Which) -> Result<Arc<dyn Store>, Failure> {
    Ok(Stores::new().open(&config(args, which)?, "ringctl", &Meter::disabled(), &Clock::system())?)
}

fn by_flags(args: &Parsed, which: Which) -> Result<KvStoreConfig, Failure> {
    let text = |name: &str, default: &str| args.text(&which.flag(name)).unwrap_or(default).to_owned();
    let (store, others) = match args.text(&which.flag("store")) {
        Some("consul") => (KvStore::Consul, &["endpoints"][..]),
        Some("etcd") => (KvStore::Etcd, &["host", "acl-token-file"][..]),
        Some(other) => {
            let problem = format!("`{other}` is neither consul nor etcd");
            return Err(BadFlag::new(which.flag("store"), problem).into());
        }
        None => {
            let problem = format!("or --{} is needed: consul or etcd", which.flag("config"));
            return Err(BadFlag::new(which.flag("store"), problem).into());
        }
    };
    // A flag of the other backend would be ignored, and the default address be used in its place.
    if let Some(stray) = others.iter().map(|name| which.flag(name)).find(|name| args.has(name)) {
        return Err(BadFlag::new(stray, format!("does not go with --{} {store}", which.flag("store"))).into());
    }
    let token = match args.text(&which.flag("acl-token-file")) {
        None => Secret::default(),
        Some(file) => {
            let token =
                std::fs::read_to_string(file).map_err(|cause| format!("cannot read {file}: {cause}"))?;
            Secret::new(token.trim())
        }
    };
    let endpoints = text("endpoints", "localhost:2379").split(',').map(|one| one.trim().to_owned()).collect();
    Ok(KvStoreConfig {
        store,
        prefix: args.text(&which.flag("prefix")).unwrap_or("collectors/").to_owned(),
        layout: flagged_layout(args, which)?,
        consul: ConsulConfig {
            host: text("host", "localhost:8500"),
            acl_token: token,
            ..ConsulConfig::default()
        },
        etcd: EtcdConfig { endpoints, ..EtcdConfig::default() },
        ..KvStoreConfig::default()
    })
}

/// A client for rings on the store that the flags name.
pub(crate) fn rings(args: &Parsed, which: Which) -> Result<Client<Desc>, Failure> {
    Ok(rings_on(open(args, which)?))
}

/// A client for rings on an open store.
pub(crate) fn rings_on(store: Arc<dyn Store>) -> Client<Desc> {
    Client::new(store, &Meter::disabled()).with_deadlines(TIMEOUT, TIMEOUT)
}

/// One call of a store, which on its own has no deadline.
pub(crate) async fn limited<T>(
    args: &Parsed,
    which: Which,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| explain(args, which, error)),
        Err(_) => {
            let name = config(args, which)?.store;
            Err(format!("{name} did not answer within {TIMEOUT:?}: is its address right?").into())
        }
    }
}

/// An error of a store, with what to do about it on this command line.
pub(crate) fn explain(args: &Parsed, which: Which, error: Error) -> Failure {
    match error {
        Error::OtherLayout { key, found } => {
            let advice = match args.text(&which.flag("config")) {
                None => format!("give --{} {found}", which.flag("layout")),
                Some(file) => format!("`kvstore.layout` in {file} should be `{found}`"),
            };
            format!("`{key}` is kept in another layout: {advice}").into()
        }
        Error::Decode { ref key, entry: None, .. } => {
            let prefix = config(args, which).map(|config| config.prefix).unwrap_or_default();
            let key = key.strip_prefix(&prefix).unwrap_or(key);
            format!("{error}; this is no ring: `ringctl kv get {key} --format raw` prints it as it is").into()
        }
        Error::Decode { entry: Some(_), .. } => {
            format!("{error}; `ringctl ring forget` removes the entry").into()
        }
        other => other.into(),
    }
}
