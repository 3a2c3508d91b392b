//! `/`: where everything is.

use std::fmt::Write as _;

use axum::Router;
use axum::routing::get;

use super::{Escaped, page};
use crate::process::Link;

pub(crate) fn routes(prefix: &str, links: &[Link]) -> Router {
    let body = body(prefix.trim_matches('/'), links);
    Router::new().route("/", get(async move || page("ringkit", &body)))
}

/// Sections in the order of their first link, Cortex's `Dangerous:` last.
fn body(prefix: &str, links: &[Link]) -> String {
    let mut sections: Vec<&str> = Vec::new();
    for link in links {
        if !sections.contains(&link.section) {
            sections.push(link.section);
        }
    }
    sections.sort_by_key(|section| section.starts_with("Dangerous"));
    let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    let mut body = String::new();
    for section in sections {
        // Writing to a string cannot fail.
        let _ = writeln!(body, "<h2>{}</h2>\n<ul>", Escaped(section));
        for Link { path, title, .. } in links.iter().filter(|link| link.section == section) {
            let _ = writeln!(
                body,
                "<li><a href=\"{}{}\">{}</a></li>",
                Escaped(&prefix),
                Escaped(path),
                Escaped(title)
            );
        }
        body.push_str("</ul>\n");
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stand_in_their_sections_below_the_prefix_and_dangerous_ones_last() {
        let link = |section, path: &str| Link { section, path: path.to_owned(), title: format!("<{path}>") };
        let links =
            [link("Dangerous:", "/flush"), link("Admin Endpoints:", "/config"), link("Dangerous:", "/stop")];
        assert_eq!(
            body("v1", &links),
            "<h2>Admin Endpoints:</h2>\n<ul>\n<li><a href=\"/v1/config\">&lt;/config&gt;</a></li>\n</ul>\n\
             <h2>Dangerous:</h2>\n<ul>\n<li><a href=\"/v1/flush\">&lt;/flush&gt;</a></li>\n\
             <li><a href=\"/v1/stop\">&lt;/stop&gt;</a></li>\n</ul>\n"
        );
    }
}
