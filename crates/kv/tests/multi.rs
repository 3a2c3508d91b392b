//! Two stores that are one: what its users may rely on, and what must not happen again that happened with Cortex's. Most
//! hazards of those have a test by their number; H4 and H12 show only in whole processes, and H11 cannot be written here.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "multi/conformance.rs"]
mod conformance;
#[path = "multi/hazards.rs"]
mod hazards;
#[path = "multi/mirroring.rs"]
mod mirroring;
#[path = "multi/stores.rs"]
mod stores;
#[path = "multi/switching.rs"]
mod switching;
#[path = "multi/world.rs"]
mod world;
