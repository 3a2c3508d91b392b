//! What a configuration key is: `section!` declares it once, and the struct, its default, serde, flag names, reference
//! and JSON Schema all derive from that declaration.

use std::{fmt, sync::OnceLock};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, MapAccess, Visitor},
};

mod value;

pub(crate) use value::{Raw, Tree, float_text};

/// What a leaf is called in the reference, what it accepts, and how flags add to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Kind {
    /// Cortex's name of the type: `boolean`, `int`, `float`, `string`, `duration`, `list of string`, …
    pub(crate) name: &'static str,
    /// A repeated flag appends to the list that file and default gave, instead of replacing it.
    pub(crate) appends: bool,
    /// The default depends on the machine, so reference and schema must not state it.
    pub(crate) machine_default: bool,
    /// A flag of this kind needs no value.
    pub(crate) stands_alone: bool,
    /// An empty value is a value too: nothing.
    pub(crate) nullable: bool,
}

impl Kind {
    pub(crate) const fn named(name: &'static str) -> Self {
        Self { name, appends: false, machine_default: false, stands_alone: false, nullable: false }
    }
}

/// A value type that can stand at a key.
pub(crate) trait Leaf: Sized {
    fn kind() -> Kind;
    /// Reads a written value; the error completes the sentence "`key`: …". `notes` become warnings.
    fn parse(raw: &Raw, notes: &mut Vec<String>) -> Result<Self, String>;
    /// For eyes: secrets are masked.
    fn render(&self) -> Tree;
    /// For the layers: what `parse` turns back into the same value.
    fn carry(&self) -> Tree {
        self.render()
    }
    /// The JSON Schema of the written form.
    fn schema() -> serde_json::Value;
}

/// How a field of type `T` is described, rendered and read; `T` itself for leaves and sections, a marker type where one
/// Rust type has several written forms.
pub(crate) trait Codec<T> {
    fn shape(flag_prefix: &str) -> Shape;
    fn render(value: &T) -> Tree;
    fn read<'de, D: Deserializer<'de>>(slot: &mut T, deserializer: D) -> Result<(), D::Error>;
}

impl<T: Leaf> Codec<T> for T {
    fn shape(_flag_prefix: &str) -> Shape {
        Shape::Leaf(LeafShape::of::<T>())
    }
    fn render(value: &T) -> Tree {
        Leaf::render(value)
    }
    fn read<'de, D: Deserializer<'de>>(slot: &mut T, deserializer: D) -> Result<(), D::Error> {
        let raw = Raw::deserialize(deserializer)?;
        *slot = T::parse(&raw, &mut Vec::new()).map_err(serde::de::Error::custom)?;
        Ok(())
    }
}

/// A leaf's description with its type erased.
#[derive(Clone, Copy)]
pub(crate) struct LeafShape {
    pub(crate) kind: Kind,
    /// Checks a written value and gives it back in the form the layers carry.
    pub(crate) check: fn(&Raw, &mut Vec<String>) -> Result<Tree, String>,
    pub(crate) schema: fn() -> serde_json::Value,
}

impl LeafShape {
    pub(crate) fn of<L: Leaf>() -> Self {
        Self {
            kind: L::kind(),
            check: |raw, notes| L::parse(raw, notes).map(|value| value.carry()),
            schema: L::schema,
        }
    }
}

pub(crate) enum Shape {
    Leaf(LeafShape),
    Section(SectionShape),
}

/// A block of keys.
pub(crate) struct SectionShape {
    pub(crate) doc: String,
    pub(crate) fields: Vec<Field>,
}

impl SectionShape {
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// A key of a section.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    /// One sentence or a few, on one line.
    pub(crate) doc: String,
    /// Cortex's name of the flag, without dash; the prefix of its flags for a section.
    pub(crate) flag: String,
    /// Accepted, checked and shown, but nothing reads it yet.
    pub(crate) unused: bool,
    pub(crate) shape: Shape,
}

/// Joins a flag prefix and a key's own part. `a|b` means `a` below a prefix and `b` without one; `/a` ignores the prefix.
pub(crate) fn join_flag(prefix: &str, own: &str) -> String {
    let own = match own.split_once('|') {
        Some((below, alone)) => {
            if prefix.is_empty() {
                alone
            } else {
                below
            }
        }
        None => own,
    };
    match own.strip_prefix('/') {
        Some(absolute) => absolute.to_owned(),
        None => format!("{prefix}{own}"),
    }
}

/// Doc comment lines as one line.
pub(crate) fn one_line(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A struct whose fields are keys. Implemented by `section!` only.
pub(crate) trait Section: Sized + Default {
    fn section(flag_prefix: &str) -> SectionShape;
    fn tree(&self) -> Tree;
    /// Reads the value of `key` from `map`; `false` if there is no such key.
    fn read_key<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Reads a map over an existing section, so that keys that are absent keep what the section has.
pub(crate) struct Over<'a, T>(pub(crate) &'a mut T);

impl<'de, T: Section> DeserializeSeed<'de> for Over<'_, T> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Section> Visitor<'de> for Over<'_, T> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of keys")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if !self.0.read_key(&key, &mut map)? {
                return Err(serde::de::Error::custom(format_args!("unknown key `{key}`")));
            }
        }
        Ok(())
    }
}

/// A map's value read through a codec into a slot.
pub(crate) struct Slot<'a, T, C>(pub(crate) &'a mut T, pub(crate) std::marker::PhantomData<C>);

impl<'de, T, C: Codec<T>> DeserializeSeed<'de> for Slot<'_, T, C> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        C::read(self.0, deserializer)
    }
}

/// Declares a section. Each field: doc line, name (and YAML key in parentheses where it is no identifier), type (and
/// `as Codec` where the written form is not the type's usual one), default, flag below the section's prefix.
/// `unused` marks a key that nothing reads yet. `extra` fields are no keys.
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident {
            $(
                $(#[doc = $fdoc:literal])+
                pub $field:ident $(($key:literal))? : $ty:ty $(as $codec:ty)? $(= $default:expr)?, $flag:literal $(, $mark:ident)?;
            )*
        }
        $(extra { $($(#[$emeta:meta])+ pub $extra:ident : $ety:ty;)* })?
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $fdoc])+ pub $field: $ty, )*
            $( $( $(#[$emeta])+ pub $extra: $ety, )* )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $field: $crate::schema::section!(@default $($default)?), )*
                    $( $( $extra: Default::default(), )* )?
                }
            }
        }

        impl $crate::schema::Section for $name {
            fn section(flag_prefix: &str) -> $crate::schema::SectionShape {
                $crate::schema::SectionShape {
                    doc: $crate::schema::one_line(&[$($doc),+]),
                    fields: vec![ $({
                        let flag = $crate::schema::join_flag(flag_prefix, $flag);
                        $crate::schema::Field {
                            name: $crate::schema::section!(@key $field $($key)?),
                            doc: $crate::schema::one_line(&[$($fdoc),+]),
                            unused: $crate::schema::section!(@unused $($mark)?),
                            shape: <$crate::schema::section!(@codec $ty $(, $codec)?) as $crate::schema::Codec<$ty>>::shape(&flag),
                            flag,
                        }
                    },)* ],
                }
            }
            fn tree(&self) -> $crate::schema::Tree {
                $crate::schema::Tree::Map(vec![ $((
                    $crate::schema::section!(@key $field $($key)?).into(),
                    <$crate::schema::section!(@codec $ty $(, $codec)?) as $crate::schema::Codec<$ty>>::render(&self.$field),
                ),)* ])
            }
            fn read_key<'de, A: serde::de::MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
                $( if key == $crate::schema::section!(@key $field $($key)?) {
                    let slot = $crate::schema::Slot::<$ty, $crate::schema::section!(@codec $ty $(, $codec)?)>(
                        &mut self.$field,
                        std::marker::PhantomData,
                    );
                    map.next_value_seed(slot)?;
                    return Ok(true);
                } )*
                Ok(false)
            }
        }

        impl $crate::schema::Codec<$name> for $name {
            fn shape(flag_prefix: &str) -> $crate::schema::Shape {
                $crate::schema::Shape::Section(<$name as $crate::schema::Section>::section(flag_prefix))
            }
            fn render(value: &$name) -> $crate::schema::Tree {
                $crate::schema::Section::tree(value)
            }
            fn read<'de, D: serde::Deserializer<'de>>(slot: &mut $name, deserializer: D) -> Result<(), D::Error> {
                serde::de::DeserializeSeed::deserialize($crate::schema::Over(slot), deserializer)
            }
        }

        impl serde::Serialize for $name {
            /// Secrets are masked.
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::schema::Section::tree(self).serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut section = Self::default();
                serde::de::DeserializeSeed::deserialize($crate::schema::Over(&mut section), deserializer)?;
                Ok(section)
            }
        }
    };
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (@codec $ty:ty) => { $ty };
    (@codec $ty:ty, $codec:ty) => { $codec };
    (@unused) => { false };
    (@unused unused) => { true };
}
pub(crate) use section;

/// The whole schema, built once.
pub(crate) fn schema() -> &'static SectionShape {
    static SCHEMA: OnceLock<SectionShape> = OnceLock::new();
    SCHEMA.get_or_init(|| <crate::Config as Section>::section(""))
}

/// Every leaf with its dotted path, in order.
pub(crate) fn leaves() -> &'static [(String, &'static Field, LeafShape)] {
    static LEAVES: OnceLock<Vec<(String, &'static Field, LeafShape)>> = OnceLock::new();
    fn walk(section: &'static SectionShape, path: &str, out: &mut Vec<(String, &'static Field, LeafShape)>) {
        for field in &section.fields {
            let path = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
            match &field.shape {
                Shape::Leaf(leaf) => out.push((path, field, *leaf)),
                Shape::Section(section) => walk(section, &path, out),
            }
        }
    }
    LEAVES.get_or_init(|| {
        let mut out = Vec::new();
        walk(schema(), "", &mut out);
        out
    })
}
