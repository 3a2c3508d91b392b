//! Value types that stand at keys: numbers, strings, lists, durations, secrets.

use std::{fmt, time::Duration};

use serde_json::json;

use crate::schema::{Codec, Kind, Leaf, LeafShape, Raw, Shape, Tree};

mod choice;
pub(crate) mod duration;
mod scalar;
mod text;

pub(crate) use choice::choice;
pub use duration::AutoDuration;
pub(crate) use duration::PromDuration;
pub use text::Secret;
pub(crate) use text::{Csv, Hostname, Nullable, Optional, hostname};

/// What a written value looks like in an error message.
pub(crate) fn shown(raw: &Raw) -> String {
    const LONGEST: usize = 60;
    match raw {
        Raw::Null => "an empty value".into(),
        Raw::Plain(text) | Raw::Text(text) => format!("`{}`", clipped(text, LONGEST)),
        Raw::Quoted(text) => format!("the string `{}`", clipped(text, LONGEST)),
        Raw::Seq(_) => "a list".into(),
        Raw::Map => "a block of keys".into(),
    }
}

fn clipped(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Declares a codec: a marker type that reads and renders a `$ty` in a form of its own.
macro_rules! codec {
    ($(#[$meta:meta])* $vis:vis $marker:ident for $ty:ty) => {
        $(#[$meta])*
        $vis struct $marker($ty);

        impl Codec<$ty> for $marker {
            fn shape(_flag_prefix: &str) -> Shape {
                Shape::Leaf(LeafShape::of::<$marker>())
            }
            fn render(value: &$ty) -> Tree {
                Leaf::render(&$marker(value.clone()))
            }
            fn read<'de, D: serde::Deserializer<'de>>(slot: &mut $ty, deserializer: D) -> Result<(), D::Error> {
                let raw = <Raw as serde::Deserialize>::deserialize(deserializer)?;
                *slot = $marker::parse(&raw, &mut Vec::new()).map_err(serde::de::Error::custom)?.0;
                Ok(())
            }
        }
    };
}
use codec;

/// The error for a word outside its list.
pub(crate) fn not_among<'a>(text: &str, words: impl Iterator<Item = &'a str> + Clone) -> String {
    let list: Vec<String> =
        words.clone().map(|word| if word.is_empty() { "``".into() } else { format!("`{word}`") }).collect();
    let hint = crate::problems::nearest(text, words)
        .map(|word| format!(" (did you mean `{word}`?)"))
        .unwrap_or_default();
    format!("`{}` is not one of {}{hint}", clipped(text, 60), list.join(", "))
}
