//! A file's tree against the schema: every finding at once, and the values that stand.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    cortex::Names,
    problems::{Findings, Origin, nearest},
    schema::{Field, LeafShape, SectionShape, Shape, Tree, leaves, schema},
    yaml::{Document, Entry, Kind, Mark, Node},
};

/// Values by dotted path, each with where it came from.
pub(crate) type Values = BTreeMap<String, (Tree, Origin)>;

/// Older or other spellings of a key.
pub(crate) const ALIASES: &[(&str, &str)] = &[
    ("distributor.extra_query_delay", "distributor.extra_queue_delay"),
    ("memberlist.abort_if_join_fails", "memberlist.abort_if_cluster_join_fails"),
    ("ring.kvstore.store", "ring.store"),
];

/// The values of a file, or of what stands of it.
pub(crate) fn check_document(file: &Arc<str>, document: &Document, findings: &mut Findings) -> Values {
    let mut check = Check { file, findings, values: Values::new(), whole: true };
    for (mark, message) in &document.errors {
        let origin = check.at(*mark);
        check.findings.error(&origin, "", message.clone());
    }
    if let Some(mark) = document.second {
        let origin = check.at(mark);
        check.findings.warn(&origin, "", "a second document starts here: only the first is read");
    }
    match &document.root {
        None => (),
        Some(root) if root.is_empty() => (),
        Some(root) => check.section(root, schema(), ""),
    }
    check.values
}

/// The values of one block of a file that is no configuration, checked as the block at `path` of one; what is wrong is told
/// under that path.
pub(crate) fn check_entries<'e>(
    file: &Arc<str>,
    entries: impl IntoIterator<Item = &'e Entry>,
    section: &SectionShape,
    path: &str,
    findings: &mut Findings,
) -> Values {
    let mut check = Check { file, findings, values: Values::new(), whole: false };
    for entry in entries {
        check.entry(entry, section, path);
    }
    check.values
}

struct Check<'a> {
    file: &'a Arc<str>,
    findings: &'a mut Findings,
    values: Values,
    /// Whether this is a whole configuration, so that a key in the wrong block has a right one.
    whole: bool,
}

impl Check<'_> {
    fn at(&self, mark: Mark) -> Origin {
        Origin::File { file: Arc::clone(self.file), line: mark.line, column: mark.column }
    }

    fn section(&mut self, node: &Node, section: &SectionShape, path: &str) {
        match &node.kind {
            Kind::Map(entries) => {
                for entry in entries {
                    self.entry(entry, section, path);
                }
            }
            _ => {
                let message =
                    format!("expected a block of keys, found {}", crate::units::shown(&node.to_raw()));
                let origin = self.at(node.mark);
                self.findings.error(&origin, path, message);
            }
        }
    }

    fn entry(&mut self, entry: &Entry, section: &SectionShape, above: &str) {
        let path = if above.is_empty() { entry.key.clone() } else { format!("{above}.{}", entry.key) };
        let origin = self.at(entry.mark);
        if let Some((_, real)) = ALIASES.iter().find(|(alias, _)| *alias == path) {
            if let Some((real, field, leaf)) = leaves().iter().find(|(leaf, ..)| leaf == real) {
                self.leaf(entry, field, leaf, real, &origin);
            }
            return;
        }
        match section.field(&entry.key) {
            Some(field @ Field { shape: Shape::Leaf(leaf), .. }) => {
                self.leaf(entry, field, leaf, &path, &origin);
            }
            Some(Field { shape: Shape::Section(below), .. }) => {
                if !entry.value.is_empty() {
                    self.section(&entry.value, below, &path);
                } else if above.is_empty() {
                    self.findings.error(
                        &origin,
                        path,
                        "the block is empty: give it keys, or remove the line",
                    );
                } else {
                    let message =
                        "the block is empty: its defaults hold (Cortex would set all its keys to zero)";
                    self.findings.warn(&origin, path, message);
                }
            }
            None if Names::get().has_path(&path) => {
                let message = match entry.value.kind {
                    Kind::Map(_) => "this block is Cortex's; ringkit has no such part and ignores it",
                    _ => "this key is Cortex's; ringkit does not implement it and ignores it",
                };
                self.findings.warn(&origin, path, message);
            }
            None => {
                let hint = suggestion(&entry.key, section, above, self.whole);
                let hint = hint.map(|key| format!(" (did you mean `{key}`?)")).unwrap_or_default();
                self.findings.error(&origin, path, format!("unknown key{hint}"));
            }
        }
    }

    fn leaf(&mut self, entry: &Entry, field: &Field, leaf: &LeafShape, path: &str, key: &Origin) {
        if let Some((_, first)) = self.values.get(path) {
            let message = format!("this is `{}`, which is already set at {}", field.name, first.brief());
            self.findings.error(key, path, message);
            return;
        }
        let origin = self.at(entry.value.mark);
        let takes_nothing = leaf.kind.nullable || matches!(leaf.kind.name, "string" | "list of string");
        if entry.value.is_empty() && !takes_nothing {
            self.findings.warn(key, path, "the value is empty: the default holds (Cortex would take zero)");
            return;
        }
        let mut notes = Vec::new();
        match (leaf.check)(&entry.value.to_raw(), &mut notes) {
            Ok(value) => {
                self.values.insert(path.to_owned(), (value, origin.clone()));
            }
            Err(message) => self.findings.error(&origin, path, message),
        }
        for note in notes {
            self.findings.warn(&origin, path, note);
        }
    }
}

/// The key that was meant: a similar one here, or one of this name elsewhere, if there is an elsewhere.
fn suggestion(key: &str, section: &SectionShape, above: &str, elsewhere: bool) -> Option<String> {
    let here = section.fields.iter().map(|field| field.name).chain(Names::get().below(above));
    if let Some(near) = nearest(key, here) {
        return Some(near.to_owned());
    }
    if !elsewhere {
        return None;
    }
    let shared = |path: &str| path.split('.').zip(above.split('.')).take_while(|(a, b)| a == b).count();
    leaves()
        .iter()
        .map(|(path, ..)| path.as_str())
        .filter(|path| path.rsplit('.').next() == Some(key))
        // The nearest relative, and of those the shallowest.
        .max_by_key(|path| (shared(path), usize::MAX - path.matches('.').count()))
        .map(str::to_owned)
}
