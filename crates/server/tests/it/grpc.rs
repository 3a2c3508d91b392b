use std::sync::Arc;
use std::time::Duration;

use ringkit_server::Running;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use tower::ServiceExt as _;

use crate::toy::{SLOW_START, Strings, eventually, get_from, post_to, start, start_ready};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

async fn client(running: &Running) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", running.grpc_addr)).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

async fn health(client: &mut HealthClient<Channel>) -> i32 {
    let request = HealthCheckRequest { service: String::new() };
    client.check(request).await.unwrap().into_inner().status
}

#[tokio::test]
async fn health_is_serving_once_everything_runs_whatever_the_conditions_say() {
    let running = start(SLOW_START).await;
    let mut client = client(&running).await;
    assert_eq!(health(&mut client).await, NOT_SERVING, "the toy is still starting");
    eventually("the toy waits for its go", async || {
        post_to(&running, "/toy/go").await;
        health(&mut client.clone()).await == SERVING
    })
    .await;
    assert_eq!(get_from(&running, "/ready").await.0, 503, "and the toy's own condition does not hold yet");
    let watch = client.watch(HealthCheckRequest { service: String::new() }).await.unwrap_err();
    assert_eq!(watch.code(), tonic::Code::Unimplemented);
    let _ = running.stop().await;
}

#[tokio::test]
async fn calls_are_measured_by_method_and_unknown_methods_leave_no_trace() {
    let running = start_ready("").await;
    let mut client = client(&running).await;
    health(&mut client).await;
    health(&mut client).await;
    let error = client.watch(HealthCheckRequest { service: String::new() }).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unimplemented);
    let expected = "cortex_request_duration_seconds_count{method=\"gRPC\",route=\"/grpc.health.v1.Health/Check\",\
                    status_code=\"success\",ws=\"false\"} 2\n";
    eventually("the calls are counted", async || get_from(&running, "/metrics").await.1.contains(expected))
        .await;
    let metrics = get_from(&running, "/metrics").await.1;
    assert!(!metrics.contains("Health/Watch"), "{metrics}");
    assert!(
        metrics
            .contains("cortex_inflight_requests{method=\"gRPC\",route=\"/grpc.health.v1.Health/Check\"} 0\n")
    );
    let _ = running.stop().await;
}

/// Makes a call that never ends, and waits until it is being served.
async fn endless(running: &Running) -> JoinHandle<Result<http::Response<Body>, tonic::transport::Error>> {
    let strings = running.get::<Strings>().unwrap();
    let before = Arc::strong_count(&strings.0.calls);
    let request = http::Request::post(format!("http://{}/toy.Endless/Call", running.grpc_addr))
        .header("content-type", "application/grpc");
    let request = request.body(Body::empty()).unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", running.grpc_addr)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let call = tokio::spawn(channel.oneshot(request));
    eventually("the call is served", async || Arc::strong_count(&strings.0.calls) > before).await;
    call
}

#[tokio::test]
async fn abort_drops_the_handlers_of_calls() {
    let running = start_ready("").await;
    let call = endless(&running).await;
    let strings = running.get::<Strings>().unwrap();
    running.abort();
    assert!(call.await.unwrap().is_err(), "the connection was cut");
    eventually("the handler is gone", async || Arc::strong_count(&strings.0.calls) == 1).await;
}

#[tokio::test]
async fn an_orderly_stop_cuts_calls_that_outlast_the_grace_period() {
    let mut config = crate::toy::config("");
    config.server.graceful_shutdown_timeout = Duration::from_millis(100);
    let running = crate::toy::app(config).start().await.unwrap();
    let call = endless(&running).await;
    let strings = running.get::<Strings>().unwrap();
    assert!(running.stop().await.is_clean());
    assert!(call.await.unwrap().is_err());
    eventually("the handler is gone", async || Arc::strong_count(&strings.0.calls) == 1).await;
}

#[tokio::test]
async fn old_and_idle_connections_are_closed_in_order() {
    for (age, idle) in
        [(Duration::from_millis(50), Duration::MAX), (Duration::MAX, Duration::from_millis(50))]
    {
        let mut config = crate::toy::config("");
        config.server.grpc_server_max_connection_age = age;
        config.server.grpc_server_max_connection_idle = idle;
        let running = crate::toy::app(config).start().await.unwrap();
        let mut client = client(&running).await;
        health(&mut client).await;
        let closed = "cortex_tcp_connections{protocol=\"grpc\"} 0\n";
        eventually("the connection is closed", async || running.metrics().contains(closed)).await;
        // A new one is made when it is needed.
        health(&mut client).await;
        let _ = running.stop().await;
    }
}
