//! Prometheus remote read: protobuf in, protobuf out, both snappy. Answers are `SAMPLES`, which every version of
//! Prometheus understands.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use prost::Message as _;
use ringkit_proto::remote::{self, ReadRequest, ReadResponse, read_request::ResponseType};

use crate::body;
use crate::distributor::Distributor;
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
        results.push(to_result(series));
    }
    encode(&ReadResponse { results })
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

fn encode(response: &ReadResponse) -> Result<Response, Refusal> {
    if response.encoded_len() > MAX_RESPONSE_BYTES {
        return Err(Refusal::new(
            422,
            "the answer is larger than 4 GiB: query a shorter time or fewer series",
        ));
    }
    let compressed = snap::raw::Encoder::new()
        .compress_vec(&response.encode_to_vec())
        .map_err(|error| Refusal::new(500, format!("cannot compress the answer: {error}")))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf")),
        (header::CONTENT_ENCODING, HeaderValue::from_static("snappy")),
    ];
    Ok((headers, compressed).into_response())
}

/// One query's series as Prometheus wants them: sorted by labels, samples by time.
fn to_result(series: Vec<Series>) -> remote::QueryResult {
    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
    let convert = |series: Series| remote::TimeSeries {
        labels: series
            .labels
            .into_iter()
            .map(|(name, value)| remote::Label { name: text(name), value: text(value) })
            .collect(),
        samples: series
            .samples
            .into_iter()
            .map(|(timestamp, value)| remote::Sample { value, timestamp })
            .collect(),
    };
    remote::QueryResult { timeseries: series.into_iter().map(convert).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn staleness_markers_go_out_bit_by_bit() {
        let stale = f64::from_bits(ringkit_tsdb::STALE_NAN_BITS);
        let labels = vec![(Bytes::from_static(b"__name__"), Bytes::from_static(b"up"))];
        let result = to_result(vec![Series { labels, samples: vec![(5, stale)] }]);
        assert_eq!(result.timeseries[0].samples[0].value.to_bits(), ringkit_tsdb::STALE_NAN_BITS);
        assert_eq!(result.timeseries[0].labels[0].value, "up");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(bytes.into());
        }
    }
}
