//! The ring seen from outside: golden vectors made by Cortex, laws, batches, and readers on a store.

mod batches;
mod laws;
mod readers;
mod support;
mod vectors;
