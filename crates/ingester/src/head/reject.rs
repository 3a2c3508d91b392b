//! Why samples are refused, and the words for it.

use super::labels::LabelError;

/// Why a sample or a series is refused.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reject {
    /// The bytes are no series.
    Malformed(ringkit_proto::WalkError),
    /// The labels cannot name a series.
    Labels(LabelError),
    /// There are newer samples. Times in milliseconds, here and below.
    OutOfOrder { time: i64 },
    /// Another value is stored for this time.
    OtherValue { time: i64, existing: f64, new: f64 },
    /// Older than what is kept.
    OutOfBounds { time: i64 },
    /// The tenant has as many series as it may.
    PerUserLimit,
    /// The metric has as many series as it may.
    PerMetricLimit,
    /// This process has as many series as it may.
    InstanceLimit,
    /// Only floats are stored.
    Histogram,
}

impl Reject {
    /// What the sample is counted under.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Malformed(_) => Reason::Malformed,
            Self::Labels(LabelError::Duplicate(_)) => Reason::DuplicateLabels,
            Self::Labels(_) => Reason::InvalidLabels,
            Self::OutOfOrder { .. } => Reason::OutOfOrder,
            Self::OtherValue { .. } => Reason::OtherValue,
            Self::OutOfBounds { .. } => Reason::OutOfBounds,
            Self::PerUserLimit => Reason::PerUserLimit,
            Self::PerMetricLimit => Reason::PerMetricLimit,
            Self::InstanceLimit => Reason::InstanceLimit,
            Self::Histogram => Reason::Histogram,
        }
    }
}

/// The values of the label `reason` of `cortex_discarded_samples_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Malformed,
    DuplicateLabels,
    InvalidLabels,
    OutOfOrder,
    OtherValue,
    OutOfBounds,
    PerUserLimit,
    PerMetricLimit,
    InstanceLimit,
    Histogram,
}

impl Reason {
    pub(crate) const COUNT: usize = 10;

    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::Malformed,
        Self::DuplicateLabels,
        Self::InvalidLabels,
        Self::OutOfOrder,
        Self::OtherValue,
        Self::OutOfBounds,
        Self::PerUserLimit,
        Self::PerMetricLimit,
        Self::InstanceLimit,
        Self::Histogram,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed-series",
            Self::DuplicateLabels => "duplicate_label_names",
            Self::InvalidLabels => "label_invalid",
            Self::OutOfOrder => "sample-out-of-order",
            Self::OtherValue => "new-value-for-timestamp",
            Self::OutOfBounds => "sample-out-of-bounds",
            Self::PerUserLimit => "per_user_series_limit",
            Self::PerMetricLimit => "per_metric_series_limit",
            Self::InstanceLimit => "instance_series_limit",
            Self::Histogram => "native-histogram-unsupported",
        }
    }
}
