//! What Prometheus' client libraries say of every process, and which build this is. Read when somebody scrapes.

use std::fs;

use metrics::Unit;
use ringkit_runtime::{Families, Meter};

/// Which build this is, in Cortex's labels as far as they mean something here.
pub(crate) fn build_info(meter: &Meter) {
    let help = "A metric with a constant '1' value labeled by version, revision, branch and goversion.";
    meter
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("revision", option_env!("RINGKIT_REVISION").unwrap_or("unknown"))
        .with("branch", option_env!("RINGKIT_BRANCH").unwrap_or("unknown"))
        .gauge("cortex_build_info", Unit::Count, help)
        .set(1.0);
}

/// The metrics of this operating-system process: CPU time, memory, file descriptors, start. What cannot be read, on other
/// systems than Linux all of it, is left out.
pub(crate) fn process(out: &mut Families) {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
        let help = "Total user and system CPU time spent in seconds.";
        out.counter("process_cpu_seconds_total", help, &[], stat.cpu_ticks / TICKS_PER_SECOND);
        out.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", &[], stat.virtual_bytes);
        if let Some(booted) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time) {
            let started = booted + stat.start_ticks / TICKS_PER_SECOND;
            let help = "Start time of the process since unix epoch in seconds.";
            out.gauge("process_start_time_seconds", help, &[], started);
        }
    }
    if let Some(resident) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
        out.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", &[], resident);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        out.gauge("process_open_fds", "Number of open file descriptors.", &[], as_f64(open.count() as u64));
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        out.gauge("process_max_fds", "Maximum number of open file descriptors.", &[], as_f64(most));
    }
}

/// `USER_HZ`, in which the kernel tells times to programs: the same on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Parts of `/proc/self/stat`; see proc_pid_stat(5).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
    virtual_bytes: f64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The second field is the program's name in brackets, which may itself hold anything. The third comes next.
        let fields: Vec<&str> = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)?, virtual_bytes: field(23)? })
    }
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident_bytes(status: &str) -> Option<f64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?;
    Some(kib.trim().parse::<f64>().ok()? * 1024.0)
}

#[expect(clippy::cast_precision_loss, reason = "file descriptors")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_anything() {
        let line = "7 (a) b) R 1 7 7 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 3 0 12345 1000448 99 1844 1 1 0";
        let expected = Stat { cpu_ticks: 200.0, start_ticks: 12345.0, virtual_bytes: 1_000_448.0 };
        assert_eq!(Stat::parse(line), Some(expected));
        assert_eq!(Stat::parse("7 (a"), None);
        assert_eq!(Stat::parse("7 (a) R 1"), None);
    }

    #[test]
    fn memory_and_boot_time_are_found_among_other_lines() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\nThreads: 1\n"), Some(2_097_152.0));
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1.7e9));
    }
}
