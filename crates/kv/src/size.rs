//! [`ValueSize`]: how large stored values are, told before a store refuses them.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{Counter, Gauge, Unit};
use parking_lot::Mutex;
use ringkit_runtime::Meter;
use tracing::warn;

use crate::error::{Error, REMEDY};

/// Watches over the size of the values that one store is given.
pub(crate) struct ValueSize {
    backend: &'static str,
    limit: usize,
    meter: Meter,
    refused: Counter,
    keys: Mutex<BTreeMap<Arc<str>, Known>>,
}

struct Known {
    gauge: Gauge,
    warned: bool,
}

impl ValueSize {
    /// For a store that accepts values of at most `limit` bytes.
    pub(crate) fn new(backend: &'static str, limit: u64, meter: &Meter) -> Self {
        let meter = meter.with("type", backend);
        let refused = meter.counter(
            "ringkit_kv_values_refused_total",
            Unit::Count,
            "Values that were not sent because they exceed the limit of the store.",
        );
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { backend, limit, meter, refused, keys: Mutex::default() }
    }

    /// To be asked before `size` bytes, which are `what`, are stored for `key`: counts them, warns beyond half of the limit,
    /// refuses beyond it.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] with what an operator can do.
    pub(crate) fn check(&self, key: &Arc<str>, what: &'static str, size: usize) -> Result<(), Error> {
        let mut keys = self.keys.lock();
        let known = keys.entry(Arc::clone(key)).or_insert_with(|| Known {
            gauge: self.meter.with("key", key.to_string()).gauge(
                "ringkit_kv_value_bytes",
                Unit::Bytes,
                "Size of the value that was last sent to the store.",
            ),
            warned: false,
        });
        known.gauge.set(size as f64);
        let large = size > self.limit / 2;
        if large && !known.warned {
            let (backend, limit) = (self.backend, self.limit);
            warn!(
                key = &**key,
                size, limit, backend, "a stored value has passed half of the store's limit: {REMEDY}"
            );
        }
        known.warned = large;
        if size > self.limit {
            self.refused.increment(1);
            return Err(Error::TooLarge { key: key.to_string(), what, size, limit: self.limit });
        }
        Ok(())
    }
}
