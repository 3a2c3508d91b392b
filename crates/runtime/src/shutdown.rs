//! How a process ends: signals that ask for it, and the report of who took how long.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// What a shutdown did: every step in the order of completion, and who missed a deadline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "somebody should say who was late"]
pub struct ShutdownReport {
    /// The steps, in the order in which they ended.
    pub steps: Vec<Step>,
    /// Names of the services or tasks that were aborted because they missed their deadline.
    pub late: Vec<String>,
}

/// One step of a shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The service or supervisor that was stopped.
    pub name: String,
    /// How long it took, from being asked to its end or its abort.
    pub took: Duration,
    /// Whether it missed its deadline.
    pub late: bool,
}

impl ShutdownReport {
    /// Whether everybody was in time.
    pub fn is_clean(&self) -> bool {
        self.late.is_empty()
    }

    /// Appends a later shutdown's steps.
    pub fn extend(&mut self, later: Self) {
        self.steps.extend(later.steps);
        self.late.extend(later.late);
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Step { name, took, late }) in self.steps.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            let late = if *late { " (late, aborted)" } else { "" };
            write!(f, "{separator}{name} {took:.1?}{late}")?;
        }
        Ok(())
    }
}

/// A signal that this process reacts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: stop in order.
    Interrupt,
    /// SIGTERM: stop in order.
    Terminate,
    /// SIGQUIT: say what everybody is doing, and continue.
    Quit,
}

impl Signal {
    /// The exit code of a process killed by this signal: 128 plus its number.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Quit => 131,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Quit => "SIGQUIT",
        })
    }
}

/// The signals sent to this process, from the moment this is built. It replaces the default action, death, for as
/// long as the process lives: whoever holds it must act on a second SIGINT or SIGTERM.
#[derive(Debug)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes over the process's signals. Call within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the operating system refuses the handlers.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits for the next signal. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            Some(()) = self.quit.recv() => Signal::Quit,
            else => std::future::pending().await,
        }
    }

    /// Waits for the next SIGINT or SIGTERM, passing over the others. Cancel-safe.
    pub async fn next_stop(&mut self) -> Signal {
        loop {
            match self.next().await {
                Signal::Quit => (),
                stop => return stop,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_one_line_that_names_the_late() {
        let step = |name: &str, ms, late| Step { name: name.into(), took: Duration::from_millis(ms), late };
        let mut report = ShutdownReport { steps: vec![step("distributor", 20, false)], late: vec![] };
        assert!(report.is_clean());
        report.extend(ShutdownReport {
            steps: vec![step("ingester", 5000, true)],
            late: vec!["ingester".into()],
        });
        assert!(!report.is_clean());
        assert_eq!(report.to_string(), "distributor 20.0ms, ingester 5.0s (late, aborted)");
    }
}
