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
    /// Its name on the PATH; `NAME.pc` for a library that is compiled against; or the path of a file.
    pub(crate) program: &'static str,
    /// Debian's packages, separated by spaces.
    pub(crate) package: &'static str,
    /// What it is for.
    pub(crate) why: &'static str,
}

/// Where programs are that were unpacked instead of installed: below the workspace's `target`.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools");

/// The unpacked programs.
pub(crate) fn tools() -> PathBuf {
    Path::new(TOOLS).join("usr/bin")
}

/// Whether a program is on the PATH, in cargo's own directory, or unpacked.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let mut dirs =
        std::env::split_paths(&path).chain(cargo_home.map(|home| home.join("bin"))).chain([tools()]);
    dirs.any(|dir| is_executable(&dir.join(program)))
}

/// Whether what is needed is there.
fn is_there(need: &Need) -> bool {
    match need.program.strip_suffix(".pc") {
        _ if need.program.starts_with('/') => Path::new(need.program).exists(),
        Some(library) => output("pkg-config", &["--exists", library]).is_some(),
        None => has(need.program),
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Sees to it that all these programs are there; installs what is missing where that is possible.
pub(crate) fn ensure(needs: &[Need]) -> Result<(), String> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !is_there(need)).collect();
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
    match missing.iter().find(|need| !is_there(need)) {
        Some(need) => {
            Err(format!("`{}` is still missing after installing {}", need.program, packages.join(" ")))
        }
        None => Ok(()),
    }
}

/// The release of Debian that has Consul, for want of a later one.
const CONSUL_SUITE: &str = "bullseye";

/// Sees to it that there is a Consul: if need be, a Debian package is unpacked below `target`, without installing it.
pub(crate) fn ensure_consul() -> Result<(), String> {
    if has("consul") {
        return Ok(());
    }
    say("`consul` is missing: tests talk to a real one\n");
    let unpacked = unpack_consul();
    unpacked.map_err(|problem| format!("{problem}; put a `consul` of version 1.8 or later on the PATH"))
}

fn unpack_consul() -> Result<(), String> {
    if !has("apt-get") || !has("dpkg") {
        return Err("Consul can be fetched on Debian only".to_owned());
    }
    let source = debian_source().ok_or("no source of apt is Debian's own archive")?;
    let work = Path::new(TOOLS).join("apt");
    for dir in ["lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(work.join(dir))
            .map_err(|cause| format!("cannot use {}: {cause}", work.display()))?;
    }
    let list = work.join("sources.list");
    std::fs::write(&list, source).map_err(|cause| format!("cannot write {}: {cause}", list.display()))?;
    // Lists, cache and sources of its own: the machine's stay as they are.
    let options = [
        format!("-oDir::Etc::SourceList={}", list.display()),
        "-oDir::Etc::SourceParts=/dev/null".to_owned(),
        format!("-oDir::State::Lists={}", work.join("lists").display()),
        format!("-oDir::Cache={}", work.join("cache").display()),
        "-oAcquire::Check-Valid-Until=false".to_owned(),
    ];
    let apt = |args: &[&str]| Step::program("apt-get", args).args(&options).dir(&work).run();
    apt(&["update"])?;
    apt(&["download", "consul"])?;
    let files =
        std::fs::read_dir(&work).map_err(|cause| format!("cannot use {}: {cause}", work.display()))?;
    let is_package = |file: &PathBuf| file.extension().is_some_and(|kind| kind == "deb");
    let package = files.flatten().map(|file| file.path()).find(is_package);
    let package = package.ok_or("apt-get downloaded no package")?;
    Step::program("dpkg", &["-x"]).args(&[&package, Path::new(TOOLS)]).run()?;
    if has("consul") { Ok(()) } else { Err(format!("{} holds no consul", package.display())) }
}

/// A line for apt that names the suite with Consul on the server from which this machine gets its own packages.
fn debian_source() -> Option<String> {
    let parts = std::fs::read_dir("/etc/apt/sources.list.d").ok();
    let parts = parts.into_iter().flatten().flatten().map(|file| file.path());
    let files = [PathBuf::from("/etc/apt/sources.list")].into_iter().chain(parts);
    let uri =
        files.filter_map(|file| std::fs::read_to_string(file).ok()).find_map(|text| debian_uri(&text))?;
    const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let signed = if Path::new(KEYS).exists() { format!("[signed-by={KEYS}] ") } else { String::new() };
    Some(format!("deb {signed}{uri} {CONSUL_SUITE} main\n"))
}

/// Where Debian's main archive is, according to a file of apt in either format.
fn debian_uri(text: &str) -> Option<String> {
    let words =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace);
    let mut uris = words.filter(|word| word.starts_with("http://") || word.starts_with("https://"));
    let is_debian =
        |uri: &&str| uri.trim_end_matches('/').ends_with("/debian") || uri.contains("/archive/debian/");
    uris.find(is_debian).map(str::to_owned)
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
const SERVICES: &[&str] = &["prometheus", "etcd"];

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
    fn the_archive_is_found_in_both_formats_of_apt() {
        let deb822 = "Types: deb\n# http://old.example/archive/debian/1\nURIs: http://m.example/debian-security\n\n\
                      Types: deb\nURIs: http://m.example/debian\nSuites: bookworm\nComponents: main\n";
        assert_eq!(debian_uri(deb822).as_deref(), Some("http://m.example/debian"));
        let lines =
            "deb https://x.example/node main\ndeb [arch=amd64] https://m.example/debian/ bookworm main\n";
        assert_eq!(debian_uri(lines).as_deref(), Some("https://m.example/debian/"));
        assert_eq!(debian_uri("deb http://m.example/ubuntu noble main"), None);
    }

    #[test]
    fn a_program_that_is_there_needs_nothing() {
        assert!(has("sh") && !has("no-such-program-anywhere"));
        ensure(&[Need { program: "sh", package: "dash", why: "" }]).unwrap();
    }
}
