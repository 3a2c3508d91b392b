//! Whether the process is ready, and why not: shared by `/ready`, `/services` and the gRPC health service.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use ringkit_kv::Stores;
use ringkit_runtime::{Group, ServiceState};
use tokio::sync::watch;

use crate::process::Check;

/// The services of a process, as seen from outside, and the roles' own conditions.
#[derive(Clone)]
pub(crate) struct Ready(Arc<Inner>);

struct Inner {
    /// Sorted by name. Receivers, not handles: what is served by a service must not keep it alive.
    services: Vec<(String, watch::Receiver<ServiceState>)>,
    checks: Vec<Check>,
    stores: Stores,
}

impl Ready {
    pub(crate) fn new(group: &Group, checks: Vec<Check>, stores: Stores) -> Self {
        let services = group.services().map(|service| (service.name().to_owned(), service.watch()));
        let mut services: Vec<_> = services.collect();
        services.sort_by(|a, b| a.0.cmp(&b.0));
        Self(Arc::new(Inner { services, checks, stores }))
    }

    /// Name and state of every service, sorted by name.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&str, ServiceState)> {
        self.0.services.iter().map(|(name, state)| (name.as_str(), *state.borrow()))
    }

    /// Ready, or Cortex's text with every reason why not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut by_state = BTreeMap::<ServiceState, usize>::new();
        for (_, state) in self.services() {
            *by_state.entry(state).or_default() += 1;
        }
        let mut reasons = String::new();
        if by_state.keys().any(|state| *state != ServiceState::Running) {
            reasons.push_str("Some services are not Running:\n");
            for (state, count) in by_state {
                // Writing to a string cannot fail.
                let _ = writeln!(reasons, "{state}: {count}");
            }
        }
        for Check { name, holds } in &self.0.checks {
            if let Err(reason) = holds() {
                let mut letters = name.chars();
                let first = letters.next().map(|first| first.to_ascii_uppercase());
                let _ = writeln!(reasons, "{}{} not ready: {reason}", first.unwrap_or(' '), letters.as_str());
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// What an operator should know of a process, ready or not, a line each: stores that do not answer, and what is amiss with
    /// gossip. Such a process stays in rotation, because it serves what it last knew.
    pub(crate) fn remarks(&self) -> String {
        let mut remarks = String::new();
        for (backend, trouble) in self.0.stores.in_trouble() {
            let (secs, cause) = (trouble.since.elapsed().as_secs(), trouble.cause);
            let _ = writeln!(
                remarks,
                "The store `{backend}` has not answered for {secs} s, serving what was last known: {cause}"
            );
        }
        for remark in self.0.stores.remarks() {
            let _ = writeln!(remarks, "{remark}");
        }
        remarks
    }

    /// What the gRPC health service says: nothing is coming up or broken, and something works or is winding down.
    pub(crate) fn is_serving(&self) -> bool {
        let mut serving = false;
        for (_, state) in self.services() {
            match state {
                ServiceState::New | ServiceState::Starting | ServiceState::Failed => return false,
                ServiceState::Running | ServiceState::Stopping => serving = true,
                ServiceState::Terminated => (),
            }
        }
        serving
    }

    /// Waits until [`check`](Self::check) holds, or until a service has ended, which it then never will.
    pub(crate) async fn wait(&self) -> bool {
        const PERIOD: std::time::Duration = std::time::Duration::from_millis(10);
        loop {
            if self.check().is_ok() {
                return true;
            }
            if self.services().any(|(_, state)| state > ServiceState::Running) {
                return false;
            }
            // Conditions of roles are functions without a notice: they are asked again.
            tokio::time::sleep(PERIOD).await;
        }
    }
}
