//! What the tests say to a cluster over HTTP.

use std::time::Duration;

use prost::Message as _;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use ringkit_proto::cortexpb::{LabelPair, Sample, TimeSeries, WriteRequest};

/// A client of one process.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) url: String,
    http: reqwest::Client,
}

/// Status and text of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Api {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        Self { url: url.into(), http }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.http.get(format!("{}{path}", self.url))).await
    }

    /// A well-formed remote write of one sample.
    pub(crate) async fn push(&self, labels: &[(&str, &str)], timestamp_ms: i64, value: f64) -> Answer {
        self.push_body(snappy(&write_request(&[(labels, timestamp_ms, value)])), &[]).await
    }

    /// A remote write of any body; `headers` replace the right ones.
    pub(crate) async fn push_body(&self, body: Vec<u8>, headers: &[(&'static str, &str)]) -> Answer {
        let mut request = self
            .http
            .post(format!("{}/api/v1/push", self.url))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(CONTENT_ENCODING, "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .body(body)
            .build()
            .unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let response = self.http.execute(request).await.unwrap();
        Answer { status: response.status().as_u16(), text: response.text().await.unwrap_or_default() }
    }

    /// The sum of a metric over all series whose line contains `with`.
    pub(crate) async fn metric(&self, name: &str, with: &str) -> f64 {
        let text = self.get("/metrics").await.text;
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| line.contains(with))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    Answer { status: response.status().as_u16(), text: response.text().await.unwrap() }
}

pub(crate) fn snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).unwrap()
}

type Series<'a> = (&'a [(&'a str, &'a str)], i64, f64);

/// The protobuf of a write request with one sample per series, labels in the order given.
pub(crate) fn write_request(series: &[Series<'_>]) -> Vec<u8> {
    let timeseries = series.iter().map(|(labels, timestamp_ms, value)| {
        let labels = labels
            .iter()
            .map(|(name, value)| LabelPair {
                name: name.as_bytes().to_vec().into(),
                value: value.as_bytes().to_vec().into(),
            })
            .collect();
        let samples = vec![Sample { value: *value, timestamp_ms: *timestamp_ms }];
        TimeSeries { labels, samples, ..TimeSeries::default() }.encode_to_vec().into()
    });
    WriteRequest { timeseries: timeseries.collect(), ..WriteRequest::default() }.encode_to_vec()
}

pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
