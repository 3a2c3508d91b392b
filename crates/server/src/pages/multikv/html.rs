//! The page as HTML: whole without scripts; `page.js` renews it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::Response;
use ringkit_kv::multi::{MultiKeyReport, MultiKeyStoreReport, MultiReport, Named, StoreReport, SwitchReport};

use super::TITLE;
use super::json::{Instance, Status};
use crate::pages::table::{Cell, Column, NUMBER, STYLE, fact, table};
use crate::pages::time::{age, rfc3339};
use crate::pages::{Escaped, page_with_script};

const SCRIPT: &str = include_str!("page.js");

const STORES: [Column; 5] =
    [("Store", ""), ("Part", ""), ("State", ""), ("Synced", ""), ("Other Processes", NUMBER)];
const KEYS: [Column; 9] = [
    ("Key", ""),
    ("Compared", ""),
    ("Queue", NUMBER),
    ("Lag", NUMBER),
    ("Mismatched", NUMBER),
    ("Foreign", NUMBER),
    ("Skew", NUMBER),
    ("Last Reconcile", NUMBER),
    ("Removals", NUMBER),
];
const CONTENTS: [Column; 6] = [
    ("Key", ""),
    ("Store", ""),
    ("Entries", NUMBER),
    ("Missing", NUMBER),
    ("Relayed", NUMBER),
    ("Queue", NUMBER),
];
const REASONS: [Column; 2] = [("Reason", ""), ("Why", "")];

pub(super) fn page(status: &Status<'_>) -> Response {
    // What only a script can do is shown by it.
    let mut body = String::from(
        "<div id=\"controls\" hidden><label><input type=\"checkbox\" id=\"live\" checked> live</label></div>\n\
         <div id=\"status\">\n",
    );
    head(&mut body, status);
    for (number, report) in status.stores.iter().enumerate() {
        ring(&mut body, number, report);
    }
    body.push_str("</div>\n<div class=\"foot\"><p id=\"trouble\" role=\"alert\" class=\"bad\"></p></div>\n");
    page_with_script(TITLE, STYLE, &body, SCRIPT)
}

/// What is true of all of them.
fn head(body: &mut String, status: &Status<'_>) {
    let (class, summary) = summary(&status.stores);
    // Writing to a string cannot fail.
    let _ = writeln!(body, "<p id=\"summary\" class=\"{class}\">{}</p>", Escaped(&summary));
    body.push_str("<table class=\"facts\"><tbody>\n");
    if let Some(report) = status.stores.first() {
        fact(body, "Current time", &rfc3339(moment(report.now_ms)));
    }
    let named = |instance: &Instance| format!("{} ({})", instance.name, instance.target);
    let instances = status.instances.iter().map(named).collect::<Vec<_>>().join(", ");
    fact(body, "This process", if instances.is_empty() { "in no ring" } else { &instances });
    fact(body, "Generation", &status.generation.to_string());
    let hash = status.config_hash.as_deref().unwrap_or("none: there is nothing to follow");
    fact(body, "Runtime configuration", hash);
    body.push_str("</tbody></table>\n");
}

/// All of it in one line, and the colour that says the same.
fn summary(reports: &[MultiReport]) -> (&'static str, String) {
    let mut primaries: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut mirroring, mut missing, mut queued, mut down, mut waiting) = (0, 0, 0, 0, 0);
    for report in reports {
        *primaries.entry(&report.primary).or_default() += 1;
        mirroring += usize::from(report.mirror);
        waiting += usize::from(!report.switch.blocked.is_empty());
        down += report.stores.iter().filter(|store| !store.up).count();
        queued += report.keys.iter().map(|key| key.queue_length).sum::<usize>();
        // Without a mirror the other store is not meant to have anything.
        let held = report.keys.iter().flat_map(|key| &key.stores).filter(|_| report.mirror);
        missing += held.map(|store| store.missing.num + store.relayed.num).sum::<usize>();
    }
    let primaries: Vec<String> =
        primaries.into_iter().map(|(store, count)| format!("{store} ({count})")).collect();
    let class = if down > 0 || waiting > 0 {
        "bad"
    } else if missing > 0 || queued > 0 {
        "busy"
    } else {
        "good"
    };
    let summary = format!(
        "{} in two stores; primary: {}; mirrored: {mirroring}; missing: {missing}; on their way: {queued}; \
         down: {down}; waiting: {waiting}",
        reports.len(),
        primaries.join(", ")
    );
    (class, summary)
}

/// One ring, by the name that its store has here.
fn ring(body: &mut String, number: usize, report: &MultiReport) {
    let MultiReport { now_ms, kv_name, primary, secondary, switch, stores, keys, .. } = report;
    let _ = writeln!(body, "<h2>{}</h2>\n<table class=\"facts\"><tbody>", Escaped(kv_name));
    fact(body, "Primary", primary);
    fact(body, "Secondary", secondary);
    let mirror = if report.mirror { format!("on ({})", report.mirror_mode) } else { "off".to_owned() };
    fact(body, "Mirror", &mirror);
    fact(body, "Readers see", &readers_see(report));
    fact(body, "Switches", &report.epoch.saturating_sub(1).to_string());
    fact(body, "Taken over", &taken_over(switch, *now_ms));
    fact(body, "Wanted", &wanted(switch));
    body.push_str("</tbody></table>\n");
    if !switch.blocked.is_empty() {
        body.push_str("<h3>What is asked for has to wait</h3>\n");
        reasons(body, &format!("blocked-{number}"), &switch.blocked);
    }
    gate(body, number, report);

    let rows: Vec<_> = stores.iter().map(|store| self::store(store, primary)).collect();
    table(body, &format!("stores-{number}"), "No stores.", &STORES, &rows);
    let rows: Vec<_> = keys.iter().map(|report| key(report, *now_ms)).collect();
    table(body, &format!("keys-{number}"), "No key is in use.", &KEYS, &rows);
    let held = keys.iter().flat_map(|key| key.stores.iter().map(move |held| contents(key, held)));
    let rows: Vec<_> = held.collect();
    if !rows.is_empty() {
        table(body, &format!("contents-{number}"), "", &CONTENTS, &rows);
    }
}

fn readers_see(report: &MultiReport) -> String {
    match (report.read_mode.as_str(), report.secondary_counts) {
        ("union", true) => "both stores together".to_owned(),
        ("union", false) => {
            format!("{} alone, as long as {} is not synced", report.primary, report.secondary)
        }
        _ => format!("{} alone", report.primary),
    }
}

fn taken_over(switch: &SwitchReport, now_ms: i64) -> String {
    match switch.applied_at_ms {
        Some(at) => format!("generation {}, {} ago", switch.generation, ago(now_ms, at)),
        None => "nothing yet: what the main configuration says holds".to_owned(),
    }
}

fn wanted(switch: &SwitchReport) -> String {
    match (&switch.wanted_primary, switch.given_up) {
        (Some(primary), false) => format!("primary {primary}"),
        (Some(primary), true) => format!("primary {primary}, but no longer: it was waited for long enough"),
        (None, _) if switch.blocked.is_empty() => "nothing else".to_owned(),
        (None, _) => "the end of the mirror".to_owned(),
    }
}

/// Whether the secondary could become the primary.
fn gate(body: &mut String, number: usize, report: &MultiReport) {
    let secondary = Escaped(&report.secondary);
    body.push_str("<h3>Gate</h3>\n");
    if report.switch.gate_open {
        let _ = writeln!(
            body,
            "<p class=\"good\">Open: {secondary} could become the primary at this moment.</p>"
        );
        return;
    }
    let _ = writeln!(body, "<p class=\"busy\">Shut: {secondary} cannot become the primary.</p>");
    reasons(body, &format!("gate-{number}"), &report.switch.gate_reasons);
}

fn reasons(body: &mut String, id: &str, reasons: &BTreeMap<String, String>) {
    let rows: Vec<_> = reasons.iter().map(|(reason, why)| [Cell::text(reason), Cell::text(why)]).collect();
    table(body, id, "No reason is known.", &REASONS, &rows);
}

fn store(report: &StoreReport, primary: &str) -> [Cell; 5] {
    let StoreReport { name, up, down_secs, cause, synced, num_others } = report;
    let state = if *up {
        Cell::text("up").classed("good")
    } else {
        let lasts = down_secs.map(|down| format!(" for {}", secs(down))).unwrap_or_default();
        let cause = cause.as_deref().map(|cause| format!(": {cause}")).unwrap_or_default();
        Cell::text(&format!("down{lasts}{cause}")).classed("bad")
    };
    let synced = if *synced { Cell::text("yes") } else { Cell::text("no").classed("busy") };
    [
        Cell::text(name),
        Cell::text(if name == primary { "primary" } else { "secondary" }),
        state,
        synced,
        num_others.map_or_else(|| Cell::text(""), Cell::number),
    ]
}

fn key(report: &MultiKeyReport, now_ms: i64) -> [Cell; 9] {
    let compared = if report.compared {
        Cell::text("yes")
    } else {
        Cell::text("no: not heard from both").classed("busy")
    };
    let reconciled = match report.last_reconcile_ms {
        Some(at) => Cell::number(format!("{} ago", ago(now_ms, at))).by(at),
        None => Cell::text("never").classed("idle"),
    };
    [
        Cell::text(&report.key),
        compared,
        Cell::number(report.queue_length),
        Cell::number(format!("{:.1} s", report.lag_secs)).by(report.lag_secs),
        named(&report.mismatched, "busy"),
        named(&report.foreign, "idle"),
        Cell::number(format!("{} s", report.skew_secs)).by(report.skew_secs),
        reconciled,
        Cell::number(report.num_marks),
    ]
}

fn contents(key: &MultiKeyReport, held: &MultiKeyStoreReport) -> [Cell; 6] {
    let MultiKeyStoreReport { name, entries, missing, relayed, queue_length, refused } = held;
    let queue = match refused {
        None => Cell::number(queue_length),
        Some(why) => Cell::html(format!("{queue_length} <small>{}</small>", Escaped(why)))
            .by(queue_length)
            .classed("bad"),
    };
    [
        Cell::text(&key.key),
        Cell::text(name),
        Cell::number(entries),
        named(missing, "bad"),
        named(relayed, "busy"),
        queue,
    ]
}

/// How many, and who the first of them are.
fn named(named: &Named, class: &'static str) -> Cell {
    if named.num == 0 {
        return Cell::number(0);
    }
    let ids = named.ids.join(", ");
    let more = if named.num > named.ids.len() { ", …" } else { "" };
    Cell::html(format!("{} <small>{}{more}</small>", named.num, Escaped(&ids))).by(named.num).classed(class)
}

/// Milliseconds since 1970 as a point in time.
fn moment(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn ago(now_ms: i64, at_ms: i64) -> String {
    age(now_ms.saturating_sub(at_ms) / 1000)
}

fn secs(secs: u64) -> String {
    age(i64::try_from(secs).unwrap_or(i64::MAX))
}
