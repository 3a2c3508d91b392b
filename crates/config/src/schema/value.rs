//! Values between their types and their text.

use std::{borrow::Cow, fmt};

use figment::value::{Dict, Value};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};

/// A rendered value: what goes into YAML, JSON and figment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Int(u64),
    Float(f64),
    Str(String),
    Seq(Vec<Tree>),
    Map(Vec<(Cow<'static, str>, Tree)>),
}

impl Tree {
    /// The value at one key of a map, dots in it or not.
    pub(crate) fn get(&self, key: &str) -> Option<&Tree> {
        match self {
            Tree::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value at a dotted path.
    pub(crate) fn at(&self, path: &str) -> Option<&Tree> {
        path.split('.').try_fold(self, Tree::get)
    }

    pub(crate) fn into_figment(self) -> Value {
        match self {
            Tree::Null => Value::Empty(figment::value::Tag::Default, figment::value::Empty::None),
            Tree::Bool(value) => value.into(),
            Tree::Int(value) => value.into(),
            Tree::Float(value) => value.into(),
            Tree::Str(value) => value.into(),
            Tree::Seq(items) => items.into_iter().map(Tree::into_figment).collect::<Vec<Value>>().into(),
            Tree::Map(entries) => {
                entries.into_iter().map(|(k, v)| (k.into_owned(), v.into_figment())).collect::<Dict>().into()
            }
        }
    }
}

/// A float as Go's YAML library prints it: no exponent for everyday sizes, no `.0`.
pub(crate) fn float_text(value: f64) -> String {
    if value.abs() >= 1e21 { format!("{value:e}").replace('e', "e+") } else { format!("{value}") }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Null => serializer.serialize_none(),
            Tree::Bool(value) => serializer.serialize_bool(*value),
            Tree::Int(value) => serializer.serialize_u64(*value),
            Tree::Float(value) => serializer.serialize_f64(*value),
            Tree::Str(value) => serializer.serialize_str(value),
            Tree::Seq(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Tree::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

/// A value as it was written, before its type is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw {
    /// An empty YAML node, `~` or `null`.
    Null,
    /// An unquoted YAML scalar.
    Plain(String),
    /// A quoted or block YAML scalar: a string whatever it looks like.
    Quoted(String),
    /// The text of a flag or an environment variable.
    Text(String),
    Seq(Vec<Raw>),
    Map,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;
        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a scalar or a list of scalars")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Plain(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Plain(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Plain(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Plain(float_text(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::Quoted(value.to_owned()))
            }
            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
                Raw::deserialize(deserializer)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Raw::Seq(items))
            }
        }
        deserializer.deserialize_any(RawVisitor)
    }
}
