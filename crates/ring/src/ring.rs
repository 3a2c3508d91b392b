//! [`Ring`]: the handle through which everybody looks at a ring.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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
    pub(crate) shared: Arc<Shared>,
    // Its metrics are shown as long as somebody holds the ring.
    _metrics: Arc<CollectGuard>,
}

/// What handles, service and metrics share.
pub(crate) struct Shared {
    pub(crate) options: Arc<RingOptions>,
    pub(crate) clock: Clock,
    snapshot: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    pub(crate) vanish: VanishCounts,
}

/// What the guard against vanishing members did, for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct VanishCounts {
    held: AtomicUsize,
    holds: AtomicU64,
}

impl VanishCounts {
    /// `held` members are held back now; `begins` if nobody was before.
    pub(crate) fn set(&self, held: usize, begins: bool) {
        self.held.store(held, Ordering::Relaxed);
        self.holds.fetch_add(u64::from(begins), Ordering::Relaxed);
    }

    /// How many members are held back, and how often that began.
    pub(crate) fn get(&self) -> (usize, u64) {
        (self.held.load(Ordering::Relaxed), self.holds.load(Ordering::Relaxed))
    }
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
            clock: clock.steady(),
            snapshot: ArcSwap::from_pointee(snapshot),
            generation: watch::Sender::new(0),
            vanish: VanishCounts::default(),
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

    /// The clock by which heartbeats are judged: pass what it shows wherever a lookup asks for `now`. The one given to the
    /// ring without its jumps, see [`Clock::steady`]; so it may differ from the time of day.
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
