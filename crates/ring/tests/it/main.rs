//! The ring seen from outside: golden vectors made by Cortex, laws, batches, and readers on a store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests; helpers of an integration test are not seen as such"
)]

mod answers;
mod batches;
mod fanout;
mod followers;
mod hazards;
mod hostile;
mod laws;
mod merging;
mod metrics;
mod movement;
mod nasty;
mod plain;
mod readers;
mod scenarios;
mod support;
mod tokens;
mod vanishing;
mod vectors;
