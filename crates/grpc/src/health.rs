//! `grpc.health.v1.Health`, as Cortex answers it: for the whole process, whatever service is asked for.

use std::sync::Arc;

use futures::stream::Empty;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

pub use tonic_health::pb::health_server::HealthServer;

/// Serves `grpc.health.v1.Health`: SERVING while `is_healthy` says so, else NOT_SERVING. It is called for every check.
///
/// In Cortex a process is healthy from when all its services have started until the last has stopped: one that is
/// still stopping counts as healthy, one that has failed makes the process unhealthy. `Watch` is not supported,
/// as there.
pub fn health_server(is_healthy: impl Fn() -> bool + Send + Sync + 'static) -> HealthServer<ProcessHealth> {
    HealthServer::new(ProcessHealth(Arc::new(is_healthy)))
}

/// The health of a process, told by a closure. Made by [`health_server`].
#[derive(Clone)]
pub struct ProcessHealth(Arc<dyn Fn() -> bool + Send + Sync>);

#[tonic::async_trait]
impl Health for ProcessHealth {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let status = if (self.0)() { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("Watching is not supported"))
    }
}
