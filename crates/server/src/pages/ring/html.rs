//! The page as HTML: whole without scripts; `page.js` makes it live, sortable and searchable.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::status::{MAX_CONFLICTS, Shard, Status};
use super::{Forgets, Options, RingPage};
use crate::pages::time::age;
use crate::pages::{Escaped, page};

const SCRIPT: &str = include_str!("page.js");

/// Headings with their attributes. The script and the style know them too.
const COLUMNS: [(&str, &str); 9] = [
    ("Instance ID", ""),
    ("Availability Zone", ""),
    ("State", ""),
    ("Address", ""),
    ("Registered At", ""),
    ("Last Heartbeat", ""),
    ("Tokens", " class=\"number\""),
    ("Ownership", " class=\"number\""),
    ("Diff From Expected", " class=\"number\""),
];

/// Up to how many letters of what the address tells are shown.
const MAX_TOLD: usize = 2000;

/// Columns that are not always there.
#[derive(Clone, Copy)]
struct Columns {
    versions: bool,
    actions: bool,
}

impl RingPage {
    pub(super) fn html(&self, status: &Status, options: &Options) -> Response {
        let mut body = String::new();
        self.head(&mut body, status);
        self.table(&mut body, status);
        conflicts(&mut body, status);
        if options.tokens == "true" {
            tokens(&mut body, status);
        } else {
            body.push_str("<p><a href=\"?tokens=true\">Show tokens</a></p>\n");
        }
        let told: String = options.told.chars().take(MAX_TOLD).collect();
        let nonce = nonce();
        // Writing to a string cannot fail. What is told comes last, where it stays in sight however long the table is.
        let _ = write!(
            body,
            "<div class=\"foot\"><p id=\"told\" role=\"status\" tabindex=\"-1\">{}</p>\
             <p id=\"trouble\" role=\"alert\" class=\"bad\"></p></div>\n\
             <script nonce=\"{nonce}\">{SCRIPT}</script>\n",
            Escaped(&told)
        );
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; connect-src 'self'; style-src 'unsafe-inline'; \
             form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        );
        ([(header::CONTENT_SECURITY_POLICY, policy)], page(&self.title, &body)).into_response()
    }

    /// What is above the table.
    fn head(&self, body: &mut String, status: &Status) {
        let timeout = self.ring.options().heartbeat_timeout;
        let stale = if timeout.is_zero() {
            "never".to_owned()
        } else {
            format!("after {}", age(i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX)))
        };
        let _ = writeln!(
            body,
            "<p id=\"summary\" class=\"{}\">{}</p>\n\
             <p>Current time: <span id=\"now\">{}</span><br>\
             Storage last updated: <span id=\"heard\">{}</span><br>\
             Times of registration are in UTC. Heartbeats are stale {stale}.</p>",
            if status.is_good() { "good" } else { "bad" },
            Escaped(&status.summary),
            status.now,
            status.storage_last_updated,
        );
        // What only a script can do is shown by it.
        body.push_str(
            "<div id=\"controls\" hidden>\
             <label>Filter <input type=\"search\" id=\"filter\" autocomplete=\"off\" placeholder=\"id, zone, address or state\"></label>\
             <label>State <select id=\"states\"><option value=\"\">any</option></select></label>\
             <label><input type=\"checkbox\" id=\"live\" checked> live</label>\
             <span id=\"updated\"></span> <span id=\"matching\"></span>",
        );
        if self.forgets == Forgets::ByToken {
            body.push_str(
                "<label>Admin token <input type=\"password\" id=\"token\" autocomplete=\"off\"></label>",
            );
        }
        body.push_str("</div>\n");
        match self.forgets {
            Forgets::Never => (),
            Forgets::ByForm => forget_unhealthy(body, status.unhealthy(), status.unhealthy() > 0),
            Forgets::ByToken => {
                forget_unhealthy(body, status.unhealthy(), false);
                body.push_str("<noscript><p>To forget an instance here takes scripts, because it needs the admin token.</p></noscript>\n");
            }
        }
    }

    fn table(&self, body: &mut String, status: &Status) {
        let forgets = match self.forgets {
            Forgets::Never => "never",
            Forgets::ByForm => "form",
            Forgets::ByToken => "token",
        };
        let columns = Columns {
            versions: status.shards().iter().any(|shard| !shard.versions.is_empty()),
            actions: self.forgets == Forgets::ByForm,
        };
        let _ = write!(body, "<table id=\"ring\" data-forget=\"{forgets}\">\n<thead><tr>");
        let optional = [("Versions", columns.versions), ("Actions", columns.actions)];
        let optional = optional.into_iter().filter(|(_, there)| *there).map(|(label, _)| (label, ""));
        for (label, attributes) in COLUMNS.into_iter().chain(optional) {
            let _ = write!(body, "<th scope=\"col\"{attributes}>{label}</th>");
        }
        body.push_str("</tr></thead>\n<tbody>\n");
        status.shards().iter().for_each(|shard| row(body, shard, columns));
        body.push_str("</tbody>\n</table>\n");
    }
}

fn forget_unhealthy(body: &mut String, count: usize, shown: bool) {
    let hidden = if shown { "" } else { " hidden" };
    let _ = writeln!(
        body,
        "<form method=\"post\" id=\"forget-unhealthy\"{hidden}><input type=\"hidden\" name=\"page\" value=\"1\">\
         <button name=\"forget_unhealthy\" value=\"true\">Forget all unhealthy ({count})</button></form>"
    );
}

fn row(body: &mut String, shard: &Shard, columns: Columns) {
    let _ = write!(
        body,
        "<tr><td data-label=\"Instance ID\">{}</td><td data-label=\"Availability Zone\">{}</td>\
         <td data-label=\"State\" class=\"{}\">{}",
        Escaped(&shard.id),
        Escaped(&shard.zone),
        shard.class,
        shard.state,
    );
    if !shard.healthy {
        let _ = write!(body, " <small>was {}</small>", shard.stored_state);
    }
    let (class, word) = if shard.heartbeat_fresh { ("good", "fresh") } else { ("bad", "stale") };
    let _ = write!(
        body,
        "</td><td data-label=\"Address\">{}</td><td data-label=\"Registered At\">{}</td>\
         <td data-label=\"Last Heartbeat\" title=\"{}\">{} ago <span class=\"{class}\">{word}</span></td>\
         <td data-label=\"Tokens\" class=\"number\">{}</td>\
         <td data-label=\"Ownership\" class=\"number\">{:.2}%</td>\
         <td data-label=\"Diff From Expected\" class=\"number\">",
        Escaped(&shard.address),
        // Too wide with the zone, which is always the same.
        shard.registered_timestamp.trim_end_matches(" +0000 UTC"),
        shard.timestamp,
        age(shard.heartbeat_age_seconds),
        shard.token_count,
        shard.ownership * 100.0,
    );
    if let Some(diff) = shard.ownership_diff {
        let _ = write!(body, "{:+.2}%", diff * 100.0);
    }
    body.push_str("</td>");
    if columns.versions {
        let versions = shard.versions.iter().map(|(component, version)| format!("{component}={version}"));
        let versions: Vec<String> = versions.collect();
        let _ = write!(body, "<td data-label=\"Versions\">{}</td>", versions.join(", "));
    }
    if columns.actions {
        let _ = write!(
            body,
            "<td data-label=\"Actions\"><form method=\"post\"><input type=\"hidden\" name=\"page\" value=\"1\">\
             <button name=\"forget\" value=\"{}\">Forget</button></form></td>",
            Escaped(&shard.id)
        );
    }
    body.push_str("</tr>\n");
}

/// Always there, for the script to fill later.
fn conflicts(body: &mut String, status: &Status) {
    body.push_str("<div id=\"conflicts\">");
    if status.token_conflict_count > 0 {
        body.push_str("<h2>Token conflicts</h2>");
        if status.token_conflict_count > MAX_CONFLICTS {
            let _ = write!(body, "<p>The first {MAX_CONFLICTS} of {}.</p>", status.token_conflict_count);
        }
        body.push_str("<ul>");
        for conflict in &status.token_conflicts {
            let owners = conflict.owners.join(", ");
            let _ = write!(body, "<li>{}: {}</li>", conflict.token, Escaped(&owners));
        }
        body.push_str("</ul>");
    }
    body.push_str("</div>\n");
}

fn tokens(body: &mut String, status: &Status) {
    for shard in status.shards() {
        let tokens: Vec<String> = shard.tokens.iter().flatten().map(ToString::to_string).collect();
        let (id, tokens) = (Escaped(&shard.id), tokens.join(" "));
        let _ = writeln!(body, "<h2>Tokens of {id}</h2>\n<p>{tokens}</p>");
    }
    body.push_str("<p><a href=\"?\">Hide tokens</a></p>\n");
}

/// What nobody can guess, once per answer: only the page's own script carries it, so no other one runs.
fn nonce() -> String {
    // The keys of each state come from the operating system's source of randomness.
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}
