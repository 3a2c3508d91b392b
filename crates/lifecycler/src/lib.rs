//! One instance's life in a ring: it registers, chooses tokens, keeps its entry fresh, and leaves.
//!
//! [`machine`] decides, without I/O; [`Lifecycler`] is its shell, a service; [`Handle`] is what the rest of a process holds.
//! [`delegate`] is how a service of one's own decides for itself; [`forget`] is about others that are gone, [`drain`] about
//! going oneself.
//!
//! # A sharded service of one's own
//!
//! Three instances share keys over a ring; whoever owns a key does its work. With another store in the configuration they are
//! as many processes.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use ringkit_config::{KvStore, KvStoreConfig};
//! use ringkit_kv::Stores;
//! use ringkit_lifecycler::{AutoForget, Delegate, Delegates, InstanceRegister, LeaveOnStopping, Options};
//! use ringkit_ring::{Desc, Operation, Ring, RingOptions, State};
//! use ringkit_runtime::{Cause, Clock, Meter, ServiceHandle};
//!
//! /// One instance: its own entry in the ring, and its view of everybody's.
//! async fn join(stores: &Stores, id: &str) -> Result<([ServiceHandle; 2], Ring), Cause> {
//!     let store = KvStoreConfig { store: KvStore::Inmemory, ..KvStoreConfig::default() };
//!     let (clock, meter) = (Clock::system(), Meter::disabled());
//!     let client = stores.client::<Desc>(&store, "workers", &meter, &clock)?;
//!     let delegates = Delegates::new([
//!         Arc::new(InstanceRegister(State::Active)) as Arc<dyn Delegate>,
//!         Arc::new(LeaveOnStopping),
//!         Arc::new(AutoForget { after: Duration::from_secs(600), min_healthy_fraction: 0.5 }),
//!     ]);
//!     let options = Options::basic("worker", "workers", id, format!("{id}:9095"), 64, delegates);
//!     let (lifecycler, handle) = ringkit_lifecycler::new(options, client.clone(), clock.clone(), &meter, None);
//!     let options = RingOptions { key: "workers".into(), replication_factor: 1, ..RingOptions::default() };
//!     let (ring, reader) = Ring::new(options, client, clock, &meter);
//!     let services = [
//!         ServiceHandle::new("reader", Box::new(reader)),
//!         ServiceHandle::new("lifecycler", Box::new(lifecycler)),
//!     ];
//!     for service in &services {
//!         service.start_async()?;
//!         service.await_running().await?;
//!     }
//!     let mut status = handle.watch();
//!     status.wait_for(|now| now.state == State::Active && now.published).await?;
//!     Ok((services, ring))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Cause> {
//! let stores = Stores::new();
//! let mut workers = Vec::new();
//! for id in ["worker-1", "worker-2", "worker-3"] {
//!     workers.push(join(&stores, id).await?);
//! }
//! let (_, ring) = &workers[0];
//! let mut changes = ring.changed();
//! while ring.snapshot().instances().len() < 3 {
//!     changes.changed().await?;
//! }
//! let owner = |key: u32| {
//!     let snapshot = ring.snapshot();
//!     let replicas = snapshot.get(key, Operation::WRITE, ring.clock().now_secs())?;
//!     Ok::<_, Cause>(replicas.iter().map(|instance| instance.id.to_string()).collect::<Vec<_>>())
//! };
//! assert_eq!(owner(42)?, owner(42)?);
//! for ([_, lifecycler], _) in &workers {
//!     lifecycler.stop_async();
//!     lifecycler.await_terminated().await?;
//! }
//! # Ok(())
//! # }
//! ```

pub mod address;
pub mod delegate;
pub mod drain;
mod error;
pub mod forget;
mod handle;
mod lifecycler;
pub mod machine;
mod metrics;
mod options;
mod readiness;
pub mod tokens_file;

pub use self::delegate::{
    Delegate, Delegates, InstanceRegister, LeaveOnStopping, Place, Registration, TokensPersistency,
};
pub use self::drain::{Condition, Drain, Missing};
pub use self::error::Error;
pub use self::forget::AutoForget;
pub use self::handle::{Handle, Status};
pub use self::lifecycler::{Lifecycler, new};
pub use self::options::{Options, RegisteredAt, TokenChoice};
