//! The ingester.
mod head;
mod wal;
