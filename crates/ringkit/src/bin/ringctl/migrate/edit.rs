//! Changes `multi_kv_config` in the text of a runtime configuration, and nothing else of it: overrides, comments and line ends
//! stay as they are. What it cannot change safely it refuses.

use ringkit_config::{Config, KvStore, LoadError, MultiRuntimeConfig, RuntimeConfig, RuntimeFile};
use serde::Serialize;
use serde_json::Value;

/// The block that a step changes.
pub(super) const BLOCK: &str = "multi_kv_config";

/// What a step asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    pub(super) primary: KvStore,
    pub(super) mirror_enabled: bool,
    pub(super) generation: u64,
    pub(super) force: bool,
}

impl Change {
    /// The block, as YAML.
    pub(super) fn yaml(&self) -> String {
        let lines = self.values().into_iter().filter(|(key, _)| self.force || *key != FORCE);
        let lines: String = lines.map(|(key, value)| format!("  {key}: {value}\n")).collect();
        format!("{BLOCK}:\n{lines}")
    }

    fn values(&self) -> [(&'static str, String); 4] {
        [
            ("primary", self.primary.to_string()),
            ("mirror_enabled", self.mirror_enabled.to_string()),
            ("generation", self.generation.to_string()),
            (FORCE, self.force.to_string()),
        ]
    }

    fn is_said_by(&self, said: &MultiRuntimeConfig) -> bool {
        let expected = MultiRuntimeConfig {
            primary: Some(self.primary),
            mirror_enabled: Some(self.mirror_enabled),
            force: self.force,
            generation: self.generation,
            per_ring: said.per_ring.clone(),
        };
        *said == expected
    }
}

const FORCE: &str = "force";

/// Whether the text has the block.
pub(super) fn has_block(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').trim_start().starts_with('{') && text.contains(BLOCK)
        || text.lines().any(|line| value_of(line, BLOCK).is_some())
}

/// The text with the change.
///
/// # Errors
///
/// Why this has to be done by hand, as the end of a sentence.
pub(super) fn edit(text: &str, change: &Change) -> Result<String, String> {
    let edited = if is_braced(text) { edit_json(text, change)? } else { edit_lines(text, change)? };
    match read(&edited) {
        Ok(said) if !change.is_said_by(&said) => Err("the result would say something else".to_owned()),
        Ok(_) => Ok(edited),
        // What tenants are allowed depends on the main configuration, which is not here.
        Err(error) if error.problems.iter().all(|problem| !concerns_stores(&problem.path)) => Ok(edited),
        Err(error) => Err(format!("the result could not be read: {error}")),
    }
}

/// What a text says of stores.
pub(super) fn read(text: &str) -> Result<MultiRuntimeConfig, LoadError> {
    let file = RuntimeFile { name: "the runtime configuration", bytes: text.as_bytes() };
    Ok(RuntimeConfig::new(&Config::default()).read(&[file])?.0.multi_kv_config)
}

fn concerns_stores(path: &str) -> bool {
    !path.starts_with("overrides.") && !path.starts_with("ingester_limits.")
}

/// Whether all of it stands in braces, as JSON does.
fn is_braced(text: &str) -> bool {
    let mut lines = text.trim_start_matches('\u{feff}').lines().map(str::trim_start);
    lines.find(|line| !line.is_empty() && !line.starts_with('#')).is_some_and(|line| line.starts_with('{'))
}

fn edit_json(text: &str, change: &Change) -> Result<String, String> {
    let why = |what: &str| format!("all of it stands in braces, {what}");
    let mut root: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|_| why("and it is no JSON: give it a line for each key"))?;
    let Some(keys) = root.as_object_mut() else { return Err(why("and it is no block of keys")) };
    let block = keys.entry(BLOCK).or_insert(Value::Null);
    if block.is_null() {
        *block = Value::Object(serde_json::Map::new());
    }
    let Some(block) = block.as_object_mut() else { return Err(format!("`{BLOCK}` is no block of keys")) };
    block.insert("primary".to_owned(), change.primary.as_str().into());
    block.insert("mirror_enabled".to_owned(), change.mirror_enabled.into());
    block.insert("generation".to_owned(), change.generation.into());
    if change.force || block.contains_key(FORCE) {
        block.insert(FORCE.to_owned(), change.force.into());
    }
    serde_json::to_string_pretty(&root).map(|text| text + "\n").map_err(|error| why(&error.to_string()))
}

fn edit_lines(text: &str, change: &Change) -> Result<String, String> {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut at = lines.iter().enumerate().filter(|(_, line)| value_of(line, BLOCK).is_some());
    let edited: Vec<String> = match (at.next(), at.next()) {
        (_, Some(_)) => return Err(format!("it has `{BLOCK}` more than once")),
        (None, None) => append(&lines, change),
        (Some((start, line)), None) => {
            let value = value_of(line, BLOCK).unwrap_or_default();
            let (value, comment) = split_comment(value);
            let (before, rest) = lines.split_at(start);
            let rest = rest.get(1..).unwrap_or_default();
            let (block, after) = match value {
                "" => edit_block(rest, change)?,
                "null" | "~" => (change_lines(change, "  "), rest),
                value if value.starts_with('{') => (change_lines(change, "  "), behind_braces(value, rest)?),
                value => return Err(format!("`{BLOCK}: {value}` is no block of keys")),
            };
            let head = format!("{}:{}\n", key_of(line), comment);
            let before = before.iter().map(|line| (*line).to_owned());
            let after = after.iter().map(|line| (*line).to_owned());
            before.chain([head]).chain(block).chain(after).collect()
        }
    };
    // Lines that are new end as all others.
    let ended = edited.into_iter().map(|line| match line.strip_suffix('\n') {
        Some(plain) => format!("{}{newline}", plain.strip_suffix('\r').unwrap_or(plain)),
        None => line,
    });
    Ok(ended.collect())
}

fn change_lines(change: &Change, indent: &str) -> Vec<String> {
    let values = change.values().into_iter().filter(|(key, _)| change.force || *key != FORCE);
    values.map(|(key, value)| format!("{indent}{key}: {value}\n")).collect()
}

/// The lines with the block behind them, or before the mark of the document's end.
fn append(lines: &[&str], change: &Change) -> Vec<String> {
    let end = lines.iter().position(|line| line.trim_end() == "...").unwrap_or(lines.len());
    let (before, after) = lines.split_at(end);
    let mut edited: Vec<String> = before.iter().map(|line| (*line).to_owned()).collect();
    if let Some(last) = edited.last_mut() {
        if !last.ends_with('\n') {
            last.push('\n');
        }
        if !last.trim().is_empty() && last.trim_end() != "---" {
            edited.push("\n".to_owned());
        }
    }
    edited.push(format!("{BLOCK}:\n"));
    edited.extend(change_lines(change, "  "));
    edited.extend(after.iter().map(|line| (*line).to_owned()));
    edited
}

/// Changes a block that has a line for each key, whose lines are the first of `lines`. Returns them and what follows.
fn edit_block<'a, 'b>(lines: &'a [&'b str], change: &Change) -> Result<(Vec<String>, &'a [&'b str]), String> {
    // Comments at the margin behind the last key belong to what follows.
    let ends = lines.iter().position(|line| !is_inside(line) && !is_blank(line) && !is_comment(line));
    let outer = ends.unwrap_or(lines.len());
    let inside = lines.iter().take(outer).rposition(|line| is_inside(line) && !is_blank(line));
    let (block, after) = lines.split_at(inside.map_or(0, |last| last + 1));
    let content = |line: &&&str| !is_blank(line) && !is_comment(line);
    let Some(first) = block.iter().find(content) else {
        let comments = block.iter().map(|line| ended(line));
        return Ok((comments.chain(change_lines(change, "  ")).collect(), after));
    };
    let indent = indent_of(first);
    let mut edited: Vec<String> = block.iter().map(|line| ended(line)).collect();
    for (key, value) in change.values() {
        let is_it = |line: &&str| indent_of(line) == indent && value_of(line.trim_start(), key).is_some();
        match block.iter().position(is_it) {
            Some(at) => {
                let next = block.iter().skip(at + 1).find(content);
                if next.is_some_and(|next| indent_of(next).len() > indent.len()) {
                    return Err(format!("`{BLOCK}.{key}` takes more than a line"));
                }
                let line = block.get(at).map_or("", |line| line.trim_start());
                let (_, comment) = split_comment(value_of(line, key).unwrap_or_default());
                if let Some(line_in_place) = edited.get_mut(at) {
                    *line_in_place = format!("{indent}{}: {value}{comment}\n", key_of(line));
                }
            }
            None if key == FORCE && !change.force => (),
            None => edited.push(format!("{indent}{key}: {value}\n")),
        }
    }
    Ok((edited, after))
}

/// What follows a value in braces that begins with `value` and may go on in `lines`.
fn behind_braces<'a, 'b>(value: &str, lines: &'a [&'b str]) -> Result<&'a [&'b str], String> {
    let mut depth = 0_usize;
    let mut quote = None;
    for (number, line) in [value].iter().chain(lines).enumerate() {
        let mut before = ' ';
        for (at, letter) in line.char_indices() {
            match (quote, letter) {
                (Some(open), letter) if letter == open => quote = None,
                (Some(_), _) => (),
                (None, '\'' | '"') => quote = Some(letter),
                (None, '#') if before.is_whitespace() => break,
                (None, '{' | '[') => depth += 1,
                (None, '}' | ']') => depth = depth.saturating_sub(1),
                (None, _) => (),
            }
            before = letter;
            if depth == 0 && quote.is_none() && !before.is_whitespace() {
                let (rest, _) = split_comment(line.get(at + letter.len_utf8()..).unwrap_or_default());
                if !rest.is_empty() {
                    return Err(format!("`{rest}` stands behind the braces of `{BLOCK}`"));
                }
                return Ok(lines.get(number..).unwrap_or_default());
            }
        }
    }
    Err(format!("the braces of `{BLOCK}` are not closed"))
}

/// What stands behind `key:`, if the line begins with that.
fn value_of<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let line = line.trim_start_matches('\u{feff}');
    let rest = ["", "\"", "'"].into_iter().find_map(|quote| {
        let rest = line.strip_prefix(quote)?.strip_prefix(key)?.strip_prefix(quote)?;
        rest.trim_start_matches(' ').strip_prefix(':')
    })?;
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some(rest)
}

/// The key as it is written, without what it is followed by.
fn key_of(line: &str) -> &str {
    line.split_once(':').map_or(line, |(key, _)| key.trim_end())
}

/// The value without the blanks around it, and the comment behind it with those before it.
fn split_comment(value: &str) -> (&str, &str) {
    let value = value.trim_end();
    let (mut quote, mut before, mut blanks) = (None, ' ', 0);
    for (at, letter) in value.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), _) => (),
            (None, '\'' | '"') => quote = Some(letter),
            (None, '#') if before.is_whitespace() => {
                // Blanks are single bytes here, so that this is a border of letters.
                let (value, comment) = value.split_at(blanks);
                return (value.trim(), comment);
            }
            (None, _) => (),
        }
        before = letter;
        if !letter.is_whitespace() {
            blanks = at + letter.len_utf8();
        }
    }
    (value.trim(), "")
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn is_inside(line: &str) -> bool {
    line.starts_with([' ', '\t'])
}

fn indent_of(line: &str) -> &str {
    line.split_at(line.len() - line.trim_start().len()).0
}

fn ended(line: &str) -> String {
    if line.ends_with('\n') { line.to_owned() } else { format!("{line}\n") }
}

#[cfg(test)]
mod tests;
