//! Values in etcd: transactions, watches that begin where a read ended and are begun anew when they are silent for too long.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, EventType, GetOptions, Identity,
    KeyValue, TlsOptions, Txn, TxnOp, WatchOptions,
};
use ringkit_config::{EtcdConfig, Layout};
use ringkit_runtime::{Backoff, Meter};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::error::Error;
use crate::layered::{Batch, Committed, Flat, Guard, Item, Layered, News, Page, Scope};
use crate::shared::Pulse;

const BACKEND: &str = "etcd";
/// Longest wait for an answer to one request. A server drops what it had passed on to a leader that died, and says so only
/// after seven seconds; every request may be repeated, so it is better to ask again.
const CALL: Duration = Duration::from_secs(3);
/// A watch that is silent for this long is asked how far it is; twice as long without an answer, and it is begun anew.
const SILENCE: Duration = Duration::from_secs(5);
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// etcd's own limit of operations in a transaction.
const MAX_OPERATIONS: usize = 128;
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A client of etcd. Connects when it is first used.
pub(crate) struct Etcd {
    endpoints: Vec<String>,
    options: ConnectOptions,
    client: OnceCell<Client>,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// A store in etcd. Nothing is asked of the server yet.
pub(crate) fn open(config: &EtcdConfig, layout: Layout, meter: &Meter) -> Result<Layered<Etcd>, Error> {
    Ok(Layered::new(Etcd::new(config)?, layout, config.max_value_bytes, meter))
}

impl Etcd {
    fn new(config: &EtcdConfig) -> Result<Self, Error> {
        let scheme = if config.tls_enabled { "https" } else { "http" };
        let endpoint = |endpoint: &String| {
            if endpoint.contains("://") { endpoint.clone() } else { format!("{scheme}://{endpoint}") }
        };
        let mut options = ConnectOptions::new()
            .with_connect_timeout(config.dial_timeout)
            .with_keep_alive(KEEPALIVE, config.dial_timeout.saturating_mul(2))
            .with_keep_alive_while_idle(config.ping_without_stream_allowed)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if config.tls_enabled {
            options = options.with_tls(tls(config)?);
        }
        if !config.username.is_empty() {
            options = options.with_user(config.username.clone(), config.password.expose().to_owned());
        }
        let endpoints = config.endpoints.iter().map(endpoint).collect();
        Ok(Self { endpoints, options, client: OnceCell::new() })
    }

    async fn client(&self) -> Result<Client, Error> {
        let connect = async || Client::connect(&self.endpoints, Some(self.options.clone())).await;
        let connected = call(self.client.get_or_try_init(connect)).await?;
        Ok(connected.clone())
    }

    /// Follows a scope from what is there now until the watch breaks or falls silent.
    async fn follow_once(
        &self,
        scope: &Scope,
        highest: &mut u64,
        pulse: &Pulse,
        backoff: &mut Backoff,
        news: &(dyn Fn(News) + Send + Sync),
    ) -> Result<(), Error> {
        let page = self.read(scope).await?;
        let mut revision = page.index;
        let mut items: BTreeMap<String, Item> =
            page.items.iter().map(|item| (item.key.clone(), item.clone())).collect();
        // What is gone is missing in the page, so that it is told as well.
        news(if revision < *highest { News::Restarted(page) } else { News::Page(page) });
        *highest = revision;
        pulse.beats();
        let mut options = WatchOptions::new()
            .with_start_revision(i64::try_from(revision + 1).unwrap_or(i64::MAX))
            .with_progress_notify();
        let (Scope::Key(key) | Scope::Below(key)) = scope;
        if matches!(scope, Scope::Below(_)) {
            options = options.with_prefix();
        }
        let mut client = self.client().await?;
        let mut stream = call(client.watch(key.as_str(), Some(options))).await?;
        let mut asked = false;
        loop {
            let message = match timeout(SILENCE, stream.message()).await {
                Ok(message) => message.map_err(failed)?,
                Err(_) if asked => return Err(unavailable("a watch was silent for too long")),
                Err(_) => {
                    asked = true;
                    call(stream.request_progress()).await?;
                    continue;
                }
            };
            let Some(message) = message else { return Err(unavailable("a watch was ended by the server")) };
            if message.canceled() {
                let (reason, compacted) = (message.cancel_reason(), message.compact_revision());
                return Err(unavailable(format!(
                    "a watch was cancelled: {reason} (compacted at {compacted})"
                )));
            }
            asked = false;
            pulse.beats();
            backoff.reset();
            if let Some(header) = message.header() {
                revision = revision.max(unsigned(header.revision()));
            }
            *highest = revision;
            if message.events().is_empty() {
                continue;
            }
            for event in message.events() {
                let Some(kv) = event.kv() else { continue };
                match event.event_type() {
                    EventType::Put => {
                        let item = item(kv);
                        items.insert(item.key.clone(), item);
                    }
                    EventType::Delete => {
                        items.remove(&*String::from_utf8_lossy(kv.key()));
                    }
                }
            }
            news(News::Page(Page { items: items.values().cloned().collect(), index: revision }));
        }
    }
}

#[async_trait]
impl Flat for Etcd {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn max_batch(&self) -> usize {
        MAX_OPERATIONS
    }

    async fn read(&self, scope: &Scope) -> Result<Page, Error> {
        let (key, options) = match scope {
            Scope::Key(key) => (key, GetOptions::new()),
            Scope::Below(prefix) => (prefix, GetOptions::new().with_prefix()),
        };
        let mut client = self.client().await?;
        let found = call(client.get(key.as_str(), Some(options))).await?;
        let index = found.header().map_or(0, |header| unsigned(header.revision()));
        Ok(Page { items: found.kvs().iter().map(item).collect(), index })
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let options = match prefix {
            "" => GetOptions::new().with_all_keys(),
            _ => GetOptions::new().with_prefix(),
        };
        let mut client = self.client().await?;
        let found = call(client.get(prefix, Some(options.with_keys_only()))).await?;
        Ok(found.kvs().iter().map(|kv| String::from_utf8_lossy(kv.key()).into_owned()).collect())
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, Error> {
        let signed = |index: u64| i64::try_from(index).unwrap_or(i64::MAX);
        let mut compares: Vec<Compare> = batch
            .guards
            .iter()
            .map(|guard| match guard {
                Guard::Absent(key) => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
                Guard::Present(key) => Compare::create_revision(key.as_str(), CompareOp::Greater, 0),
                Guard::At(key, index) => {
                    Compare::mod_revision(key.as_str(), CompareOp::Equal, signed(*index))
                }
            })
            .collect();
        if let Some((prefix, index)) = &batch.unchanged {
            let unchanged = Compare::mod_revision(prefix.as_str(), CompareOp::Less, signed(index + 1));
            compares.push(unchanged.with_prefix());
        }
        let mut operations: Vec<TxnOp> = Vec::new();
        if let Some(prefix) = &batch.delete_below {
            operations.push(TxnOp::delete(prefix.as_str(), Some(DeleteOptions::new().with_prefix())));
        }
        operations.extend(batch.deletes.iter().map(|key| TxnOp::delete(key.as_str(), None)));
        operations
            .extend(batch.puts.iter().map(|(key, value)| TxnOp::put(key.as_str(), value.as_ref(), None)));
        let mut client = self.client().await?;
        let done = call(client.txn(Txn::new().when(compares).and_then(operations))).await?;
        if !done.succeeded() {
            return Ok(Committed::Lost);
        }
        Ok(Committed::At(done.header().map_or(0, |header| unsigned(header.revision()))))
    }

    async fn follow(&self, scope: &Scope, pulse: &Pulse, news: &(dyn Fn(News) + Send + Sync)) {
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        let mut highest = 0;
        loop {
            let Err(error) = self.follow_once(scope, &mut highest, pulse, &mut backoff, news).await else {
                continue;
            };
            pulse.fails(&error);
            let wait = backoff.next();
            warn!(?scope, %error, ?wait, "a watch was interrupted and will be begun anew");
            // Whoever else reaches the server ends the wait, but not at once: a watch that fails by itself must not spin.
            let mut beats = pulse.subscribe();
            tokio::time::sleep(wait.min(MIN_BACKOFF / 4)).await;
            tokio::select! {
                () = tokio::time::sleep(wait.saturating_sub(MIN_BACKOFF / 4)) => (),
                _ = beats.wait_for(Option::is_none) => info!(?scope, "the store answers again"),
            }
        }
    }
}

fn tls(config: &EtcdConfig) -> Result<TlsOptions, Error> {
    let wrong = |key, reason| Error::Misconfigured { backend: BACKEND, key, reason };
    let read = |key: &'static str, path: &str| {
        std::fs::read(path).map_err(|cause| wrong(key, format!("cannot read `{path}`: {cause}")))
    };
    if config.tls_insecure_skip_verify {
        let reason = "is not supported for etcd: set `tls_ca_path` to the certificate to trust".to_owned();
        return Err(wrong("tls_insecure_skip_verify", reason));
    }
    let mut tls = TlsOptions::new();
    tls = match config.tls_ca_path.as_str() {
        "" => tls.with_native_roots(),
        path => tls.ca_certificate(Certificate::from_pem(read("tls_ca_path", path)?)),
    };
    if !config.tls_cert_path.is_empty() {
        let cert = read("tls_cert_path", &config.tls_cert_path)?;
        tls = tls.identity(Identity::from_pem(cert, read("tls_key_path", &config.tls_key_path)?));
    }
    if !config.tls_server_name.is_empty() {
        tls = tls.domain_name(config.tls_server_name.clone());
    }
    Ok(tls)
}

fn item(kv: &KeyValue) -> Item {
    Item {
        key: String::from_utf8_lossy(kv.key()).into_owned(),
        value: Bytes::copy_from_slice(kv.value()),
        index: unsigned(kv.mod_revision()),
    }
}

fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or_default()
}

async fn call<T>(request: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, Error> {
    match timeout(CALL, request).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(unavailable(format!("no answer within {CALL:?}"))),
    }
}

fn unavailable(cause: impl Into<ringkit_runtime::Cause>) -> Error {
    Error::Unavailable { backend: BACKEND, cause: cause.into() }
}

/// Tells what to try again from what to give up.
fn failed(error: etcd_client::Error) -> Error {
    use tonic::Code;
    if let etcd_client::Error::GRpcStatus(status) = &error {
        let refused = matches!(
            status.code(),
            Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
        );
        // An expired token is renewed; what a server that lost its leader says is no answer.
        if refused && !status.message().contains("invalid auth token") {
            let reason = format!("{}: {}", status.code(), status.message());
            return Error::Refused { backend: BACKEND, reason };
        }
    }
    unavailable(error)
}
