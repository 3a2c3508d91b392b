//! Real servers and clients on loopback, through the layers.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod codes;
mod compression;
mod peers;
mod rig;
