//! From Go's expression syntax to that of the `regex` crate, where the two read the same text differently.

/// The literals of an expression that is nothing but literals joined by `|`; sorted, each once.
pub(super) fn literals(expression: &str) -> Option<Vec<String>> {
    let is_literal = |c: char| !r"\.+*?()[]{}^$".contains(c);
    if !expression.chars().all(is_literal) {
        return None;
    }
    let mut literals: Vec<_> = expression.split('|').map(str::to_owned).collect();
    literals.sort_unstable();
    literals.dedup();
    Some(literals)
}

/// Rewrites the constructs that mean something else here than in Go:
/// classes such as `\d` are ASCII there, `[` `&` `-` `~` inside brackets are literals, and so are braces that hold no
/// count; `\<` and `\>` are no word boundaries, `\Q…\E` quotes.
pub(super) fn translate(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len());
    let mut rest = expression;
    let mut in_brackets = false;
    while let Some(c) = rest.chars().next() {
        let tail = &rest[c.len_utf8()..];
        rest = match c {
            '\\' => escape(tail, &mut out, in_brackets),
            '[' if in_brackets => bracket_inside(tail, &mut out),
            '[' => {
                in_brackets = true;
                open_bracket(tail, &mut out)
            }
            ']' if in_brackets => {
                in_brackets = false;
                out.push(']');
                tail
            }
            '{' if !in_brackets && !begins_count(tail) => {
                out.push_str(r"\{");
                tail
            }
            // Doubled, they are set operations here.
            '&' | '~' if in_brackets => {
                out.push('\\');
                out.push(c);
                tail
            }
            '-' if in_brackets && tail.starts_with('-') => {
                out.push_str(r"\-");
                tail
            }
            _ => {
                out.push(c);
                tail
            }
        };
    }
    out
}

/// Behind a backslash.
fn escape<'a>(tail: &'a str, out: &mut String, in_brackets: bool) -> &'a str {
    let Some(c) = tail.chars().next() else {
        out.push('\\');
        return tail;
    };
    let rest = &tail[c.len_utf8()..];
    match c {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str(r"[\t\n\f\r ]"),
        'S' => out.push_str(r"[^\t\n\f\r ]"),
        'b' | 'B' if !in_brackets => {
            out.push_str(r"(?-u:\");
            out.push(c);
            out.push(')');
        }
        'Q' if !in_brackets => {
            let (quoted, rest) = rest.split_once(r"\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(quoted));
            return rest;
        }
        '<' | '>' => out.push(c),
        // A name or a code point in braces.
        'p' | 'P' | 'x' if rest.starts_with('{') => {
            let (braced, rest) = rest.split_at(rest.find('}').map_or(rest.len(), |end| end + 1));
            out.push('\\');
            out.push(c);
            out.push_str(braced);
            return rest;
        }
        _ => {
            out.push('\\');
            out.push(c);
        }
    }
    rest
}

/// Whether a `{` with `tail` behind it is a count: `{2}`, `{2,}` or `{2,3}`.
fn begins_count(tail: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((count, _)) = tail.split_once('}') else { return false };
    let (min, max) = count.split_once(',').unwrap_or((count, ""));
    !min.is_empty() && digits(min) && digits(max)
}

/// Behind the `[` that opens a class: a `]` at once is a literal.
fn open_bracket<'a>(mut tail: &'a str, out: &mut String) -> &'a str {
    out.push('[');
    if let Some(rest) = tail.strip_prefix('^') {
        out.push('^');
        tail = rest;
    }
    if let Some(rest) = tail.strip_prefix(']') {
        out.push_str(r"\]");
        tail = rest;
    }
    tail
}

/// Behind a `[` inside a class: a named class such as `[:alpha:]`, or a literal.
fn bracket_inside<'a>(tail: &'a str, out: &mut String) -> &'a str {
    if tail.starts_with(':')
        && let Some(end) = tail.find(":]")
        && let Some((name, rest)) = tail.split_at_checked(end + 2)
    {
        out.push('[');
        out.push_str(name);
        return rest;
    }
    out.push_str(r"\[");
    tail
}
