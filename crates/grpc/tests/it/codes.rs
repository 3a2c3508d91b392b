use prost::Message as _;
use ringkit_grpc::{PoolOptions, http_code};
use ringkit_proto::client::{LabelNamesRequest, QueryRequest};

use crate::rig::{Rig, framed};

#[tokio::test]
async fn a_client_of_ours_reads_code_and_message_of_an_error() {
    let rig = Rig::start().await;
    let mut client = rig.client(&PoolOptions::default());
    for code in [400, 429, 503] {
        let request = LabelNamesRequest { limit: code.into(), ..Default::default() };
        let status = client.label_names(request).await.unwrap_err();
        assert_eq!(http_code(&status), Some(code));
        assert_eq!(status.message(), format!("code {code}: schlüssig"));
    }
}

#[tokio::test]
async fn a_client_of_ours_reads_code_and_message_of_an_error_behind_a_stream() {
    let rig = Rig::start().await;
    let mut client = rig.client(&PoolOptions::default());
    for code in [400, 429, 503] {
        let request = QueryRequest { start_timestamp_ms: code.into(), ..Default::default() };
        let mut stream = client.query_stream(request).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some());
        let status = stream.message().await.unwrap_err();
        assert_eq!((http_code(&status), status.message()), (Some(code), "later"));
    }
}

#[tokio::test]
async fn on_the_wire_an_error_from_the_start_has_its_http_code_as_status() {
    let rig = Rig::start().await;
    for code in [400, 429, 503] {
        let request = LabelNamesRequest { limit: code, ..Default::default() };
        let answer = rig.raw("cortex.Ingester/LabelNames", &[], framed(0, &request.encode_to_vec())).await;
        assert_eq!(answer.headers["grpc-status"], code.to_string());
        assert!(answer.headers.contains_key("grpc-status-details-bin"));
        assert!(answer.trailers.is_none());
    }
}

#[tokio::test]
async fn on_the_wire_an_error_behind_a_stream_has_its_http_code_as_status() {
    let rig = Rig::start().await;
    for (compressed, code) in [(false, 400), (true, 429), (false, 503)] {
        let request = QueryRequest { start_timestamp_ms: code, ..Default::default() };
        let headers = if compressed { &[("grpc-encoding", "snappy-block")][..] } else { &[] };
        let answer =
            rig.raw("cortex.Ingester/QueryStream", headers, framed(0, &request.encode_to_vec())).await;
        assert_eq!(answer.messages().len(), 1);
        assert!(!answer.headers.contains_key("grpc-status"));
        let trailers = answer.trailers.unwrap();
        assert_eq!(trailers["grpc-status"], code.to_string());
    }
}

#[tokio::test]
async fn on_the_wire_an_error_of_grpc_keeps_its_own_code() {
    let rig = Rig::start().await;
    let answer = rig.raw("cortex.Ingester/MetricsMetadata", &[], framed(0, b"")).await;
    assert_eq!(answer.headers["grpc-status"], "12");
}
