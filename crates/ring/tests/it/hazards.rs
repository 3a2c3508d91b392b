//! Defects that are known of Cortex, by their numbers, and what happens here instead.

mod batches;
mod following;
mod merging;
mod placing;
mod reads;
