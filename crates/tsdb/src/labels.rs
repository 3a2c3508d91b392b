//! Label sets in canonical form: sorted by name in byte order, each name once, no empty values.

use std::fmt;

/// Why pairs are not a label set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two labels of one name.
    #[error("duplicate label name `{name}`")]
    Duplicate {
        /// The name, as text as far as it is text.
        name: String,
    },
}

/// The order of `pairs`, told in one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Sorted, each name once, no empty value: what everybody agrees on.
    Canonical,
    /// The same set could be brought into canonical form by sorting or by dropping labels with empty values.
    Loose,
    /// A name occurs twice in a row. (Behind an unsorted name duplicates are found by [`canonicalize`] only.)
    Duplicate,
}

/// Tells whether `pairs` are in canonical form. Allocates nothing.
pub fn form<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Form {
    let mut last: Option<&[u8]> = None;
    let mut form = Form::Canonical;
    for (name, value) in pairs {
        match last.map(|last| last.cmp(name)) {
            Some(std::cmp::Ordering::Equal) => return Form::Duplicate,
            Some(std::cmp::Ordering::Greater) => form = Form::Loose,
            Some(std::cmp::Ordering::Less) | None => (),
        }
        if value.is_empty() {
            form = Form::Loose;
        }
        last = Some(name);
    }
    form
}

/// Sorts `pairs` by name and drops those with empty values, which mean "not set".
///
/// # Errors
///
/// [`Error::Duplicate`] if a name occurs twice, whatever its values; `pairs` are sorted then, but complete.
pub fn canonicalize<T: AsRef<[u8]>>(pairs: &mut Vec<(T, T)>) -> Result<(), Error> {
    pairs.sort_by(|(a, _), (b, _)| a.as_ref().cmp(b.as_ref()));
    for pair in pairs.windows(2) {
        if let [(a, _), (b, _)] = pair
            && a.as_ref() == b.as_ref()
        {
            return Err(Error::Duplicate { name: String::from_utf8_lossy(a.as_ref()).into_owned() });
        }
    }
    pairs.retain(|(_, value)| !value.as_ref().is_empty());
    Ok(())
}

/// An owned label set in canonical form. Ordered and hashed by its pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Box<[(String, String)]>);

impl Labels {
    /// Builds a set from pairs in any order; labels with empty values are dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Duplicate`] if a name occurs twice.
    pub fn try_new(
        pairs: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Self, Error> {
        let mut pairs: Vec<(String, String)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        canonicalize(&mut pairs)?;
        Ok(Self(pairs.into_boxed_slice()))
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.binary_search_by(|(candidate, _)| candidate.as_str().cmp(name));
        found.ok().and_then(|index| self.0.get(index)).map(|(_, value)| value.as_str())
    }

    /// Name and value of each label, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// As in selectors: `{job="a", zone="b"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form_of(pairs: &[(&'static str, &'static str)]) -> Form {
        form(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    #[test]
    fn only_sorted_pairs_without_empty_values_are_canonical() {
        assert_eq!(form_of(&[]), Form::Canonical);
        assert_eq!(form_of(&[("__name__", "up"), ("job", "a")]), Form::Canonical);
        assert_eq!(form_of(&[("job", "a"), ("__name__", "up")]), Form::Loose);
        assert_eq!(form_of(&[("__name__", "up"), ("job", "")]), Form::Loose);
        assert_eq!(form_of(&[("job", "a"), ("job", "a")]), Form::Duplicate);
    }

    #[test]
    fn a_set_has_each_name_once_and_no_empty_values() {
        let labels = Labels::try_new([("job", "a"), ("empty", ""), ("__name__", "up")]).unwrap();
        assert_eq!(labels.to_string(), r#"{__name__="up", job="a"}"#);
        assert_eq!((labels.get("job"), labels.get("empty"), labels.get("zone")), (Some("a"), None, None));
        let twice = Labels::try_new([("b", "1"), ("a", "1"), ("b", "")]);
        assert_eq!(twice, Err(Error::Duplicate { name: "b".to_owned() }));
    }

    proptest! {
        #[test]
        fn canonicalizing_gives_the_canonical_form_or_finds_the_duplicate(
            mut pairs in prop::collection::vec(("[a-d]{1,2}", "[xy]{0,1}"), 0..8),
        ) {
            let names: std::collections::BTreeSet<_> = pairs.iter().map(|pair| pair.0.clone()).collect();
            let unique = names.len() == pairs.len();
            prop_assert_eq!(canonicalize(&mut pairs).is_ok(), unique);
            let form = form(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            prop_assert_eq!(form == Form::Canonical, unique);
        }
    }
}
