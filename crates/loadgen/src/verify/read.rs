//! Asking a server for the samples of one pod in one window, by remote read or as JSON lines.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use reqwest::{Client, Url};
use ringkit_proto::remote;
use tokio::time::sleep;

use super::check::{ReadSeries, Window};
use super::{ReadBy, VerifyOptions};
use crate::encode::compress;
use crate::error::Error;
use crate::http::{self, MAX_ANSWER_BYTES};
use crate::plan::Plan;
use crate::series;

/// Pause after a failed query; doubled each time.
const RETRY_PERIOD: Duration = Duration::from_millis(100);

pub(super) struct Reader {
    client: Client,
    url: Url,
    tenant: Option<String>,
    by: ReadBy,
    attempts: u32,
}

pub(super) struct Answer {
    pub(super) series: Vec<ReadSeries>,
    /// Attempts that failed before.
    pub(super) failures: u64,
}

impl Reader {
    pub(super) fn new(options: &VerifyOptions) -> Result<Self, Error> {
        let path = match options.by {
            ReadBy::RemoteRead => "/prometheus/api/v1/read",
            ReadBy::JsonLines => "/api/v1/samples",
        };
        Ok(Self {
            client: http::client(options.timeout)?,
            url: http::endpoint("url", &options.url, path)?,
            tenant: options.tenant.clone(),
            by: options.by,
            attempts: options.attempts.max(1),
        })
    }

    /// Asks until there is a complete answer or the attempts are used up.
    pub(super) async fn read(&self, plan: &Plan, pod: u32, window: Window) -> Result<Answer, Error> {
        let mut pause = RETRY_PERIOD;
        let mut failures = 0;
        loop {
            match self.once(plan, pod, window).await {
                Ok(series) => return Ok(Answer { series, failures }),
                Err(problem) => {
                    failures += 1;
                    if failures >= u64::from(self.attempts) {
                        return Err(Error::Read { url: self.url.to_string(), problem });
                    }
                }
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    async fn once(&self, plan: &Plan, pod: u32, window: Window) -> Result<Vec<ReadSeries>, String> {
        let pod = series::pod(plan, pod);
        let mut request = match self.by {
            ReadBy::RemoteRead => self
                .client
                .post(self.url.clone())
                .header("content-type", "application/x-protobuf")
                .header("content-encoding", "snappy")
                .header("x-prometheus-remote-read-version", "0.1.0")
                .body(remote_read_body(&pod, window)),
            ReadBy::JsonLines => {
                let mut url = self.url.clone();
                url.query_pairs_mut()
                    .append_pair("match[]", &format!("{{pod=\"{pod}\"}}"))
                    .append_pair("start", &seconds(window.start))
                    .append_pair("end", &seconds(window.end - 1));
                self.client.get(url)
            }
        };
        if let Some(tenant) = &self.tenant {
            request = request.header(http::TENANT_HEADER, tenant);
        }
        let (status, body) = http::exchange(request).await?;
        if status != 200 {
            return Err(format!("status {status}: {}", http::shown(&body)));
        }
        match self.by {
            ReadBy::RemoteRead => parse_remote_read(&body),
            ReadBy::JsonLines => parse_json_lines(&body),
        }
    }
}

fn remote_read_body(pod: &str, window: Window) -> Bytes {
    let matcher = remote::LabelMatcher {
        r#type: remote::label_matcher::Type::Eq as i32,
        name: "pod".to_owned(),
        value: pod.to_owned(),
    };
    let query = remote::Query {
        start_timestamp_ms: window.start,
        // Both ends belong to a query.
        end_timestamp_ms: window.end - 1,
        matchers: vec![matcher],
        hints: None,
    };
    compress(
        &remote::ReadRequest { queries: vec![query], accepted_response_types: Vec::new() }.encode_to_vec(),
    )
}

fn parse_remote_read(body: &[u8]) -> Result<Vec<ReadSeries>, String> {
    let claimed =
        snap::raw::decompress_len(body).map_err(|cause| format!("the answer is not snappy: {cause}"))?;
    if claimed > MAX_ANSWER_BYTES {
        return Err(format!("the answer claims {claimed} bytes"));
    }
    let message = snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|cause| format!("the answer is not snappy: {cause}"))?;
    let response = remote::ReadResponse::decode(message.as_slice())
        .map_err(|cause| format!("the answer is no remote read response: {cause}"))?;
    if response.results.len() != 1 {
        return Err(format!("the answer holds {} results for one query", response.results.len()));
    }
    let series = response.results.into_iter().flat_map(|result| result.timeseries);
    Ok(series
        .map(|series| ReadSeries {
            labels: series.labels.into_iter().map(|label| (label.name, label.value)).collect(),
            samples: series.samples.into_iter().map(|sample| (sample.timestamp, sample.value)).collect(),
        })
        .collect())
}

/// Milliseconds as Prometheus' API writes times: seconds with a fraction.
fn seconds(ms: i64) -> String {
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
}

/// One series per line: `{"labels": {name: value…}, "samples": [[milliseconds, "value"]…]}`. Values may be numbers or strings;
/// strings are how NaN and the infinities are written.
fn parse_json_lines(body: &[u8]) -> Result<Vec<ReadSeries>, String> {
    let text = std::str::from_utf8(body).map_err(|cause| format!("the answer is no UTF-8: {cause}"))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| parse_line(line).map_err(|problem| format!("line {}: {problem}", number + 1)))
        .collect()
}

fn parse_line(line: &str) -> Result<ReadSeries, String> {
    let line: Line =
        serde_json::from_str(line).map_err(|cause| format!("{cause}: {}", http::shown(line.as_bytes())))?;
    let samples = line.samples.into_iter().map(|(timestamp, value)| Ok((timestamp, value.parse()?)));
    Ok(ReadSeries {
        labels: line.labels.into_iter().collect(),
        samples: samples.collect::<Result<_, String>>()?,
    })
}

#[derive(serde::Deserialize)]
struct Line {
    labels: std::collections::BTreeMap<String, String>,
    samples: Vec<(i64, Number)>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Number {
    Number(f64),
    Text(String),
}

impl Number {
    fn parse(self) -> Result<f64, String> {
        match self {
            Self::Number(value) => Ok(value),
            Self::Text(text) => text.parse().map_err(|_| format!("`{text}` is no number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_are_read_with_special_values() {
        let text = "{\"labels\":{\"b\":\"2\",\"a\":\"1\"},\"samples\":[[10,\"1.5\"],[20,\"+Inf\"],[30,\"NaN\"],[40,7]]}\n\n";
        let series = parse_json_lines(text.as_bytes()).unwrap();
        assert_eq!(series[0].labels, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        assert_eq!(series[0].samples[..2], [(10, 1.5), (20, f64::INFINITY)]);
        assert!(series[0].samples[2].1.is_nan());
        assert_eq!(series[0].samples[3], (40, 7.0));
        assert!(parse_json_lines(b"{}").unwrap_err().contains("line 1"));
        assert!(parse_json_lines(b"{\"labels\":{},\"samples\":[[1,\"x\"]]}").unwrap_err().contains("`x`"));
    }

    #[test]
    fn nonsense_is_an_error_and_not_an_empty_answer() {
        assert!(parse_remote_read(b"").is_err());
        assert!(parse_remote_read(&[0xff; 32]).is_err());
        assert!(parse_remote_read(&compress(b"")).unwrap_err().contains("0 results"));
        // A claim of 4 GiB in a few bytes.
        assert!(parse_remote_read(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]).is_err());
    }

    #[test]
    fn times_are_written_as_seconds_with_milliseconds() {
        assert_eq!(seconds(1_700_000_000_005), "1700000000.005");
        assert_eq!(seconds(-1), "-0.001");
    }
}
