//! Values in etcd: transactions, watches that begin where a read ended and are begun anew when they are silent for too long.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, EventType, GetOptions,
    GetResponse, Identity, KeyValue, KvClient, TlsOptions, Txn, TxnOp, WatchClient, WatchOptions,
};
use ringkit_config::{EtcdConfig, Layout, Secret};
use ringkit_runtime::{Backoff, Meter};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Code;
use tracing::{info, warn};

use crate::error::{Error, chain};
use crate::flat::{Batch, Committed, Flat, Guard, Item, News, Page, Scope};
use crate::layered::Layered;
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
/// Below etcd's own limit of a request, which is 1.5 MiB.
const MAX_BATCH_BYTES: usize = 1 << 20;
const KEEPALIVE: Duration = Duration::from_secs(10);

/// No answer is larger. The client's own limit is 4 MiB, beyond which a ring could be written and never be read again.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// A client of etcd. Connects when it is first used, and anew when a connection is silent or its login is void.
pub(crate) struct Etcd {
    endpoints: Vec<String>,
    options: ConnectOptions,
    /// For those endpoints that are encrypted.
    tls: Option<TlsOptions>,
    /// Name and password, if the server is to be told who we are.
    user: Option<(String, Secret)>,
    /// One for each endpoint, once it was used.
    connections: Vec<Mutex<Option<Arc<Connection>>>>,
    /// Which endpoint is asked, until it fails.
    current: AtomicUsize,
}

struct Connection {
    /// The place of its endpoint.
    place: usize,
    kv: KvClient,
    watch: WatchClient,
}

/// How far a follower has got.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    revision: u64,
    /// A server that was wiped is another cluster, whose revisions begin anew.
    cluster: u64,
}

/// What may be done again after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// It changes nothing.
    Read,
    /// Only what was not sent, or was turned away before it was carried out.
    Write,
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
        let mut endpoints = Vec::new();
        for endpoint in &config.endpoints {
            if config.tls_enabled && endpoint.starts_with("http://") {
                let reason = format!("`{endpoint}` is without TLS and `tls_enabled` asks for it");
                return Err(Error::Misconfigured { backend: BACKEND, key: "endpoints", reason });
            }
            let whole = endpoint.contains("://");
            endpoints.push(if whole { endpoint.clone() } else { format!("{scheme}://{endpoint}") });
        }
        if endpoints.is_empty() {
            let reason = "names no server".to_owned();
            return Err(Error::Misconfigured { backend: BACKEND, key: "endpoints", reason });
        }
        let options = ConnectOptions::new()
            .with_connect_timeout(config.dial_timeout)
            .with_keep_alive(KEEPALIVE, config.dial_timeout.saturating_mul(2))
            .with_keep_alive_while_idle(config.ping_without_stream_allowed)
            .with_tcp_keepalive(KEEPALIVE)
            .with_require_leader(true);
        let encrypted = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        let tls = if encrypted { Some(tls(config)?) } else { None };
        let user = (!config.username.is_empty()).then(|| (config.username.clone(), config.password.clone()));
        let connections = endpoints.iter().map(|_| Mutex::default()).collect();
        // Processes spread over the endpoints.
        let current = AtomicUsize::new(rand::random_range(0..endpoints.len()));
        Ok(Self { endpoints, options, tls, user, connections, current })
    }

    async fn connect(&self, place: usize) -> Result<Connection, Error> {
        let connect = async |user: Option<&(String, Secret)>| {
            let mut options = self.options.clone();
            if let Some(tls) = self.tls.clone().filter(|_| self.endpoints[place].starts_with("https://")) {
                options = options.with_tls(tls);
            }
            if let Some((name, password)) = user {
                options = options.with_user(name.clone(), password.expose().to_owned());
            }
            Client::connect(&self.endpoints[place..=place], Some(options)).await
        };
        let client = match connect(self.user.as_ref()).await {
            // So that users can be configured here before there, and there before here.
            Err(error) if says(&error, "authentication is not enabled") => connect(None).await,
            connected => connected,
        };
        let client = client.map_err(|error| match error {
            etcd_client::Error::GRpcStatus(_) => failed(error, self.user.is_some()),
            // Nothing was asked of a server yet.
            etcd_client::Error::TransportError(cause) => {
                Error::Misconfigured { backend: BACKEND, key: "tls_enabled", reason: chain(&cause) }
            }
            other => Error::Misconfigured { backend: BACKEND, key: "endpoints", reason: chain(&other) },
        })?;
        Ok(Connection {
            place,
            kv: client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES),
            watch: client.watch_client().max_decoding_message_size(MAX_ANSWER_BYTES),
        })
    }

    async fn connection(&self, place: usize) -> Result<Arc<Connection>, Error> {
        let mut connection = self.connections[place].lock().await;
        if let Some(connection) = &*connection {
            return Ok(Arc::clone(connection));
        }
        let connected = Arc::new(self.connect(place).await?);
        *connection = Some(Arc::clone(&connected));
        Ok(connected)
    }

    /// Whoever comes next connects anew.
    async fn give_up(&self, connection: &Arc<Connection>) {
        let mut now = self.connections[connection.place].lock().await;
        now.take_if(|now| Arc::ptr_eq(now, connection));
    }

    /// The endpoint at `place` failed: the next one is asked from now on.
    fn turn_from(&self, place: usize) {
        let next = (place + 1) % self.endpoints.len();
        // If it fails, somebody else has turned from it already.
        let _ = self.current.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Does what `request` does on a connection, within [`CALL`]: at another endpoint where one does not answer, and once more
    /// where the server wants to be told again who we are.
    async fn call<T, F>(
        &self,
        again: Again,
        request: impl Fn(Arc<Connection>) -> F + Send,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let deadline = Instant::now() + CALL;
        let (mut logged_in, mut others) = (false, self.endpoints.len().saturating_sub(1));
        loop {
            let place = self.current.load(Ordering::Relaxed);
            let late = || {
                self.turn_from(place);
                unavailable(format!("{}: no answer within {CALL:?}", self.endpoints[place]))
            };
            let connection = match timeout_at(deadline, self.connection(place)).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => {
                    self.turn_from(place);
                    if others > 0 && error.is_retryable() {
                        others -= 1;
                        continue;
                    }
                    return Err(error);
                }
                Err(_) => return Err(late()),
            };
            let Ok(answer) = timeout_at(deadline, request(Arc::clone(&connection))).await else {
                self.give_up(&connection).await;
                return Err(late());
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if self.user.is_some() && !logged_in && is_login_void(&error) {
                logged_in = true;
                self.give_up(&connection).await;
                continue;
            }
            if is_unavailable(&error) {
                self.turn_from(place);
                if others > 0 && (again == Again::Read || was_not_sent(&error)) {
                    others -= 1;
                    continue;
                }
            }
            return Err(failed(error, self.user.is_some()));
        }
    }

    async fn get(&self, key: &str, options: GetOptions) -> Result<GetResponse, Error> {
        let get = |connection: Arc<Connection>| {
            let (mut kv, key, options) = (connection.kv.clone(), key.to_owned(), options.clone());
            async move { kv.get(key, Some(options)).await }
        };
        self.call(Again::Read, get).await
    }

    /// What is in the scope, and of which cluster.
    async fn page(&self, scope: &Scope) -> Result<(Page, u64), Error> {
        let (key, options) = match scope {
            Scope::Key(key) => (key, GetOptions::new()),
            Scope::Below(prefix) => (prefix, GetOptions::new().with_prefix()),
        };
        let found = self.get(key, options).await?;
        let (index, cluster) =
            found.header().map_or((0, 0), |header| (unsigned(header.revision()), header.cluster_id()));
        Ok((Page { items: found.kvs().iter().map(item).collect(), index }, cluster))
    }

    /// Follows a scope from what is there now until the watch breaks or falls silent.
    async fn follow_once(
        &self,
        scope: &Scope,
        highest: &mut Place,
        pulse: &Pulse,
        backoff: &mut Backoff,
        news: &(dyn Fn(News) + Send + Sync),
    ) -> Result<(), Error> {
        let (page, cluster) = self.page(scope).await?;
        let (mut revision, mut told) = (page.index, page.index);
        let mut items: BTreeMap<String, Item> =
            page.items.iter().map(|item| (item.key.clone(), item.clone())).collect();
        // What is gone is missing in the page, so that it is told as well.
        let anew = revision < highest.revision || ![0, cluster].contains(&highest.cluster);
        news(if anew { News::Restarted(page) } else { News::Page(page) });
        *highest = Place { revision, cluster };
        pulse.beats();
        let mut options = WatchOptions::new()
            // What is told again is known already; from the next revision on, a server that nobody writes to would not say
            // how far it is when it is asked.
            .with_start_revision(i64::try_from(revision.max(1)).unwrap_or(i64::MAX))
            .with_progress_notify();
        let (Scope::Key(key) | Scope::Below(key)) = scope;
        if matches!(scope, Scope::Below(_)) {
            options = options.with_prefix();
        }
        let opened = self.call(Again::Read, |connection| {
            let (mut watch, key, options) = (connection.watch.clone(), key.clone(), options.clone());
            async move { watch.watch(key, Some(options)).await.map(|stream| (stream, connection)) }
        });
        let (mut stream, connection) = opened.await?;
        let mut asked = false;
        loop {
            let message = match timeout(SILENCE, stream.message()).await {
                Ok(message) => message.map_err(|error| failed(error, true))?,
                Err(_) if asked => {
                    // Requests would hang on the same connection until its keepalive gives up.
                    self.give_up(&connection).await;
                    self.turn_from(connection.place);
                    return Err(unavailable("a watch was silent for too long"));
                }
                Err(_) => {
                    asked = true;
                    let request = timeout(CALL, stream.request_progress()).await;
                    request
                        .map_err(|_| unavailable("a watch takes no requests"))?
                        .map_err(|error| failed(error, true))?;
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
            highest.revision = revision;
            if message.events().is_empty() {
                continue;
            }
            for event in message.events() {
                let Some(kv) = event.kv() else { continue };
                // Not that of the header: it may be ahead of what was told.
                told = told.max(unsigned(kv.mod_revision()));
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
            news(News::Page(Page { items: items.values().cloned().collect(), index: told }));
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

    fn max_batch_bytes(&self) -> usize {
        MAX_BATCH_BYTES
    }

    async fn read(&self, scope: &Scope) -> Result<Page, Error> {
        Ok(self.page(scope).await?.0)
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let options = match prefix {
            "" => GetOptions::new().with_all_keys(),
            _ => GetOptions::new().with_prefix(),
        };
        let found = self.get(prefix, options.with_keys_only()).await?;
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
        let transaction = Txn::new().when(compares).and_then(operations);
        let carry_out = |connection: Arc<Connection>| {
            let (mut kv, transaction) = (connection.kv.clone(), transaction.clone());
            async move { kv.txn(transaction).await }
        };
        let done = self.call(Again::Write, carry_out).await?;
        if !done.succeeded() {
            return Ok(Committed::Lost);
        }
        Ok(Committed::At(done.header().map_or(0, |header| unsigned(header.revision()))))
    }

    async fn follow(&self, scope: &Scope, pulse: &Pulse, news: &(dyn Fn(News) + Send + Sync)) {
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        let mut highest = Place::default();
        loop {
            let Err(error) = self.follow_once(scope, &mut highest, pulse, &mut backoff, news).await else {
                continue;
            };
            let refused = matches!(error, Error::Refused { .. });
            pulse.fails(&error);
            let wait = backoff.next();
            warn!(?scope, %error, ?wait, "a watch was interrupted and will be begun anew");
            // Whoever else reaches the server ends the wait, but not at once: a watch that fails by itself must not spin.
            let mut beats = pulse.subscribe();
            tokio::time::sleep(wait.min(MIN_BACKOFF / 4)).await;
            tokio::select! {
                () = tokio::time::sleep(wait.saturating_sub(MIN_BACKOFF / 4)) => (),
                _ = beats.wait_for(Option::is_none), if !refused => info!(?scope, "the store answers again"),
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
    // Without a limit, a server that takes the connection and no more would be waited for for ever.
    let mut tls = TlsOptions::new().timeout(config.dial_timeout);
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

fn unavailable(cause: impl Into<ringkit_runtime::Cause>) -> Error {
    Error::Unavailable { backend: BACKEND, cause: cause.into() }
}

/// What the server says to a request that it turned away because of who asked, which another login mends.
const VOID: [&str; 3] = ["invalid auth token", "revision of auth store is old", "user name is empty"];

fn says(error: &etcd_client::Error, words: &str) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains(words))
}

fn is_login_void(error: &etcd_client::Error) -> bool {
    VOID.iter().any(|words| says(error, words))
}

fn is_unavailable(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.code() == Code::Unavailable)
}

/// Whether there was no connection to send it over.
fn was_not_sent(error: &etcd_client::Error) -> bool {
    let etcd_client::Error::GRpcStatus(status) = error else { return false };
    let causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    causes.into_iter().find_map(|cause| cause.downcast_ref::<tonic::ConnectError>()).is_some()
}

/// Tells what to try again from what to give up.
fn failed(error: etcd_client::Error, has_user: bool) -> Error {
    if let etcd_client::Error::GRpcStatus(status) = &error {
        let refused = matches!(
            status.code(),
            Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
        );
        // What a server that lost its leader says is no answer.
        // Whoever has a name can log in again.
        if refused && !(has_user && is_login_void(&error)) {
            let reason = format!("{}: {}", status.code(), status.message());
            return Error::Refused { backend: BACKEND, reason };
        }
    }
    unavailable(error)
}
