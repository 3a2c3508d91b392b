//! Tables of what there is to know: facts with a label each, and rows that become cards where they are too wide.

use std::fmt::{Display, Write as _};

use super::Escaped;

/// What both look like.
pub(super) const STYLE: &str = include_str!("cards.css");

/// A heading and the class of its cells. Headings are ours: they are written as they are.
pub(super) type Column = (&'static str, &'static str);

/// What numbers look like.
pub(super) const NUMBER: &str = "number";

/// One cell.
pub(super) struct Cell {
    html: String,
    class: &'static str,
    /// What it is sorted by, if not by its text.
    order: Option<String>,
}

impl Cell {
    /// Shows this HTML.
    pub(super) fn html(html: String) -> Self {
        Self { html, class: "", order: None }
    }

    /// Shows this text, whatever is in it.
    pub(super) fn text(text: &str) -> Self {
        Self::html(Escaped(text).to_string())
    }

    /// Shows a number, or what there is in its place: nothing that needs to be escaped.
    pub(super) fn number(number: impl Display) -> Self {
        Self::html(number.to_string())
    }

    /// The same, sorted by this number.
    pub(super) fn by(self, order: impl Display) -> Self {
        Self { order: Some(order.to_string()), ..self }
    }

    /// The same with a class of its own.
    pub(super) fn classed(self, class: &'static str) -> Self {
        Self { class, ..self }
    }
}

/// Writes a table. Without rows it is left out, and `none` said in its place.
pub(super) fn table<const N: usize>(
    body: &mut String,
    id: &str,
    none: &str,
    columns: &[Column; N],
    rows: &[[Cell; N]],
) {
    if rows.is_empty() {
        // Writing to a string cannot fail.
        let _ = writeln!(body, "<p>{none}</p>");
        return;
    }
    let _ = write!(body, "<div class=\"scroll\"><table id=\"{id}\" class=\"cards\">\n<thead><tr>");
    for (label, class) in columns {
        let _ = write!(body, "<th scope=\"col\"{}>{label}</th>", Class([class, ""]));
    }
    body.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        body.push_str("<tr>");
        for (Cell { html, class: own, order }, (label, class)) in row.iter().zip(columns) {
            let _ = write!(body, "<td data-label=\"{label}\"{}", Class([class, own]));
            if let Some(order) = order {
                let _ = write!(body, " data-order=\"{order}\"");
            }
            let _ = write!(body, ">{html}</td>");
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody>\n</table></div>\n");
}

/// A row of a table with the class `facts`. The label is ours: it is written as it is.
pub(super) fn fact(body: &mut String, label: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(body, "<tr><th scope=\"row\">{label}</th><td>{}</td></tr>", Escaped(text));
}

/// The attribute for those of two classes that are not empty.
struct Class<'a>([&'a str; 2]);

impl Display for Class<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            ["", ""] => Ok(()),
            [one, ""] | ["", one] => write!(f, " class=\"{one}\""),
            [one, other] => write!(f, " class=\"{one} {other}\""),
        }
    }
}
