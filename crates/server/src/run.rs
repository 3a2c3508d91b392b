//! A whole process from its arguments to its exit code. The only place that reads them and that decides how it ends.

use std::io::{self, Write as _};
use std::process::ExitCode;

use ringkit_config::{Config, Loaded};
use ringkit_runtime::{ShutdownReport, Signals};

use crate::app::App;
use crate::args::{Ask, ask};
use crate::process::Role;
use crate::running::{ExitReason, Running};
use crate::telemetry;

const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;
const USAGE: u8 = 2;

/// Runs a process: arguments (Cortex's flags) → configuration → logs → services → signals → exit code.
///
/// `default_target` is run when the configuration names none. Exit codes: 0 after an orderly stop; 1 for a bad
/// configuration, a service that failed, or one that did not stop in time; 2 for a bad command line; 128 plus the signal's
/// number after a second SIGINT or SIGTERM, which ends the process at once.
pub fn main(default_target: &str, roles: &[Role]) -> ExitCode {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    ExitCode::from(obey(program, args.collect(), default_target, roles))
}

fn obey(program: &str, mut args: Vec<String>, default_target: &str, roles: &[Role]) -> u8 {
    match ask(&mut args) {
        Ask::Help => print(&help(program)),
        Ask::Version => print(&format!("{program}, version {}\n", env!("CARGO_PKG_VERSION"))),
        Ask::Modules => print(&modules(roles)),
        Ask::Run { print_config } => match load(default_target, args) {
            Ok(loaded) => {
                if print_config {
                    print(&loaded.config.to_yaml());
                }
                run(loaded, roles)
            }
            Err(code) => code,
        },
    }
}

/// Says it on standard output; nobody listening is no reason to fail.
fn print(text: &str) -> u8 {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    SUCCESS
}

/// Says it on standard error, before there are logs.
fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn help(program: &str) -> String {
    format!(
        "Usage of {program}:\n\
         \x20 -config.file value\n    \tConfiguration file to load (YAML).\n\
         \x20 -target value\n    \tComma-separated modules to run; see -modules.\n\
         \x20 -modules\n    \tList the modules that can be a target, and exit.\n\
         \x20 -print.config\n    \tPrint the effective configuration at start.\n\
         \x20 -version\n    \tPrint the version, and exit.\n\
         \x20 -help\n    \tPrint this, and exit.\n\
         Every key of the configuration is a flag as well, in Cortex's spelling; one or two dashes.\n\
         `ringkit config reference` lists all keys with their defaults and meaning.\n"
    )
}

fn modules(roles: &[Role]) -> String {
    let mut names: Vec<&str> = roles.iter().filter(|role| role.visible).map(|role| role.name).collect();
    if !names.contains(&"all") {
        names.push("all");
    }
    names.sort_unstable();
    names.iter().map(|name| format!("{name}\n")).collect()
}

fn load(default_target: &str, args: Vec<String>) -> Result<Loaded, u8> {
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut loaded = ringkit_config::load(args, env).map_err(|error| {
        complain(&error.to_string());
        if error.is_usage() { USAGE } else { FAILURE }
    })?;
    if let Some(stray) = loaded.rest.first() {
        complain(&format!("unexpected argument `{stray}`: flags begin with a dash; see -help"));
        return Err(USAGE);
    }
    if loaded.config.target == Config::default().target {
        loaded.config.target = default_target.split(',').map(|target| target.trim().to_owned()).collect();
    }
    Ok(loaded)
}

fn run(loaded: Loaded, roles: &[Role]) -> u8 {
    telemetry::init(loaded.config.server.log_format, loaded.config.server.log_level);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start the async runtime: {error}"));
            return FAILURE;
        }
    };
    let code = runtime.block_on(live(loaded, roles));
    // What is still running after the shutdown has been reported as late: it is not waited for.
    runtime.shutdown_background();
    code
}

async fn live(loaded: Loaded, roles: &[Role]) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot listen to signals");
            return FAILURE;
        }
    };
    let mut running = match App::builder(Config::default()).loaded(loaded).roles(roles).start().await {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return FAILURE;
        }
    };
    let reason = until_over(&mut running, &mut signals).await;
    tokio::select! {
        report = running.stop() => exit_code(&reason, &report),
        signal = signals.next_stop() => {
            tracing::warn!(%signal, "second signal: ending at once");
            signal.exit_code()
        }
    }
}

async fn until_over(running: &mut Running, signals: &mut Signals) -> ExitReason {
    use ringkit_runtime::Signal;
    loop {
        tokio::select! {
            reason = running.wait() => return reason,
            signal = signals.next() => match signal {
                Signal::Quit => {
                    let services = running.services();
                    let services: Vec<_> = services.iter().map(|(name, state)| format!("{name}: {state}")).collect();
                    tracing::info!(services = services.join(", "), ready = ?running.check_ready(), "SIGQUIT");
                }
                stop => {
                    tracing::info!(signal = %stop, "received signal");
                    return ExitReason::Stopped;
                }
            },
        }
    }
}

fn exit_code(reason: &ExitReason, report: &ShutdownReport) -> u8 {
    if reason.is_success() && report.is_clean() { SUCCESS } else { FAILURE }
}

#[cfg(test)]
mod tests;
