//! Label matchers, as in PromQL selectors.
//!
//! A label that is not set counts as empty. Expressions are anchored at both ends and `.` matches newlines, as in
//! Prometheus 3. The syntax is that of the `regex` crate with Go's ASCII meaning of `\d`, `\w`, `\s` and `\b`.

mod syntax;

use std::fmt;

use regex::{Regex, RegexBuilder};

/// The largest compiled expression, in bytes.
const MAX_COMPILED_BYTES: usize = 4 << 20;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

/// The expression of a matcher cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid expression in `{name}{op}{value:?}`: {reason}")]
pub struct Error {
    /// The label.
    pub name: String,
    /// The operation.
    pub op: Op,
    /// The expression.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
}

/// One condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    op: Op,
    value: String,
    test: Test,
}

/// What a value is compared with, before negation.
#[derive(Clone, Debug)]
enum Test {
    Equal,
    /// One of some literals, sorted.
    OneOf(Vec<String>),
    Any,
    NotEmpty,
    Regex(Regex),
}

impl Matcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    ///
    /// [`Error`] if the value is to be an expression and is none, or one that compiles to more than 4 MiB.
    pub fn try_new(op: Op, name: impl Into<String>, value: impl Into<String>) -> Result<Self, Error> {
        let (name, value) = (name.into(), value.into());
        let test = match op {
            Op::Equal | Op::NotEqual => Test::Equal,
            Op::Regex | Op::NotRegex => match compile(&value) {
                Ok(test) => test,
                Err(error) => return Err(Error { name, op, value, reason: error.to_string() }),
            },
        };
        Ok(Self { name, op, value, test })
    }

    /// The label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operation.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The value or expression, as given.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label with this value satisfies the matcher. A label that is not set has the value "".
    pub fn matches(&self, value: &str) -> bool {
        let positive = match &self.test {
            Test::Equal => self.value == value,
            Test::OneOf(literals) => literals.binary_search_by(|literal| literal.as_str().cmp(value)).is_ok(),
            Test::Any => true,
            Test::NotEmpty => !value.is_empty(),
            Test::Regex(regex) => regex.is_match(value),
        };
        positive == matches!(self.op, Op::Equal | Op::Regex)
    }

    /// Whether series without the label satisfy the matcher, so that an index by values cannot find them all.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// The only values that can satisfy the matcher, if they can be listed: then look them up instead of testing
    /// every value there is.
    pub fn values(&self) -> Option<impl Iterator<Item = &str>> {
        let literals = match (self.op, &self.test) {
            (Op::Equal, _) => std::slice::from_ref(&self.value),
            (Op::Regex, Test::OneOf(literals)) => literals,
            _ => return None,
        };
        Some(literals.iter().map(String::as_str))
    }
}

/// As in selectors: `job=~"a|b"`.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op, self.value)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        })
    }
}

fn compile(expression: &str) -> Result<Test, regex::Error> {
    match expression {
        ".*" => return Ok(Test::Any),
        ".+" => return Ok(Test::NotEmpty),
        _ => (),
    }
    if let Some(literals) = syntax::literals(expression) {
        return Ok(Test::OneOf(literals));
    }
    let translated = syntax::translate(expression);
    // Alone first: `a)|(b` is no expression, though it would be one inside the group.
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).build();
    build(&translated)?;
    Ok(Test::Regex(build(&format!("^(?s:{translated})$"))?))
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default)]
pub struct Matchers(Vec<Matcher>);

impl Matchers {
    /// Whether a series satisfies all matchers. `label` gives the value of a label, `None` if it is not set.
    pub fn matches<'a>(&self, mut label: impl FnMut(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|matcher| matcher.matches(label(&matcher.name).unwrap_or_default()))
    }

    /// The matchers, as given.
    pub fn iter(&self) -> std::slice::Iter<'_, Matcher> {
        self.0.iter()
    }

    /// Whether there are none; then every series matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Matcher> for Matchers {
    fn from_iter<I: IntoIterator<Item = Matcher>>(matchers: I) -> Self {
        Self(matchers.into_iter().collect())
    }
}

impl From<Vec<Matcher>> for Matchers {
    fn from(matchers: Vec<Matcher>) -> Self {
        Self(matchers)
    }
}

impl<'a> IntoIterator for &'a Matchers {
    type Item = &'a Matcher;
    type IntoIter = std::slice::Iter<'a, Matcher>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn regex(expression: &str) -> Matcher {
        Matcher::try_new(Op::Regex, "job", expression).unwrap()
    }

    #[test]
    fn a_missing_label_counts_as_empty() {
        for (op, value, set, unset) in [
            (Op::Equal, "", false, true),
            (Op::NotEqual, "", true, false),
            (Op::NotEqual, "b", true, true),
            (Op::Regex, "a|", true, true),
            (Op::Regex, ".*", true, true),
            (Op::Regex, ".+", true, false),
            (Op::NotRegex, ".+", false, true),
            (Op::NotRegex, "b", true, true),
        ] {
            let matchers = Matchers::from(vec![Matcher::try_new(op, "job", value).unwrap()]);
            assert_eq!(matchers.matches(|name| (name == "job").then_some("a")), set, "{op}{value}");
            assert_eq!(matchers.matches(|_| None), unset, "{op}{value}");
        }
    }

    #[test]
    fn expressions_are_anchored_whatever_they_hold() {
        assert!(regex("a.c").matches("abc"));
        assert!(!regex("a.c").matches("xabc"));
        assert!(!regex("a.c").matches("abcx"));
        assert!(!regex("a|b.").matches("ax"));
        assert!(!regex("(?i)a|b.").matches("Ax"));
        assert!(regex("(?i)a|b.").matches("BX"));
    }

    #[test]
    fn a_dot_matches_a_newline_but_the_end_is_the_very_end() {
        assert!(regex("a.c").matches("a\nc"));
        assert!(!regex("a[b]").matches("ab\n"));
        assert!(regex(".*").matches("a\nb"));
    }

    #[test]
    fn classes_mean_ascii_as_in_go() {
        assert!(regex(r"\d+x").matches("12x"));
        assert!(!regex(r"\d+x").matches("٣x"));
        assert!(regex(r"[^\w]x").matches("éx"));
        assert!(regex(r"[\d-]+x").matches("1-2x"));
        assert!(regex(r"\\dx?").matches(r"\d"));
        assert!(regex(r"[[x]+y").matches("[xy"));
        assert!(regex(r"[a&&b]+y").matches("&&y"));
        assert!(regex(r"[]x]+y").matches("]xy"));
        assert!(regex(r"[[:alpha:]]+y?").matches("abc"));
        assert!(regex(r"\Qa.b\E.").matches("a.bc"));
        assert!(!regex(r"\Qa.b\E.").matches("axbc"));
    }

    #[test]
    fn braces_are_literals_unless_they_hold_a_count() {
        assert!(regex("/api/{id}/.*").matches("/api/{id}/x"));
        assert!(regex("a{2}b{1,}c{0,2}").matches("aabcc"));
        assert!(regex("a{,2}.?").matches("a{,2}"));
        assert!(regex(r"\p{Greek}\x{3b2}+").matches("αβ"));
        assert!(regex(r"\<.\>").matches("<a>"));
    }

    #[test]
    fn alternatives_of_literals_can_be_listed() {
        let values =
            |matcher: &Matcher| matcher.values().map(|values| values.map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(values(&regex("b|a|b")), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(values(&regex("a.b")), None);
        assert_eq!(values(&Matcher::try_new(Op::NotRegex, "job", "a|b").unwrap()), None);
        assert_eq!(values(&Matcher::try_new(Op::Equal, "job", "a|b").unwrap()), Some(vec!["a|b".to_owned()]));
    }

    #[test]
    fn an_invalid_or_oversized_expression_is_named() {
        let error = Matcher::try_new(Op::Regex, "job", "a)|(b").unwrap_err();
        assert!(error.to_string().starts_with(r#"invalid expression in `job=~"a)|(b"`"#), "{error}");
        assert!(Matcher::try_new(Op::Regex, "job", r"((\pL{1000}){1000}){1000}").is_err());
    }

    proptest! {
        #[test]
        fn the_short_cut_for_literals_agrees_with_the_engine(
            expression in "[ab|]{0,6}",
            value in "[ab]{0,3}",
        ) {
            let engine = Regex::new(&format!("^(?s:{expression})$")).unwrap();
            prop_assert_eq!(regex(&expression).matches(&value), engine.is_match(&value));
        }

        #[test]
        fn arbitrary_expressions_compile_or_fail(expression in ".{0,40}", value in ".{0,10}") {
            if let Ok(matcher) = Matcher::try_new(Op::Regex, "job", expression) {
                matcher.matches(&value);
            }
        }

        #[test]
        fn translating_leaves_plain_expressions_alone(expression in "[a-z.*+?()|0-9^$]{0,20}") {
            prop_assert_eq!(super::syntax::translate(&expression), expression);
        }
    }
}
