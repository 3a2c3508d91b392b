//! Label names, label values, series and raw samples over HTTP: what dashboards ask besides PromQL, and what people ask
//! who want the samples as they are stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, StatusCode, header};
use ringkit_proto::client::{
    LabelMatcher, LabelMatchers, LabelNamesRequest, LabelValuesRequest, MetricsForLabelMatchersRequest,
};
use ringkit_ring::Instance;
use serde_json::{Value, json};

use crate::distributor::Distributor;
use crate::error::Refusal;
use crate::merge::{Labels, Series};
use crate::metrics::Call;
use crate::selector;

/// One request's selectors. More are a mistake or an attack.
const MAX_SELECTORS: usize = 64;

/// What the endpoints here have in common: `match[]`, `start`, `end`, `limit`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Params {
    selectors: Vec<Vec<LabelMatcher>>,
    start_ms: i64,
    end_ms: i64,
    /// 0 = all.
    limit: usize,
}

impl Params {
    /// Reads a query string or form that has been split into pairs. Unknown keys are ignored, as Prometheus does.
    ///
    /// # Errors
    ///
    /// 400 naming the parameter at fault.
    pub(crate) fn parse(pairs: &[(String, String)]) -> Result<Self, Refusal> {
        let bad = |name: &str, problem: &dyn std::fmt::Display| {
            Refusal::new(400, format!("invalid parameter \"{name}\": {problem}"))
        };
        let mut params = Self { start_ms: i64::MIN, end_ms: i64::MAX, ..Self::default() };
        for (name, value) in pairs {
            match name.as_str() {
                "match[]" if params.selectors.len() >= MAX_SELECTORS => {
                    return Err(bad(name, &format_args!("given more than {MAX_SELECTORS} times")));
                }
                "match[]" => {
                    params.selectors.push(selector::parse(value).map_err(|error| bad(name, &error))?);
                }
                "start" => {
                    params.start_ms = selector::parse_time(value).map_err(|error| bad(name, &error))?;
                }
                "end" => params.end_ms = selector::parse_time(value).map_err(|error| bad(name, &error))?,
                "limit" => params.limit = value.parse().map_err(|error| bad(name, &error))?,
                _ => (),
            }
        }
        if params.start_ms > params.end_ms {
            return Err(bad("end", &"end timestamp must not be before start timestamp"));
        }
        Ok(params)
    }

    fn need_selectors(&self) -> Result<(), Refusal> {
        if self.selectors.is_empty() {
            return Err(Refusal::new(400, "no match[] parameter provided"));
        }
        Ok(())
    }

    fn cut<T>(&self, mut items: Vec<T>) -> Vec<T> {
        if self.limit > 0 {
            items.truncate(self.limit);
        }
        items
    }

    /// The selectors as separate questions; without any, one question about everything.
    fn questions(&self) -> Vec<Option<LabelMatchers>> {
        if self.selectors.is_empty() {
            return vec![None];
        }
        self.selectors.iter().map(|matchers| Some(LabelMatchers { matchers: matchers.clone() })).collect()
    }
}

impl Distributor {
    /// The names of all labels of the matching series, sorted.
    ///
    /// # Errors
    ///
    /// As [`Distributor::ask_all`].
    pub(crate) async fn label_names(&self, tenant: &str, params: &Params) -> Result<Vec<String>, Refusal> {
        let range = self.ingesters_range(&self.limits(tenant), params.start_ms, params.end_ms);
        let Some((start_timestamp_ms, end_timestamp_ms)) = range else { return Ok(Vec::new()) };
        let mut names = BTreeSet::new();
        for matchers in params.questions() {
            let limit = i64::try_from(params.limit).unwrap_or(i64::MAX);
            let request = LabelNamesRequest { start_timestamp_ms, end_timestamp_ms, limit, matchers };
            let ask = |instance: Arc<Instance>| {
                let request = request.clone();
                async move { self.ingesters.label_names(&instance, tenant, request).await }
            };
            let answers = self.ask_all(Call::LabelNames, tenant, start_timestamp_ms, ask).await?;
            names.extend(answers.into_iter().flatten());
        }
        Ok(params.cut(names.into_iter().collect()))
    }

    /// The values of label `name` of the matching series, sorted.
    ///
    /// # Errors
    ///
    /// As [`Distributor::ask_all`].
    pub(crate) async fn label_values(
        &self,
        tenant: &str,
        name: &str,
        params: &Params,
    ) -> Result<Vec<String>, Refusal> {
        let range = self.ingesters_range(&self.limits(tenant), params.start_ms, params.end_ms);
        let Some((start_timestamp_ms, end_timestamp_ms)) = range else { return Ok(Vec::new()) };
        let mut values = BTreeSet::new();
        for matchers in params.questions() {
            let limit = i64::try_from(params.limit).unwrap_or(i64::MAX);
            let label_name = name.to_owned();
            let request =
                LabelValuesRequest { label_name, start_timestamp_ms, end_timestamp_ms, matchers, limit };
            let ask = |instance: Arc<Instance>| {
                let request = request.clone();
                async move { self.ingesters.label_values(&instance, tenant, request).await }
            };
            let answers = self.ask_all(Call::LabelValues, tenant, start_timestamp_ms, ask).await?;
            values.extend(answers.into_iter().flatten());
        }
        Ok(params.cut(values.into_iter().collect()))
    }

    /// The label sets of the matching series, sorted.
    ///
    /// # Errors
    ///
    /// 400 without a selector, else as [`Distributor::ask_all`].
    pub(crate) async fn series(&self, tenant: &str, params: &Params) -> Result<Vec<Labels>, Refusal> {
        params.need_selectors()?;
        let range = self.ingesters_range(&self.limits(tenant), params.start_ms, params.end_ms);
        let Some((start_timestamp_ms, end_timestamp_ms)) = range else { return Ok(Vec::new()) };
        let limit = i64::try_from(params.limit).unwrap_or(i64::MAX);
        let matchers_set = params.questions().into_iter().flatten().collect();
        let request =
            MetricsForLabelMatchersRequest { start_timestamp_ms, end_timestamp_ms, matchers_set, limit };
        let ask = |instance: Arc<Instance>| {
            let request = request.clone();
            async move { self.ingesters.series(&instance, tenant, request).await }
        };
        let answers = self.ask_all(Call::Series, tenant, start_timestamp_ms, ask).await?;
        let series: BTreeSet<Labels> = answers.into_iter().flatten().collect();
        Ok(params.cut(series.into_iter().collect()))
    }

    /// The samples of the matching series, sorted by labels.
    ///
    /// # Errors
    ///
    /// 400 without a selector, else as [`Distributor::select`].
    pub(crate) async fn samples(&self, tenant: &str, params: &Params) -> Result<Vec<Series>, Refusal> {
        params.need_selectors()?;
        let mut series: BTreeMap<Labels, Series> = BTreeMap::new();
        for matchers in &params.selectors {
            let answer = self.select(tenant, params.start_ms, params.end_ms, matchers.clone()).await?;
            series.extend(answer.into_iter().map(|series| (series.labels.clone(), series)));
        }
        Ok(params.cut(series.into_values().collect()))
    }
}

/// An answer of Prometheus' HTTP API.
pub(crate) fn prometheus<T: Into<Value>>(answer: Result<T, Refusal>) -> Response {
    match answer {
        Ok(data) => axum::Json(json!({"status": "success", "data": data.into()})).into_response(),
        Err(refusal) => {
            let kind = match refusal.status() {
                422 => "execution",
                400..500 => "bad_data",
                503 | 504 => "unavailable",
                _ => "internal",
            };
            let body = json!({"status": "error", "errorType": kind, "error": refusal.to_string()});
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, axum::Json(body)).into_response()
        }
    }
}

/// Label sets as JSON objects.
pub(crate) fn label_sets(series: &[Labels]) -> Value {
    series.iter().map(labels_json).collect()
}

fn labels_json(labels: &Labels) -> Value {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    Value::Object(labels.iter().map(|(name, value)| (text(name), Value::String(text(value)))).collect())
}

/// Series as JSON lines: `{"labels":{…},"samples":[[milliseconds,"value"],…]}`, written as the client reads them.
pub(crate) fn json_lines(series: Vec<Series>) -> Response {
    let lines = series.into_iter().map(|series| Ok::<_, std::convert::Infallible>(json_line(&series)));
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    (headers, Body::from_stream(stream::iter(lines))).into_response()
}

fn json_line(series: &Series) -> String {
    let mut line = format!("{{\"labels\":{},\"samples\":[", labels_json(&series.labels));
    for (index, (timestamp, value)) in series.samples.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(line, "{comma}[{timestamp},\"");
        push_value(&mut line, *value);
        line.push_str("\"]");
    }
    line.push_str("]}\n");
    line
}

/// Writes a value so that reading it gives the same bits back, NaNs aside; the infinities as Prometheus spells them.
fn push_value(out: &mut String, value: f64) {
    let _ = match value {
        f64::INFINITY => write!(out, "+Inf"),
        f64::NEG_INFINITY => write!(out, "-Inf"),
        _ if value != 0.0 && !(1e-5..1e17).contains(&value.abs()) && !value.is_nan() => {
            write!(out, "{value:e}")
        }
        _ => write!(out, "{value}"),
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Params, Refusal> {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Params::parse(&pairs)
    }

    #[test]
    fn parameters_are_read_and_checked() {
        let params =
            parse(&[("match[]", "up"), ("match[]", "{a=\"b\"}"), ("start", "1"), ("end", "2"), ("x", "y")]);
        let params = params.unwrap();
        assert_eq!(
            (params.selectors.len(), params.start_ms, params.end_ms, params.limit),
            (2, 1000, 2000, 0)
        );
        for bad in [("match[]", "{"), ("start", "x"), ("end", ""), ("limit", "-1")] {
            let refusal = parse(&[bad]).unwrap_err();
            assert_eq!(refusal.status(), 400);
            assert!(refusal.to_string().contains(bad.0), "{refusal}");
        }
        assert_eq!(parse(&[("start", "2"), ("end", "1")]).unwrap_err().status(), 400);
        assert_eq!(parse(&[("match[]", "up"); MAX_SELECTORS + 1]).unwrap_err().status(), 400);
    }

    #[test]
    fn samples_are_lines_of_json() {
        let labels = vec![(Bytes::from_static(b"__name__"), Bytes::from_static(b"a\"b"))];
        let samples = vec![(1, 1.5), (2, f64::NAN), (3, f64::INFINITY), (4, f64::NEG_INFINITY), (5, 1e300)];
        let line = json_line(&Series { labels, samples });
        assert_eq!(
            line,
            "{\"labels\":{\"__name__\":\"a\\\"b\"},\"samples\":[[1,\"1.5\"],[2,\"NaN\"],[3,\"+Inf\"],[4,\"-Inf\"],[5,\"1e300\"]]}\n"
        );
        serde_json::from_str::<Value>(&line).unwrap();
    }

    proptest! {
        #[test]
        fn values_are_read_back_as_they_were(value in any::<f64>()) {
            let mut text = String::new();
            push_value(&mut text, value);
            prop_assert!(text.len() < 30, "{text}");
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
        }
    }
}
