//! What tests need and nobody else: launchers of real servers and of our own processes, free ports, a TCP proxy that fails on
//! demand, whole networks that do, waiting with a deadline.
//!
//! Nothing here leaves anything behind: processes are killed and data directories removed when their handle drops. If that
//! happens while a test is failing, the last lines of each process' output are printed.
//!
//! - [`process`]: a child process with captured output and signals; [`prometheus`], [`consul`], [`etcd`]: the real ones;
//!   [`certs`]: what they show to each other; [`browser`]: Chromium
//! - [`ports`]: listeners and port numbers from the operating system; [`net`]: the proxy; [`netns`]: networks to cut;
//!   [`http`]: a client in 150 lines
//! - [`time`]: [`eventually`], [`eventually_ok`]

pub mod browser;
pub mod certs;
pub mod consul;
pub mod error;
pub mod etcd;
pub mod http;
pub mod net;
pub mod netns;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod time;

pub use browser::Browser;
pub use certs::Certs;
pub use consul::Consul;
pub use error::Error;
pub use etcd::Etcd;
pub use net::Proxy;
pub use netns::Network;
pub use process::{Process, ProcessBuilder, Signal};
pub use prometheus::Prometheus;
pub use time::{eventually, eventually_ok};
