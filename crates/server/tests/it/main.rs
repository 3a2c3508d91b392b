//! Whole processes on real ports, with a toy for a role.

mod grpc;
mod life;
mod pages;
mod toy;
