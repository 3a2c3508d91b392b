//! [`Tasks`]: what runs as long as a multi store is there.

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// The tasks of a multi store. They end with it.
pub(super) struct Tasks {
    running: Mutex<JoinSet<()>>,
    /// Also whoever is outside of it, such as one that is dropped, may begin a task.
    runtime: Handle,
}

impl Tasks {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { running: Mutex::default(), runtime }
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock();
        while running.try_join_next().is_some() {}
        running.spawn_on(task, &self.runtime);
    }
}
