//! Outcomes recorded from Cortex, case by case.

mod batch;
mod blocks;
mod codec;
mod compare;
mod dskit;
mod generate;
mod get;
mod hashes;
mod merge;
mod primitives;
mod ranges;
mod shards;
