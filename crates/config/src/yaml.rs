//! YAML in and out: text to a tree in which everything has its place, and rendered values to text.

mod read;
mod write;

pub(crate) use read::{Document, Entry, Kind, MAX_BYTES, Mark, Node, read};
pub(crate) use write::{Notes, inline, write, write_diff};
