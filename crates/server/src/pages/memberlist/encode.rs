//! JSON over many lines.

/// The same JSON over many lines, four spaces a level, as Go indents it.
pub(super) fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len().saturating_mul(2));
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut letters = json.chars().peekable();
    while let Some(letter) = letters.next() {
        if quoted {
            text.push(letter);
            quoted = escaped || letter != '"';
            escaped = letter == '\\' && !escaped;
            continue;
        }
        match letter {
            '{' | '[' => {
                text.push(letter);
                // Empty ones stay on their line.
                if let Some(end) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(end);
                } else {
                    depth += 1;
                    next_line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                next_line(&mut text, depth);
                text.push(letter);
            }
            ',' => {
                text.push(letter);
                next_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            blank if blank.is_ascii_whitespace() => (),
            other => {
                quoted = other == '"';
                text.push(other);
            }
        }
    }
    text.push('\n');
    text
}

fn next_line(text: &mut String, depth: usize) {
    text.push('\n');
    (0..depth).for_each(|_| text.push_str("    "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_indented_is_the_same_json() {
        let value = serde_json::json!({
            "a": [], "b": {}, "c": [1, -2.5, null], "d": {"{\"}],: \\": "\\\"[\\\\"}, "ü": "x y", "e": [[], [{}]],
        });
        let text = indented(&value.to_string());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        assert!(text.starts_with("{\n    \"a\": [],\n    \"b\": {},\n    \"c\": [\n        1,\n"), "{text}");
        assert!(text.ends_with("\n    ]\n}\n"), "{text}");
        assert_eq!(indented("\"one\""), "\"one\"\n");
    }
}
