//! What is wrong or odd about a configuration, found all at once, and where each value came from.

use std::{fmt, sync::Arc};

/// Where a value came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    #[default]
    Default,
    /// A place in a file; line and column count from 1.
    File {
        /// The file as it was named.
        file: Arc<str>,
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag, as it was written.
    Flag(String),
    /// Another key, which itself came from somewhere.
    Inherited {
        /// The other key.
        from: String,
        /// Where that came from.
        origin: Box<Origin>,
    },
}

impl Origin {
    /// For the comment behind a value: file and line only.
    pub(crate) fn brief(&self) -> String {
        match self {
            Self::File { file, line, .. } => format!("{file}:{line}"),
            Self::Inherited { from, origin } => format!("{from} ({})", origin.brief()),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Inherited { from, origin } => write!(f, "{from} ({origin})"),
        }
    }
}

/// One thing that is wrong or odd: `file:line:column: key.path: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// The dotted key; empty if it is about no key.
    pub path: String,
    /// What, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A default is nowhere to look: the key says enough.
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Something odd about a configuration, but no reason not to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub Problem);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a configuration cannot be used: every problem, one per line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct LoadError {
    /// All that is wrong, in the order of files, environment, flags, and rules.
    pub problems: Vec<Problem>,
    /// What is odd besides.
    pub warnings: Vec<Warning>,
    /// Flags were wrong.
    pub(crate) usage: bool,
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl LoadError {
    /// Whether it is the command line that is wrong (exit status 2, as in Cortex) rather than the configuration (1).
    pub fn is_usage(&self) -> bool {
        self.usage
    }
}

/// Collects problems and warnings while reading.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) errors: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

impl Findings {
    pub(crate) fn error(&mut self, origin: &Origin, path: impl Into<String>, message: impl Into<String>) {
        self.errors.push(Problem { origin: origin.clone(), path: path.into(), message: message.into() });
    }

    pub(crate) fn warn(&mut self, origin: &Origin, path: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(Problem { origin: origin.clone(), path: path.into(), message: message.into() });
    }
}

/// Collects broken rules within one section; the origins are filled in afterwards.
pub(crate) struct Rules<'a> {
    findings: &'a mut Findings,
    path: String,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(findings: &'a mut Findings) -> Self {
        Self { findings, path: String::new() }
    }

    /// The rules of a section below this one.
    pub(crate) fn below(&mut self, key: &str) -> Rules<'_> {
        let path = self.path_of(key);
        Rules { findings: self.findings, path }
    }

    fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// An error at `key` unless the rule holds.
    pub(crate) fn require(&mut self, holds: bool, key: &str, message: &str) {
        if !holds {
            let path = self.path_of(key);
            self.findings.error(&Origin::Default, path, message);
        }
    }

    /// A warning at `key` unless the rule holds.
    pub(crate) fn advise(&mut self, holds: bool, key: &str, message: &str) {
        if !holds {
            let path = self.path_of(key);
            self.findings.warn(&Origin::Default, path, message);
        }
    }
}

/// The word nearest to `text`, if one is near enough to be what was meant.
pub(crate) fn nearest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    words
        .filter(|word| !word.is_empty())
        .map(|word| (strsim::damerau_levenshtein(&text, &word.to_ascii_lowercase()), word))
        .filter(|(distance, word)| *distance <= (word.chars().count() / 3).max(1))
        .min_by_key(|(distance, word)| (*distance, *word))
        .map(|(_, word)| word)
}
