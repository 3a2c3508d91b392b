//! The moment at which a process ends as by SIGKILL: after it, nothing is said to anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the process was ended from outside. Tasks end at their next await only: what speaks to others asks here first.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dead(Arc<AtomicBool>);

impl Dead {
    /// From here on the process is dead.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
