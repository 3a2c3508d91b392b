//! Strings, lists of strings, comma-separated strings, secrets.

use super::{Codec, Kind, Leaf, LeafShape, Raw, Shape, Tree, codec, fmt, json, shown};

/// The text of any scalar: as in Cortex, `5` and `true` are strings where a string is wanted.
fn text(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Null => Ok(String::new()),
        Raw::Plain(text) | Raw::Quoted(text) | Raw::Text(text) => Ok(text.clone()),
        Raw::Seq(_) => Err("expected a string, found a list".into()),
        Raw::Map => Err("expected a string, found a block of keys".into()),
    }
}

impl Leaf for String {
    fn kind() -> Kind {
        Kind::named("string")
    }
    fn parse(raw: &Raw, _notes: &mut Vec<String>) -> Result<Self, String> {
        text(raw)
    }
    fn render(&self) -> Tree {
        Tree::Str(self.clone())
    }
    fn schema() -> serde_json::Value {
        json!({"type": "string"})
    }
}

impl Leaf for Vec<String> {
    fn kind() -> Kind {
        Kind { appends: true, ..Kind::named("list of string") }
    }
    fn parse(raw: &Raw, _notes: &mut Vec<String>) -> Result<Self, String> {
        match raw {
            Raw::Null => Ok(Vec::new()),
            Raw::Seq(items) => items
                .iter()
                .map(|item| {
                    text(item).map_err(|_| format!("expected a list of strings, found {} in it", shown(item)))
                })
                .collect(),
            Raw::Text(text) => Ok(vec![text.clone()]),
            Raw::Plain(text) | Raw::Quoted(text) => {
                Err(format!("expected a list of strings, found one string: write `[{text}]`"))
            }
            Raw::Map => Err("expected a list of strings, found a block of keys".into()),
        }
    }
    fn render(&self) -> Tree {
        Tree::Seq(self.iter().cloned().map(Tree::Str).collect())
    }
    fn schema() -> serde_json::Value {
        json!({"type": ["array", "null"], "items": {"type": "string"}})
    }
}

codec!(
    /// Names in one string, separated by commas.
    #[derive(Clone)]
    pub(crate) Csv for Vec<String>
);

impl Leaf for Csv {
    fn kind() -> Kind {
        Kind::named("string")
    }
    fn parse(raw: &Raw, _notes: &mut Vec<String>) -> Result<Self, String> {
        if let Raw::Seq(_) = raw {
            return Err("expected one string with commas, such as `a,b`, found a list".into());
        }
        let names = text(raw)?;
        Ok(Self(names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()))
    }
    fn render(&self) -> Tree {
        Tree::Str(self.0.join(","))
    }
    fn schema() -> serde_json::Value {
        json!({"type": "string", "description": "names separated by commas"})
    }
}

codec!(
    /// A name that is this machine's unless given.
    #[derive(Clone)]
    pub(crate) Hostname for String
);

impl Leaf for Hostname {
    fn kind() -> Kind {
        Kind { machine_default: true, ..Kind::named("string") }
    }
    fn parse(raw: &Raw, _notes: &mut Vec<String>) -> Result<Self, String> {
        text(raw).map(Self)
    }
    fn render(&self) -> Tree {
        Tree::Str(self.0.clone())
    }
    fn schema() -> serde_json::Value {
        json!({"type": "string"})
    }
}

/// This machine's name.
pub(crate) fn hostname() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// A choice that may be left open: the empty string.
pub(crate) struct Optional;

impl<T: Leaf + Clone> Codec<Option<T>> for Optional {
    fn shape(_flag_prefix: &str) -> Shape {
        Shape::Leaf(LeafShape {
            kind: T::kind(),
            check: |raw, notes| match raw {
                raw if is_empty(raw) => Ok(Tree::Str(String::new())),
                raw => T::parse(raw, notes).map(|value| value.carry()),
            },
            schema: || json!({"anyOf": [{"type": "string", "enum": [""]}, T::schema()]}),
        })
    }
    fn render(value: &Option<T>) -> Tree {
        value.as_ref().map_or(Tree::Str(String::new()), Leaf::render)
    }
    fn read<'de, D: serde::Deserializer<'de>>(slot: &mut Option<T>, deserializer: D) -> Result<(), D::Error> {
        let raw = <Raw as serde::Deserialize>::deserialize(deserializer)?;
        *slot = match &raw {
            raw if is_empty(raw) => None,
            raw => Some(T::parse(raw, &mut Vec::new()).map_err(serde::de::Error::custom)?),
        };
        Ok(())
    }
}

/// A value that may be left open: `null`.
pub(crate) struct Nullable;

impl<T: Leaf + Clone> Codec<Option<T>> for Nullable {
    fn shape(_flag_prefix: &str) -> Shape {
        Shape::Leaf(LeafShape {
            kind: Kind { nullable: true, ..T::kind() },
            check: |raw, notes| match raw {
                Raw::Null => Ok(Tree::Null),
                raw => T::parse(raw, notes).map(|value| value.carry()),
            },
            schema: || json!({"anyOf": [{"type": "null"}, T::schema()]}),
        })
    }
    fn render(value: &Option<T>) -> Tree {
        value.as_ref().map_or(Tree::Null, Leaf::render)
    }
    fn read<'de, D: serde::Deserializer<'de>>(slot: &mut Option<T>, deserializer: D) -> Result<(), D::Error> {
        let raw = <Raw as serde::Deserialize>::deserialize(deserializer)?;
        *slot = match &raw {
            Raw::Null => None,
            raw => Some(T::parse(raw, &mut Vec::new()).map_err(serde::de::Error::custom)?),
        };
        Ok(())
    }
}

fn is_empty(raw: &Raw) -> bool {
    match raw {
        Raw::Null => true,
        Raw::Plain(text) | Raw::Quoted(text) | Raw::Text(text) => text.is_empty(),
        Raw::Seq(_) | Raw::Map => false,
    }
}

/// A value that is never printed: `Debug`, `Display` and serialization give `********`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What stands in for a secret.
    pub const MASK: &'static str = "********";

    /// Hides `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself. Do not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn masked(&self) -> &'static str {
        if self.0.is_empty() { "" } else { Self::MASK }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.masked())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.masked())
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.masked())
    }
}

impl Leaf for Secret {
    fn kind() -> Kind {
        Kind::named("string")
    }
    fn parse(raw: &Raw, _notes: &mut Vec<String>) -> Result<Self, String> {
        match text(raw) {
            Ok(text) if text == Self::MASK => {
                Err("this is the mask that hides a secret, not the secret".into())
            }
            Ok(text) => Ok(Self(text)),
            Err(wrong) => Err(wrong),
        }
    }
    fn render(&self) -> Tree {
        Tree::Str(self.masked().into())
    }
    fn carry(&self) -> Tree {
        Tree::Str(self.0.clone())
    }
    fn schema() -> serde_json::Value {
        json!({"type": "string", "writeOnly": true})
    }
}

impl Leaf for Vec<Secret> {
    fn kind() -> Kind {
        Kind { appends: true, ..Kind::named("list of string") }
    }
    fn parse(raw: &Raw, notes: &mut Vec<String>) -> Result<Self, String> {
        // What is wrong with a secret is told without it.
        let items = match raw {
            Raw::Null => return Ok(Vec::new()),
            Raw::Seq(items) => items.as_slice(),
            Raw::Text(_) => std::slice::from_ref(raw),
            Raw::Plain(_) | Raw::Quoted(_) => {
                return Err("expected a list of strings, found one string: write it in brackets".into());
            }
            Raw::Map => return Err("expected a list of strings, found a block of keys".into()),
        };
        items.iter().map(|item| Secret::parse(item, notes)).collect()
    }
    fn render(&self) -> Tree {
        Tree::Seq(self.iter().map(Leaf::render).collect())
    }
    fn carry(&self) -> Tree {
        Tree::Seq(self.iter().map(Leaf::carry).collect())
    }
    fn schema() -> serde_json::Value {
        json!({"type": ["array", "null"], "items": {"type": "string"}, "writeOnly": true})
    }
}
