//! Programs that must be there, and how they get there: on Debian by apt, elsewhere the developer is told one line.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::{Step, say};

/// Runs tests in processes of their own and in parallel; wished for, not needed.
pub(crate) const CARGO_NEXTEST: &str = "cargo-nextest";

/// A file that forbids package scripts to start services while it exists (Debian's policy-rc.d).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// A program that something needs.
pub(crate) struct Need {
    /// Its name on the PATH.
    pub(crate) program: &'static str,
    /// Debian's packages, separated by spaces.
    pub(crate) package: &'static str,
    /// What it is for.
    pub(crate) why: &'static str,
}

/// Whether a program is on the PATH, or in cargo's own directory.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let mut dirs = std::env::split_paths(&path).chain(cargo_home.map(|home| home.join("bin")));
    dirs.any(|dir| is_executable(&dir.join(program)))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Sees to it that all these programs are there; installs what is missing where that is possible.
pub(crate) fn ensure(needs: &[Need]) -> Result<(), String> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !has(need.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        say(&format!("`{}` is missing: {}\n", need.program, need.why));
    }
    let packages: BTreeSet<&str> = missing.iter().flat_map(|need| need.package.split(' ')).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    let line = format!("sudo apt-get install -y --no-install-recommends {}", packages.join(" "));
    match Root::find() {
        Some(root) if has("apt-get") => {
            let running = services_running();
            install(&root, &packages).map_err(|problem| format!("{problem}; on Debian run:  {line}"))?;
            stop_new_services(&root, &running);
        }
        _ => return Err(format!("install what is missing, then try again; on Debian run:  {line}")),
    }
    match missing.iter().find(|need| !has(need.program)) {
        Some(need) => {
            Err(format!("`{}` is still missing after installing {}", need.program, packages.join(" ")))
        }
        None => Ok(()),
    }
}

/// How to do what only root may.
enum Root {
    Already,
    Sudo,
}

impl Root {
    /// `None` if we are not root and sudo is absent or would ask for a password.
    fn find() -> Option<Self> {
        if output("id", &["-u"]).is_some_and(|id| id.trim() == "0") {
            return Some(Self::Already);
        }
        output("sudo", &["-n", "true"]).map(|_| Self::Sudo)
    }

    fn step(&self, program: &str, args: &[&str]) -> Step {
        match self {
            Self::Already => Step::program(program, args),
            Self::Sudo => {
                Step::program("sudo", &["-n", "env", "DEBIAN_FRONTEND=noninteractive", program]).args(args)
            }
        }
    }
}

/// Installs without letting the packages start services: tests run servers of their own.
fn install(root: &Root, packages: &[&str]) -> Result<(), String> {
    // A policy of the machine's owner stays as it is.
    let ours = !Path::new(POLICY).exists();
    if ours {
        root.step(
            "sh",
            &["-c", &format!("printf '#!/bin/sh\\nexit 101\\n' > {POLICY} && chmod 755 {POLICY}")],
        )
        .run()?;
    }
    let args = ["install", "-y", "--no-install-recommends"];
    let apt = || root.step("apt-get", &args).args(packages).env("DEBIAN_FRONTEND", "noninteractive").run();
    // Lists may be absent (containers) or old: fetch them only if it does not work without.
    let installed = apt().or_else(|_| root.step("apt-get", &["update"]).run().and_then(|()| apt()));
    if ours {
        root.step("rm", &["-f", POLICY]).run()?;
    }
    installed
}

/// Services that packages of ours bring along.
const SERVICES: &[&str] = &["prometheus"];

fn services_running() -> Vec<&'static str> {
    SERVICES.iter().copied().filter(|service| is_running(service)).collect()
}

/// Whether systemd, or an init script, says that it runs.
fn is_running(service: &str) -> bool {
    output("systemctl", &["is-active", service]).is_some()
        || output("service", &[service, "status"]).is_some()
}

/// Stops and disables what the installation started in spite of the policy; what ran before is left alone.
fn stop_new_services(root: &Root, running_before: &[&str]) {
    for service in services_running() {
        if running_before.contains(&service) {
            continue;
        }
        let stopped = root.step("systemctl", &["disable", "--now", service]).run();
        if stopped.or_else(|_| root.step("service", &[service, "stop"]).run()).is_err() {
            say(&format!(
                "the service `{service}` was started by its package and cannot be stopped: stop it by hand\n"
            ));
        }
    }
}

/// What a program prints, or `None` if it is absent or fails.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_there_needs_nothing() {
        assert!(has("sh") && !has("no-such-program-anywhere"));
        ensure(&[Need { program: "sh", package: "dash", why: "" }]).unwrap();
    }
}
