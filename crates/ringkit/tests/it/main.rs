//! End-to-end tests: whole clusters, real binaries, a real Prometheus.

mod bad_config;
mod bad_requests;
mod crash;
mod failover;
mod http;
mod prometheus;
