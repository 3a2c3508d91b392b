//! The page as HTML: whole without scripts; `page.js` makes its tables sortable, asks before it heals, and sends the token.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use axum::response::Response;
use ringkit_kv::memberlist::{KeyReport, MemberReport, MessageReport, Report, SeedReport};

use super::json::moment;
use super::{Page, TITLE};
use crate::pages::table::{Cell, Column, NUMBER, STYLE, fact, table};
use crate::pages::time::{age, rfc3339};
use crate::pages::{Encoded, Escaped, page_with_script};

const SCRIPT: &str = include_str!("page.js");

/// Up to how many letters of what the address tells are shown.
const MAX_TOLD: usize = 2000;
/// Up to how many letters of a digest are shown; all of it is in the JSON.
const SHOWN_OF_DIGEST: usize = 16;
/// Offsets of clocks beyond this are shown in another colour.
const ODD_OFFSET_MS: u64 = 1000;

const SEEDS: [Column; 3] = [("Seed", ""), ("Addresses", ""), ("State", "")];
const MEMBERS: [Column; 8] = [
    ("Name", ""),
    ("Address", ""),
    ("Zone", ""),
    ("Build", ""),
    ("State", ""),
    ("Round Trip", NUMBER),
    ("Clock Offset", NUMBER),
    ("Generation", NUMBER),
];
const KEYS: [Column; 11] = [
    ("Key", ""),
    ("Codec", ""),
    ("Version", NUMBER),
    ("Entries", NUMBER),
    ("Registers", NUMBER),
    ("Tombstones", NUMBER),
    ("Size", NUMBER),
    ("Last Change", NUMBER),
    ("Digest", ""),
    ("Show", ""),
    ("Actions", ""),
];
const KEYRING: [Column; 3] = [("Cluster Key", ""), ("Use", ""), ("Opened", NUMBER)];
const REASONS: [Column; 2] = [("Reason", ""), ("Refused", NUMBER)];
const AUTHORS: [Column; 2] = [("Author", ""), ("Quarantined", NUMBER)];
const MESSAGES: [Column; 8] = [
    ("Message", NUMBER),
    ("Time", ""),
    ("Key", ""),
    ("Entry", ""),
    ("Facet", NUMBER),
    ("Size", NUMBER),
    ("Author", ""),
    ("Version", ""),
];

impl Page {
    pub(super) fn html(&self, report: &Report, told: &str) -> Response {
        let mut body = String::new();
        self.head(&mut body, report);
        joining(&mut body, report);
        members(&mut body, report);
        self.keys(&mut body, report);
        sealing(&mut body, report);
        going_on(&mut body, report);
        refusals(&mut body, report);
        self.messages(&mut body, report);
        let told: String = told.chars().take(MAX_TOLD).collect();
        // Writing to a string cannot fail. What is told comes last, where it stays in sight.
        let _ = writeln!(
            body,
            "<div class=\"foot\"><p id=\"told\" role=\"status\" tabindex=\"-1\">{}</p></div>",
            Escaped(&told)
        );
        page_with_script(TITLE, STYLE, &body, SCRIPT)
    }

    fn head(&self, body: &mut String, report: &Report) {
        let (class, summary) = summary(report);
        let _ = writeln!(body, "<p id=\"summary\" class=\"{class}\">{}</p>", Escaped(&summary));
        if let Some(clock) = &report.own_clock {
            let _ = writeln!(
                body,
                "<p class=\"busy\">This machine's clock is ahead of those of {} other members by {}. Beyond their \
                 <code>memberlist.max_clock_skew</code> they refuse what is written here.</p>",
                clock.ahead_of,
                signed_ms(clock.by_ms)
            );
        }
        body.push_str("<table class=\"facts\"><tbody>\n");
        fact(body, "Current time", &rfc3339(moment(report.now_ms)));
        fact(body, "Name", &report.name);
        fact(body, "Address", &report.addr);
        fact(body, "Cluster label", or(&report.label, "none"));
        fact(body, "Zone", or(&report.zone, "none"));
        fact(body, "Build", &report.build);
        fact(body, "Transport", &report.transport);
        fact(body, "Health score", &format!("{} (0 is best)", report.score));
        body.push_str("</tbody></table>\n");
        if !self.heals_by_form {
            // Shown by the script, which alone can send it.
            body.push_str(
                "<div id=\"controls\" hidden><label>Admin token \
                 <input type=\"password\" id=\"token\" autocomplete=\"off\"></label></div>\n\
                 <noscript><p>To heal a key here takes scripts, because it needs the admin token.</p></noscript>\n",
            );
        }
    }

    fn keys(&self, body: &mut String, report: &Report) {
        body.push_str("<h2>Keys</h2>\n");
        let rows: Vec<_> = report.keys.iter().map(|key| self.key(key)).collect();
        table(body, "keys", "Nothing is kept.", &KEYS, &rows);
    }

    fn key(&self, report: &KeyReport) -> [Cell; 11] {
        let KeyReport { key, codec, entries, registers, tombstones, bytes, digest, version, age_ms } = report;
        let (name, encoded) = (Escaped(key), Encoded(key));
        let show = format!(
            "<a href=\"?viewKey={encoded}&amp;format=struct\">struct</a> \
             <a href=\"?viewKey={encoded}&amp;format=json\">json</a> \
             <a href=\"?viewKey={encoded}&amp;format=json-pretty\">json-pretty</a> \
             <a href=\"?downloadKey={encoded}\">download</a>"
        );
        // A form that cannot send the token is shown by the script.
        let hidden = if self.heals_by_form { "" } else { " hidden" };
        let heal = format!(
            "<form method=\"post\" action=\"memberlist/heal\" class=\"heal\"{hidden}>\
             <input type=\"hidden\" name=\"page\" value=\"1\">\
             <button name=\"key\" value=\"{name}\">Heal</button></form>"
        );
        [
            Cell::text(key),
            Cell::text(or(codec, "unknown here")),
            Cell::number(version),
            Cell::number(entries),
            Cell::number(registers),
            Cell::number(tombstones),
            Cell::number(size(*bytes)).by(bytes),
            Cell::number(format!("{} ago", secs(age_ms / 1000))).by(age_ms),
            Cell::text(&digest.chars().take(SHOWN_OF_DIGEST).collect::<String>()),
            Cell::html(show),
            Cell::html(heal),
        ]
    }

    fn messages(&self, body: &mut String, report: &Report) {
        body.push_str("<h2>Messages</h2>\n");
        if !self.keeps_messages {
            body.push_str(
                "<p>Messages are not kept: <code>memberlist.message_history_buffer_bytes</code> says how many bytes of \
                 them to keep.</p>\n",
            );
            return;
        }
        body.push_str("<p><a href=\"?deleteMessages=true\">Forget all messages</a></p>\n");
        for (heading, id, messages) in
            [("Received", "received", &report.received), ("Sent", "sent", &report.sent)]
        {
            let _ = writeln!(body, "<h3>{heading}</h3>");
            let rows: Vec<_> = messages.iter().map(message).collect();
            table(body, id, "None.", &MESSAGES, &rows);
        }
    }
}

/// All of it in one line, and the colour that says the same.
fn summary(report: &Report) -> (&'static str, String) {
    let mut by_state: BTreeMap<&str, usize> = BTreeMap::new();
    for member in &report.members {
        *by_state.entry(&member.state).or_default() += 1;
    }
    let states: Vec<String> = by_state.into_iter().map(|(state, count)| format!("{count} {state}")).collect();
    let (synced, in_sync) = match (report.synced, report.gave_up) {
        (true, _) => ("synced", true),
        (false, true) => ("not synced, but no longer waited for", false),
        (false, false) => ("not synced: reads and writes wait", false),
    };
    let class = match report.phase.to_ascii_lowercase().as_str() {
        "active" if in_sync && report.own_clock.is_none() => "good",
        "lonely" | "failed" => "bad",
        _ => "busy",
    };
    let lost = report.seeds.iter().filter(|seed| is_lost(seed)).count();
    let lost = if lost == 0 { String::new() } else { format!("; {} lost", counted(lost, "seed")) };
    let summary = format!(
        "{}, {synced}; {}: {}; {}{lost}",
        report.phase,
        counted(report.members.len(), "member"),
        states.join(", "),
        counted(report.keys.len(), "key"),
    );
    (class, summary)
}

fn joining(body: &mut String, report: &Report) {
    let _ = writeln!(
        body,
        "<h2>Joining</h2>\n<p>Phase: {}. Rounds of asking seeds that came to nothing: {}.{}</p>",
        Escaped(&report.phase),
        report.join_attempts,
        if report.gave_up { " That was often enough: reads and writes no longer wait for it." } else { "" },
    );
    let rows: Vec<_> = report.seeds.iter().map(seed).collect();
    let none = "<code>memberlist.join_members</code> is empty: this member began a cluster of its own.";
    table(body, "seeds", none, &SEEDS, &rows);
}

fn is_lost(seed: &SeedReport) -> bool {
    seed.error.is_some() || seed.lost_for_secs.is_some()
}

fn seed(report: &SeedReport) -> [Cell; 3] {
    let SeedReport { seed, addrs, error, lost_for_secs } = report;
    let state = match (error, lost_for_secs) {
        (Some(error), _) => Cell::text(&format!("cannot be looked up: {error}")).classed("bad"),
        (None, Some(lost)) => Cell::text(&format!("no member for {}", secs(*lost))).classed("bad"),
        (None, None) if addrs.is_empty() => Cell::text("no address").classed("busy"),
        (None, None) => Cell::text("fine").classed("good"),
    };
    [Cell::text(seed), Cell::text(&addrs.join(", ")), state]
}

fn members(body: &mut String, report: &Report) {
    body.push_str("<h2>Members</h2>\n");
    let rows: Vec<_> = report.members.iter().map(member).collect();
    table(body, "members", "Nobody.", &MEMBERS, &rows);
}

fn member(report: &MemberReport) -> [Cell; 8] {
    let MemberReport { name, addr, generation, zone, build, state, rtt_ms, clock_offset_ms, own } = report;
    let own = if *own { " <small>this one</small>" } else { "" };
    let class = match state.as_str() {
        "alive" => "good",
        "suspect" => "busy",
        "down" => "bad",
        _ => "idle",
    };
    let offset = match clock_offset_ms {
        Some(offset) if offset.unsigned_abs() > ODD_OFFSET_MS => {
            Cell::number(signed_ms(*offset)).by(offset).classed("bad")
        }
        Some(offset) => Cell::number(signed_ms(*offset)).by(offset),
        None => Cell::text(""),
    };
    [
        Cell::html(format!("{}{own}", Escaped(name))),
        Cell::text(addr),
        Cell::text(zone),
        Cell::text(build),
        Cell::text(state).classed(class),
        rtt_ms.map_or_else(|| Cell::text(""), |ms| Cell::number(format!("{ms:.1} ms")).by(ms)),
        offset,
        Cell::number(generation),
    ]
}

fn sealing(body: &mut String, report: &Report) {
    body.push_str("<h2>Sealing</h2>\n");
    let rows = report.keyring.iter().map(|key| {
        let (sealing, class) = if key.seals { ("seals and opens", "good") } else { ("opens", "idle") };
        [Cell::text(&key.id), Cell::text(sealing).classed(class), Cell::number(key.opened)]
    });
    let rows: Vec<_> = rows.collect();
    table(body, "keyring", "There is no cluster key: nothing is sealed.", &KEYRING, &rows);
    if !report.requires_sealed && !report.keyring.is_empty() {
        body.push_str(
            "<p class=\"busy\">Clear gossip is still accepted: <code>memberlist.require_encryption</code> is false.</p>\n",
        );
    }
    if report.unopenable > 0 {
        let _ = writeln!(
            body,
            "<p class=\"bad\">{} came in sealed that no key here opens.</p>",
            counted(report.unopenable, "message")
        );
    }
}

/// What is under way.
fn going_on(body: &mut String, report: &Report) {
    let queue = &report.queue;
    let _ = writeln!(
        body,
        "<h2>Dissemination</h2>\n<p>Still to be told: {}, {} of them this member's own, {}.<br>",
        counted(queue.len, "register"),
        queue.own,
        size(queue.bytes)
    );
    let _ = match &report.propagation {
        Some(took) => writeln!(
            body,
            "News took {:.0} ms to get here in the median, {:.0} ms for nine of ten, {:.0} ms for 99 of 100; {} came since \
             the start.</p>",
            took.p50_ms,
            took.p90_ms,
            took.p99_ms,
            counted(took.count, "beacon")
        ),
        None => writeln!(body, "How long news takes to get here is not known yet.</p>"),
    };
}

fn refusals(body: &mut String, report: &Report) {
    body.push_str("<h2>Refusals</h2>\n");
    table(body, "refused", "Nothing was refused.", &REASONS, &counts(&report.refused));
    let none = "No register was quarantined because of its author's clock.";
    table(body, "quarantined", none, &AUTHORS, &counts(&report.quarantined));
}

fn counts(counts: &BTreeMap<String, u64>) -> Vec<[Cell; 2]> {
    counts.iter().map(|(what, count)| [Cell::text(what), Cell::number(count)]).collect()
}

fn message(report: &MessageReport) -> [Cell; 8] {
    let MessageReport { id, at_ms, key, entry, facet, size, tombstone, author, version } = report;
    let removed = if *tombstone { " <small>removed</small>" } else { "" };
    [
        Cell::html(format!("<a href=\"?viewMsg={id}\">{id}</a>")).by(id),
        Cell::text(&rfc3339(moment(*at_ms))),
        Cell::text(key),
        Cell::html(format!("{}{removed}", Escaped(entry))),
        Cell::number(facet),
        Cell::number(self::size(*size)).by(size),
        Cell::text(author),
        Cell::text(version),
    ]
}

fn or<'a>(text: &'a str, none: &'a str) -> &'a str {
    if text.is_empty() { none } else { text }
}

fn secs(secs: u64) -> String {
    age(i64::try_from(secs).unwrap_or(i64::MAX))
}

fn signed_ms(ms: i64) -> String {
    format!("{ms:+} ms")
}

fn counted<T: Copy + Display + PartialEq + From<u8>>(count: T, what: &str) -> String {
    format!("{count} {what}{}", if count == T::from(1) { "" } else { "s" })
}

/// Bytes in the largest unit of which there is at least one, to a tenth.
fn size(bytes: usize) -> String {
    const UNITS: [(usize, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}
