//! Values in HashiCorp Consul's key-value store: what is asked of it.
//!
//! Settings and request types are those of `consulrs`; its requests are carried out on our own `reqwest` client, because
//! the headers of an answer (the index of a 404, `Retry-After`) matter here.
//!
//! | here | is |
//! |---|---|
//! | `connect` | how the server is reached: its address, the token, TLS |
//! | `answer` | what comes back, and what that means for whoever asked |
//! | `transaction` | writes that happen together or not at all |
//! | `follow` | blocking queries, and the rules of the index that they wait with |

mod answer;
mod connect;
mod follow;
mod transaction;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use consulrs::api::Features;
use consulrs::api::features::ConsistencyMode;
use consulrs::api::kv::requests::{ReadKeyRequest, ReadKeysRequest, SetKeyRequest};
use consulrs::client::{Client as _, ConsulClient};
use metrics::Unit;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest_011 as reqwest;
use ringkit_config::{ConsulConfig, Layout};
use ringkit_runtime::Meter;
use rustify::endpoint::Endpoint;
use tokio::time::Instant;

use self::answer::{Answer, Failure, Pair, receive, succeeded, unavailable};
use self::connect::connect;
use self::transaction::{MAX_IN_TRANSACTION, MAX_OPERATIONS};
use crate::error::Error;
use crate::flat::{Batch, Committed, Flat, Guard, Item, News, Page, Scope};
use crate::layered::Layered;
use crate::shared::Pulse;

const BACKEND: &str = "consul";
/// Longest wait for an answer that is not a change, so that whoever asked can ask again within his own deadline.
const CALL: Duration = Duration::from_secs(4);
/// What cannot stand for itself in the path of a URL, in which slashes stay.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

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
    let consul = Consul {
        client: connect(config)?,
        config: config.clone(),
        meter: meter.with("kv_name", kv_name.to_owned()),
    };
    Ok(Layered::new(consul, layout, config.max_value_bytes, meter))
}

/// What a poll of a watch found.
struct Polled {
    page: Page,
    index: Option<u64>,
    leaderless: bool,
}

impl Consul {
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
        let mut url = format!("{}/v1/kv/{}", self.client.http.base, utf8_percent_encode(key, IN_PATH));
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
        self.watch(scope, pulse, news).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_once() {
        let encoded = |key: &str| utf8_percent_encode(key, IN_PATH).to_string();
        assert_eq!(encoded("a/b-c_d.e~f"), "a/b-c_d.e~f");
        assert_eq!(encoded("prod eu%/ü?#"), "prod%20eu%25/%C3%BC%3F%23");
    }
}
