//! From an encoded write request to series ready for the ring: validated, repaired where Cortex repairs, with their
//! tokens. Pure: no I/O, no clock.

use bytes::Bytes;
use ringkit_proto::walk::{SeriesView, WalkError};
use ringkit_ring::token;

use crate::encode;
use crate::validate::{Pair, Reason, Rejection, Rules};

/// What is left of a write request after validation.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Encoded series, to be forwarded as they are.
    pub(crate) series: Vec<Bytes>,
    /// The position of each series on the ring, in the same order.
    pub(crate) tokens: Vec<u32>,
    pub(crate) counts: Counts,
    /// What the client hears if everything else succeeds: the first broken rule.
    pub(crate) first_rejection: Option<String>,
}

/// What a request held, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Float samples in the request.
    pub(crate) samples_in: u64,
    /// Native histograms in the request.
    pub(crate) histograms_in: u64,
    /// Exemplars in the request.
    pub(crate) exemplars_in: u64,
    /// Float samples that passed.
    pub(crate) samples: u64,
    /// Exemplars of series that passed. They are accepted and not stored.
    pub(crate) exemplars: u64,
    /// Samples that did not pass, by [`Reason::index`].
    pub(crate) discarded: [u64; Reason::ALL.len()],
    /// Exemplars of series that did not pass, by [`Reason::index`].
    pub(crate) discarded_exemplars: [u64; Reason::ALL.len()],
    /// Series forwarded as they came.
    pub(crate) raw: u64,
    /// Series that were encoded anew.
    pub(crate) reencoded: u64,
    /// The latest last sample of a series, milliseconds since the epoch; 0 if there is none.
    pub(crate) latest_ms: i64,
}

/// Checks every series of a request of `tenant`.
///
/// A series that breaks a rule is dropped whole, so that none of its samples is both stored and reported; the others go
/// on. Series without float samples are checked and then dropped silently: there is nothing to store.
///
/// # Errors
///
/// [`WalkError`] if a series is not a protobuf message: then nothing of the request can be trusted.
pub(crate) fn prepare(tenant: &str, encoded: &[Bytes], rules: &Rules) -> Result<Batch, WalkError> {
    let mut batch = Batch {
        series: Vec::with_capacity(encoded.len()),
        tokens: Vec::with_capacity(encoded.len()),
        ..Batch::default()
    };
    let mut scratch = Vec::new();
    for bytes in encoded {
        let view = SeriesView::parse(bytes)?;
        batch.counts.received(&view);
        if rules.is_clean(view.labels()) {
            batch.accept(tenant, bytes, &view, None, rules);
            continue;
        }
        scratch.clear();
        scratch.extend(view.labels());
        match rules.repair(&mut scratch) {
            Ok(()) => batch.accept(tenant, bytes, &view, Some(&scratch), rules),
            Err(rejection) => batch.reject(rejection, &view),
        }
    }
    Ok(batch)
}

impl Batch {
    /// Takes a series whose labels are in order; `repaired` are the labels that replace those it came with.
    fn accept(
        &mut self,
        tenant: &str,
        bytes: &Bytes,
        view: &SeriesView<'_>,
        repaired: Option<&[Pair<'_>]>,
        rules: &Rules,
    ) {
        let mut last = None;
        for (timestamp, _) in view.samples() {
            if !rules.is_timely(timestamp) {
                let rejection = rules.untimely(timestamp, view.labels());
                return self.reject(rejection, view);
            }
            last = Some(timestamp);
        }
        self.counts.exemplars += view.num_exemplars() as u64;
        if view.num_histograms() > 0 {
            self.refuse_histograms(view);
        }
        let Some(last) = last else { return };
        self.counts.latest_ms = self.counts.latest_ms.max(last);
        self.counts.samples += view.num_samples() as u64;
        if repaired.is_none() && view.is_plain() {
            self.counts.raw += 1;
            self.tokens.push(token::shard_by_all_labels(tenant, view.labels()));
            self.series.push(bytes.clone());
            return;
        }
        let as_received: Vec<Pair<'_>>;
        let labels = match repaired {
            Some(labels) => labels,
            None => {
                as_received = view.labels().collect();
                &as_received
            }
        };
        self.counts.reencoded += 1;
        self.tokens.push(token::shard_by_all_labels(tenant, labels.iter().copied()));
        self.series.push(encoded_anew(labels, view));
    }

    fn reject(&mut self, rejection: Rejection, view: &SeriesView<'_>) {
        let index = rejection.reason.index();
        self.counts.discarded[index] += (view.num_samples() + view.num_histograms()) as u64;
        self.counts.discarded_exemplars[index] += view.num_exemplars() as u64;
        self.first_rejection.get_or_insert(rejection.message);
    }

    fn refuse_histograms(&mut self, view: &SeriesView<'_>) {
        self.counts.discarded[Reason::NativeHistogramUnsupported.index()] += view.num_histograms() as u64;
        self.first_rejection.get_or_insert_with(|| {
            let series = crate::text::series(view.labels());
            let series = crate::text::quote(series.as_bytes());
            format!("native histograms are not supported; float samples of the request are stored. metric {series}")
        });
    }
}

impl Counts {
    fn received(&mut self, view: &SeriesView<'_>) {
        self.samples_in += view.num_samples() as u64;
        self.histograms_in += view.num_histograms() as u64;
        self.exemplars_in += view.num_exemplars() as u64;
    }
}

/// Encodes a series anew: the given labels, the float samples of `view`, nothing else.
fn encoded_anew(labels: &[Pair<'_>], view: &SeriesView<'_>) -> Bytes {
    let labels = || labels.iter().copied();
    let mut bytes = Vec::with_capacity(encode::series_len(labels(), view.samples()));
    encode::put_series(&mut bytes, labels(), view.samples());
    bytes.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use ringkit_config::LimitsConfig;
    use ringkit_proto::cortexpb;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn rules() -> Rules {
        Rules::new(&LimitsConfig::default(), NOW)
    }

    fn series(labels: &[(&'static str, &'static str)], samples: &[(i64, f64)]) -> cortexpb::TimeSeries {
        let pair = |(name, value): &(&'static str, &'static str)| cortexpb::LabelPair {
            name: Bytes::from_static(name.as_bytes()),
            value: Bytes::from_static(value.as_bytes()),
        };
        cortexpb::TimeSeries {
            labels: labels.iter().map(pair).collect(),
            samples: samples
                .iter()
                .map(|&(timestamp_ms, value)| cortexpb::Sample { value, timestamp_ms })
                .collect(),
            ..cortexpb::TimeSeries::default()
        }
    }

    fn encoded(series: &cortexpb::TimeSeries) -> Bytes {
        series.encode_to_vec().into()
    }

    #[test]
    fn clean_series_are_forwarded_as_the_bytes_that_came() {
        let bytes = encoded(&series(&[("__name__", "up"), ("job", "x")], &[(NOW, 1.0)]));
        let batch = prepare("t", std::slice::from_ref(&bytes), &rules()).unwrap();
        assert_eq!(batch.series[0].as_ptr(), bytes.as_ptr());
        assert_eq!((batch.counts.raw, batch.counts.reencoded, batch.counts.samples), (1, 0, 1));
        assert_eq!(batch.counts.latest_ms, NOW);
        assert_eq!(batch.first_rejection, None);
    }

    #[test]
    fn repaired_series_get_the_token_of_what_is_stored() {
        let messy = encoded(&series(&[("job", "x"), ("empty", ""), ("__name__", "up")], &[(NOW, 1.0)]));
        let clean = encoded(&series(&[("__name__", "up"), ("job", "x")], &[(NOW, 1.0)]));
        let batch = prepare("t", &[messy, clean.clone()], &rules()).unwrap();
        assert_eq!(batch.series, [clean.clone(), clean]);
        assert_eq!(batch.tokens[0], batch.tokens[1]);
        assert_eq!((batch.counts.raw, batch.counts.reencoded), (1, 1));
    }

    #[test]
    fn an_invalid_series_is_dropped_and_the_rest_goes_on() {
        let bad = encoded(&series(&[("job", "x")], &[(NOW, 1.0), (NOW + 1, 2.0)]));
        let worse = encoded(&series(&[("__name__", "1")], &[(NOW, 1.0)]));
        let good = encoded(&series(&[("__name__", "up")], &[(NOW, 1.0)]));
        let batch = prepare("t", &[bad, worse, good], &rules()).unwrap();
        assert_eq!(batch.series.len(), 1);
        assert_eq!(batch.counts.samples_in, 4);
        assert_eq!(batch.counts.samples, 1);
        assert_eq!(batch.counts.discarded[Reason::MissingMetricName.index()], 2);
        assert_eq!(batch.counts.discarded[Reason::MetricNameInvalid.index()], 1);
        assert_eq!(batch.first_rejection.as_deref(), Some("sample missing metric name"));
    }

    #[test]
    fn one_untimely_sample_drops_its_series() {
        let late = encoded(&series(&[("__name__", "up")], &[(NOW, 1.0), (NOW + 3_600_000, 1.0)]));
        let batch = prepare("t", &[late], &rules()).unwrap();
        assert!(batch.series.is_empty());
        assert_eq!(batch.counts.discarded[Reason::TooFarInFuture.index()], 2);
    }

    #[test]
    fn histograms_are_refused_and_floats_beside_them_stored() {
        let mut mixed = series(&[("__name__", "up")], &[(NOW, 1.0)]);
        mixed.histograms.push(Bytes::from_static(b"opaque"));
        let batch = prepare("t", &[encoded(&mixed)], &rules()).unwrap();
        assert_eq!(batch.counts.discarded[Reason::NativeHistogramUnsupported.index()], 1);
        assert_eq!(batch.counts.samples, 1);
        let stored = cortexpb::TimeSeries::decode(batch.series[0].clone()).unwrap();
        assert!(stored.histograms.is_empty());
        assert!(batch.first_rejection.unwrap().starts_with("native histograms are not supported"));
    }

    #[test]
    fn exemplars_are_counted_and_a_series_of_nothing_else_is_not_forwarded() {
        let mut only = series(&[("__name__", "up")], &[]);
        only.exemplars.push(cortexpb::Exemplar::default());
        let batch = prepare("t", &[encoded(&only)], &rules()).unwrap();
        assert_eq!(batch.counts.exemplars, 1);
        assert!(batch.series.is_empty() && batch.first_rejection.is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = prepare("t", &[bytes.into()], &rules());
        }

        /// What goes on is clean, hashes as it is stored, and no sample is lost between stored and discarded.
        #[test]
        fn every_sample_is_either_forwarded_or_counted_as_discarded(
            labels in proptest::collection::vec(("[a-c_:1]{0,3}|__name__", "[a-c1]{0,2}"), 0..6),
            times in proptest::collection::vec(NOW - 10..NOW + 700_000, 0..3),
        ) {
            let series = cortexpb::TimeSeries {
                labels: labels
                    .into_iter()
                    .map(|(name, value)| cortexpb::LabelPair { name: name.into(), value: value.into() })
                    .collect(),
                samples: times.iter().map(|&timestamp_ms| cortexpb::Sample { value: 1.0, timestamp_ms }).collect(),
                ..cortexpb::TimeSeries::default()
            };
            let rules = rules();
            let batch = prepare("t", &[encoded(&series)], &rules).unwrap();
            let discarded: u64 = batch.counts.discarded.iter().sum();
            prop_assert_eq!(batch.counts.samples + discarded, times.len() as u64);
            prop_assert_eq!(batch.series.len(), batch.tokens.len());
            for (bytes, token) in batch.series.iter().zip(&batch.tokens) {
                let view = SeriesView::parse(bytes).unwrap();
                prop_assert!(rules.is_clean(view.labels()));
                prop_assert_eq!(*token, token::shard_by_all_labels("t", view.labels()));
            }
        }
    }
}
