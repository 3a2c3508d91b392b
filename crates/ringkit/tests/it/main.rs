//! End-to-end tests: whole clusters, real binaries, a real Prometheus.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "the figures of long runs")]

mod bad_config;
mod bad_requests;
mod config_check;
mod crash;
mod drain;
mod failover;
mod gossip;
mod http;
mod loading;
mod migration;
mod monitoring;
mod namespaces;
mod pages;
mod prometheus;
mod ringctl_kv;
mod rolling;
mod stores;
