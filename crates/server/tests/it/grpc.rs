use ringkit_server::Running;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::toy::{SLOW_START, eventually, get_from, post_to, start, start_ready};

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
