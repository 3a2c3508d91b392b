//! Which series are accepted: Cortex's rules, reasons and wording. Pure: time comes in as an argument.
//!
//! Two passes. [`Rules::is_clean`] looks at labels as they arrived, without allocating; nearly every series passes it
//! and its original bytes can be forwarded. Only what it turns down goes through [`Rules::repair`], which drops
//! empty-valued labels and sorts the rest as Cortex does, and names the rule that a bad series breaks.
//!
//! Source: Cortex `pkg/util/validation/validate.go` and `pkg/distributor/distributor.go` (`prepareSeriesKeys`).

use ringkit_config::LimitsConfig;

use crate::text;

/// One label as it stands in a request: name and value.
pub(crate) type Pair<'a> = (&'a [u8], &'a [u8]);

const METRIC_NAME: &[u8] = b"__name__";

/// Why samples were not stored; the label `reason` of `cortex_discarded_samples_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No `__name__`, or an empty one.
    MissingMetricName,
    /// The metric's name has characters outside `[a-zA-Z0-9_:]`, or begins with a digit.
    MetricNameInvalid,
    /// More labels than `limits.max_label_names_per_series`.
    MaxLabelNamesPerSeries,
    /// A label's name is outside `[a-zA-Z_][a-zA-Z0-9_]*`, or its value is not UTF-8.
    LabelInvalid,
    /// A name longer than `limits.max_label_name_length` bytes.
    LabelNameTooLong,
    /// A value longer than `limits.max_label_value_length` bytes.
    LabelValueTooLong,
    /// One name twice.
    DuplicateLabelNames,
    /// All names and values together are longer than `limits.max_labels_size_bytes`.
    LabelsSizeBytesExceeded,
    /// A sample later than now plus `limits.creation_grace_period`.
    TooFarInFuture,
    /// A sample older than `limits.reject_old_samples_max_age`.
    GreaterThanMaxSampleAge,
    /// Native histograms are not stored.
    NativeHistogramUnsupported,
    /// The tenant is over `limits.ingestion_rate`.
    RateLimited,
}

impl Reason {
    /// Every reason, in the order of [`Reason::index`].
    pub(crate) const ALL: [Self; 12] = [
        Self::MissingMetricName,
        Self::MetricNameInvalid,
        Self::MaxLabelNamesPerSeries,
        Self::LabelInvalid,
        Self::LabelNameTooLong,
        Self::LabelValueTooLong,
        Self::DuplicateLabelNames,
        Self::LabelsSizeBytesExceeded,
        Self::TooFarInFuture,
        Self::GreaterThanMaxSampleAge,
        Self::NativeHistogramUnsupported,
        Self::RateLimited,
    ];

    /// The value of the label `reason`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::MissingMetricName => "missing_metric_name",
            Self::MetricNameInvalid => "metric_name_invalid",
            Self::MaxLabelNamesPerSeries => "max_label_names_per_series",
            Self::LabelInvalid => "label_invalid",
            Self::LabelNameTooLong => "label_name_too_long",
            Self::LabelValueTooLong => "label_value_too_long",
            Self::DuplicateLabelNames => "duplicate_label_names",
            Self::LabelsSizeBytesExceeded => "labels_size_bytes_exceeded",
            Self::TooFarInFuture => "too_far_in_future",
            Self::GreaterThanMaxSampleAge => "greater_than_max_sample_age",
            Self::NativeHistogramUnsupported => "native-histogram-unsupported",
            Self::RateLimited => "rate_limited",
        }
    }

    /// This reason's place in [`Reason::ALL`] and in arrays of counters.
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// A broken rule: the counter's reason and the client's text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// One tenant's rules at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    enforce_metric_name: bool,
    max_label_names: usize,
    max_name_bytes: usize,
    max_value_bytes: usize,
    /// 0 = no limit.
    max_labels_bytes: usize,
    oldest_ms: i64,
    newest_ms: i64,
    drop_labels: Vec<String>,
}

impl Rules {
    /// The rules of `limits` at `now_ms`, milliseconds since the epoch.
    pub(crate) fn new(limits: &LimitsConfig, now_ms: i64) -> Self {
        let millis = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self {
            enforce_metric_name: limits.enforce_metric_name,
            max_label_names: limits.max_label_names_per_series,
            max_name_bytes: limits.max_label_name_length,
            max_value_bytes: limits.max_label_value_length,
            max_labels_bytes: limits.max_labels_size_bytes,
            oldest_ms: if limits.reject_old_samples {
                now_ms.saturating_sub(millis(limits.reject_old_samples_max_age))
            } else {
                i64::MIN
            },
            newest_ms: now_ms.saturating_add(millis(limits.creation_grace_period)),
            drop_labels: limits.drop_labels.clone(),
        }
    }

    /// Whether a series may be forwarded as it is: every rule about labels holds, names are sorted and no value is empty.
    pub(crate) fn is_clean<'a>(&self, labels: impl Iterator<Item = Pair<'a>>) -> bool {
        if !self.drop_labels.is_empty() {
            return false;
        }
        let mut previous: &[u8] = b"";
        let (mut count, mut size, mut named) = (0, 0, false);
        for (name, value) in labels {
            count += 1;
            if self.max_labels_bytes > 0 {
                size += pair_size(name, value);
            }
            let fits = name.len() <= self.max_name_bytes && value.len() <= self.max_value_bytes;
            // An empty name is never greater than the empty string, so it fails here.
            if !fits || value.is_empty() || name <= previous || !is_label_name(name) || !is_utf8(value) {
                return false;
            }
            if name == METRIC_NAME {
                named = is_metric_name(value);
                if !named && self.enforce_metric_name {
                    return false;
                }
            }
            previous = name;
        }
        count > 0
            && count <= self.max_label_names
            && (named || !self.enforce_metric_name)
            && (self.max_labels_bytes == 0 || size <= self.max_labels_bytes)
    }

    /// Removes empty-valued and configured labels, sorts the rest and checks them in Cortex's order.
    ///
    /// # Errors
    ///
    /// The first rule that the series breaks.
    pub(crate) fn repair(&self, labels: &mut Vec<Pair<'_>>) -> Result<(), Rejection> {
        if labels.is_empty() {
            return reject(Reason::MissingMetricName, "empty labels found".to_owned());
        }
        if !self.drop_labels.is_empty() {
            labels.retain(|(name, _)| !self.drop_labels.iter().any(|drop| drop.as_bytes() == *name));
        }
        if self.enforce_metric_name {
            match labels.iter().find(|(name, _)| *name == METRIC_NAME) {
                None | Some((_, b"")) => {
                    return reject(Reason::MissingMetricName, "sample missing metric name".to_owned());
                }
                Some((_, metric)) if !is_metric_name(metric) => {
                    let text = format!("sample invalid metric name: {}", text::quote(metric));
                    return reject(Reason::MetricNameInvalid, text);
                }
                Some(_) => (),
            }
        }
        labels.retain(|(_, value)| !value.is_empty());
        if labels.is_empty() {
            return reject(Reason::MissingMetricName, "every label of the series is empty".to_owned());
        }
        labels.sort_by_key(|(name, _)| *name);
        self.check(labels)
    }

    fn check(&self, labels: &[Pair<'_>]) -> Result<(), Rejection> {
        let series = || text::series(labels.iter().copied());
        let metric = || text::quote(series().as_bytes());
        if labels.len() > self.max_label_names {
            let (actual, limit) = (labels.len(), self.max_label_names);
            let text = format!(
                "series has too many labels (actual: {actual}, limit: {limit}) series: '{}'",
                series()
            );
            return reject(Reason::MaxLabelNamesPerSeries, text);
        }
        let mut previous: &[u8] = b"";
        let mut size = 0;
        for (name, value) in labels {
            let quoted = || text::quote(name);
            if !is_label_name(name) {
                let text = format!("sample invalid label: {} metric {}", quoted(), metric());
                return reject(Reason::LabelInvalid, text);
            }
            if name.len() > self.max_name_bytes {
                let (actual, limit) = (name.len(), self.max_name_bytes);
                let text = format!(
                    "label name too long for metric (actual: {actual}, limit: {limit}) metric: {} label name: {}",
                    metric(),
                    quoted(),
                );
                return reject(Reason::LabelNameTooLong, text);
            }
            if value.len() > self.max_value_bytes {
                let (actual, limit) = (value.len(), self.max_value_bytes);
                let text = format!(
                    "label value too long for metric (actual: {actual}, limit: {limit}) metric: {} label name: {} label value: {}",
                    metric(),
                    quoted(),
                    text::quote(value),
                );
                return reject(Reason::LabelValueTooLong, text);
            }
            if *name == previous {
                let text = format!("duplicate label name: {} metric {}", quoted(), metric());
                return reject(Reason::DuplicateLabelNames, text);
            }
            if !is_utf8(value) {
                let text =
                    format!("sample invalid label: {} metric {}: the value is not UTF-8", quoted(), metric());
                return reject(Reason::LabelInvalid, text);
            }
            previous = name;
            size += pair_size(name, value);
        }
        if self.max_labels_bytes > 0 && size > self.max_labels_bytes {
            let limit = self.max_labels_bytes;
            let text = format!(
                "labels size bytes exceeded for metric (actual: {size}, limit: {limit}) metric: {}",
                metric()
            );
            return reject(Reason::LabelsSizeBytesExceeded, text);
        }
        Ok(())
    }

    /// Whether a sample's time is within the tenant's window. Costs two comparisons.
    pub(crate) fn is_timely(&self, timestamp_ms: i64) -> bool {
        (self.oldest_ms..=self.newest_ms).contains(&timestamp_ms)
    }

    /// Says what is wrong with a time that [`Rules::is_timely`] turned down.
    pub(crate) fn untimely<'a>(
        &self,
        timestamp_ms: i64,
        mut labels: impl Iterator<Item = Pair<'a>>,
    ) -> Rejection {
        let metric = labels.find(|(name, _)| *name == METRIC_NAME).map_or(&b""[..], |(_, value)| value);
        let metric = text::quote(metric);
        if timestamp_ms < self.oldest_ms {
            let message = format!("timestamp too old: {timestamp_ms} metric: {metric}");
            Rejection { reason: Reason::GreaterThanMaxSampleAge, message }
        } else {
            let message = format!("timestamp too new: {timestamp_ms} metric: {metric}");
            Rejection { reason: Reason::TooFarInFuture, message }
        }
    }
}

fn reject(reason: Reason, message: String) -> Result<(), Rejection> {
    Err(Rejection { reason, message })
}

/// Bytes of one label as an encoded message, which is what Cortex counts.
fn pair_size(name: &[u8], value: &[u8]) -> usize {
    2 + prost::length_delimiter_len(name.len())
        + name.len()
        + prost::length_delimiter_len(value.len())
        + value.len()
}

fn is_metric_name(name: &[u8]) -> bool {
    let colons_too = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    name.first().is_some_and(|first| !first.is_ascii_digit()) && name.iter().all(colons_too)
}

fn is_label_name(name: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    name.first().is_some_and(|first| !first.is_ascii_digit()) && name.iter().all(allowed)
}

fn is_utf8(value: &[u8]) -> bool {
    value.is_ascii() || std::str::from_utf8(value).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn rules(change: impl FnOnce(&mut LimitsConfig)) -> Rules {
        let mut limits = LimitsConfig::default();
        change(&mut limits);
        Rules::new(&limits, NOW)
    }

    /// What happens to a label set: forwarded as it is (`None`), repaired, or rejected.
    fn verdict(rules: &Rules, labels: &[(&str, &str)]) -> Option<Result<String, (Reason, String)>> {
        let mut pairs: Vec<Pair<'_>> = labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        if rules.is_clean(pairs.iter().copied()) {
            return None;
        }
        Some(match rules.repair(&mut pairs) {
            Ok(()) => Ok(text::series(pairs.into_iter())),
            Err(Rejection { reason, message }) => Err((reason, message)),
        })
    }

    fn rejected(rules: &Rules, labels: &[(&str, &str)]) -> (Reason, String) {
        match verdict(rules, labels) {
            Some(Err(rejection)) => rejection,
            other => panic!("{labels:?} should be rejected, not {other:?}"),
        }
    }

    #[test]
    fn sorted_complete_series_pass_untouched() {
        assert_eq!(verdict(&rules(|_| ()), &[("__name__", "up"), ("instance", "a"), ("job", "ä")]), None);
    }

    #[test]
    fn unsorted_and_empty_labels_are_repaired_as_cortex_does() {
        let rules = rules(|_| ());
        let repaired = verdict(&rules, &[("job", "x"), ("gone", ""), ("__name__", "up")]);
        assert_eq!(repaired, Some(Ok(r#"up{job="x"}"#.to_owned())));
    }

    #[test]
    fn configured_labels_are_dropped() {
        let rules = rules(|limits| limits.drop_labels = vec!["pod".to_owned()]);
        let repaired = verdict(&rules, &[("__name__", "up"), ("pod", "1")]);
        assert_eq!(repaired, Some(Ok("up".to_owned())));
    }

    #[test]
    fn each_broken_rule_has_cortex_reason_and_text() {
        let default = rules(|_| ());
        let small = rules(|limits| {
            limits.max_label_names_per_series = 2;
            limits.max_label_name_length = 8;
            limits.max_label_value_length = 3;
        });
        let sized = rules(|limits| limits.max_labels_size_bytes = 20);
        type Case<'a> = (&'a Rules, &'a [(&'a str, &'a str)], Reason, &'a str);
        let cases: &[Case<'_>] = &[
            (&default, &[], Reason::MissingMetricName, "empty labels found"),
            (&default, &[("a", "b")], Reason::MissingMetricName, "sample missing metric name"),
            (&default, &[("__name__", "")], Reason::MissingMetricName, "sample missing metric name"),
            (
                &default,
                &[("__name__", "1x")],
                Reason::MetricNameInvalid,
                r#"sample invalid metric name: "1x""#,
            ),
            (
                &default,
                &[("__name__", "up"), ("b-d", "v")],
                Reason::LabelInvalid,
                r#"sample invalid label: "b-d" metric "up{b-d=\"v\"}""#,
            ),
            (
                &default,
                &[("", "v"), ("__name__", "up")],
                Reason::LabelInvalid,
                r#"sample invalid label: "" metric "up{=\"v\"}""#,
            ),
            (
                &default,
                &[("__name__", "up"), ("a", "1"), ("a", "2")],
                Reason::DuplicateLabelNames,
                r#"duplicate label name: "a" metric "up{a=\"1\", a=\"2\"}""#,
            ),
            (
                &small,
                &[("__name__", "up"), ("a", "1"), ("b", "2")],
                Reason::MaxLabelNamesPerSeries,
                r#"series has too many labels (actual: 3, limit: 2) series: 'up{a="1", b="2"}'"#,
            ),
            (
                &small,
                &[("__name__", "up"), ("abcdefghi", "1")],
                Reason::LabelNameTooLong,
                r#"label name too long for metric (actual: 9, limit: 8) metric: "up{abcdefghi=\"1\"}" label name: "abcdefghi""#,
            ),
            (
                &small,
                &[("__name__", "up"), ("a", "1234")],
                Reason::LabelValueTooLong,
                r#"label value too long for metric (actual: 4, limit: 3) metric: "up{a=\"1234\"}" label name: "a" label value: "1234""#,
            ),
            (
                &sized,
                &[("__name__", "up"), ("a", "1234")],
                Reason::LabelsSizeBytesExceeded,
                r#"labels size bytes exceeded for metric (actual: 23, limit: 20) metric: "up{a=\"1234\"}""#,
            ),
        ];
        for (rules, labels, reason, text) in cases {
            assert_eq!(rejected(rules, labels), (*reason, (*text).to_owned()), "{labels:?}");
        }
    }

    #[test]
    fn a_metric_name_is_optional_when_not_enforced() {
        let rules = rules(|limits| limits.enforce_metric_name = false);
        assert_eq!(verdict(&rules, &[("a", "b")]), None);
        assert_eq!(verdict(&rules, &[("__name__", "not a name")]), None);
    }

    #[test]
    fn values_must_be_utf8() {
        let rules = rules(|_| ());
        let mut labels: Vec<Pair<'_>> = vec![(b"__name__", b"up"), (b"a", b"\xff")];
        assert!(!rules.is_clean(labels.iter().copied()));
        let rejection = rules.repair(&mut labels).unwrap_err();
        assert_eq!(rejection.reason, Reason::LabelInvalid);
    }

    #[test]
    fn times_are_checked_against_grace_and_age() {
        let default = rules(|_| ());
        let labels = || [(METRIC_NAME, &b"up"[..])].into_iter();
        assert!(default.is_timely(i64::MIN) && default.is_timely(NOW + 600_000));
        assert!(!default.is_timely(NOW + 600_001));
        let late = default.untimely(NOW + 600_001, labels());
        assert_eq!(late.reason, Reason::TooFarInFuture);
        assert_eq!(late.message, format!("timestamp too new: {} metric: \"up\"", NOW + 600_001));

        let strict = rules(|limits| {
            limits.reject_old_samples = true;
            limits.reject_old_samples_max_age = std::time::Duration::from_secs(1);
        });
        assert!(strict.is_timely(NOW - 1000) && !strict.is_timely(NOW - 1001));
        assert_eq!(strict.untimely(0, labels()).reason, Reason::GreaterThanMaxSampleAge);
    }

    #[test]
    fn reasons_stand_at_their_own_index() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
    }

    fn arbitrary_label() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let name = prop_oneof![
            4 => "[a-c_]{0,2}".prop_map(String::into_bytes),
            2 => Just(b"__name__".to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..4),
        ];
        let value = prop_oneof![
            4 => "[a-c]{0,2}".prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..4),
        ];
        (name, value)
    }

    proptest! {
        /// Clean series obey every rule, repaired ones become clean, and nothing panics.
        #[test]
        fn clean_means_that_no_rule_is_broken(
            labels in proptest::collection::vec(arbitrary_label(), 0..8),
            enforce in any::<bool>(),
        ) {
            let rules = rules(|limits| {
                limits.enforce_metric_name = enforce;
                limits.max_label_names_per_series = 5;
                limits.max_label_value_length = 3;
            });
            let mut pairs: Vec<Pair<'_>> = labels.iter().map(|(n, v)| (&n[..], &v[..])).collect();
            let before = pairs.clone();
            let clean = rules.is_clean(pairs.iter().copied());
            match rules.repair(&mut pairs) {
                Ok(()) => {
                    prop_assert_eq!(clean, before == pairs);
                    prop_assert!(rules.is_clean(pairs.iter().copied()));
                }
                Err(rejection) => {
                    prop_assert!(!clean, "{}", rejection.message);
                    prop_assert!(rejection.message.len() < 8000);
                }
            }
        }
    }
}
