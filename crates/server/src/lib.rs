//! The process shell: the only crate that opens listeners. Roles hand it their routes, services and pages; it turns
//! configuration into a running process and a running process into an exit code.

mod admin;
mod app;
mod args;
mod dead;
mod drain;
mod error;
mod grpc;
mod http;
mod measure;
mod pages;
mod process;
mod ready;
mod rings;
mod run;
mod running;
mod self_metrics;
mod serve;
mod shell;
pub mod status;
pub mod telemetry;
pub mod tenant;

pub use self::app::{App, AppBuilder};
pub use self::drain::Drains;
pub use self::error::Error;
pub use self::process::{Process, Role, RoleInit};
pub use self::rings::IngesterRing;
pub use self::run::main;
pub use self::running::{ExitReason, Running};
pub use self::tenant::{Tenant, TenantError};
