//! Calls to ingesters over pooled connections, with the tenant attached and answers turned into codes.

use bytes::Bytes;
use ringkit_config::Config;
use ringkit_grpc::pool::{PeerChannel, Pool};
use ringkit_grpc::status::http_code;
use ringkit_proto::client::ingester_client::IngesterClient;
use ringkit_proto::client::{self, QueryRequest, QueryStreamResponse};
use ringkit_proto::cortexpb::WriteRequest;
use ringkit_ring::{CallError, Instance};
use ringkit_server::tenant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status, Streaming};

use crate::metrics;

/// The ingesters, by their addresses in the ring.
pub(crate) struct Ingesters {
    pool: Pool,
    max_recv_bytes: usize,
    max_send_bytes: usize,
}

impl Ingesters {
    pub(crate) fn new(pool: Pool, config: &Config) -> Self {
        let settings = &config.ingester_client.grpc_client_config;
        Self { pool, max_recv_bytes: settings.max_recv_msg_size, max_send_bytes: settings.max_send_msg_size }
    }

    /// Closes connections to all addresses but these.
    pub(crate) fn retain<'a>(&self, addresses: impl Iterator<Item = &'a str>) {
        self.pool.retain(addresses);
    }

    fn client(&self, instance: &Instance) -> Result<IngesterClient<PeerChannel>, CallError> {
        let channel =
            self.pool.channel(instance.addr()).map_err(|error| CallError::new(500, error.to_string()))?;
        Ok(IngesterClient::new(channel)
            .max_decoding_message_size(self.max_recv_bytes)
            .max_encoding_message_size(self.max_send_bytes))
    }

    pub(crate) async fn push(
        &self,
        instance: &Instance,
        tenant: &str,
        request: WriteRequest,
    ) -> Result<(), CallError> {
        let answer = self.client(instance)?.push(as_tenant(tenant, request)?).await;
        answer.map(|_| ()).map_err(|status| call_error(&status))
    }

    pub(crate) async fn query_stream(
        &self,
        instance: &Instance,
        tenant: &str,
        request: QueryRequest,
    ) -> Result<SeriesStream, CallError> {
        let answer = self.client(instance)?.query_stream(as_tenant(tenant, request)?).await;
        answer.map(|answer| SeriesStream(answer.into_inner())).map_err(|status| call_error(&status))
    }

    pub(crate) async fn label_names(
        &self,
        instance: &Instance,
        tenant: &str,
        request: client::LabelNamesRequest,
    ) -> Result<Vec<String>, CallError> {
        let answer = self.client(instance)?.label_names(as_tenant(tenant, request)?).await;
        answer.map(|answer| answer.into_inner().label_names).map_err(|status| call_error(&status))
    }

    pub(crate) async fn label_values(
        &self,
        instance: &Instance,
        tenant: &str,
        request: client::LabelValuesRequest,
    ) -> Result<Vec<String>, CallError> {
        let answer = self.client(instance)?.label_values(as_tenant(tenant, request)?).await;
        answer.map(|answer| answer.into_inner().label_values).map_err(|status| call_error(&status))
    }

    pub(crate) async fn series(
        &self,
        instance: &Instance,
        tenant: &str,
        request: client::MetricsForLabelMatchersRequest,
    ) -> Result<Vec<Vec<(Bytes, Bytes)>>, CallError> {
        let answer = self.client(instance)?.metrics_for_label_matchers(as_tenant(tenant, request)?).await;
        let metrics = answer.map_err(|status| call_error(&status))?.into_inner().metric;
        let labels = |metric: ringkit_proto::cortexpb::Metric| {
            metric.labels.into_iter().map(|pair| (pair.name, pair.value)).collect()
        };
        Ok(metrics.into_iter().map(labels).collect())
    }

    pub(crate) async fn user_stats(
        &self,
        instance: &Instance,
        tenant: &str,
    ) -> Result<client::UserStatsResponse, CallError> {
        let request = as_tenant(tenant, client::UserStatsRequest {})?;
        let answer = self.client(instance)?.user_stats(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| call_error(&status))
    }

    pub(crate) async fn all_user_stats(
        &self,
        instance: &Instance,
    ) -> Result<Vec<client::UserIdStatsResponse>, CallError> {
        // Ingesters of Cortex insist on some tenant.
        let request = as_tenant("1", client::UserStatsRequest {})?;
        let answer = self.client(instance)?.all_user_stats(request).await;
        answer.map(|answer| answer.into_inner().stats).map_err(|status| call_error(&status))
    }
}

/// An ingester's answer to a query, message by message.
pub(crate) struct SeriesStream(Streaming<QueryStreamResponse>);

impl SeriesStream {
    /// The next message; `None` once the ingester has said that this was all.
    ///
    /// # Errors
    ///
    /// The ingester's error; also a stream that just stops, which is no answer.
    pub(crate) async fn next(&mut self) -> Result<Option<QueryStreamResponse>, CallError> {
        self.0.message().await.map_err(|status| call_error(&status))
    }
}

fn as_tenant<T>(tenant: &str, message: T) -> Result<Request<T>, CallError> {
    let value: MetadataValue<Ascii> = tenant
        .parse()
        .map_err(|_| CallError::new(400, format!("tenant `{tenant}` cannot be sent in a header")))?;
    let mut request = Request::new(message);
    request.metadata_mut().insert(tenant::HEADER, value);
    Ok(request)
}

/// The HTTP code that an ingester gave, else 500: whatever went wrong, it was not the client.
fn call_error(status: &Status) -> CallError {
    match http_code(status) {
        Some(code) => CallError::new(code, status.message()),
        None => CallError::new(500, format!("{}: {}", status.code(), status.message())),
    }
}

/// How a call counts in metrics.
pub(crate) fn status_of<T>(answer: &Result<T, CallError>) -> metrics::Status {
    match answer {
        Ok(_) => metrics::Status::Success,
        Err(error) if error.code / 100 == 4 => metrics::Status::Client,
        Err(_) => metrics::Status::Server,
    }
}
