//! What a process would have to do to run with another configuration.

use std::fmt::Write as _;
use std::time::Duration;

use ringkit_config::{Comparison, Difference, Loaded, Origin};
use ringkit_loadgen::{Error, http};

use super::count;
use crate::args::BadFlag;
use crate::{Failure, NOT_OK, OK, block_on, complain, print};

/// Exit status if the process would not start with the file.
pub(super) const REFUSED: u8 = 2;
/// Exit status if the process cannot be asked.
const SILENT: u8 = 3;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a process shows its configuration, unless the address says so.
const PATH: &str = "/config";

/// Keys that the runtime configuration overrides while the process runs, and by which of its keys.
const OVERRIDDEN: [(&str, &str); 2] = [
    ("limits.", "for a tenant, `overrides` of the runtime configuration needs no restart"),
    ("ingester.instance_limits.", "`ingester_limits` of the runtime configuration needs no restart"),
];

pub(super) fn run(file: &str, loaded: &Loaded, url: &str) -> Result<u8, Failure> {
    let page = match block_on(async { Ok(http::get_text(url, PATH, TIMEOUT).await) })? {
        Ok(page) => page,
        Err(Error::Option { problem, .. }) => return Err(BadFlag::new("against", problem).into()),
        Err(error) => return Ok(silent(&error.to_string())),
    };
    match loaded.compare(&page) {
        Ok(comparison) => {
            print(&report(file, url, &comparison));
            Ok(if comparison.differences.is_empty() { OK } else { NOT_OK })
        }
        Err(problem) => Ok(silent(&format!("{url}: this is no configuration: {problem}"))),
    }
}

fn silent(problem: &str) -> u8 {
    complain(&format!("ringctl config check: {problem}\n"));
    SILENT
}

fn report(file: &str, url: &str, comparison: &Comparison) -> String {
    let Comparison { differences, secrets, unknown } = comparison;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match differences.len() {
        0 => writeln!(text, "{file} against {url}: nothing to do"),
        number => writeln!(
            text,
            "{file} against {url}: {} changed\napplied without a restart: none\nneeds a restart: {number}",
            count(number, "key")
        ),
    };
    for difference in differences {
        let _ = writeln!(text, "  {}", line(difference));
    }
    if !secrets.is_empty() {
        let _ = writeln!(text, "secrets, which cannot be compared: {}", secrets.join(", "));
    }
    if !unknown.is_empty() {
        let _ = writeln!(text, "keys of the process that are not known here: {}", unknown.join(", "));
    }
    text
}

/// `key: what the process has -> what it would have (why and how)`.
fn line(difference: &Difference) -> String {
    let Difference { path, running, wanted, origin } = difference;
    let running = running.as_deref().unwrap_or("not known to the process");
    let from = match origin {
        Origin::Default => "the default: the process has its value from elsewhere".to_owned(),
        origin => origin.to_string(),
    };
    let instead = OVERRIDDEN.iter().find(|(prefix, _)| path.starts_with(prefix));
    let instead = instead.map(|(_, how)| format!("; {how}")).unwrap_or_default();
    format!("{path}: {running} -> {wanted} ({from}{instead})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(path: &str, running: Option<&str>, origin: Origin) -> Difference {
        let running = running.map(str::to_owned);
        Difference { path: path.into(), running, wanted: "2".into(), origin }
    }

    #[test]
    fn every_difference_is_told_with_both_values_and_a_way() {
        let place = Origin::File { file: "new.yaml".into(), line: 3, column: 5 };
        let comparison = Comparison {
            differences: vec![
                difference("limits.ingestion_rate", Some("1"), place),
                difference("server.http_listen_port", None, Origin::Default),
            ],
            secrets: vec!["a.secret".into()],
            unknown: vec!["news".into()],
        };
        assert_eq!(
            report("new.yaml", "http://x", &comparison),
            "new.yaml against http://x: 2 keys changed\n\
             applied without a restart: none\n\
             needs a restart: 2\n  \
             limits.ingestion_rate: 1 -> 2 (new.yaml:3:5; for a tenant, `overrides` of the runtime configuration needs no restart)\n  \
             server.http_listen_port: not known to the process -> 2 (the default: the process has its value from elsewhere)\n\
             secrets, which cannot be compared: a.secret\n\
             keys of the process that are not known here: news\n"
        );
        assert_eq!(report("f", "u", &Comparison::default()), "f against u: nothing to do\n");
    }
}
