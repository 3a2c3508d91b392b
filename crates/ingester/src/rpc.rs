//! The gRPC service `cortex.Ingester`.

use std::sync::Arc;

use ringkit_grpc::http_status;
use ringkit_proto::client::ingester_server::Ingester as Rpc;
use ringkit_proto::{client, cortexpb};
use ringkit_server::tenant::{self, TenantError};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::head::Tenant;
use crate::ingester::Ingester;
use crate::query::{self, Cursor, Range};

/// Entries of a list in one message of a stream.
const LIST_MESSAGE: usize = 1000;

/// See the module.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Ingester>);

/// What a request asks about.
struct Asked<T> {
    tenant: Option<Arc<Tenant>>,
    request: T,
}

impl Service {
    fn tenant_id<T>(&self, request: &Request<T>) -> Result<tenant::Tenant, Status> {
        let headers = request.metadata().as_ref();
        let found = tenant::resolve(headers, self.0.config.auth_enabled);
        found.map_err(|error: TenantError| http_status(error.status().as_u16(), error.to_string()))
    }

    fn asked<T>(&self, request: Request<T>) -> Result<Asked<T>, Status> {
        let id = self.tenant_id(&request)?;
        let tenant = self.0.open()?.head.tenant(id.as_str());
        Ok(Asked { tenant, request: request.into_inner() })
    }

    fn names(&self, request: Request<client::LabelNamesRequest>) -> Result<Vec<String>, Status> {
        let Asked { tenant, request } = self.asked(request)?;
        let matchers = query::compile_optional(request.matchers.as_ref()).map_err(bad_request)?;
        let range = Range { from: request.start_timestamp_ms, to: request.end_timestamp_ms };
        let names = |tenant: Arc<Tenant>| query::label_names(&tenant, &matchers, range, limit(request.limit));
        Ok(tenant.map(names).unwrap_or_default())
    }

    fn values(&self, request: Request<client::LabelValuesRequest>) -> Result<Vec<String>, Status> {
        let Asked { tenant, request } = self.asked(request)?;
        let matchers = query::compile_optional(request.matchers.as_ref()).map_err(bad_request)?;
        let range = Range { from: request.start_timestamp_ms, to: request.end_timestamp_ms };
        let limit = limit(request.limit);
        let values =
            |tenant: Arc<Tenant>| query::label_values(&tenant, &request.label_name, &matchers, range, limit);
        Ok(tenant.map(values).unwrap_or_default())
    }

    fn metrics(
        &self,
        request: Request<client::MetricsForLabelMatchersRequest>,
    ) -> Result<Vec<cortexpb::Metric>, Status> {
        let Asked { tenant, request } = self.asked(request)?;
        let sets = request.matchers_set.iter().map(|set| query::compile(&set.matchers));
        let sets = sets.collect::<Result<Vec<_>, _>>().map_err(bad_request)?;
        let range = Range { from: request.start_timestamp_ms, to: request.end_timestamp_ms };
        let metrics = |tenant: Arc<Tenant>| query::metrics(&tenant, &sets, range, limit(request.limit));
        Ok(tenant.map(metrics).unwrap_or_default())
    }
}

/// Statistics of one tenant.
pub(crate) fn user_stats(tenant: &Tenant) -> client::UserStatsResponse {
    let rate = tenant.usage.rate.per_second();
    client::UserStatsResponse {
        ingestion_rate: rate,
        num_series: tenant.num_series() as u64,
        api_ingestion_rate: rate,
        active_series: tenant.num_series() as u64,
        ..Default::default()
    }
}

fn bad_request(text: String) -> Status {
    http_status(400, text)
}

fn limit(limit: i64) -> usize {
    usize::try_from(limit).unwrap_or(0)
}

/// A list as a stream of messages.
fn in_messages<T: Send + 'static, M: Send + 'static>(
    mut list: Vec<T>,
    message: impl Fn(Vec<T>) -> M + Send + 'static,
) -> BoxStream<M> {
    let messages = std::iter::from_fn(move || {
        let rest = list.split_off(list.len().min(LIST_MESSAGE));
        let part = std::mem::replace(&mut list, rest);
        (!part.is_empty()).then(|| Ok(message(part)))
    });
    Box::pin(futures::stream::iter(messages))
}

#[tonic::async_trait]
impl Rpc for Service {
    async fn push(
        &self,
        request: Request<cortexpb::WriteRequest>,
    ) -> Result<Response<cortexpb::WriteResponse>, Status> {
        let tenant = self.tenant_id(&request)?;
        self.0.push(tenant.as_str(), request.get_ref()).await.map(Response::new)
    }

    async fn query_stream(
        &self,
        request: Request<client::QueryRequest>,
    ) -> Result<Response<BoxStream<client::QueryStreamResponse>>, Status> {
        let Asked { tenant, request } = self.asked(request)?;
        let cursor = Cursor::new(tenant, &request, Arc::clone(&self.0.id), self.0.metrics.clone());
        let cursor = cursor.map_err(bad_request)?;
        let inflight = self.0.begin_query()?;
        let messages = futures::stream::unfold((cursor, inflight), |(mut cursor, inflight)| async move {
            // Copying a message keeps a thread busy for a while: let others have a turn in between.
            tokio::task::consume_budget().await;
            let message = cursor.next_message()?;
            Some((Ok(message), (cursor, inflight)))
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn query_exemplars(
        &self,
        request: Request<client::ExemplarQueryRequest>,
    ) -> Result<Response<client::ExemplarQueryResponse>, Status> {
        // Exemplars are accepted and not stored.
        self.asked(request)?;
        Ok(Response::new(client::ExemplarQueryResponse::default()))
    }

    async fn label_values(
        &self,
        request: Request<client::LabelValuesRequest>,
    ) -> Result<Response<client::LabelValuesResponse>, Status> {
        Ok(Response::new(client::LabelValuesResponse { label_values: self.values(request)? }))
    }

    async fn label_values_stream(
        &self,
        request: Request<client::LabelValuesRequest>,
    ) -> Result<Response<BoxStream<client::LabelValuesStreamResponse>>, Status> {
        let message = |label_values| client::LabelValuesStreamResponse { label_values };
        Ok(Response::new(in_messages(self.values(request)?, message)))
    }

    async fn label_names(
        &self,
        request: Request<client::LabelNamesRequest>,
    ) -> Result<Response<client::LabelNamesResponse>, Status> {
        Ok(Response::new(client::LabelNamesResponse { label_names: self.names(request)? }))
    }

    async fn label_names_stream(
        &self,
        request: Request<client::LabelNamesRequest>,
    ) -> Result<Response<BoxStream<client::LabelNamesStreamResponse>>, Status> {
        let message = |label_names| client::LabelNamesStreamResponse { label_names };
        Ok(Response::new(in_messages(self.names(request)?, message)))
    }

    async fn user_stats(
        &self,
        request: Request<client::UserStatsRequest>,
    ) -> Result<Response<client::UserStatsResponse>, Status> {
        let stats = self.asked(request)?.tenant.map(|tenant| user_stats(&tenant));
        Ok(Response::new(stats.unwrap_or_default()))
    }

    async fn all_user_stats(
        &self,
        _request: Request<client::UserStatsRequest>,
    ) -> Result<Response<client::UsersStatsResponse>, Status> {
        let tenants = self.0.open()?.head.tenants();
        let one = |tenant: &Arc<Tenant>| client::UserIdStatsResponse {
            user_id: tenant.id.to_string(),
            data: Some(user_stats(tenant)),
        };
        Ok(Response::new(client::UsersStatsResponse { stats: tenants.iter().map(one).collect() }))
    }

    async fn metrics_for_label_matchers(
        &self,
        request: Request<client::MetricsForLabelMatchersRequest>,
    ) -> Result<Response<client::MetricsForLabelMatchersResponse>, Status> {
        Ok(Response::new(client::MetricsForLabelMatchersResponse { metric: self.metrics(request)? }))
    }

    async fn metrics_for_label_matchers_stream(
        &self,
        request: Request<client::MetricsForLabelMatchersRequest>,
    ) -> Result<Response<BoxStream<client::MetricsForLabelMatchersStreamResponse>>, Status> {
        let message = |metric| client::MetricsForLabelMatchersStreamResponse { metric };
        Ok(Response::new(in_messages(self.metrics(request)?, message)))
    }

    async fn metrics_metadata(
        &self,
        request: Request<client::MetricsMetadataRequest>,
    ) -> Result<Response<client::MetricsMetadataResponse>, Status> {
        // Metadata are accepted and not stored.
        self.asked(request)?;
        Ok(Response::new(client::MetricsMetadataResponse::default()))
    }
}
