//! The environment: variables that set keys, and variables that a file refers to.

use std::collections::{BTreeMap, HashMap};

use crate::{
    check::Values,
    problems::{Findings, Origin, nearest},
    schema::{LeafShape, Raw, leaves},
};

const PREFIX: &str = "RINGKIT_";

/// The variable that sets a key: `RINGKIT_INGESTER__LIFECYCLER__JOIN_AFTER`.
fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").replace('-', "_").to_uppercase())
}

/// The values of the `RINGKIT_` variables.
pub(crate) fn values(env: &BTreeMap<String, String>, findings: &mut Findings) -> Values {
    let mut values = Values::new();
    let mine: Vec<_> = env.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    if mine.is_empty() {
        return values;
    }
    let known: HashMap<String, (&str, LeafShape)> =
        leaves().iter().map(|(path, _, leaf)| (variable(path), (path.as_str(), *leaf))).collect();
    for (name, text) in mine {
        let origin = Origin::Env(name.clone());
        let Some((path, leaf)) = known.get(name) else {
            unknown(name, &origin, known.keys().map(String::as_str), findings);
            continue;
        };
        // A list has commas here, because a variable cannot be repeated.
        let raw = if leaf.kind.appends {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Raw::Seq(items.map(|item| Raw::Text(item.to_owned())).collect())
        } else {
            Raw::Text(text.clone())
        };
        match (leaf.check)(&raw, &mut Vec::new()) {
            Ok(value) => {
                values.insert((*path).to_owned(), (value, origin));
            }
            Err(message) => findings.error(&origin, *path, message),
        }
    }
    values
}

/// With `__` it can only have been meant for us; without, it may be anybody's (Kubernetes sets `RINGKIT_SERVICE_HOST`).
fn unknown<'a>(name: &str, origin: &Origin, known: impl Iterator<Item = &'a str>, findings: &mut Findings) {
    let near = nearest(name, known);
    let hint = near.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default();
    if name.contains("__") {
        findings.error(origin, "", format!("no key has this variable{hint}"));
    } else if near.is_some() {
        findings.warn(origin, "", format!("no key has this variable: it is ignored{hint}"));
    }
}

/// Replaces `$VAR`, `${VAR}` and `${VAR:default}`, exactly as Cortex does: an unset or empty variable gives the default
/// or nothing, and there is no way to write a `$` that is followed by a name.
pub(crate) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        let (name, len) = reference(after);
        match name {
            Some(name) => {
                let (name, default) = name.split_once(':').unwrap_or((name, ""));
                let value = env.get(name).map(String::as_str).filter(|value| !value.is_empty());
                out.push_str(value.unwrap_or(default));
            }
            None if len == 0 => out.push('$'),
            None => (),
        }
        rest = &after[len..];
    }
    out.push_str(rest);
    out
}

/// The name behind a dollar sign and the bytes it takes; no name but some bytes is bad syntax, which is dropped.
fn reference(text: &str) -> (Option<&str>, usize) {
    let special = |c: char| "*#$@!?-0123456789".contains(c);
    match text.chars().next() {
        Some('{') => match text.find('}') {
            Some(1) => (None, 2),
            Some(end) => (Some(&text[1..end]), end + 1),
            None => (None, 1),
        },
        Some(c) if special(c) => (Some(&text[..1]), 1),
        _ => {
            let len =
                text.len() - text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len();
            if len == 0 { (None, 0) } else { (Some(&text[..len]), len) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> String {
        let env =
            [("HOST", "consul"), ("EMPTY", ""), ("9", "nine")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        expand(text, &env.into())
    }

    #[test]
    fn replaces_variables_as_gos_expand_does() {
        for (text, expected) in [
            ("host: $HOST:8500", "host: consul:8500"),
            ("host: ${HOST}x", "host: consulx"),
            ("host: ${HOST:other}", "host: consul"),
            ("a: ${GONE:dflt:with:colons}", "a: dflt:with:colons"),
            ("a: ${EMPTY:dflt}", "a: dflt"),
            ("a: ${GONE}$GONE.", "a: ."),
            ("a: $$HOST", "a: HOST"),
            ("a: ${}b", "a: b"),
            ("a: ${HOST", "a: HOST"),
            ("price: 5$ and $ 6$", "price: 5$ and $ 6$"),
            ("$9", "nine"),
            ("ü$HOSTü", "üconsulü"),
        ] {
            assert_eq!(expanded(text), expected, "{text}");
        }
    }
}
