//! Modules: what a process is made of, built and started in dependency order, stopped in reverse.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{select_all, try_join_all};
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Cause, Error, Failure};
use crate::service::{Service, ServiceHandle, ServiceState};
use crate::shutdown::{ShutdownReport, Step};

/// After an abort, how long a service gets to reach its next await before it is given up on.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Builds a module from what earlier modules left in the context; may return no service.
pub type Init<C> = Box<dyn FnOnce(&mut C) -> Result<Option<Box<dyn Service>>, Cause> + Send>;

/// One building block of a process.
pub struct Module<C> {
    /// Its name, as in a target list.
    pub name: &'static str,
    /// Whether users are told of it as a target.
    pub visible: bool,
    /// What must be built and running before it.
    pub dependencies: Vec<&'static str>,
    /// Builds it.
    pub init: Init<C>,
}

impl<C> fmt::Debug for Module<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").field("name", &self.name).field("dependencies", &self.dependencies).finish()
    }
}

/// All modules that a process could be made of.
#[derive(Debug)]
pub struct Modules<C> {
    by_name: BTreeMap<&'static str, Module<C>>,
}

impl<C> Default for Modules<C> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new() }
    }
}

impl<C> Modules<C> {
    /// No modules yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module.
    ///
    /// # Errors
    ///
    /// [`Error::DuplicateModule`] for a taken name.
    pub fn register(&mut self, module: Module<C>) -> Result<(), Error> {
        if self.by_name.contains_key(module.name) {
            return Err(Error::DuplicateModule { name: module.name.to_owned() });
        }
        self.by_name.insert(module.name, module);
        Ok(())
    }

    /// Names that users are told of, sorted.
    pub fn visible(&self) -> Vec<&'static str> {
        self.by_name.values().filter(|module| module.visible).map(|module| module.name).collect()
    }

    /// Builds the targets and all they depend on, each once and after its dependencies, in an order that depends on
    /// nothing but the names. No service is started yet.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTarget`], [`Error::UnknownDependency`] and [`Error::Cycle`] before anything is built;
    /// [`Error::Init`] from a module, and then nothing of what was built stays.
    pub fn init<S: AsRef<str>>(mut self, targets: &[S], context: &mut C) -> Result<Group, Error> {
        let order = self.order(targets)?;
        let mut group = Group::default();
        // For every built module: the services it needs, through modules without one as well.
        let mut needs: BTreeMap<&'static str, BTreeSet<usize>> = BTreeMap::new();
        for name in order {
            let Some(module) = self.by_name.remove(name) else { continue };
            let service = (module.init)(context)
                .map_err(|cause| Error::Init { module: name.to_owned(), cause: Arc::from(cause) })?;
            let mut needed = BTreeSet::new();
            for dependency in module.dependencies {
                needed.extend(needs.get(dependency).into_iter().flatten().copied());
                needed.extend(group.entries.iter().position(|entry| entry.handle.name() == dependency));
            }
            if let Some(service) = service {
                let index = group.entries.len();
                for dependency in &needed {
                    if let Some(entry) = group.entries.get_mut(*dependency) {
                        entry.dependents.push(index);
                    }
                }
                let (handle, dependencies) =
                    (ServiceHandle::new(name, service), needed.iter().copied().collect());
                group.entries.push(Entry { handle, dependencies, dependents: Vec::new() });
            }
            needs.insert(name, needed);
        }
        Ok(group)
    }

    fn order<S: AsRef<str>>(&self, targets: &[S]) -> Result<Vec<&'static str>, Error> {
        let mut order = Vec::new();
        let mut path = Vec::new();
        for target in targets {
            let target = target.as_ref();
            let Some((name, _)) = self.by_name.get_key_value(target) else {
                let known = self.visible().into_iter().map(str::to_owned).collect();
                return Err(Error::UnknownTarget { name: target.to_owned(), known });
            };
            self.visit(name, &mut path, &mut order)?;
        }
        Ok(order)
    }

    /// Depth-first, so that a module follows all its dependencies. Recursion is bounded by the number of modules.
    fn visit(
        &self,
        name: &'static str,
        path: &mut Vec<&'static str>,
        order: &mut Vec<&'static str>,
    ) -> Result<(), Error> {
        if order.contains(&name) {
            return Ok(());
        }
        if let Some(start) = path.iter().position(|on_path| *on_path == name) {
            let circle = path.iter().skip(start).chain([&name]);
            return Err(Error::Cycle { path: circle.map(ToString::to_string).collect() });
        }
        let Some(module) = self.by_name.get(name) else {
            return Err(Error::UnknownDependency {
                module: path.last().copied().unwrap_or_default().to_owned(),
                dependency: name.to_owned(),
                known: self.by_name.keys().map(ToString::to_string).collect(),
            });
        };
        path.push(name);
        for dependency in &module.dependencies {
            self.visit(dependency, path, order)?;
        }
        path.pop();
        order.push(name);
        Ok(())
    }
}

/// The services of the built modules. Dropping it aborts what still runs.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// In the order of building: dependencies first.
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    handle: ServiceHandle,
    /// Transitive, as positions among the entries.
    dependencies: Vec<usize>,
    /// Transitive, over all built modules, whichever target brought them in.
    dependents: Vec<usize>,
}

impl Group {
    /// The services, dependencies first.
    pub fn services(&self) -> impl Iterator<Item = &ServiceHandle> {
        self.entries.iter().map(|entry| &entry.handle)
    }

    /// The service of one module.
    pub fn service(&self, name: &str) -> Option<&ServiceHandle> {
        self.services().find(|handle| handle.name() == name)
    }

    /// Starts every service as soon as all it depends on are running, and waits for the last one.
    ///
    /// On an error, and after dropping this future, call [`stop`](Self::stop): it stops what was started or
    /// half-started.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] naming the service that failed first; [`Error::Interrupted`] once `stop` is cancelled.
    pub async fn start(&self, stop: &CancellationToken) -> Result<(), Error> {
        let starts = try_join_all(self.entries.iter().map(|entry| async {
            for dependency in entry.dependencies.iter().filter_map(|index| self.entries.get(*index)) {
                dependency.handle.await_running().await?;
            }
            entry.handle.start_async()?;
            entry.handle.await_running().await
        }));
        let started = tokio::select! {
            biased;
            started = starts => started,
            () = stop.cancelled() => {
                let pending = self.services().filter(|service| service.state() < ServiceState::Running);
                Err(Error::Interrupted { pending: pending.map(|service| service.name().to_owned()).collect() })
            }
        };
        started.map(|_| ()).map_err(|error| match error {
            Error::State { failure: Some(failure), .. } => Error::Start(failure),
            other => other,
        })
    }

    /// Waits for the first service to fail; for ever if none does. Cancel-safe.
    pub async fn failed(&self) -> Arc<Failure> {
        let failures = self.services().map(|service| {
            Box::pin(async {
                let state = service.wait_for(ServiceState::is_final).await;
                match service.failure() {
                    Some(failure) if state == ServiceState::Failed => failure,
                    _ => std::future::pending().await,
                }
            })
        });
        let failures: Vec<_> = failures.collect();
        if failures.is_empty() {
            return std::future::pending().await;
        }
        select_all(failures).await.0
    }

    /// Stops every service after all that depend on it have ended. `deadline` gives each one's time from being asked;
    /// whoever misses it is aborted, and the next step begins.
    pub async fn stop(&self, deadline: impl Fn(&str) -> Duration) -> ShutdownReport {
        let ended: Vec<CancellationToken> = self.entries.iter().map(|_| CancellationToken::new()).collect();
        let mut steps: FuturesUnordered<_> = (self.entries.iter().zip(&ended))
            .map(|(entry, end)| {
                let (ended, deadline) = (&ended, deadline(entry.handle.name()));
                async move {
                    for dependent in entry.dependents.iter().filter_map(|index| ended.get(*index)) {
                        dependent.cancelled().await;
                    }
                    let step = stop_one(&entry.handle, deadline).await;
                    end.cancel();
                    step
                }
            })
            .collect();
        let mut report = ShutdownReport::default();
        while let Some(step) = steps.next().await {
            if step.late {
                report.late.push(step.name.clone());
            }
            report.steps.push(step);
        }
        report
    }

    /// Aborts every service at once, without its `stop`.
    pub fn abort(&self) {
        self.services().for_each(ServiceHandle::abort);
    }
}

async fn stop_one(service: &ServiceHandle, deadline: Duration) -> Step {
    let started = Instant::now();
    service.stop_async();
    let end = service.wait_for(ServiceState::is_final);
    let late = tokio::time::timeout(deadline, end).await.is_err();
    if late {
        tracing::warn!(service = service.name(), ?deadline, "service did not stop in time");
        service.abort();
        let _ = tokio::time::timeout(ABORT_GRACE, service.wait_for(ServiceState::is_final)).await;
    }
    Step { name: service.name().to_owned(), took: started.elapsed(), late }
}

#[cfg(test)]
mod tests;
