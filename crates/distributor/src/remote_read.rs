//! Prometheus remote read: protobuf in, protobuf out, both snappy. Answers are `SAMPLES`, which every version of
//! Prometheus understands.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use prost::Message as _;
use ringkit_proto::remote::{ReadRequest, read_request::ResponseType};

use crate::body;
use crate::distributor::Distributor;
use crate::encode;
use crate::error::Refusal;
use crate::merge::Series;
use crate::selector;

/// Queries are matchers and times; more than this is no query. As in Cortex.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;
/// Prometheus sends one.
const MAX_QUERIES: usize = 64;
/// The largest snappy block.
const MAX_RESPONSE_BYTES: usize = u32::MAX as usize;

/// Serves one remote-read request of `tenant`.
///
/// # Errors
///
/// 400 for what cannot be read or understood, 413 for too much of it, and whatever the query itself meets.
pub(crate) async fn read(
    distributor: &Distributor,
    tenant: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let refuse = |error: &body::Error| {
        distributor.metrics.reject(error.reason());
        Refusal::new(error.status(), error.to_string())
    };
    let compressed = body::read(headers, body, MAX_REQUEST_BYTES).await.map_err(|e| refuse(&e))?;
    let bytes = body::decompress(&compressed, MAX_REQUEST_BYTES).map_err(|e| refuse(&e))?;
    let request = decode(bytes).inspect_err(|_| distributor.metrics.reject("protobuf"))?;

    let mut results = Vec::with_capacity(request.queries.len());
    for query in request.queries {
        let matchers =
            selector::from_remote(query.matchers).map_err(|error| Refusal::new(400, error.to_string()))?;
        let (start_ms, end_ms) = (query.start_timestamp_ms, query.end_timestamp_ms);
        let series = distributor.select(tenant, start_ms, end_ms, matchers).await?;
        results.push(series);
    }
    answer(&results)
}

fn decode(bytes: Bytes) -> Result<ReadRequest, Refusal> {
    let request = ReadRequest::decode(bytes)
        .map_err(|error| Refusal::new(400, format!("the body is not a remote-read request: {error}")))?;
    if request.queries.len() > MAX_QUERIES {
        let got = request.queries.len();
        return Err(Refusal::new(
            400,
            format!("{got} queries in one request; at most {MAX_QUERIES} are served"),
        ));
    }
    let accepted = &request.accepted_response_types;
    if !accepted.is_empty() && !accepted.contains(&ResponseType::Samples.into()) {
        return Err(Refusal::new(400, "only the response type SAMPLES is served; accept it as well"));
    }
    Ok(request)
}

/// Encodes and compresses a `ReadResponse`: for each query its series, sorted by labels, samples by time.
fn answer(results: &[Vec<Series>]) -> Result<Response, Refusal> {
    let bytes = encoded(results);
    if bytes.len() > MAX_RESPONSE_BYTES {
        return Err(Refusal::new(
            422,
            "the answer is larger than 4 GiB: query a shorter time or fewer series",
        ));
    }
    let compressed = snap::raw::Encoder::new()
        .compress_vec(&bytes)
        .map_err(|error| Refusal::new(500, format!("cannot compress the answer: {error}")))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf")),
        (header::CONTENT_ENCODING, HeaderValue::from_static("snappy")),
    ];
    Ok((headers, compressed).into_response())
}

fn encoded(results: &[Vec<Series>]) -> Vec<u8> {
    let series_len = |series: &Series| encode::series_len(series.pairs(), series.samples.iter().copied());
    let result_len = |result: &Vec<Series>| {
        result.iter().map(|series| encode::field_len(series_len(series))).sum::<usize>()
    };
    let mut bytes =
        Vec::with_capacity(results.iter().map(|result| encode::field_len(result_len(result))).sum());
    for result in results {
        encode::put_first_field(&mut bytes, result_len(result));
        for series in result {
            encode::put_first_field(&mut bytes, series_len(series));
            encode::put_series(&mut bytes, series.pairs(), series.samples.iter().copied());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringkit_proto::remote::{self, ReadResponse};

    use super::*;

    #[test]
    fn only_requests_that_accept_samples_are_served() {
        let request = |types: &[ResponseType]| {
            let accepted_response_types = types.iter().map(|kind| (*kind).into()).collect();
            decode(ReadRequest { queries: Vec::new(), accepted_response_types }.encode_to_vec().into())
        };
        assert!(request(&[]).is_ok());
        assert!(request(&[ResponseType::StreamedXorChunks, ResponseType::Samples]).is_ok());
        assert_eq!(request(&[ResponseType::StreamedXorChunks]).unwrap_err().status(), 400);
    }

    #[test]
    fn the_number_of_queries_is_bounded() {
        let request =
            ReadRequest { queries: vec![remote::Query::default(); MAX_QUERIES + 1], ..Default::default() };
        assert_eq!(decode(request.encode_to_vec().into()).unwrap_err().status(), 400);
    }

    #[test]
    fn answers_are_read_by_prometheus_bit_by_bit() {
        let values = [f64::from_bits(ringkit_tsdb::STALE_NAN_BITS), -0.0, 0.0, f64::INFINITY];
        let samples: Vec<_> = (0..).zip(values).collect();
        let labels = vec![(Bytes::from_static(b"__name__"), Bytes::from_static(b"up"))];
        let series = Series { labels, samples };
        let bytes = encoded(&[vec![series.clone(), series], vec![]]);
        let response = ReadResponse::decode(&bytes[..]).unwrap();
        assert_eq!(response.results.iter().map(|result| result.timeseries.len()).collect::<Vec<_>>(), [2, 0]);
        let read = &response.results[0].timeseries[1];
        assert_eq!(read.labels[0].value, "up");
        let bits = read.samples.iter().map(|sample| sample.value.to_bits());
        assert!(bits.eq(values.map(f64::to_bits)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(bytes.into());
        }
    }
}
