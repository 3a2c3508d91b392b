//! Module `runtime-config`: the files of `runtime_config.file`, read again and again. Every role depends on it, and the first
//! load is done before any of them is built.

use std::sync::Arc;

use ringkit_config::{Config, RuntimeConfig, RuntimeFile};
use ringkit_runtime::{Cause, Contents, Live, Module, Reload, ReloadOptions, Service};

use super::SERVER;
use crate::error::Error;
use crate::pages;
use crate::process::Process;

/// The module's name, as in Cortex.
pub(super) const NAME: &str = "runtime-config";

const TITLE: &str = "Current Runtime Config (incl. Overrides)";
const DIFF_TITLE: &str = "Current Runtime Config (show only values that differ from the defaults)";

/// What holds beside the main configuration, and who keeps it up to date.
pub(super) struct Opened {
    pub(super) live: Live<RuntimeConfig>,
    /// Nobody without a file.
    pub(super) reload: Option<Reload<RuntimeConfig>>,
}

/// Loads for the first time.
///
/// # Errors
///
/// [`Error::RuntimeConfig`] for a file that cannot be read or used.
pub(super) async fn open(config: &Config) -> Result<Opened, Error> {
    let base = RuntimeConfig::new(config);
    let source = &config.runtime_config;
    let files = source.paths();
    if files.is_empty() {
        return Ok(Opened { live: Live::fixed(base), reload: None });
    }
    let options = ReloadOptions { files, period: source.period, max_bytes: RuntimeConfig::MAX_BYTES };
    let reload = Reload::open(options, move |contents: &Contents| parse(&base, contents));
    let reload = reload.await.map_err(|cause| Error::RuntimeConfig { problem: cause.to_string() })?;
    Ok(Opened { live: reload.live(), reload: Some(reload) })
}

fn parse(base: &RuntimeConfig, contents: &Contents) -> Result<RuntimeConfig, Cause> {
    let files: Vec<_> = contents.files.iter().map(|(name, bytes)| RuntimeFile { name, bytes }).collect();
    let (mut config, warnings) = base.read(&files)?;
    for warning in warnings {
        tracing::warn!(%warning, "runtime configuration");
    }
    config.sha256 = Some(Arc::clone(&contents.sha256));
    Ok(config)
}

/// The module. Without a file there is nothing to run.
pub(super) fn module(reload: Option<Reload<RuntimeConfig>>) -> Module<Process> {
    Module {
        name: NAME,
        visible: false,
        dependencies: vec![SERVER],
        init: Box::new(move |process| Ok(init(process, reload))),
    }
}

fn init(process: &mut Process, reload: Option<Reload<RuntimeConfig>>) -> Option<Box<dyn Service>> {
    // Stays with the process, so that nobody who waits for changes is told that there will be none.
    process.provide(process.live_config.clone());
    process.http(pages::runtime_config::routes(process.live_config.clone()));
    let reload = reload?;
    process.link(pages::ADMIN, "/runtime_config", TITLE);
    process.link(pages::ADMIN, "/runtime_config?mode=diff", DIFF_TITLE);
    Some(Box::new(reload.with_metrics(&process.meter)))
}
