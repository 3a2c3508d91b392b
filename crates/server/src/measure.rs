//! Request metrics in Cortex's names. Handles are kept per route and found without hashing on HTTP, and with one hash of
//! the method's name on gRPC.

mod grpc;
mod http;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use metrics::{Gauge, Histogram, SharedString, Unit};
use ringkit_runtime::Meter;

pub(crate) use self::grpc::MeasureGrpc;
pub(crate) use self::http::MeasureHttp;

/// The handles of one method of one route. Cheap to clone.
#[derive(Clone)]
struct Route(Arc<RouteInner>);

struct RouteInner {
    meter: Meter,
    inflight: Lazy<Gauge>,
    request_bytes: Lazy<Histogram>,
    response_bytes: Lazy<Histogram>,
    /// A few entries, read without a lock and searched from the front.
    durations: ArcSwap<Vec<(u32, bool, Histogram)>>,
}

/// A handle that is registered at its first use, so that routes never asked for leave no series.
struct Lazy<T> {
    handle: OnceLock<T>,
    register: Box<dyn Fn() -> T + Send + Sync>,
}

impl<T> Lazy<T> {
    fn new(register: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self { handle: OnceLock::new(), register: Box::new(register) }
    }

    fn get(&self) -> &T {
        self.handle.get_or_init(&self.register)
    }
}

impl Route {
    fn new(meter: &Meter, method: &'static str, route: SharedString) -> Self {
        let meter = meter.with("method", method).with("route", route);
        let [a, b, c] = [meter.clone(), meter.clone(), meter.clone()];
        Self(Arc::new(RouteInner {
            inflight: Lazy::new(move || {
                a.gauge("cortex_inflight_requests", Unit::Count, "Current number of inflight requests.")
            }),
            request_bytes: Lazy::new(move || {
                let help = "Size (in bytes) of messages received in the request.";
                b.histogram("cortex_request_message_bytes", Unit::Bytes, help)
            }),
            response_bytes: Lazy::new(move || {
                let help = "Size (in bytes) of messages sent in response.";
                c.histogram("cortex_response_message_bytes", Unit::Bytes, help)
            }),
            durations: ArcSwap::default(),
            meter,
        }))
    }

    fn start(&self) -> UnderWay {
        self.0.inflight.get().increment(1.0);
        UnderWay { route: self.clone(), started: Instant::now() }
    }

    fn observe(&self, status: u32, ws: bool, seconds: f64) {
        let durations = self.0.durations.load();
        if let Some((.., known)) = durations.iter().find(|entry| (entry.0, entry.1) == (status, ws)) {
            return known.record(seconds);
        }
        let label: SharedString = match status {
            0 => "success".into(),
            1 => "cancel".into(),
            2..100 => "error".into(),
            code => code.to_string().into(),
        };
        let meter = self.0.meter.with("status_code", label).with("ws", if ws { "true" } else { "false" });
        let help = "Time (in seconds) spent serving HTTP requests.";
        let histogram = meter.histogram("cortex_request_duration_seconds", Unit::Seconds, help);
        histogram.record(seconds);
        self.0.durations.rcu(|known| {
            let mut known = Vec::clone(known);
            known.push((status, ws, histogram.clone()));
            known
        });
    }
}

/// A request under way; one that is dropped without an answer is only taken off the gauge.
struct UnderWay {
    route: Route,
    started: Instant,
}

impl UnderWay {
    fn finish(self, status: u32, ws: bool) {
        self.route.observe(status, ws, self.started.elapsed().as_secs_f64());
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.route.0.inflight.get().decrement(1.0);
    }
}
