//! [`Flat`]: what is asked of a server that keeps bytes under flat keys. What keys and bytes mean is [`crate::layered`]'s.

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Error;
use crate::shared::Pulse;

/// What is under one key of the server.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) key: String,
    pub(crate) value: Bytes,
    /// The server's index of the last write to it: `ModifyIndex` or `mod_revision`.
    pub(crate) index: u64,
}

/// What a read found, as of the server's `index`.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Item>,
    pub(crate) index: u64,
}

/// What is read or followed.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    /// One key.
    Key(String),
    /// All keys that begin so.
    Below(String),
}

/// What must hold for a batch to be carried out.
#[derive(Clone, Debug)]
pub(crate) enum Guard {
    Absent(String),
    Present(String),
    At(String, u64),
}

/// Writes that happen together or not at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) guards: Vec<Guard>,
    pub(crate) puts: Vec<(String, Bytes)>,
    pub(crate) deletes: Vec<String>,
    pub(crate) delete_below: Option<String>,
    /// Nothing that begins so was written after this index, where the server can tell.
    pub(crate) unchanged: Option<(String, u64)>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// What was put has this index now.
    At(u64),
    /// A guard did not hold: nothing was written.
    Lost,
}

/// What a follower tells.
#[derive(Debug)]
pub(crate) enum News {
    /// All that is in the scope.
    Page(Page),
    /// The same, of a server whose indexes began anew.
    Restarted(Page),
}

/// A server that keeps bytes under flat keys.
#[async_trait]
pub(crate) trait Flat: Send + Sync + 'static {
    /// Short name, such as `consul`.
    fn backend(&self) -> &'static str;

    /// How many writes and guards a batch may hold.
    fn max_batch(&self) -> usize;

    /// How many bytes of values a batch of several may hold.
    fn max_batch_bytes(&self) -> usize;

    /// Reads what is there now.
    async fn read(&self, scope: &Scope) -> Result<Page, Error>;

    /// Names of the keys that begin with `prefix`.
    async fn names(&self, prefix: &str) -> Result<Vec<String>, Error>;

    /// Carries out a batch.
    async fn commit(&self, batch: &Batch) -> Result<Committed, Error>;

    /// Tells what is in the scope, at once and after every change. Never ends; resumes by itself and paces itself.
    async fn follow(&self, scope: &Scope, pulse: &Pulse, news: &(dyn Fn(News) + Send + Sync));
}
