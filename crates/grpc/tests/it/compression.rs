use prost::Message as _;
use ringkit_grpc::{Compression, PoolOptions};
use ringkit_proto::client::{LabelNamesRequest, QueryRequest};
use ringkit_proto::cortexpb::WriteRequest;
use tonic::Code;

use crate::rig::{LIMIT, Rig, framed, snappy};

const ON: &[(&str, &str)] = &[("grpc-encoding", "snappy-block")];

fn options(compression: Compression) -> PoolOptions {
    PoolOptions { compression, max_recv_bytes: LIMIT, ..Default::default() }
}

fn write_request(bytes: usize) -> WriteRequest {
    WriteRequest { timeseries: vec![vec![b'x'; bytes].into()], ..Default::default() }
}

#[tokio::test]
async fn requests_and_answers_arrive_whole_with_and_without_compression() {
    let rig = Rig::start().await;
    for compression in [Compression::None, Compression::SnappyBlock] {
        let mut client = rig.client(&options(compression));
        for bytes in [0, 1, 1000, 500_000] {
            let written = client.push(write_request(bytes)).await.unwrap().into_inner().samples;
            assert_eq!(usize::try_from(written), Ok(bytes));
        }
        let names = client.label_names(LabelNamesRequest::default()).await.unwrap().into_inner().label_names;
        assert_eq!((names.len(), names[99].len()), (100, 1000));
    }
}

#[tokio::test]
async fn a_compressed_request_is_answered_compressed() {
    let rig = Rig::start().await;
    let request = snappy(&LabelNamesRequest { end_timestamp_ms: 1, ..Default::default() }.encode_to_vec());
    let answer = rig.raw("cortex.Ingester/LabelNames", ON, framed(1, &request)).await;
    assert_eq!(answer.headers["grpc-encoding"], "snappy-block");
    assert_eq!(answer.headers["grpc-accept-encoding"], "snappy-block");
    let [(1, payload)] = &answer.messages()[..] else { panic!("one compressed message expected") };
    assert!(payload.len() < 10_000, "{}", payload.len());
    assert!(snap::raw::decompress_len(payload).unwrap() > 100_000);
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn an_uncompressed_request_is_answered_uncompressed() {
    let rig = Rig::start().await;
    let headers = [("grpc-accept-encoding", "gzip,snappy-block")];
    let answer = rig.raw("cortex.Ingester/LabelNames", &headers, framed(0, b"")).await;
    assert!(!answer.headers.contains_key("grpc-encoding"));
    let [(0, payload)] = &answer.messages()[..] else { panic!("one uncompressed message expected") };
    assert!(payload.len() > 100_000);
}

#[tokio::test]
async fn an_uncompressed_message_in_a_compressed_stream_is_taken_as_it_is() {
    let rig = Rig::start().await;
    let answer = rig.raw("cortex.Ingester/Push", ON, framed(0, &write_request(300).encode_to_vec())).await;
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn health_checks_are_compressed_like_everything_else() {
    let rig = Rig::start().await;
    // Old Go peers compress even the empty message.
    let answer = rig.raw("grpc.health.v1.Health/Check", ON, framed(1, &snappy(b""))).await;
    assert_eq!(answer.headers["grpc-encoding"], "snappy-block");
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn an_unknown_encoding_is_refused_with_a_list_of_known_ones() {
    let rig = Rig::start().await;
    let answer = rig.raw("cortex.Ingester/LabelNames", &[("grpc-encoding", "snappy")], framed(0, b"")).await;
    assert_eq!(answer.headers["grpc-status"], "12");
    assert_eq!(answer.headers["grpc-accept-encoding"], "identity,snappy-block");
}

#[tokio::test]
async fn a_server_refuses_a_request_that_claims_too_much() {
    let rig = Rig::start().await;
    let oversize = write_request(LIMIT + 1).encode_to_vec();
    for message in [framed(1, &snappy(&oversize)), framed(0, &oversize)] {
        let answer = rig.raw("cortex.Ingester/Push", ON, message).await;
        assert_eq!(answer.headers["grpc-status"], "8");
    }
    let mut client = rig.client(&options(Compression::SnappyBlock));
    let status = client.push(write_request(LIMIT + 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}

#[tokio::test]
async fn a_client_refuses_an_answer_that_claims_too_much() {
    let rig = Rig::start().await;
    for compression in [Compression::None, Compression::SnappyBlock] {
        let mut client = rig.client(&options(compression)).max_decoding_message_size(LIMIT);
        let fits =
            QueryRequest { end_timestamp_ms: i64::try_from(LIMIT).unwrap() - 100, ..Default::default() };
        let mut stream = client.query_stream(fits).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some());
        let exceeds = QueryRequest { end_timestamp_ms: i64::try_from(LIMIT).unwrap(), ..Default::default() };
        let mut stream = client.query_stream(exceeds).await.unwrap().into_inner();
        let status = stream.message().await.unwrap_err();
        assert!(matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange), "{status}");
    }
}

#[tokio::test]
async fn a_corrupt_block_is_an_error_of_the_call_not_of_the_connection() {
    let rig = Rig::start().await;
    let answer = rig.raw("cortex.Ingester/Push", ON, framed(1, &[10, 0xff, 0xff])).await;
    assert_eq!(answer.headers["grpc-status"], "13");
    let answer = rig.raw("cortex.Ingester/Push", ON, framed(1, &snappy(b""))).await;
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
}
