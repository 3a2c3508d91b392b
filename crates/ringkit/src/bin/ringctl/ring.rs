//! `ringctl ring show`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use ringkit_loadgen::http;
use serde::Deserialize;
use serde_json::Value;

use crate::args::{BadFlag, Command, Flag, Parsed};
use crate::kv;
use crate::store::{STORE_FLAGS, Which, is_given, rings, store_flags};
use crate::{Failure, OK, block_on, print};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Which ring.
pub(crate) const RING: Flag = Flag {
    name: "ring",
    value: "NAME",
    help: "ingester, distributor or store-gateway; in a store, any key of\na ring [ingester]",
};

pub(crate) const COMMAND: Command = Command {
    name: "ring show",
    positional: &[],
    about: "Prints a ring as one process sees it, or as a store holds it.",
    flags: store_flags!(
        Flag {
            name: "url",
            value: "URL",
            help: "any process with a ring page, such as http://localhost:9009",
        },
        RING,
        Flag { name: "json", value: "", help: "the page's JSON, unchanged; with --store, that of `kv get`" },
    ),
    notes: "OWNS is the share of the hash circle whose tokens come first to this instance, within its zone.",
    run,
};

/// The page, as Cortex and ringkit write it.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) shards: Option<Vec<Shard>>,
    now: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Shard {
    pub(crate) id: String,
    pub(crate) state: String,
    address: String,
    timestamp: String,
    #[serde(default)]
    pub(crate) zone: String,
    pub(crate) tokens: Option<Vec<u32>>,
}

fn run(args: &Parsed) -> Result<u8, Failure> {
    if is_given(args, Which::First) {
        if args.has("url") {
            return Err(BadFlag::new("url", "cannot be combined with a store").into());
        }
        return show_stored(args);
    }
    if let Some(stray) = STORE_FLAGS.iter().find(|name| args.has(name)) {
        return Err(BadFlag::new(*stray, "goes with --store only").into());
    }
    let url = args.text("url").ok_or_else(|| BadFlag::new("url", "this, --store or --config is needed"))?;
    let json = fetch(args, url)?;
    if args.has("json") {
        print(&format!("{json:#}\n"));
        return Ok(OK);
    }
    print(&table(&page(url, &json)?));
    Ok(OK)
}

/// The ring as a store holds it, without asking a process.
fn show_stored(args: &Parsed) -> Result<u8, Failure> {
    let client = rings(args, Which::First)?;
    let view = block_on(kv::existing(args, Which::First, &client, key(args)))?;
    print(&if args.has("json") { kv::json_text(&view.value) } else { kv::table(&view.value) });
    Ok(OK)
}

/// The key under which a store keeps the ring that `--ring` names.
pub(crate) fn key(args: &Parsed) -> &str {
    match args.text("ring") {
        None | Some("ingester") => "ring",
        Some(other) => other,
    }
}

/// The JSON of the ring page at `url` that `--ring` names.
pub(crate) fn fetch(args: &Parsed, url: &str) -> Result<Value, Failure> {
    let ring = args.text("ring").unwrap_or("ingester");
    if !["ingester", "distributor", "store-gateway"].contains(&ring) {
        let problem = format!("`{ring}` is none of ingester, distributor, store-gateway");
        return Err(BadFlag::new("ring", problem).into());
    }
    let path = format!("/{ring}/ring");
    block_on(async { Ok(http::get_json(url, &path, TIMEOUT).await?) })
}

/// Reads the JSON that came from `source`.
pub(crate) fn page(source: &str, json: &Value) -> Result<Page, Failure> {
    Ok(Page::deserialize(json).map_err(|cause| format!("{source}: this is no ring page: {cause}"))?)
}

fn table(page: &Page) -> String {
    let shards = page.shards.as_deref().unwrap_or_default();
    let owned = ownership(shards);
    let header =
        ["INSTANCE", "ZONE", "STATE", "ADDRESS", "LAST HEARTBEAT", "TOKENS", "OWNS"].map(str::to_owned);
    let rows = shards.iter().zip(owned).map(|(shard, owned)| {
        [
            shard.id.clone(),
            shard.zone.clone(),
            shard.state.clone(),
            shard.address.clone(),
            shard.timestamp.clone(),
            shard.tokens.as_ref().map_or(0, Vec::len).to_string(),
            format!("{:.1} %", owned * 100.0),
        ]
    });
    let rows: Vec<[String; 7]> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    let zones: BTreeSet<&str> = shards.iter().map(|shard| shard.zone.as_str()).collect();
    let _ = writeln!(text, "{} instances in {} zones at {}", shards.len(), zones.len(), page.now);
    text
}

/// Each shard's part of the circle of its zone: a token owns what lies between the token before it and itself.
fn ownership(shards: &[Shard]) -> Vec<f64> {
    let mut circles: BTreeMap<&str, BTreeMap<u32, usize>> = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        let circle = circles.entry(&shard.zone).or_default();
        circle.extend(shard.tokens.iter().flatten().map(|token| (*token, index)));
    }
    let mut owned = vec![0.0; shards.len()];
    for circle in circles.values() {
        let Some((mut before, _)) = circle.last_key_value() else { continue };
        for (token, index) in circle {
            // The only token of a circle owns all of it.
            let width = match token.wrapping_sub(*before) {
                0 => 2_f64.powi(32),
                width => f64::from(width),
            };
            owned[*index] += width / 2_f64.powi(32);
            before = token;
        }
    }
    owned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(json: &str) -> Page {
        super::page("here", &serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn the_table_shows_each_instance_with_its_share() {
        let page = page(
            r#"{"shards":[
                {"id":"a","state":"ACTIVE","address":"10.0.0.1:9095","timestamp":"t","registered_timestamp":"","zone":"z","tokens":[0,2147483648]},
                {"id":"long-name","state":"Unhealthy","address":"x","timestamp":"t","registered_timestamp":"","zone":"z","tokens":[1073741824,3221225472]},
                {"id":"c","state":"JOINING","address":"y","timestamp":"t","registered_timestamp":"","zone":"","tokens":null}
            ],"now":"2026-01-01T00:00:00Z","storageLastUpdated":""}"#,
        );
        let text = table(&page);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "a          z     ACTIVE     10.0.0.1:9095  t               2       50.0 %");
        assert!(lines[3].ends_with("0       0.0 %"), "{text}");
        assert_eq!(lines[4], "3 instances in 2 zones at 2026-01-01T00:00:00Z");
    }

    #[test]
    fn an_empty_ring_and_a_single_token_are_shown() {
        assert!(table(&page(r#"{"shards":null,"now":"n"}"#)).ends_with("0 instances in 0 zones at n\n"));
        let one = page(
            r#"{"shards":[{"id":"a","state":"s","address":"x","timestamp":"t","tokens":[7]}],"now":"n"}"#,
        );
        assert_eq!(ownership(one.shards.as_deref().unwrap()), [1.0]);
    }
}
