//! The flags of `ringkit dev`.

use std::path::PathBuf;

use ringkit_config::Config;

/// Where the distributor serves HTTP if that port is free: the port of Cortex's own guides.
pub(crate) const DEFAULT_HTTP_PORT: u16 = 9009;

pub(crate) const USAGE: &str = "\
usage: ringkit dev [flags]

A cluster in one process: a distributor, ingesters in zones, a store-gateway. They gossip, each on a port of its own.
Ctrl-C stops it.

  --http-port PORT   the distributor's HTTP port; 0: any free one (default: 9009, or any free one if that is taken)
  --data-dir DIR     where the members keep their data, over restarts too (default: data/dev)
  --load[=RATE]      also generate load: RATE samples per second (default: 1000)
  --series N         series of that load (default: 1000)
  --nodes N          number of ingesters (default: 3); --ingesters is the same
  --zones N          number of zones, at most 26 (default: 3)

All flags of the configuration work too, such as -config.file=FILE, -limits.ingestion-rate=1e6, -log.level=info, or
-ring.store=inmemory for a cluster without gossip.
";

/// What `ringkit dev` was asked for.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) config: Config,
    pub(crate) data_dir: PathBuf,
    /// `None`: the default, which may be replaced if it is taken.
    pub(crate) http_port: Option<u16>,
    /// Samples per second.
    pub(crate) load_rate: Option<f64>,
    pub(crate) series: u32,
    pub(crate) ingesters: usize,
    pub(crate) zones: usize,
}

#[derive(Debug)]
pub(crate) enum Parsed {
    Run(Box<Args>),
    Help,
}

pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Parsed, String> {
    let mut parsed = Args {
        config: Config::default(),
        data_dir: "data/dev".into(),
        http_port: None,
        load_rate: None,
        series: 1000,
        ingesters: 3,
        zones: 3,
    };
    let mut rest = Vec::new();
    let mut log_level_given = false;
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg.clone(), None),
        };
        let mut value =
            || inline.clone().or_else(|| args.next()).ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "-h" | "-help" | "--help" => return Ok(Parsed::Help),
            "--http-port" => parsed.http_port = Some(number(&name, &value()?)?),
            "--data-dir" => parsed.data_dir = value()?.into(),
            "--series" => parsed.series = number(&name, &value()?)?,
            "--nodes" | "--ingesters" => parsed.ingesters = at_least_one(&name, &value()?)?,
            "--zones" => parsed.zones = at_least_one(&name, &value()?)?,
            "--load" => {
                parsed.load_rate = Some(match &inline {
                    Some(rate) => number(&name, rate)?,
                    None => 1000.0,
                });
            }
            _ => {
                log_level_given |= name.trim_start_matches('-').ends_with("log.level");
                rest.push(arg);
            }
        }
    }
    if parsed.zones > 26 {
        return Err(format!("--zones: at most 26, not {}", parsed.zones));
    }
    parsed.config = ringkit_config::load(rest, std::env::vars()).map_err(|error| error.to_string())?.config;
    if !log_level_given {
        parsed.config.server.log_level = super::QUIET;
    }
    Ok(Parsed::Run(Box::new(parsed)))
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{flag}: `{value}` is not a number in range"))
}

fn at_least_one(flag: &str, value: &str) -> Result<usize, String> {
    match number(flag, value)? {
        0 => Err(format!("{flag}: at least 1, not 0")),
        n => Ok(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Args {
        match parse(args.iter().map(ToString::to_string)) {
            Ok(Parsed::Run(args)) => *args,
            other => panic!("not a run: {other:?}"),
        }
    }

    #[test]
    fn without_flags_the_documented_defaults_hold() {
        let args = run(&[]);
        assert_eq!((args.http_port, args.ingesters, args.zones, args.load_rate), (None, 3, 3, None));
        assert_eq!(args.config.server.log_level, super::super::QUIET);
    }

    #[test]
    fn load_takes_its_rate_only_behind_an_equals_sign() {
        assert_eq!(run(&["--load"]).load_rate, Some(1000.0));
        assert_eq!(run(&["--load=250", "--http-port", "0"]).load_rate, Some(250.0));
        assert_eq!(run(&["--load", "--http-port", "0"]).http_port, Some(0));
    }

    #[test]
    fn flags_of_the_configuration_work_too() {
        let args = run(&["-limits.ingestion-rate=5", "-log.level=info"]);
        assert_eq!(args.config.server.log_level, ringkit_config::LogLevel::Info);
        assert!((args.config.limits.ingestion_rate - 5.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_bad_value_names_its_flag() {
        for (args, flag) in [
            (["--http-port=70000", ""], "--http-port"),
            (["--zones", "27"], "--zones"),
            (["--nodes", "0"], "--nodes"),
            (["--ingesters", "0"], "--ingesters"),
        ] {
            let args = args.iter().filter(|arg| !arg.is_empty()).map(ToString::to_string);
            let problem = parse(args).expect_err("refused");
            assert!(problem.contains(flag), "{problem}");
        }
    }
}
