//! Values in HashiCorp Consul's key-value store: requests, the index rules of its blocking queries, what its answers mean.
//!
//! Settings and request types are those of `consulrs`; its requests are carried out on our own `reqwest` client, because
//! the headers of an answer (the index of a 404, `Retry-After`) matter here.

use std::fmt::{self, Write as _};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use consulrs::api::Features;
use consulrs::api::features::{Blocking, ConsistencyMode};
use consulrs::api::kv::requests::{ReadKeyRequest, ReadKeysRequest, SetKeyRequest};
use consulrs::client::{Client as _, ConsulClient, ConsulClientSettingsBuilder};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use metrics::Unit;
use ringkit_config::{ConsulConfig, Layout};
use ringkit_runtime::{Backoff, Cause, Meter};
use rustify::endpoint::Endpoint;
use serde::Deserialize;
use tokio::time::Instant;
use tracing::{info, warn};
use {http_02 as http, reqwest_011 as reqwest};

use crate::error::Error;
use crate::flat::{Batch, Committed, Flat, Guard, Item, News, Page, Scope};
use crate::layered::Layered;
use crate::shared::Pulse;

const BACKEND: &str = "consul";
/// How long a blocking query waits for a change.
const WAIT: Duration = Duration::from_secs(10);
/// What Consul adds to that at most, and the way there and back.
const WAIT_SLACK: Duration = Duration::from_secs(5);
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A transaction carries values as base64 and may be as large as a value: beyond this, a value goes alone.
const MAX_IN_TRANSACTION: usize = 256 << 10;
/// Consul's own limit of operations in a transaction.
const MAX_OPERATIONS: usize = 64;
/// Longest wait for an answer that is not a change, so that whoever asked can ask again within his own deadline.
const CALL: Duration = Duration::from_secs(4);
/// No answer is larger.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// A client of Consul's key-value store.
pub(crate) struct Consul {
    client: ConsulClient,
    config: ConsulConfig,
    meter: Meter,
}

impl fmt::Debug for Consul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consul").field("address", &self.client.settings.address).finish_non_exhaustive()
    }
}

/// A store in Consul. Nothing is asked of the server yet.
pub(crate) fn open(
    config: &ConsulConfig,
    layout: Layout,
    kv_name: &str,
    meter: &Meter,
) -> Result<Layered<Consul>, Error> {
    let consul = Consul::new(config, &meter.with("kv_name", kv_name.to_owned()))?;
    Ok(Layered::new(consul, layout, config.max_value_bytes, meter))
}

/// An answer, whatever its status.
struct Answer {
    status: u16,
    /// None if the server does not tell one that can be waited for.
    index: Option<u64>,
    /// Whether what is told may be old because the server that told it knows no leader.
    leaderless: bool,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pair {
    key: String,
    #[serde(default)]
    value: Option<String>,
    modify_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    #[serde(default)]
    results: Option<Vec<Done>>,
    #[serde(default)]
    errors: Option<Vec<Refusal>>,
}

#[derive(Deserialize)]
struct Done {
    #[serde(rename = "KV", default)]
    pair: Option<Pair>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    what: String,
}

/// What a poll of a watch found.
struct Polled {
    page: Page,
    index: Option<u64>,
    leaderless: bool,
}

/// What a failed request means for who asked.
struct Failure {
    error: Error,
    retry_after: Option<Duration>,
}

impl Consul {
    fn new(config: &ConsulConfig, meter: &Meter) -> Result<Self, Error> {
        let address = match config.host.split_once("://") {
            None if config.tls_enabled => format!("https://{}", config.host),
            None => format!("http://{}", config.host),
            // A token must not go in clear over a connection that was to be encrypted.
            Some(("http", host)) if config.tls_enabled => format!("https://{host}"),
            Some(("http" | "https", _)) => config.host.clone(),
            Some((scheme, _)) => {
                return Err(misconfigured("host", format!("`{scheme}://` is not supported: use host:port")));
            }
        };
        let mut url =
            reqwest::Url::parse(&address).map_err(|cause| misconfigured("host", cause.to_string()))?;
        let http = http_client(config, &mut url)?;
        let token = token(config)?;
        if let Some(token) = &token
            && http::HeaderValue::from_str(token).is_err()
        {
            return Err(misconfigured("acl_token", "holds bytes that no HTTP header may hold".to_owned()));
        }
        let base = url.as_str().trim_end_matches('/').to_owned();
        let mut settings = ConsulClientSettingsBuilder::default();
        settings
            .address(base.clone())
            .ca_certs(Vec::<String>::new())
            .verify(!config.tls_insecure_skip_verify);
        let mut settings = settings.build().map_err(|cause| misconfigured("host", cause.to_string()))?;
        settings.token = token;
        let client = ConsulClient { http: rustify::clients::reqwest::Client::new(&base, http), settings };
        Ok(Self { client, config: config.clone(), meter: meter.clone() })
    }

    fn mode(&self) -> ConsistencyMode {
        if self.config.consistent_reads { ConsistencyMode::CONSISTENT } else { ConsistencyMode::STALE }
    }

    fn datacenter(&self) -> Option<String> {
        (!self.config.datacenter.is_empty()).then(|| self.config.datacenter.clone())
    }

    /// How long to wait for an answer to an ordinary request.
    fn patience(&self) -> Duration {
        self.config.http_client_timeout.min(CALL)
    }

    /// Where the value of `key` is. The request types would encode a key twice.
    fn url_of(&self, key: &str, query: Option<&str>) -> Result<reqwest::Url, Failure> {
        // A URL with such a segment means another one.
        if key.split('/').any(|segment| matches!(segment, "." | "..")) {
            let reason = format!("the key `{key}` has a part `.` or `..`, which no URL can name");
            return Err(Failure { error: Error::Refused { backend: BACKEND, reason }, retry_after: None });
        }
        let mut url = format!("{}/v1/kv/{}", self.client.http.base, percent_encoded(key));
        if let Some(query) = query {
            url = format!("{url}?{query}");
        }
        reqwest::Url::parse(&url).map_err(|cause| unavailable(Box::new(cause)))
    }

    /// Carries out a request of consulrs's making for `key`.
    async fn execute(
        &self,
        (operation, key): (&'static str, &str),
        endpoint: impl Endpoint,
        features: Option<Features>,
        deadline: Duration,
    ) -> Result<Answer, Failure> {
        let middle = self.client.middle(features);
        let request = endpoint.with_middleware(&middle).request(&self.client.http.base);
        let request = request.map_err(|cause| unavailable(Box::new(cause)))?;
        let mut request =
            reqwest::Request::try_from(request).map_err(|cause| unavailable(Box::new(cause)))?;
        *request.url_mut() = self.url_of(key, request.url().query())?;
        *request.timeout_mut() = Some(deadline);
        self.send(operation, request).await
    }

    async fn send(&self, operation: &'static str, request: reqwest::Request) -> Result<Answer, Failure> {
        let started_at = Instant::now();
        let answer = receive(self.client.http.http.execute(request).await).await;
        let status = answer.as_ref().map_or(500, |answer| answer.status);
        self.meter
            .with("operation", operation)
            .with("status_code", status.to_string())
            .histogram(
                "cortex_consul_request_duration_seconds",
                Unit::Seconds,
                "Time spent on consul requests.",
            )
            .record(started_at.elapsed());
        let answer = answer.map_err(unavailable)?;
        Ok(answer)
    }

    async fn page(&self, scope: &Scope) -> Result<Page, Failure> {
        Ok(self.poll(scope, None, self.patience()).await?.page)
    }

    async fn poll(
        &self,
        scope: &Scope,
        features: Option<Features>,
        deadline: Duration,
    ) -> Result<Polled, Failure> {
        let (operation, key, recurse) = match scope {
            Scope::Key(key) => ("Get", key, None),
            Scope::Below(prefix) => ("List", prefix, Some(true)),
        };
        let request =
            ReadKeyRequest { features: None, key: key.clone(), dc: self.datacenter(), ns: None, recurse };
        let answer = self.execute((operation, key), request, features, deadline).await?;
        let Answer { index, leaderless, .. } = answer;
        if answer.status == 404 {
            // A Consul without the key tells since when; something else on the way does not.
            let Some(index) = index else {
                return Err(unavailable(
                    "a response code 404 that is not Consul's: it tells no index".into(),
                ));
            };
            let page = Page { items: Vec::new(), index };
            return Ok(Polled { page, index: Some(index), leaderless });
        }
        let answer = succeeded(answer)?;
        let pairs: Vec<Pair> =
            serde_json::from_slice(&answer.body).map_err(|cause| unavailable(Box::new(cause)))?;
        let item = |pair: Pair| {
            let value = STANDARD.decode(pair.value.unwrap_or_default())?;
            Ok(Item { key: pair.key, value: Bytes::from(value), index: pair.modify_index })
        };
        let items = pairs.into_iter().map(item).collect::<Result<Vec<_>, base64::DecodeError>>();
        let items = items.map_err(|cause| unavailable(Box::new(cause)))?;
        let newest = items.iter().map(|item| item.index).max().unwrap_or_default();
        Ok(Polled { page: Page { items, index: index.unwrap_or_default().max(newest) }, index, leaderless })
    }

    /// Writes a value that is too large for a transaction.
    async fn put_alone(&self, key: &str, value: &Bytes, index: u64) -> Result<Committed, Failure> {
        let request = SetKeyRequest {
            key: key.to_owned(),
            value: value.to_vec(),
            cas: Some(index),
            dc: self.datacenter(),
            ..SetKeyRequest::default()
        };
        let answer = succeeded(self.execute(("CAS", key), request, None, self.patience()).await?)?;
        if !answer.body.starts_with(b"true") {
            return Ok(Committed::Lost);
        }
        // The answer does not tell the index, which is that of the value until somebody else writes. It is above the one
        // that was there, and a later one must not be claimed for what others may have overwritten.
        let page = self.page(&Scope::Key(key.to_owned())).await;
        let ours = page.ok().and_then(|page| page.items.into_iter().find(|item| item.value == *value));
        Ok(Committed::At(ours.map_or(index + 1, |item| item.index)))
    }

    async fn transact(&self, batch: &Batch) -> Result<Committed, Failure> {
        let body = serde_json::to_vec(&operations(batch)).map_err(|cause| unavailable(Box::new(cause)))?;
        let mut url = format!("{}/v1/txn", self.client.http.base);
        if let Some(datacenter) = self.datacenter() {
            url = format!("{url}?dc={datacenter}");
        }
        let mut request = self.client.http.http.put(url).body(body).timeout(self.patience());
        if let Some(token) = &self.client.settings.token {
            request = request.header("X-Consul-Token", token);
        }
        let request = request.build().map_err(|cause| unavailable(Box::new(cause)))?;
        let answer = self.send("CAS", request).await?;
        let answer = if answer.status == 409 { answer } else { succeeded(answer)? };
        let outcome: Outcome =
            serde_json::from_slice(&answer.body).map_err(|cause| unavailable(Box::new(cause)))?;
        if answer.status == 409 {
            let refusals = outcome.errors.unwrap_or_default();
            let lost = |refusal: &Refusal| is_race(&refusal.what, batch);
            return match refusals.iter().find(|refusal| !lost(refusal)) {
                None => Ok(Committed::Lost),
                Some(refusal) => Err(refused(409, &refusal.what)),
            };
        }
        let pairs = outcome.results.unwrap_or_default();
        let newest = pairs.into_iter().filter_map(|done| done.pair).map(|pair| pair.modify_index).max();
        match newest {
            // Without an index nobody could build on what was written.
            None if !batch.puts.is_empty() => {
                Err(unavailable("the answer to a transaction names no index".into()))
            }
            newest => Ok(Committed::At(newest.unwrap_or_default())),
        }
    }
}

#[async_trait]
impl Flat for Consul {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn max_batch(&self) -> usize {
        MAX_OPERATIONS
    }

    fn max_batch_bytes(&self) -> usize {
        MAX_IN_TRANSACTION
    }

    async fn read(&self, scope: &Scope) -> Result<Page, Error> {
        self.page(scope).await.map_err(|failure| failure.error)
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let request = ReadKeysRequest {
            key: prefix.to_owned(),
            dc: self.datacenter(),
            keys: true,
            ..ReadKeysRequest::default()
        };
        let answer = self.execute(("List", prefix), request, None, self.patience()).await;
        let answer = match answer {
            Ok(answer) if answer.status == 404 && answer.index.is_some() => return Ok(Vec::new()),
            answer => answer.and_then(succeeded).map_err(|failure| failure.error)?,
        };
        serde_json::from_slice(&answer.body).map_err(|cause| unavailable(Box::new(cause)).error)
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, Error> {
        let done = match (batch.puts.as_slice(), batch.guards.as_slice()) {
            ([(key, value)], [guard]) if value.len() > MAX_IN_TRANSACTION => {
                let index = if let Guard::At(_, index) = guard { *index } else { 0 };
                self.put_alone(key, value, index).await
            }
            _ => self.transact(batch).await,
        };
        done.map_err(|failure| failure.error)
    }

    async fn follow(&self, scope: &Scope, pulse: &Pulse, news: &(dyn Fn(News) + Send + Sync)) {
        let pace = pace(&self.config);
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        // The highest index that was heard, and the one to wait for a change of; 0 = do not wait.
        let (mut highest, mut index) = (0, 0);
        loop {
            if let Some(pace) = &pace {
                pace.until_ready().await;
            }
            let blocking =
                (index > 0).then(|| Blocking { index, wait: Some(format!("{}ms", WAIT.as_millis())) });
            let deadline = self.config.http_client_timeout.max(WAIT + WAIT_SLACK);
            let features = Features { blocking, cached: None, filter: None, mode: Some(self.mode()) };
            let mut polled = self.poll(scope, Some(features), deadline).await;
            if let Ok(Polled { index: Some(now), .. }) = &polled
                && *now < highest
            {
                // A server that lags behind, or one that began anew: the leader knows.
                let mode = Some(ConsistencyMode::CONSISTENT);
                let features = Features { blocking: None, cached: None, filter: None, mode };
                polled = self.poll(scope, Some(features), self.patience()).await;
            }
            match polled {
                Ok(Polled { page, index: told, leaderless }) => {
                    if leaderless {
                        pulse.fails(&unavailable("the server that answers knows no leader".into()).error);
                    } else {
                        pulse.beats();
                    }
                    backoff.reset();
                    let Some(now) = told else {
                        // There is nothing to wait for.
                        let now = page.index;
                        news(if now < highest { News::Restarted(page) } else { News::Page(page) });
                        (highest, index) = (now, 0);
                        tokio::time::sleep(MIN_BACKOFF).await;
                        continue;
                    };
                    if now < highest {
                        news(News::Restarted(page));
                    } else if now != index {
                        news(News::Page(page));
                    }
                    (highest, index) = (now, now);
                }
                Err(Failure { error, retry_after }) => {
                    let refused = matches!(error, Error::Refused { .. });
                    pulse.fails(&error);
                    let wait = backoff.next().max(retry_after.unwrap_or_default()).min(MAX_BACKOFF);
                    warn!(?scope, %error, ?wait, "a watch cannot reach its store and will try again");
                    // Whoever else reaches the server ends the wait, but not at once: a watch that fails by itself must
                    // not spin. Not if the server asked for the wait, or said no to this watch alone.
                    let floor = wait.min(MIN_BACKOFF / 4);
                    tokio::time::sleep(floor).await;
                    let mut beats = pulse.subscribe();
                    tokio::select! {
                        () = tokio::time::sleep(wait.saturating_sub(floor)) => (),
                        _ = beats.wait_for(Option::is_none), if retry_after.is_none() && !refused => {
                            info!(?scope, "the store answers again");
                        }
                    }
                    // What happened meanwhile is asked for without waiting for more.
                    index = 0;
                }
            }
        }
    }
}

/// The pace of a watch; `None` = as fast as it goes.
fn pace(config: &ConsulConfig) -> Option<DefaultDirectRateLimiter> {
    if config.watch_rate_limit <= 0.0 {
        return None;
    }
    let period = Duration::try_from_secs_f64(1.0 / config.watch_rate_limit).ok()?;
    let burst = u32::try_from(config.watch_burst_size).unwrap_or(u32::MAX);
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    Some(RateLimiter::direct(Quota::with_period(period)?.allow_burst(burst)))
}

/// A batch as Consul's transactions have it. A guard and a write of the same key are one operation.
fn operations(batch: &Batch) -> Vec<serde_json::Value> {
    let op = |verb: &str, key: &str, index: Option<u64>, value: Option<&Bytes>| {
        let mut kv = serde_json::json!({ "Verb": verb, "Key": key });
        if let Some(index) = index {
            kv["Index"] = index.into();
        }
        if let Some(value) = value {
            kv["Value"] = STANDARD.encode(value).into();
        }
        serde_json::json!({ "KV": kv })
    };
    let mut guards: std::collections::BTreeMap<&str, &Guard> = std::collections::BTreeMap::new();
    for guard in &batch.guards {
        let (Guard::Absent(key) | Guard::Present(key) | Guard::At(key, _)) = guard;
        guards.insert(key, guard);
    }
    let mut operations = Vec::new();
    let mut writes = Vec::new();
    for (key, value) in &batch.puts {
        let (verb, index) = match guards.get(key.as_str()) {
            Some(Guard::At(_, index)) => ("cas", Some(*index)),
            Some(Guard::Absent(_)) => ("cas", Some(0)),
            Some(Guard::Present(_)) | None => ("set", None),
        };
        if index.is_some() {
            guards.remove(key.as_str());
        }
        writes.push(op(verb, key, index, Some(value)));
    }
    for key in &batch.deletes {
        match guards.remove(key.as_str()) {
            Some(Guard::At(_, index)) => writes.push(op("delete-cas", key, Some(*index), None)),
            _ => writes.push(op("delete", key, None, None)),
        }
    }
    for (key, guard) in guards {
        operations.push(match guard {
            Guard::Absent(_) => op("check-not-exists", key, None, None),
            Guard::Present(_) => op("get", key, None, None),
            Guard::At(_, index) => op("check-index", key, Some(*index), None),
        });
    }
    if let Some(prefix) = &batch.delete_below {
        operations.push(op("delete-tree", prefix, None, None));
    }
    operations.append(&mut writes);
    operations
}

async fn receive(response: reqwest::Result<reqwest::Response>) -> Result<Answer, Cause> {
    let mut response = response.map_err(reqwest::Error::without_url)?;
    let number = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok()?.trim().parse::<u64>().ok()
    };
    let index = number("x-consul-index").filter(|index| *index > 0);
    let leader = response.headers().get("x-consul-knownleader");
    let leaderless = leader.is_some_and(|known| known.as_bytes() == b"false");
    let retry_after = number("retry-after").map(Duration::from_secs);
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > MAX_ANSWER_BYTES {
            return Err(format!("an answer of more than {MAX_ANSWER_BYTES} bytes").into());
        }
        body.extend_from_slice(&piece);
    }
    Ok(Answer { status, index, leaderless, retry_after, body })
}

fn succeeded(answer: Answer) -> Result<Answer, Failure> {
    if answer.status == 200 { Ok(answer) } else { Err(failure(&answer)) }
}

/// Whether a refused operation lost a race, going by Consul's words without the keys in them, which may contain any.
fn is_race(what: &str, batch: &Batch) -> bool {
    let puts = batch.puts.iter().map(|(key, _)| key);
    let guards =
        batch.guards.iter().map(|(Guard::Absent(key) | Guard::Present(key) | Guard::At(key, _))| key);
    let mut words = what.to_owned();
    let mut keys: Vec<&String> = puts.chain(guards).chain(&batch.deletes).collect();
    // Of a key that another begins with, nothing must be left.
    keys.sort_unstable_by_key(|key| std::cmp::Reverse(key.len()));
    for key in keys {
        words = words.replace(key.as_str(), "");
    }
    const RACES: [&str; 4] = ["stale", "exist", "index", "match"];
    !words.contains("denied") && RACES.iter().any(|word| words.contains(word))
}

/// A key as the path of a URL has it: slashes stay.
fn percent_encoded(key: &str) -> String {
    let mut path = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            path.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

fn failure(answer: &Answer) -> Failure {
    let text = String::from_utf8_lossy(answer.body.get(..200).unwrap_or(&answer.body)).trim().to_owned();
    match answer.status {
        400..=499 if !matches!(answer.status, 408 | 429) => refused(answer.status, &text),
        status => Failure {
            error: Error::Unavailable {
                backend: BACKEND,
                cause: format!("unexpected response code {status}: {text}").into(),
            },
            retry_after: answer.retry_after,
        },
    }
}

/// The server will not do it, however often it is asked.
fn refused(status: u16, text: &str) -> Failure {
    let advice = if matches!(status, 401 | 403) { "; look at `acl_token` and its rights" } else { "" };
    let reason = format!("response code {status}: {text}{advice}");
    Failure { error: Error::Refused { backend: BACKEND, reason }, retry_after: None }
}

fn unavailable(cause: Cause) -> Failure {
    Failure { error: Error::Unavailable { backend: BACKEND, cause }, retry_after: None }
}

fn misconfigured(key: &'static str, reason: String) -> Error {
    Error::Misconfigured { backend: BACKEND, key, reason }
}

fn token(config: &ConsulConfig) -> Result<Option<String>, Error> {
    if !config.acl_token.is_empty() {
        return Ok(Some(config.acl_token.expose().to_owned()));
    }
    if let Ok(token) = std::env::var("CONSUL_HTTP_TOKEN")
        && !token.is_empty()
    {
        return Ok(Some(token));
    }
    match std::env::var("CONSUL_HTTP_TOKEN_FILE") {
        Ok(file) if !file.is_empty() => {
            let token = std::fs::read_to_string(&file).map_err(|cause| {
                misconfigured("acl_token", format!("CONSUL_HTTP_TOKEN_FILE `{file}`: {cause}"))
            })?;
            Ok(Some(token.trim().to_owned()))
        }
        _ => Ok(None),
    }
}

/// Our own client, with deadlines and rustls. A server name of its own takes the place of the host in `url`.
fn http_client(config: &ConsulConfig, url: &mut reqwest::Url) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .use_rustls_tls()
        .no_proxy()
        .connect_timeout(config.http_client_timeout.min(Duration::from_secs(5)))
        .tcp_keepalive(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .danger_accept_invalid_certs(config.tls_insecure_skip_verify);
    let read = |key: &'static str, path: &str| {
        std::fs::read(path).map_err(|cause| misconfigured(key, format!("cannot read `{path}`: {cause}")))
    };
    if !config.tls_ca_path.is_empty() {
        let pem = read("tls_ca_path", &config.tls_ca_path)?;
        let certificate = reqwest::Certificate::from_pem(&pem)
            .map_err(|cause| misconfigured("tls_ca_path", cause.to_string()))?;
        builder = builder.tls_built_in_root_certs(false).add_root_certificate(certificate);
    }
    if !config.tls_cert_path.is_empty() {
        let mut pem = read("tls_cert_path", &config.tls_cert_path)?;
        pem.extend(read("tls_key_path", &config.tls_key_path)?);
        let identity = reqwest::Identity::from_pem(&pem)
            .map_err(|cause| misconfigured("tls_cert_path", cause.to_string()))?;
        builder = builder.identity(identity);
    }
    if !config.tls_server_name.is_empty() && url.scheme() == "https" {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if config.tls_server_name.parse::<std::net::IpAddr>().is_ok() && config.tls_server_name != host {
            let reason = "is an address; only a name can differ from `host`".to_owned();
            return Err(misconfigured("tls_server_name", reason));
        }
        builder = builder.dns_resolver(Arc::new(Instead { host }));
        let named = url.set_host(Some(&config.tls_server_name));
        named.map_err(|cause| misconfigured("tls_server_name", cause.to_string()))?;
    }
    builder.build().map_err(|cause| misconfigured("tls_enabled", cause.to_string()))
}

/// Looks up `host`, whatever name is asked for: that of the certificate.
struct Instead {
    host: String,
}

impl reqwest::dns::Resolve for Instead {
    fn resolve(&self, _name: hyper_014::client::connect::dns::Name) -> reqwest::dns::Resolving {
        let host = self.host.clone();
        Box::pin(async move {
            // The port comes from the URL.
            let addrs = tokio::net::lookup_host((host.as_str(), 0)).await?.collect::<Vec<_>>();
            Ok(Box::new(addrs.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_race_is_told_from_a_refusal_whatever_the_keys_are_called() {
        let key = "collectors/existing-index-match".to_owned();
        let batch = Batch { guards: vec![Guard::At(key.clone(), 7)], ..Batch::default() };
        assert!(is_race(&format!("failed to set key \"{key}\", index is stale"), &batch));
        assert!(is_race(&format!("key \"{key}\" doesn't exist"), &batch));
        assert!(!is_race("Permission denied", &batch));
        assert!(!is_race(&format!("token lacks permission 'key:write' on \"{key}\""), &batch));
    }

    #[test]
    fn keys_are_encoded_once() {
        assert_eq!(percent_encoded("a/b-c_d.e~f"), "a/b-c_d.e~f");
        assert_eq!(percent_encoded("prod eu%/ü?#"), "prod%20eu%25/%C3%BC%3F%23");
    }
}
