//! From rendered values to text.

use crate::schema::{Tree, float_text};

/// What is written around a value, by its dotted path.
pub(crate) trait Notes {
    /// Comment lines above it.
    fn above(&self, _path: &str) -> Vec<String> {
        Vec::new()
    }
    /// A comment behind it.
    fn behind(&self, _path: &str) -> Option<String> {
        None
    }
    /// Write the line as a comment.
    fn disabled(&self, _path: &str) -> bool {
        false
    }
}

impl Notes for () {}

/// Writes a map as a YAML document.
pub(crate) fn write(tree: &Tree, notes: &dyn Notes) -> String {
    let mut out = String::new();
    if let Tree::Map(entries) = tree {
        if entries.is_empty() {
            return "{}\n".into();
        }
        write_map(entries, "", 0, notes, &mut out);
    }
    out
}

fn write_map(
    entries: &[(std::borrow::Cow<'static, str>, Tree)],
    path: &str,
    depth: usize,
    notes: &dyn Notes,
    out: &mut String,
) {
    let indent = "  ".repeat(depth);
    for (key, value) in entries {
        let path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
        for line in notes.above(&path) {
            out.push_str(format!("{indent}# {line}").trim_end());
            out.push('\n');
        }
        let hash = if notes.disabled(&path) { "# " } else { "" };
        // Keys of the schema stand as they are; names of tenants may be anything.
        let key = string(key);
        out.push_str(&format!("{indent}{hash}{key}:"));
        match value {
            Tree::Map(entries) if !entries.is_empty() => {
                behind(notes, &path, out);
                write_map(entries, &path, depth + 1, notes, out);
            }
            value => {
                out.push(' ');
                out.push_str(&inline(value));
                behind(notes, &path, out);
            }
        }
    }
}

fn behind(notes: &dyn Notes, path: &str, out: &mut String) {
    if let Some(note) = notes.behind(path) {
        out.push_str("  # ");
        out.push_str(&note);
    }
    out.push('\n');
}

/// A value on one line.
pub(crate) fn inline(value: &Tree) -> String {
    match value {
        Tree::Null => "null".into(),
        Tree::Bool(value) => value.to_string(),
        Tree::Int(value) => value.to_string(),
        Tree::Float(value) => float_text(*value),
        Tree::Str(text) => string(text),
        Tree::Seq(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Tree::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}: {}", string(key), inline(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A string, quoted unless everybody reads it as a string without quotes.
fn string(text: &str) -> String {
    let plain_start = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let word = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"]
        .contains(&text.to_ascii_lowercase().as_str());
    // `60s` and `1h30m` are strings to every YAML reader, digits alone are not.
    let duration = text.ends_with(|c: char| c.is_ascii_lowercase())
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || "hmsun".contains(c))
        && !text.contains('e');
    if (plain_start && plain && !word) || duration {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The entries of `tree` that differ from `base`, maps entry by entry, keys sorted.
pub(crate) fn write_diff(tree: &Tree, base: &Tree) -> String {
    write(&diff(tree, base).unwrap_or_else(|| Tree::Map(Vec::new())), &())
}

fn diff(tree: &Tree, base: &Tree) -> Option<Tree> {
    match (tree, base) {
        (Tree::Map(entries), Tree::Map(_)) => {
            let mut changed: Vec<_> = entries
                .iter()
                .filter_map(|(key, value)| match base.get(key) {
                    Some(base) => diff(value, base).map(|value| (key.clone(), value)),
                    None => Some((key.clone(), value.clone())),
                })
                .collect();
            changed.sort_by(|a, b| a.0.cmp(&b.0));
            (!changed.is_empty()).then_some(Tree::Map(changed))
        }
        (tree, base) => (tree != base).then(|| tree.clone()),
    }
}
