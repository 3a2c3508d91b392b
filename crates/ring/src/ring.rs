//! [`Ring`]: the handle through which everybody looks at a ring.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use ringkit_kv::Client;
use ringkit_runtime::{Clock, CollectGuard, Meter};
use tokio::sync::watch;

use crate::desc::Desc;
use crate::metrics::RingMetrics;
use crate::options::RingOptions;
use crate::reader::RingService;
use crate::snapshot::Snapshot;

/// The reader's handle on a ring: hands out the newest snapshot without a lock. Cheap to clone.
#[derive(Clone)]
pub struct Ring {
    shared: Arc<Shared>,
    // Its metrics are shown as long as somebody holds the ring.
    _metrics: Arc<CollectGuard>,
}

/// What handles, service and metrics share.
pub(crate) struct Shared {
    pub(crate) options: Arc<RingOptions>,
    pub(crate) clock: Clock,
    snapshot: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
}

impl Ring {
    /// A ring and the service that keeps it up to date. It is empty until the service has started.
    pub fn new(
        options: RingOptions,
        client: Client<Desc>,
        clock: Clock,
        meter: &Meter,
    ) -> (Self, RingService) {
        let ring = Self::empty(options, clock, meter);
        let service = RingService::new(Arc::clone(&ring.shared), client);
        (ring, service)
    }

    /// A ring that stays as it is, for tests and tools. Instances count as heard at their timestamps.
    pub fn fixed(desc: impl Borrow<Desc>, options: RingOptions, clock: Clock) -> Self {
        let ring = Self::empty(options, clock, &Meter::disabled());
        let snapshot =
            Snapshot::first_sight(desc.borrow(), ring.shared.clock.now_secs(), &ring.shared.options);
        ring.shared.publish(snapshot, true);
        ring
    }

    fn empty(options: RingOptions, clock: Clock, meter: &Meter) -> Self {
        let options = Arc::new(options);
        let snapshot = Snapshot::build_shared(&Desc::new(), |_, _| 0, Arc::clone(&options));
        let shared = Arc::new(Shared {
            options,
            clock,
            snapshot: ArcSwap::from_pointee(snapshot),
            generation: watch::Sender::new(0),
        });
        let metrics = RingMetrics::new(Arc::clone(&shared));
        let guard = meter.with("name", shared.options.name.clone()).collect(Arc::new(metrics));
        Self { shared, _metrics: Arc::new(guard) }
    }

    /// The newest view of the ring. Cheap and without a lock; keep it for the length of one request, so that all lookups
    /// of the request agree.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// The newest view of the ring for a single lookup: as [`Ring::snapshot`], without counting a reference. Not to be
    /// held across an await.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.shared.snapshot.load()
    }

    /// How the ring is looked at.
    pub fn options(&self) -> &RingOptions {
        &self.shared.options
    }

    /// The clock by which heartbeats are judged.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// The generation of the newest snapshot. It grows whenever more changed than heartbeats of the living: members,
    /// addresses, tokens or states, or when an instance counted as dead was heard again.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.load();
        f.debug_struct("Ring")
            .field("name", &self.shared.options.name)
            .field("generation", &snapshot.generation())
            .field("instances", &snapshot.instances().len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Makes `snapshot` the one to look at; only one caller at a time. `notable` changes wake those who wait for them.
    pub(crate) fn publish(&self, mut snapshot: Snapshot, notable: bool) {
        snapshot.generation = self.load().generation() + u64::from(notable);
        let generation = snapshot.generation;
        self.snapshot.store(Arc::new(snapshot));
        if notable {
            self.generation.send_replace(generation);
        }
    }
}
