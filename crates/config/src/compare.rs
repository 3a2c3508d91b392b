//! A configuration against the one that a process runs with, as its page shows it.

use crate::{
    Config, Loaded, Origin, Secret,
    schema::{Raw, Section as _, SectionShape, Shape, Tree, leaves, schema},
    yaml::{self, Kind, Node, inline},
};

/// One key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The dotted key.
    pub path: String,
    /// What the process has, as YAML; `None` if it does not know the key.
    pub running: Option<String>,
    /// What it would have, as YAML.
    pub wanted: String,
    /// Where that came from.
    pub origin: Origin,
}

/// What a process would run with instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Keys that differ, in the order of the reference.
    pub differences: Vec<Difference>,
    /// Keys whose values both are secrets, so that nobody can tell whether they differ.
    pub secrets: Vec<String>,
    /// Keys of the process that are not known here.
    pub unknown: Vec<String>,
}

impl Loaded {
    /// Compares with what a process shows on `/config`. What is named after a machine and given nowhere here, and what the
    /// process runs if that is given nowhere, is left out: both depend on where and how it was started.
    ///
    /// # Errors
    ///
    /// In words, if `page` is no configuration.
    pub fn compare(&self, page: &str) -> Result<Comparison, String> {
        let document = yaml::read(page);
        if let Some((mark, message)) = document.errors.first() {
            return Err(format!("line {}: {message}", mark.line));
        }
        let Some(root @ Node { kind: Kind::Map(_), .. }) = &document.root else {
            return Err("this is no block of keys".to_owned());
        };
        let (wanted, defaults) = (self.config.tree(), Config::default().tree());
        let mut comparison = Comparison::default();
        for (path, _, leaf) in leaves() {
            let depends = leaf.kind.machine_default || path == "target";
            let Some(wanted) = wanted.at(path).filter(|_| !depends || self.origins.given(path)) else {
                continue;
            };
            let running = at(root, path).map(Node::to_raw);
            let (told, same) = match &running {
                // Who does not know a key does what its default says.
                None => (None, defaults.at(path) == Some(wanted)),
                Some(raw) => match (leaf.check)(raw, &mut Vec::new()) {
                    Ok(tree) => (Some(inline(&tree)), tree == *wanted),
                    // The mask of a secret, or a value of another version.
                    Err(_) => {
                        let tree = plain(raw);
                        if tree == *wanted && inline(&tree).contains(Secret::MASK) {
                            comparison.secrets.push(path.clone());
                        }
                        (Some(inline(&tree)), tree == *wanted)
                    }
                },
            };
            if !same {
                comparison.differences.push(Difference {
                    path: path.clone(),
                    running: told,
                    wanted: inline(wanted),
                    origin: self.origins.of(path),
                });
            }
        }
        unknown(root, schema(), "", &mut comparison.unknown);
        Ok(comparison)
    }
}

/// The node at a dotted path.
fn at<'a>(root: &'a Node, path: &str) -> Option<&'a Node> {
    path.split('.').try_fold(root, |node, key| match &node.kind {
        Kind::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
        _ => None,
    })
}

/// A value as it was written.
fn plain(raw: &Raw) -> Tree {
    match raw {
        Raw::Null => Tree::Null,
        Raw::Plain(text) | Raw::Quoted(text) | Raw::Text(text) => Tree::Str(text.clone()),
        Raw::Seq(items) => Tree::Seq(items.iter().map(plain).collect()),
        Raw::Map => Tree::Map(Vec::new()),
    }
}

/// Adds the keys below `node` that `section` does not have.
fn unknown(node: &Node, section: &SectionShape, above: &str, out: &mut Vec<String>) {
    let Kind::Map(entries) = &node.kind else { return };
    for entry in entries {
        let path = if above.is_empty() { entry.key.clone() } else { format!("{above}.{}", entry.key) };
        match section.field(&entry.key).map(|field| &field.shape) {
            Some(Shape::Section(below)) => unknown(&entry.value, below, &path, out),
            Some(Shape::Leaf(_)) => (),
            None => out.push(path),
        }
    }
}
