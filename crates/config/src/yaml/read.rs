//! From text to a tree whose nodes know their line and column. Bounded in size, depth and aliases.

use std::{borrow::Cow, collections::HashMap};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::schema::Raw;

/// Longest file in bytes.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;
/// Most nodes, aliases counted as often as they are used.
const MAX_NODES: usize = 200_000;

/// A place; line and column count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Mark {
    const START: Self = Self { line: 1, column: 1 };
}

impl From<&Marker> for Mark {
    fn from(marker: &Marker) -> Self {
        Self { line: marker.line().max(1), column: marker.col() + 1 }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) kind: Kind,
    /// Nodes in it, itself included.
    size: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Scalar(Raw),
    Seq(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) mark: Mark,
    pub(crate) value: Node,
}

impl Node {
    fn new(mark: Mark, kind: Kind) -> Self {
        let size = match &kind {
            Kind::Scalar(_) => 1,
            Kind::Seq(items) => 1 + items.iter().map(|item| item.size).sum::<usize>(),
            Kind::Map(entries) => 1 + entries.iter().map(|entry| 1 + entry.value.size).sum::<usize>(),
        };
        Self { mark, kind, size }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Scalar(Raw::Null))
    }

    /// The value without its places.
    pub(crate) fn to_raw(&self) -> Raw {
        match &self.kind {
            Kind::Scalar(raw) => raw.clone(),
            Kind::Seq(items) => Raw::Seq(items.iter().map(Node::to_raw).collect()),
            Kind::Map(_) => Raw::Map,
        }
    }
}

/// The first document of a file.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// `None` for an empty file.
    pub(crate) root: Option<Node>,
    /// Keys that occur twice in one block, and the like; the tree goes on with the first.
    pub(crate) errors: Vec<(Mark, String)>,
    /// Where a second document starts, which nobody reads.
    pub(crate) second: Option<Mark>,
}

/// Reads the first document.
pub(crate) fn read(text: &str) -> Document {
    let mut builder = Builder::default();
    if text.len() > MAX_BYTES {
        builder.document.errors.push((Mark::START, format!("the file is larger than {MAX_BYTES} bytes")));
        return builder.document;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let step = match next {
            Ok((Event::DocumentEnd, _)) => {
                builder.document.second = second_document(&mut parser);
                break;
            }
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err(explain(text, &error)),
        };
        if let Err(error) = step {
            builder.document.errors.push(error);
            builder.document.root = None;
            break;
        }
    }
    builder.document
}

fn second_document(parser: &mut Parser<'_, impl saphyr_parser::Input>) -> Option<Mark> {
    match parser.next_event() {
        Some(Ok((Event::DocumentStart(_), span))) => Some(Mark::from(&span.start)),
        _ => None,
    }
}

/// The parser's complaint, or the reason behind it where that is clearer.
fn explain(text: &str, error: &ScanError) -> (Mark, String) {
    let mark = Mark::from(error.marker());
    let tabbed = text.lines().take(mark.line).enumerate().filter_map(|(index, line)| {
        let column = line.find('\t')?;
        let indents = line[..column].bytes().all(|byte| byte == b' ');
        let content = line.trim_start();
        (indents && !content.is_empty() && !content.starts_with('#'))
            .then_some(Mark { line: index + 1, column: column + 1 })
    });
    match tabbed.last() {
        Some(tab) => (tab, "the line is indented with a tab; YAML allows only spaces there".into()),
        None => (mark, format!("this is no valid YAML: {}", error.info())),
    }
}

/// Collects the events of one document without recursion.
#[derive(Default)]
struct Builder {
    document: Document,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

struct Open {
    mark: Mark,
    anchor: usize,
    content: Content,
}

enum Content {
    Seq(Vec<Node>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    /// The line of each key that was seen.
    lines: HashMap<String, usize>,
    /// A key that waits for its value.
    key: Option<(String, Mark)>,
    /// What `<<` brought.
    merged: Vec<Entry>,
}

type Step = Result<(), (Mark, String)>;

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Step {
        let mark = Mark::from(&span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = Node::new(mark, Kind::Scalar(scalar(&text, style, tag.as_deref())));
                self.put(node, anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let node = Node { mark, ..node.clone() };
                    // What is in it counts again, each time it is used.
                    self.count(node.size, mark)?;
                    self.put(node, 0)
                }
                None => Err((mark, "the alias stands inside what it refers to".into())),
            },
            Event::SequenceStart(anchor, _) => self.start(mark, anchor, Content::Seq(Vec::new())),
            Event::MappingStart(anchor, _) => self.start(mark, anchor, Content::Map(OpenMap::default())),
            Event::SequenceEnd | Event::MappingEnd => self.end(mark),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn start(&mut self, mark: Mark, anchor: usize, content: Content) -> Step {
        if self.open.len() >= MAX_DEPTH {
            return Err((mark, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(Open { mark, anchor, content });
        Ok(())
    }

    fn end(&mut self, mark: Mark) -> Step {
        let Some(open) = self.open.pop() else { return Err((mark, "an end without a start".into())) };
        let kind = match open.content {
            Content::Seq(items) => Kind::Seq(items),
            Content::Map(OpenMap { mut entries, mut lines, merged, .. }) => {
                // Own keys win, then the earlier of the merged ones.
                let new = |entry: &Entry| lines.insert(entry.key.clone(), entry.mark.line).is_none();
                entries.extend(merged.into_iter().filter(new));
                Kind::Map(entries)
            }
        };
        self.put(Node::new(open.mark, kind), open.anchor)
    }

    fn count(&mut self, more: usize, mark: Mark) -> Step {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MAX_NODES {
            return Err((mark, format!("more than {MAX_NODES} values, aliases included")));
        }
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Step {
        self.count(1, node.mark)?;
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Self { document, open, .. } = self;
        match open.last_mut().map(|open| &mut open.content) {
            None => document.root = Some(node),
            Some(Content::Seq(items)) => items.push(node),
            Some(Content::Map(map)) => match map.key.take() {
                None => match node.kind {
                    Kind::Scalar(Raw::Plain(text) | Raw::Quoted(text) | Raw::Text(text)) => {
                        map.key = Some((text, node.mark));
                    }
                    Kind::Scalar(_) => map.key = Some(("null".into(), node.mark)),
                    Kind::Seq(_) | Kind::Map(_) => return Err((node.mark, "a key must be a word".into())),
                },
                Some((name, mark)) if name == "<<" => merge(node, mark, &mut map.merged)?,
                Some((name, mark)) => match map.lines.get(&name) {
                    Some(first) => document
                        .errors
                        .push((mark, format!("`{name}` is already set in this block, at line {first}"))),
                    None => {
                        map.lines.insert(name.clone(), mark.line);
                        map.entries.push(Entry { key: name, mark, value: node });
                    }
                },
            },
        }
        Ok(())
    }
}

/// `<<: *anchor` or `<<: [*a, *b]`.
fn merge(node: Node, mark: Mark, merged: &mut Vec<Entry>) -> Step {
    let maps = match node.kind {
        Kind::Seq(items) => items,
        _ => vec![node],
    };
    for map in maps {
        let Kind::Map(entries) = map.kind else {
            return Err((mark, "`<<` takes a block of keys or a list of them".into()));
        };
        merged.extend(entries);
    }
    Ok(())
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Raw {
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    let text: Cow<'_, str> = text.into();
    match (core, style) {
        (Some("str"), _) => Raw::Quoted(text.into_owned()),
        (Some("null"), _) => Raw::Null,
        (Some(_), _) => Raw::Plain(text.into_owned()),
        (None, ScalarStyle::Plain) if matches!(&*text, "" | "~" | "null" | "Null" | "NULL") => Raw::Null,
        (None, ScalarStyle::Plain) => Raw::Plain(text.into_owned()),
        (None, _) => Raw::Quoted(text.into_owned()),
    }
}
