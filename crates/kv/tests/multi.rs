//! Two stores that are one: what its users may rely on, and what must not happen again that happened with Cortex's. Each hazard of
//! those, H1 to H13, has a test whose name begins with its number.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "multi/conformance.rs"]
mod conformance;
#[path = "multi/defence.rs"]
mod defence;
#[path = "multi/ending.rs"]
mod ending;
#[path = "multi/hazards.rs"]
mod hazards;
#[path = "multi/leftovers.rs"]
mod leftovers;
#[path = "multi/mirroring.rs"]
mod mirroring;
#[path = "multi/pairs.rs"]
mod pairs;
#[path = "multi/stores.rs"]
mod stores;
#[path = "multi/switching.rs"]
mod switching;
#[path = "multi/world.rs"]
mod world;
