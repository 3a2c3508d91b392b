//! The schema, told: the reference file, the JSON Schema, the list of flags, and configurations as YAML.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::{
    Config,
    args::SPECIAL,
    check::ALIASES,
    schema::{Field, Section, SectionShape, Shape, Tree, leaves, schema},
    yaml,
};

impl Config {
    /// The whole configuration as YAML; secrets are masked.
    pub fn to_yaml(&self) -> String {
        yaml::write(&self.tree(), &())
    }

    /// What differs from the defaults, as YAML; secrets are masked.
    pub fn diff_yaml(&self) -> String {
        yaml::write_diff(&self.tree(), &Self::default().tree())
    }

    /// The defaults as YAML.
    pub fn defaults_yaml() -> String {
        Self::default().to_yaml()
    }
}

/// Every key with default and documentation, as a file that can be loaded.
pub fn reference_yaml() -> String {
    let mut out = String::from(
        "# Every key of ringkit's configuration, with its default.\n\
         # Written by ringkit from its schema; a test fails when it is out of date.\n\
         # Behind each key: its type and Cortex's flag. Durations are written 200ms, 60s, 1h30m; those of `limits` also 1d, 2w.\n\n",
    );
    out.push_str(&yaml::write(&Config::default().tree(), &Reference));
    out
}

struct Reference;

impl Reference {
    fn field(path: &str) -> Option<&'static Field> {
        let mut keys = path.split('.');
        let mut field = schema().field(keys.next()?)?;
        for key in keys {
            let Shape::Section(section) = &field.shape else { return None };
            field = section.field(key)?;
        }
        Some(field)
    }
}

impl yaml::Notes for Reference {
    fn above(&self, path: &str) -> Vec<String> {
        let Some(field) = Self::field(path) else { return Vec::new() };
        let mut lines = vec![field.doc.clone()];
        if field.unused {
            lines.push("(Not implemented yet: accepted, without effect.)".into());
        }
        lines
    }

    fn behind(&self, path: &str) -> Option<String> {
        match Self::field(path)? {
            Field { shape: Shape::Leaf(leaf), flag, .. } if leaf.kind.machine_default => {
                Some(format!("this machine's name; {}, -{flag}", leaf.kind.name))
            }
            Field { shape: Shape::Leaf(leaf), flag, .. } => Some(format!("{}, -{flag}", leaf.kind.name)),
            Field { shape: Shape::Section(_), .. } => None,
        }
    }

    fn disabled(&self, path: &str) -> bool {
        matches!(Self::field(path), Some(Field { shape: Shape::Leaf(leaf), .. }) if leaf.kind.machine_default)
    }
}

/// The JSON Schema (draft 2020-12) of a configuration file, for editors.
pub fn json_schema() -> Value {
    let mut root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ringkit configuration",
    });
    if let (Value::Object(root), Value::Object(section)) =
        (&mut root, section_schema(schema(), &Config::default().tree()))
    {
        root.extend(section);
    }
    for (alias, real) in ALIASES {
        let pointer = |path: &str| format!("/properties/{}", path.replace('.', "/properties/"));
        let (block, name) = alias.rsplit_once('.').unwrap_or(("", alias));
        let mut property = root.pointer(&pointer(real)).cloned().unwrap_or_default();
        if let (Value::Object(property), Some(Value::Object(block))) =
            (&mut property, root.pointer_mut(&format!("{}/properties", pointer(block))))
        {
            property.insert("description".into(), format!("Another spelling of `{real}`.").into());
            block.insert(name.into(), property.clone().into());
        }
    }
    root
}

fn section_schema(section: &SectionShape, defaults: &Tree) -> Value {
    let mut properties = Map::new();
    for field in &section.fields {
        let default = defaults.at(field.name);
        let (mut property, default) = match &field.shape {
            Shape::Leaf(leaf) => ((leaf.schema)(), default.filter(|_| !leaf.kind.machine_default)),
            Shape::Section(below) => (section_schema(below, default.unwrap_or(&Tree::Null)), None),
        };
        if let Value::Object(property) = &mut property {
            property.insert("description".into(), field.doc.clone().into());
            if let Some(default) = default.and_then(|tree| serde_json::to_value(tree).ok()) {
                property.insert("default".into(), default);
            }
        }
        properties.insert(field.name.into(), property);
    }
    json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "additionalProperties": false,
    })
}

/// Every flag with type, documentation and default, as `-help` prints it.
pub fn flags_help() -> String {
    let mut out = String::from("Flags (one dash or two; every key is also a flag by its dotted path):\n");
    for (name, stands_alone, doc) in SPECIAL {
        let value = if *stands_alone { "" } else { " string" };
        let _ = write!(out, "  -{name}{value}\n    \t{doc}\n");
    }
    let defaults = Config::default().tree();
    for (path, field, leaf) in leaves() {
        let default = defaults.at(path).map(yaml::inline).filter(|_| !leaf.kind.machine_default);
        let default = default.unwrap_or_else(|| "this machine's name".into());
        let _ = write!(
            out,
            "  -{} {}\n    \t{} [{path}, default {default}]\n",
            field.flag, leaf.kind.name, field.doc
        );
    }
    out
}
