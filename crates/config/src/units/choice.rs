//! Values out of a closed list of words.

/// Declares an enum whose variants are words of the YAML; the first is the default. `not` words are refused with a reason,
/// and what is said of any `other` word begins with that text.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident { $( $(#[doc = $vdoc:literal])+ $variant:ident = $word:literal ),+ $(,)? }
        $(not { $($refused:literal => $reason:literal),+ })?
        $(other $refusal:literal)?
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $( $(#[doc = $vdoc])+ $variant ),+ }

        impl $name {
            /// All of them, the default first.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that stands for it in the YAML.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let raw = <$crate::schema::Raw as serde::Deserialize>::deserialize(deserializer)?;
                $crate::schema::Leaf::parse(&raw, &mut Vec::new()).map_err(serde::de::Error::custom)
            }
        }

        impl $crate::schema::Leaf for $name {
            fn kind() -> $crate::schema::Kind {
                $crate::schema::Kind::named("string")
            }
            fn parse(raw: &$crate::schema::Raw, _notes: &mut Vec<String>) -> Result<Self, String> {
                const REFUSED: &[(&str, &str)] = &[$($(($refused, $reason)),+)?];
                let text = <String as $crate::schema::Leaf>::parse(raw, &mut Vec::new())?;
                if let Some(found) = Self::ALL.iter().find(|choice| choice.as_str().eq_ignore_ascii_case(&text)) {
                    return Ok(*found);
                }
                if let Some((_, reason)) = REFUSED.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)) {
                    return Err(format!("`{text}` {reason}"));
                }
                const REFUSAL: &str = concat!("" $(, $refusal, ": ")?);
                let not_among = $crate::units::not_among(&text, Self::ALL.iter().map(|choice| choice.as_str()));
                Err(format!("{REFUSAL}{not_among}"))
            }
            fn render(&self) -> $crate::schema::Tree {
                $crate::schema::Tree::Str(self.as_str().to_owned())
            }
            fn schema() -> serde_json::Value {
                serde_json::json!({"type": "string", "enum": [$($word),+]})
            }
        }
    };
}
pub(crate) use choice;
