//! A child process: output captured, signals, killed when dropped.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, kill_process};
use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::time::POLL_PERIOD;

/// Lines of output that are kept per process.
const MAX_LINES: usize = 20_000;
/// Lines shown when a test fails.
const SHOWN_LINES: usize = 60;
/// How long the end of the output is waited for after the end of the process.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Signals that tests send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL: gone at once, nothing is cleaned up.
    Kill,
    /// SIGTERM: a polite stop.
    Terminate,
    /// SIGINT: as Ctrl-C.
    Interrupt,
    /// SIGSTOP: frozen, connections stay open.
    Pause,
    /// SIGCONT: goes on.
    Resume,
    /// SIGHUP.
    HangUp,
}

impl Signal {
    fn native(self) -> rustix::process::Signal {
        use rustix::process::Signal as Native;
        match self {
            Self::Kill => Native::KILL,
            Self::Terminate => Native::TERM,
            Self::Interrupt => Native::INT,
            Self::Pause => Native::STOP,
            Self::Resume => Native::CONT,
            Self::HangUp => Native::HUP,
        }
    }
}

/// How to start a process. Cloneable, so that a process can be started again after it was killed.
#[derive(Clone, Debug)]
pub struct ProcessBuilder {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
}

impl ProcessBuilder {
    /// `name` appears in messages; `program` is a path, or a name to look for on the PATH.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), program: program.into(), args: Vec::new(), envs: Vec::new(), dir: None }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Starts the process.
    ///
    /// # Errors
    ///
    /// [`Error::Process`] if the program cannot be executed.
    pub fn start(&self) -> Result<Process, Error> {
        let fail = |cause| Error::Process { what: "starting", program: self.program.clone(), cause };
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.envs.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let mut child = command.spawn().map_err(fail)?;
        let output = Arc::new(Mutex::new(VecDeque::new()));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(capture(stdout, Arc::clone(&output)));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(capture(stderr, Arc::clone(&output)));
        }
        Ok(Process { name: self.name.clone(), program: self.program.clone(), child, output, readers })
    }
}

/// Collects lines until the writer closes its end: the thread ends with the process.
fn capture(from: impl Read + Send + 'static, to: Arc<Mutex<VecDeque<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let mut lines = to.lock();
            if lines.len() == MAX_LINES {
                lines.pop_front();
            }
            lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    })
}

/// A running child process; killed with SIGKILL when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    child: Child,
    output: Arc<Mutex<VecDeque<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Its name, as given to the builder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. A process that has ended is left alone.
    ///
    /// # Errors
    ///
    /// [`Error::Process`] if the system refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        // A child that was not waited for keeps its id, so no other process can be hit.
        if self.exit_status()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let sent = pid.map_or(Err(rustix::io::Errno::SRCH), |pid| kill_process(pid, signal.native()));
        sent.map_err(|errno| self.failure("signalling", errno.into()))
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Process`] if the system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.child.kill().map_err(|cause| self.failure("killing", cause))?;
        self.child.wait().map_err(|cause| self.failure("waiting for", cause))?;
        Ok(())
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] if it is still there after `within`.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus, Error> {
        self.signal(Signal::Terminate)?;
        self.wait(within).await
    }

    /// Waits for the end. Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] if it is still there after `within`.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus, Error> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(Error::Late {
                    what: format!("end of {}", self.name),
                    within,
                    detail: self.detail(),
                });
            }
            sleep(POLL_PERIOD / 4).await;
        }
    }

    /// How the process ended, or `None` while it runs.
    ///
    /// # Errors
    ///
    /// [`Error::Process`] if the system cannot say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(|cause| self.failure("asking about", cause))
    }

    /// Fails if the process has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] with its last output.
    pub fn check_running(&mut self) -> Result<(), Error> {
        match self.exit_status()? {
            None => Ok(()),
            Some(status) => {
                self.drain();
                let (name, output) = (self.name.clone(), self.last_output());
                Err(Error::Ended { name, status: status.to_string(), output })
            }
        }
    }

    /// All captured output, standard output and standard error in order of arrival (the last 20,000 lines).
    pub fn output(&self) -> String {
        let lines = self.output.lock();
        lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// Waits for a line that contains `text` and returns it. Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] if the process ends first, [`Error::Late`] after `within`.
    pub async fn wait_for_output(&mut self, text: &str, within: Duration) -> Result<String, Error> {
        let deadline = Instant::now() + within;
        loop {
            let ended = self.check_running();
            if let Some(line) = self.output.lock().iter().find(|line| line.contains(text)) {
                return Ok(line.clone());
            }
            ended?;
            if Instant::now() >= deadline {
                let what = format!("`{text}` in the output of {}", self.name);
                return Err(Error::Late { what, within, detail: self.detail() });
            }
            sleep(POLL_PERIOD).await;
        }
    }

    /// The last lines of output.
    pub fn last_output(&self) -> String {
        let lines = self.output.lock();
        let skip = lines.len().saturating_sub(SHOWN_LINES);
        lines.iter().skip(skip).flat_map(|line| ["    ", line.as_str(), "\n"]).collect()
    }

    /// After the end: lets the readers take in what is still in the pipes. A grandchild may hold a pipe open, hence the bound.
    fn drain(&self) {
        let deadline = std::time::Instant::now() + DRAIN_TIMEOUT;
        while self.readers.iter().any(|reader| !reader.is_finished()) && std::time::Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn detail(&self) -> String {
        format!("\n{}", self.last_output())
    }

    fn failure(&self, what: &'static str, cause: std::io::Error) -> Error {
        Error::Process { what, program: self.program.clone(), cause }
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "the test harness shows it beside the failure it belongs to")]
    fn drop(&mut self) {
        // Nothing can be done about a process that resists SIGKILL.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.drain();
        if thread::panicking() {
            eprintln!(
                "--- last output of {} (process {})\n{}",
                self.name,
                self.child.id(),
                self.last_output()
            );
        }
    }
}

/// Finds a program on the PATH, or where `cargo xtask test` unpacks what cannot be installed.
///
/// # Errors
///
/// [`Error::NotInstalled`] with `install`, the line a developer should run.
pub fn find_program(program: &str, install: &str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/usr/bin"));
    std::env::split_paths(&path)
        .chain([unpacked.to_owned()])
        .map(|dir| dir.join(program))
        .find(|file| is_executable(file))
        .ok_or_else(|| Error::NotInstalled { program: program.to_owned(), install: install.to_owned() })
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Process {
        ProcessBuilder::new("script", "/bin/sh").args(["-c", script]).start().unwrap()
    }

    #[tokio::test]
    async fn output_of_both_streams_is_captured() {
        let mut process = shell("echo to-stdout; echo to-stderr >&2; exec sleep 60");
        process.wait_for_output("to-stdout", SOON).await.unwrap();
        process.wait_for_output("to-stderr", SOON).await.unwrap();
        assert!(process.output().contains("to-stdout\n"));
    }

    #[tokio::test]
    async fn signals_arrive() {
        let mut process = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        process.wait_for_output("ready", SOON).await.unwrap();
        assert_eq!(process.terminate(SOON).await.unwrap().code(), Some(7));
        process.signal(Signal::Kill).unwrap();

        let mut process = shell("exec sleep 60");
        process.signal(Signal::Pause).unwrap();
        process.signal(Signal::Resume).unwrap();
        process.check_running().unwrap();
        process.kill().unwrap();
        assert!(process.exit_status().unwrap().is_some());
    }

    #[tokio::test]
    async fn an_early_end_is_reported_with_what_it_said() {
        let mut process = shell("echo no such setting >&2; exit 3");
        let error = process.wait_for_output("ready", SOON).await.unwrap_err().to_string();
        assert!(error.contains("script ended early") && error.contains("no such setting"), "{error}");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = shell("exec sleep 60");
        let pid = process.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_missing_program_comes_with_the_line_that_installs_it() {
        assert!(find_program("sh", "").is_ok());
        let error =
            find_program("no-such-program", "sudo apt-get install -y no-such").unwrap_err().to_string();
        assert!(
            error.contains("`no-such-program`") && error.contains("sudo apt-get install -y no-such"),
            "{error}"
        );
    }
}
