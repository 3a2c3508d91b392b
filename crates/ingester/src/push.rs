//! `Push`: from the bytes of a request to an answer that means "it is in the log".

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ringkit_grpc::http_status;
use ringkit_lifecycler::Handle;
use ringkit_proto::SeriesView;
use ringkit_proto::cortexpb::{WriteRequest, WriteResponse};
use ringkit_ring::State;
use tonic::Status;

use crate::head::{Limits, Outcome, PushError, Reject, Tenant, display};
use crate::ingester::{Inflight, Ingester, Open};

/// A tenant that is removed while one pushes is made anew. More than this often in a row cannot be.
const MAX_REVIVALS: usize = 3;

impl Ingester {
    /// Stores what is valid of a request. The answer comes when that is safe.
    ///
    /// Dropping the future leaves the request stored or not; the sender has no answer either way and repeats it.
    ///
    /// # Errors
    ///
    /// 400 with the first refusal's text if something was refused for good; 5xx if nothing is acknowledged.
    pub(crate) async fn push(&self, tenant: &str, request: &WriteRequest) -> Result<WriteResponse, Status> {
        let answer = self.try_push(tenant, request).await;
        if answer.as_ref().is_err_and(|status| ringkit_grpc::http_code(status).is_none_or(|code| code >= 500))
        {
            self.metrics.push_errors.increment(1);
        }
        answer
    }

    async fn try_push(&self, tenant: &str, request: &WriteRequest) -> Result<WriteResponse, Status> {
        let _pass = self.gate.enter().map_err(|closed| http_status(503, format!("ingester is {closed}")))?;
        let open = self.open()?;
        self.accepts_pushes()?;
        let _inflight = self.begin_push()?;
        // After the count of those under way: whoever seals sees either the count or a refusal.
        if self.is_sealed() {
            return Err(http_status(503, "ingester is being drained: not taking samples"));
        }
        self.note_push();
        open.log.admit().map_err(|failed| http_status(500, failed.to_string()))?;
        let (tenant, outcome) = self.store(open, tenant, &request.timeseries)?;
        if outcome.position > 0 {
            open.log
                .committed(outcome.position)
                .await
                .map_err(|failed| http_status(500, failed.to_string()))?;
        }
        self.count(&tenant, &outcome);
        match outcome.first {
            None => Ok(WriteResponse::default()),
            Some((index, reject)) => {
                let series = request.timeseries.get(index).cloned().unwrap_or_default();
                Err(self.refusal(&tenant, &series, &reject))
            }
        }
    }

    fn store(&self, open: &Open, id: &str, series: &[Bytes]) -> Result<(Arc<Tenant>, Outcome), Status> {
        let max_tenants = usize::try_from(self.instance_limits().max_tenants).unwrap_or(usize::MAX);
        for _ in 0..MAX_REVIVALS {
            let tenant = open.head.open_tenant(id, max_tenants);
            let tenant = tenant
                .map_err(|_| http_status(503, "cannot create TSDB: ingesters's max tenants limit reached"))?;
            let now = self.clock.now_ms();
            tenant.last_push_ms.fetch_max(now, Ordering::Relaxed);
            let bound = open.head.lower_bound(&tenant, now);
            let limits = self.limits(id);
            match tenant.push(series.iter().map(|bytes| &bytes[..]), bound, &limits, &open.log) {
                Ok(outcome) => return Ok((tenant, outcome)),
                Err(PushError::Dead) => (),
                Err(PushError::Log(failed)) => return Err(http_status(500, failed.to_string())),
            }
        }
        Err(http_status(503, "the tenant is being removed: try again"))
    }

    /// In which states of the ring entry samples are taken: whoever may still write to us gets an answer.
    fn accepts_pushes(&self) -> Result<(), Status> {
        let state = self.handle().map(Handle::state);
        match state {
            Some(State::Leaving) if self.shutdown.is_cancelled() => {
                // The data of who leaves for good go with it.
                Err(http_status(503, "ingester is leaving the ring for good: not taking samples"))
            }
            Some(State::Active | State::Leaving | State::Joining | State::ReadOnly) => Ok(()),
            Some(state) => {
                Err(http_status(503, format!("ingester is {state} in the ring: not taking samples")))
            }
            None => Err(http_status(503, "ingester is not in the ring yet")),
        }
    }

    fn begin_push(&self) -> Result<Inflight, Status> {
        let limits = self.instance_limits();
        let inflight = Inflight::enter(&self.inflight_pushes);
        if limits.max_inflight_push_requests > 0 && inflight.number > limits.max_inflight_push_requests {
            return Err(http_status(503, "cannot push: too many inflight push requests in ingester"));
        }
        if limits.max_ingestion_rate > 0.0 && self.rate.per_second() >= limits.max_ingestion_rate {
            return Err(http_status(
                503,
                "cannot push more samples: ingester's samples push rate limit reached",
            ));
        }
        Ok(inflight)
    }

    /// Each sample is counted once: stored, there already, or discarded.
    fn count(&self, tenant: &Tenant, outcome: &Outcome) {
        self.metrics.ingested.increment(outcome.stored);
        self.metrics.duplicates.increment(outcome.duplicates);
        self.metrics.failures.increment(outcome.num_discarded());
        self.rate.add(outcome.stored);
        tenant.usage.rate.add(outcome.stored);
        tenant.usage.discard(&outcome.discarded);
    }

    /// What is told to the sender, in Cortex's words.
    fn refusal(&self, tenant: &Tenant, series: &[u8], reject: &Reject) -> Status {
        let labels = || SeriesView::parse(series).map(|view| display(&view)).unwrap_or_default();
        let of_sample = |what: &dyn std::fmt::Display, time: i64| {
            format!("err: {what}. timestamp={}, series={}", rfc3339(time), labels())
        };
        let message = &self.config.ingester.admin_limit_message;
        let limits = self.live_config.with(|live| Arc::clone(live.limits(&tenant.id)));
        let limit = |what: &str, local: usize, global: usize, actual: usize| {
            let least = [local, global].into_iter().filter(|limit| *limit > 0).min().unwrap_or(0);
            format!(
                "{what} series limit of {least} exceeded, {message} (local limit: {local} global limit: {global} \
                 actual local limit: {actual})"
            )
        };
        let text = match reject {
            Reject::OutOfOrder { time } => of_sample(&"out of order sample", *time),
            Reject::OutOfBounds { time } => of_sample(&"out of bounds", *time),
            Reject::OtherValue { time, existing, new } => of_sample(
                &format_args!(
                    "duplicate sample for timestamp; overrides not allowed: existing {existing}, new value {new}"
                ),
                *time,
            ),
            Reject::PerUserLimit => limit(
                "per-user",
                limits.max_series_per_user,
                limits.max_global_series_per_user,
                self.limits(&tenant.id).per_user,
            ),
            Reject::PerMetricLimit => {
                let text = limit(
                    "per-metric",
                    limits.max_series_per_metric,
                    limits.max_global_series_per_metric,
                    self.limits(&tenant.id).per_metric,
                );
                format!("{text} for series {}", labels())
            }
            Reject::InstanceLimit => {
                return http_status(503, "cannot add series: ingesters's max series limit reached");
            }
            Reject::Histogram => format!("native histograms are not supported, series={}", labels()),
            Reject::Labels(error) => format!("{error}, series={}", labels()),
            Reject::Malformed(error) => error.to_string(),
        };
        http_status(400, format!("user={}: {text}", tenant.id))
    }
}

impl Ingester {
    /// What this process takes of a tenant now. Global limits are shared out among the ingesters that can be written to.
    pub(crate) fn limits(&self, tenant: &str) -> Limits {
        let (limits, instance) = self
            .live_config
            .with(|live| (Arc::clone(live.limits(tenant)), live.ingester_limits().max_series));
        let share = |global: usize| match global {
            0 => 0,
            _ => {
                let ingesters = self.handle().map_or(0, Handle::healthy_instances);
                share_of(global, ingesters, self.config.ingester.lifecycler.ring.replication_factor)
            }
        };
        let least = |local: usize, global: usize| match (local, share(global)) {
            (0, share) => share,
            (local, 0) => local,
            (local, share) => local.min(share),
        };
        Limits {
            instance: usize::try_from(instance).unwrap_or(usize::MAX),
            per_user: least(limits.max_series_per_user, limits.max_global_series_per_user),
            per_metric: least(limits.max_series_per_metric, limits.max_global_series_per_metric),
        }
    }
}

/// One ingester's part of a global limit; 0, no limit, while the ring is not known yet.
fn share_of(global: usize, ingesters: usize, replication_factor: usize) -> usize {
    let replicas = global.saturating_mul(replication_factor);
    replicas.checked_div(ingesters).map_or(0, |share| share.max(1))
}

/// Milliseconds since 1970 as Go prints a UTC time: `2009-02-13T23:31:30.123Z`.
fn rfc3339(time_ms: i64) -> String {
    let days = time_ms.div_euclid(86_400_000);
    let of_day = Duration::from_millis(time_ms.rem_euclid(86_400_000).unsigned_abs());
    // The calendar repeats every 400 years; a year begins in March, so that the leap day is its last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let seconds = of_day.as_secs();
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    let millis = of_day.subsec_millis();
    if millis > 0 {
        let fraction = format!(".{millis:03}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_go_prints_them() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_234_567_890_120, "2009-02-13T23:31:30.12Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (4_102_444_799_001, "2099-12-31T23:59:59.001Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn a_global_limit_is_shared_out_among_the_ingesters() {
        assert_eq!(share_of(100, 10, 3), 30);
        assert_eq!(share_of(100, 0, 3), 0);
        assert_eq!(share_of(1, 10, 3), 1);
    }
}
