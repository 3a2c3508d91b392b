//! The face of ringkit: one place to find every crate, and a whole cluster in one process.
//!
//! - [`kv`], [`ring`], [`lifecycler`]: build a sharded service of your own on the token ring
//! - [`config`], [`runtime`], [`server`]: the shell that turns it into a process
//! - [`roles`]: the three services of this workspace, as modules of such a process
//! - [`cluster`]: several of those processes inside one, sharing an in-memory store
//!
//! No logic lives here except the cluster.

pub mod cluster;
pub mod roles;

pub use ringkit_config as config;
pub use ringkit_kv as kv;
pub use ringkit_lifecycler as lifecycler;
pub use ringkit_ring as ring;
pub use ringkit_runtime as runtime;
pub use ringkit_server as server;
