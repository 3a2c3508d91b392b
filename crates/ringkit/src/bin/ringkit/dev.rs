//! `ringkit dev`: a local cluster in one process, with a live status line and, if asked for, load.

mod args;
mod status;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringkit::cluster::{Cluster, ClusterError, ClusterOptions, Kind};
use ringkit_config::LogLevel;
use ringkit_loadgen::{Load, LoadOptions, Progress, Summary};
use ringkit_runtime::{CancellationToken, Cause, ShutdownReport, Signals};

use self::args::{Args, Parsed};
use self::status::Status;

/// How long Ctrl-C may take at most before the rest is ended the hard way.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn main(args: impl Iterator<Item = String>) -> ExitCode {
    let args = match args::parse(args) {
        Ok(Parsed::Run(args)) => *args,
        Ok(Parsed::Help) => {
            let _ = std::io::stdout().write_all(args::USAGE.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "ringkit dev: {problem}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    ringkit_server::telemetry::init(args.config.server.log_format, args.config.server.log_level);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ringkit dev: cannot start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(args)) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ringkit dev: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<ExitCode, Cause> {
    let started = Instant::now();
    let mut signals = Signals::listen()?;
    let cluster = tokio::select! {
        cluster = start(&args) => cluster?,
        signal = signals.next_stop() => return Ok(ExitCode::from(signal.exit_code())),
    };
    say(&greeting(&cluster, &args, started.elapsed()));

    let load_stop = CancellationToken::new();
    let progress: Arc<Mutex<Option<Progress>>> = Arc::default();
    let load = args.load_rate.map(|rate| load(&cluster, rate, args.series, &progress)).transpose()?;
    let mut load_task = load.map(|load| {
        let stop = load_stop.clone();
        tokio::spawn(async move { load.run(stop).await })
    });

    let mut status = Status::new(std::io::stdout().is_terminal(), load_task.is_some());
    let mut ticks = tokio::time::interval(status.period());
    let signal = loop {
        tokio::select! {
            signal = signals.next_stop() => break signal,
            _ = ticks.tick() => {
                let progress = progress.lock().clone();
                status.show(&cluster, progress.as_ref());
            }
        }
    };
    status.end();
    say(&format!("{signal}: stopping; once more to stop at once\n"));

    load_stop.cancel();
    let uptime = started.elapsed();
    let stopping = async {
        let summary = match load_task.take() {
            Some(task) => task.await.ok().and_then(Result::ok),
            None => None,
        };
        let totals = status.totals(&cluster);
        (summary, totals, cluster.stop().await)
    };
    tokio::select! {
        (summary, totals, reports) = stopping => {
            say(&farewell(uptime, summary.as_ref(), &totals, &reports, &args));
            let clean = reports.iter().all(|(_, report)| report.is_clean());
            Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        again = signals.next_stop() => Ok(ExitCode::from(again.exit_code())),
        () = tokio::time::sleep(STOP_DEADLINE) => {
            say(&format!("not stopped within {STOP_DEADLINE:?}: ended\n"));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Starts the cluster and waits until it can be used. A busy default port is replaced by a free one.
async fn start(args: &Args) -> Result<Cluster, ClusterError> {
    let mut options = ClusterOptions {
        config: args.config.clone(),
        http_port: args.http_port.unwrap_or(args::DEFAULT_HTTP_PORT),
        ingesters: args.ingesters,
        zones: args.zones,
        ..ClusterOptions::new(&args.data_dir)
    };
    let cluster = match Cluster::start(options.clone()).await {
        Err(ClusterError::Listen { addr, .. })
            if args.http_port.is_none() && options.http_port == addr.port() =>
        {
            say(&format!("port {} is taken: using a free one\n", addr.port()));
            options.http_port = 0;
            Cluster::start(options).await?
        }
        other => other?,
    };
    cluster.ready().await?;
    Ok(cluster)
}

fn load(
    cluster: &Cluster,
    rate: f64,
    series: u32,
    progress: &Arc<Mutex<Option<Progress>>>,
) -> Result<Load, ringkit_loadgen::Error> {
    let options =
        LoadOptions { urls: cluster.urls(Kind::Distributor), rate, series, ..LoadOptions::default() };
    let progress = Arc::clone(progress);
    Ok(Load::new(options)?.on_progress(move |line| *progress.lock() = Some(line.clone())))
}

fn greeting(cluster: &Cluster, args: &Args, took: Duration) -> String {
    let url = cluster.urls(Kind::Distributor).into_iter().next().unwrap_or_default();
    let factor = args.config.ingester.lifecycler.ring.replication_factor;
    let mut text = format!(
        "ringkit dev: ready after {took:.1?}: {} ingesters in {} zones, replication factor {factor}\n\n  \
         write   {url}/api/v1/push              Prometheus remote write\n  \
         read    {url}/prometheus/api/v1/read   Prometheus remote read\n          \
         {url}/api/v1/samples?match[]=up\n  \
         look    {url}/                         the distributor; its view of the ring: {url}/ingester/ring\n",
        args.ingesters, args.zones
    );
    for name in cluster.names().filter(|name| !name.starts_with("distributor-1")) {
        if let Some(member) = cluster.member(name) {
            text += &format!("          http://{}/   {name}\n", member.http_addr);
        }
    }
    text += &format!("  data    {}\n\n", cluster.data_dir().display());
    text
}

fn farewell(
    uptime: Duration,
    load: Option<&Summary>,
    totals: &status::Totals,
    reports: &[(String, ShutdownReport)],
    args: &Args,
) -> String {
    let mut text = format!(
        "stopped cleanly after {:.0} s: {} samples taken, {} series in memory\n",
        uptime.as_secs_f64(),
        totals.samples,
        totals.series
    );
    if let Some(summary) = load {
        text += &format!("\n{summary}\n");
    }
    let late: Vec<_> = reports
        .iter()
        .flat_map(|(member, report)| report.late.iter().map(move |part| format!("{member}: {part}")))
        .collect();
    if !late.is_empty() {
        text = text.replace("stopped cleanly", "stopped");
        text += &format!("late, and ended the hard way: {}\n", late.join(", "));
    }
    text += &format!("data is kept in {}\n", args.data_dir.display());
    text
}

/// Quiet by default: the status line is what a person at a terminal wants to see.
pub(crate) const QUIET: LogLevel = LogLevel::Warn;

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
