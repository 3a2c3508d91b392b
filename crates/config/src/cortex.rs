//! Names of Cortex's configuration that ringkit does not implement: met in a file or on a command line, they are a
//! warning instead of an error.

use std::{collections::HashSet, sync::OnceLock};

/// The names, by kind.
pub(crate) struct Names {
    blocks: HashSet<&'static str>,
    keys: HashSet<&'static str>,
    bools: HashSet<&'static str>,
    flags: HashSet<&'static str>,
}

/// What Cortex knows of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CortexFlag {
    /// It may stand alone.
    Switch,
    /// It needs a value.
    Valued,
}

impl Names {
    pub(crate) fn get() -> &'static Self {
        static NAMES: OnceLock<Names> = OnceLock::new();
        NAMES.get_or_init(|| {
            let of = |kind: &str| {
                include_str!("cortex_names.txt")
                    .lines()
                    .filter_map(|line| line.split_once(' '))
                    .filter(|(found, _)| *found == kind)
                    .map(|(_, name)| name)
                    .collect()
            };
            Names { blocks: of("block"), keys: of("key"), bools: of("bool"), flags: of("flag") }
        })
    }

    /// Whether a path is Cortex's, or lies within a block that is.
    pub(crate) fn has_path(&self, path: &str) -> bool {
        let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
        self.blocks.contains(path.split('.').next().unwrap_or_default())
            || ends.map(|end| &path[..end]).any(|prefix| self.keys.contains(prefix))
    }

    /// The keys that Cortex has directly below `path` and ringkit has not.
    pub(crate) fn below(&self, path: &str) -> impl Iterator<Item = &'static str> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
        let blocks = self.blocks.iter().copied().filter(move |_| path.is_empty());
        let keys = self.keys.iter().filter_map(move |key| key.strip_prefix(prefix.as_str()));
        blocks.chain(keys.filter(|rest| !rest.contains('.')))
    }

    /// What Cortex knows of a flag, if it knows it.
    pub(crate) fn flag(&self, name: &str) -> Option<CortexFlag> {
        match (self.bools.contains(name), self.flags.contains(name)) {
            (true, _) => Some(CortexFlag::Switch),
            (false, true) => Some(CortexFlag::Valued),
            (false, false) => None,
        }
    }
}
